"""References: the grammar, its canonical form, and that nothing else than UsageError comes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.errors import UsageError
from rootlesspy.image.reference import Reference, parse

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/a/b:1", "docker.io/a/b:1", "a/b:1"),
        ("quay.io/a/b/c:v1", "quay.io/a/b/c:v1", "quay.io/a/b/c:v1"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest", "127.0.0.1:5000/a:latest"),
        ("[::1]:5000/a:b", "[::1]:5000/a:b", "[::1]:5000/a:b"),
        ("[2001:db8::1]/a", "[2001:db8::1]/a:latest", "[2001:db8::1]/a:latest"),
        ("Quay.IO/a", "quay.io/a:latest", "quay.io/a:latest"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}", f"alpine@{DIGEST}"),
        (f"q.io/a:t@{DIGEST}", f"q.io/a:t@{DIGEST}", f"q.io/a:t@{DIGEST}"),
        (f"a@sha512:{HEX}{HEX}", f"docker.io/library/a@sha512:{HEX}{HEX}", f"a@sha512:{HEX}{HEX}"),
        ("a__b/c.d-e--f:_T", "docker.io/a__b/c.d-e--f:_T", "a__b/c.d-e--f:_T"),
        ("docker.io/foo.bar/x", "docker.io/foo.bar/x:latest", "docker.io/foo.bar/x:latest"),
        ("docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"),
        ("a" * 244, f"docker.io/library/{'a' * 244}", None),
    ],
)
def test_canonical_and_familiar_form(text: str, canonical: str, familiar: str | None) -> None:
    if familiar is None:
        with pytest.raises(UsageError, match="longer than 255"):
            parse(text)
        return
    reference = parse(text)
    assert str(reference) == canonical
    assert reference.familiar() == familiar
    assert parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "/",
        "//",
        "a//b",
        "/a",
        "a/",
        "a:",
        ":a",
        "a:b:c",
        "a@",
        "@" + DIGEST,
        "-a",
        "a-",
        ".a",
        "a..b",
        "a___b",
        "a._b",
        "a/.",
        "a/..",
        "../a",
        "./a",
        "a/../b",
        "Alpine",
        "library/Alpine",
        "a b",
        " a",
        "a ",
        "a\n",
        "a\0b",
        "a\tb",
        "a\r\nHost: x",
        "a%2fb",
        "a?b",
        "a#b",
        "a\\b",
        "a;b",
        "A/b",
        "user:pw@host/a",
        "host@evil/a",
        "http://a.io/b",
        "docker://alpine",
        "oci:a:b:c",
        "-v",
        "--help",
        "a:-t",
        "a:.t",
        "a:" + "t" * 129,
        "a:t/x",
        "a:tä",
        "ä/b",
        "é.io/a",
        "\uff11\uff12.io/a",
        "a.io:/b",
        "a.io:0/b",
        "a.io:65536/b",
        "a.io:8o/b",
        "a.io:+80/b",
        "a.io:1_0/b",
        "a.io:080000/b",
        "-a.io/b",
        "a-.io/b",
        "a..io/b",
        ".io/a",
        "a_b.io/c",
        f"{'a' * 64}.io/b",
        "[::1/a",
        "::1]/a",
        "[]/a",
        "[g::]/a",
        "[::1]x/a",
        "[1]/a",
        "[::1]:/a",
        "a@sha256:" + HEX[:-1],
        "a@sha256:" + HEX + "0",
        "a@sha256:" + HEX.upper(),
        "a@sha256:../../x",
        "a@md5:" + "0" * 32,
        "a@sha256:",
        "a@" + HEX,
        f"a@{DIGEST}/..",
        f"a@{DIGEST}@{DIGEST}",
        f"a@{DIGEST}:t",
        "a@sha512:" + HEX,
        "a@SHA256:" + HEX,
        HEX,
        f"docker.io/{HEX}",
        "docker.io",
        "docker.io/",
        "\ud800/a",
        "a\u202eb",
        "a\u0130",
        "x" * 100000,
        "a/" * 5000 + "b",
    ],
)
@pytest.mark.row("image names", "one line, 125")
def test_refused_with_one_error(text: str) -> None:
    if text == "docker.io":
        # Without a slash it is a name like any other.
        assert parse(text).repository == "library/docker.io"
        return
    with pytest.raises(UsageError):
        parse(text)


def test_scheme_gets_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        parse("docker://alpine")
    assert caught.value.hint == "write the name without docker://"


COMPONENT = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
HOST = st.one_of(
    st.lists(LABEL, min_size=2, max_size=3).map(".".join),
    st.just("localhost"),
    st.from_regex(r"\[[0-9a-f]{1,4}::[0-9a-f]{0,4}\]", fullmatch=True),
)
PORT = st.integers(1, 65535).map(lambda number: f":{number}")
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(
    host=HOST,
    port=st.one_of(st.just(""), PORT),
    path=st.lists(COMPONENT, min_size=1, max_size=4).map("/".join),
    tag=st.none() | TAG,
    digest=st.none() | st.just(DIGEST),
)
def test_every_valid_reference_survives_printing(
    host: str, port: str, path: str, tag: str | None, digest: str | None
) -> None:
    text = f"{host}{port}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    reference = parse(text)
    assert parse(str(reference)) == reference
    assert parse(reference.familiar()) == reference
    assert (reference.digest, reference.tag) == (digest, tag or (None if digest else "latest"))


@given(st.one_of(st.text(), st.text(alphabet="aA0._-/:@[]% \n" + HEX[:16])))
def test_anything_else_is_a_usage_error(text: str) -> None:
    try:
        reference = parse(text)
    except UsageError:
        return
    assert isinstance(reference, Reference)
    assert parse(str(reference)) == reference
    assert str(reference).isascii()
    assert not set(str(reference)) & set(" %?#\\\n\r\0")
    assert not {"", ".", ".."} & set(reference.repository.split("/"))
