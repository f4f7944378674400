"""registries.d: where signatures lie, read from the little YAML that these files are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.errors import UsageError
from rootlesspy.image.reference import parse as reference
from rootlesspy.image.trust import registries_d
from rootlesspy.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

FILE = """\
---
# comment
default-docker:
    lookaside: https://all.example/sigs   # comment
docker:
  'quay.io':
     lookaside: "https://quay.example/a b"
     lookaside-staging: file:///var/staging
  localhost:5000:
     sigstore: file:///var/sigs/
  localhost:5000/ns/x:
     use-sigstore-attachments: true
  localhost:5000/off: {}
  *.wild.example:
     lookaside: file:///wild

  empty.example:
"""


def places(directory: Path, **files: str) -> registries_d.Places:
    place = directory / "config/containers/registries.d"
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / f"{name}.yaml").write_text(text)
    paths = Paths(data=f"{directory}/data/rootlesspy", runtime=None, config=f"{directory}/config")
    return registries_d.load(paths)


def test_the_narrowest_place_that_says_something(tmp_path: Path) -> None:
    found = places(tmp_path, a=FILE)
    expected = {
        "docker.io/library/a": "https://all.example/sigs",
        "quay.io/a/b": "https://quay.example/a b",
        "localhost:5000/a": "file:///var/sigs",
        "localhost:5000/ns/x": "file:///var/sigs",
        "x.wild.example/a": "file:///wild",
        "empty.example/a": "https://all.example/sigs",
    }
    assert {name: found.lookaside(reference(name)) for name in expected} == expected
    assert found.lookaside(reference("quay.io/a"), write=True) == "file:///var/staging"
    assert found.uses_attachments(reference("localhost:5000/ns/x"))
    assert not found.uses_attachments(reference("localhost:5000/ns/y"))
    assert found.configured("quay.io/a") == "https://quay.example/a b"
    assert found.configured("localhost:5000/ns/x") == ""


def test_without_files_it_is_the_users_own_directory(tmp_path: Path) -> None:
    found = places(tmp_path)
    assert found.lookaside(reference("a.io/b")) == f"file://{tmp_path}/data/containers/sigstore"
    assert not found.uses_attachments(reference("a.io/b"))


def test_a_scope_in_two_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"b\.yaml: quay\.io is in another file"):
        places(tmp_path, a=FILE, b="docker:\n  quay.io:\n    lookaside: file:///x\n")
    (tmp_path / "config/containers/registries.d/b.yaml").unlink()
    with pytest.raises(UsageError, match=r"c\.yaml: default-docker"):
        places(tmp_path, c="default-docker:\n  lookaside: file:///x\n")


def test_keys_without_a_value() -> None:
    text = "a:\n  b:\n  c:\n    d:\ne:\n  f: g\nh:\n"
    expected = {"a": {"b": {}, "c": {"d": {}}}, "e": {"f": "g"}, "h": {}}
    assert registries_d.parse(text, "y") == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("docker: [a]", "y:1: '[a]' is not a plain text"),
        ("docker: &a b", "y:1"),
        ("docker: !!python/object x", "y:1"),
        ("docker:\n- a: b", "y:2: '- a' is not a plain key"),
        ("docker:\n  a: b\n   c: d", "y:3: indentation"),
        ("docker:\n    a: b\n  c: d", "y:3: indentation"),
        ("docker:\n\ta: b", "y:2"),
        ("docker", "y:1: expected KEY: VALUE"),
        ("a: b\na: c", "y:2: a is there twice"),
        ("a: 'b", "y:1: quotes without an end"),
        ('a: "b', "y:1: quotes without an end"),
        ("a: 'b' c", "y:1: something stands after"),
        ("a: |", "y:1"),
        ("? a", "y:1"),
    ],
)
@pytest.mark.row("YAML", "what registries.d needs of it, anything else is refused")
def test_yaml_beyond_it_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        registries_d.parse(text, "y")
    assert complaint in caught.value.message


@pytest.mark.parametrize(
    "text",
    ["docker: x", "docker:\n  a.io: x", "docker:\n  a.io:\n    lookaside: ftp://x",
     "docker:\n  a.io:\n    lookaside: file://relative", "default-docker: x",
     "docker:\n  a.io:\n    use-sigstore-attachments: yes",
     "docker:\n  a.io:\n    lookaside:\n      x: y"],
)  # fmt: skip
def test_wrong_values(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"a\.yaml"):
        places(tmp_path, a=text)


_KEYS = st.text("abc.:/-*", min_size=1, max_size=8).filter(
    lambda key: key[0] in "abc" and not key.endswith(":") and ": " not in key
)
_TREES = st.recursive(
    st.text("abc:/ '\"é", max_size=10), lambda inner: st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def written(tree: object, indent: int = 0) -> str:
    if not isinstance(tree, dict):
        return " '" + str(tree).replace("'", "''") + "'\n"
    if not tree:
        return " {}\n"
    lines = "".join(f"{' ' * indent}{k}:{written(v, indent + 2)}" for k, v in tree.items())
    return f"\n{lines}"


@given(st.dictionaries(_KEYS, _TREES, max_size=4))
def test_what_is_written_is_read(tree: dict[str, object]) -> None:
    text = written(tree) if tree else ""
    assert registries_d.parse(text, "y") == tree


@given(st.text(max_size=60))
def test_no_other_error_escapes(text: str) -> None:
    with contextlib.suppress(UsageError):
        registries_d.parse(text, "y")
