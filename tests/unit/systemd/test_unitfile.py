"""Unit files: whatever a value holds, it stays one value of one line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.errors import UsageError
from rootlesspy.systemd import unitfile
from rootlesspy.systemd.service import Service
from rootlesspy.systemd.values import INFINITY

PLAIN = Service(
    name="rp-x.service",
    description="Container x",
    command=("/bin/rp", "supervise", "abc"),
    documentation=("man:rp(1)",),
)
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=30)


def lines(of: Service) -> list[str]:
    return unitfile.render(of, version=257).splitlines()


def value(of: Service, key: str) -> str:
    found = [line for line in lines(of) if line.startswith(f"{key}=")]
    assert len(found) == 1, found
    return found[0].partition("=")[2]


def read_words(text: str) -> list[bytes]:
    """Read as systemd does: words in quotes, C escapes, then specifiers."""
    named = {"n": b"\n", "t": b"\t", "r": b"\r"}

    def byte(match: re.Match[str]) -> str:
        kind = match[1]
        raw = bytes([int(kind[1:], 16)]) if kind[0] == "x" else named.get(kind, kind.encode())
        return raw.decode("utf-8", "surrogateescape")

    words = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    assert " ".join(f'"{word}"' for word in words) == text
    return [
        re.sub(r"\\(x[0-9a-f]{2}|.)", byte, word)
        .replace("%%", "%")
        .encode("utf-8", "surrogateescape")
        for word in words
    ]


def test_a_whole_unit() -> None:
    text = unitfile.render(
        PLAIN._replace(restart="on-failure", start_limit_burst=3, environment=("A=b c",)),
        version=257,
        header=("Written by rp.",),
        wanted_by=("default.target",),
        extension={"Container": "abc"},
    )
    assert text == (
        "# Written by rp.\n"
        "\n"
        "[Unit]\nDescription=Container x\nDocumentation=man:rp(1)\nCollectMode=inactive\n"
        "StartLimitBurst=3\nStartLimitIntervalSec=infinity\n"
        "\n"
        '[Service]\nType=notify\nNotifyAccess=main\nExecStart="/bin/rp" "supervise" "abc"\n'
        "Restart=on-failure\nRestartPreventExitStatus=SIGTERM\nTimeoutStartSec=90s\nTimeoutStopSec=90s\nKillMode=mixed\n"
        'OOMPolicy=continue\nRestartSec=100ms\nEnvironment="A=b c"\n'
        "\n"
        "[X-Rootlesspy]\nContainer=abc\n"
        "\n"
        "[Install]\nWantedBy=default.target\n"
    )


@given(TEXT)
def test_words_read_back(text: str) -> None:
    found = value(PLAIN._replace(environment=(f"A={text}", "B=1")), "Environment")
    assert read_words(found) == [f"A={text}".encode(), b"B=1"]


@given(TEXT, TEXT)
def test_nothing_ends_its_line(first: str, second: str) -> None:
    plain = lines(PLAIN._replace(environment=("A=", "B="), identifier="x"))
    odd = PLAIN._replace(command=("/bin/rp", first, second), environment=(first, second))
    assert len(lines(odd._replace(identifier="x"))) == len(plain)
    for line in lines(odd):
        assert not (len(line) - len(line.rstrip("\\"))) % 2


@given(TEXT)
def test_plain_lines_hold_printable_text_only(text: str) -> None:
    try:
        found = value(PLAIN._replace(description=f"d{text}"), "Description")
    except UsageError:
        assert not text.isprintable()
    else:
        assert found.removesuffix(" ").replace("%%", "%") == f"d{text}".removesuffix(" ")
        assert not found.endswith("\\")


def test_variables_are_doubled_in_arguments_alone() -> None:
    found = value(PLAIN._replace(command=("/b$in/rp", "$HOME")), "ExecStart")
    assert found == '"/b$in/rp" "$$HOME"'


@pytest.mark.row("I6", "a line break or control character never reaches a unit file")
@pytest.mark.parametrize("text", ["a\nExecStart=/bin/evil", "a\rb", "\x1b[31m", "a\u2028b"])
def test_control_characters_are_refused_where_nothing_escapes_them(text: str) -> None:
    with pytest.raises(UsageError, match="control characters"):
        unitfile.render(PLAIN._replace(description=text), version=257)
    with pytest.raises(UsageError, match="control characters"):
        unitfile.render(PLAIN, version=257, extension={"Image": text})


@pytest.mark.parametrize(
    ("us", "text"),
    [(0, "0s"), (1, "1us"), (1500, "1500us"), (100_000, "100ms"), (90_000_000, "90s"),
     (INFINITY, "infinity")],
)  # fmt: skip
def test_spans(us: int, text: str) -> None:
    assert unitfile.span(us) == text


def test_extension_reads_back() -> None:
    kept = {"Container": "abc", "Note": "100% of [x] = y"}
    text = unitfile.render(PLAIN, version=257, extension=kept, wanted_by=("default.target",))
    assert unitfile.extension(text) == kept
    assert unitfile.extension(unitfile.render(PLAIN, version=257)) == {}
