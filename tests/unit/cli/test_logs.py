"""How `rp logs` writes lines, and what it takes for a time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootlesspy.cli import logs, moment
from rootlesspy.engine.output.log_lines import Entry
from rootlesspy.errors import UsageError

pytestmark = pytest.mark.usefixtures("utc")

NOON = 1_700_000_000


def test_without_prefix_bytes_are_untouched(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    output = logs._Output([b""], timestamps=False)
    output.write(0, [Entry(0, "stdout", b"\x1b[2J\xff\r\npart")])
    output.write(0, [Entry(0, "stderr", b"bad\n")])
    output.write(0, [Entry(0, "stdout", b"ial\n")])
    assert capsysbinary.readouterr() == (b"\x1b[2J\xff\r\npartial\n", b"bad\n")


def test_a_line_has_one_time_however_it_came(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    output = logs._Output([b""], timestamps=True)
    output.write(0, [Entry(NOON * 10**9 + 5, "stdout", b"one\ntw")])
    output.write(0, [Entry(NOON * 10**9 + 6, "stdout", b"o\n")])
    assert capsysbinary.readouterr().out == (
        b"2023-11-14T22:13:20.000000005Z one\n2023-11-14T22:13:20.000000005Z two\n"
    )


def test_lines_of_several_containers_do_not_run_together(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    output = logs._Output([b"a ", b"b "], timestamps=False)
    for index, text in ((0, b"half"), (1, b"whole\n"), (0, b"rest\n"), (1, b"x"), (1, b"y\n")):
        output.write(index, [Entry(0, "stdout", text)])
    assert capsysbinary.readouterr().out == b"a half\nb whole\nrest\nb xy\n"


def line_by_line(
    prefixes: list[bytes], entries: list[tuple[int, Entry]], *, timestamps: bool
) -> bytes:
    """Return what comes out on stdout when every line is looked at."""
    out = b""
    goes_on: set[int] = set()
    unfinished: int | None = None
    for index, entry in entries:
        for text in [each for each in entry.text.replace(b"\n", b"\n\0").split(b"\0") if each]:
            begins = index not in goes_on
            if unfinished not in (None, index):
                out += b"\n"
                begins = True
            if begins:
                out += prefixes[index]
                out += f"{logs._timestamp(entry.time_ns)} ".encode() if timestamps else b""
            out += text
            ends = text.endswith(b"\n")
            goes_on = goes_on - {index} if ends else goes_on | {index}
            unfinished = None if ends else index
    return out


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    entries=st.lists(
        st.tuples(
            st.integers(0, 1),
            st.builds(
                Entry,
                st.integers(NOON, NOON + 2).map(lambda second: second * 10**9),
                st.just("stdout"),
                st.text(alphabet="ab\r\n\n\x0c\x1b", min_size=1, max_size=12).map(str.encode),
            ),
        )
    ),
    named=st.booleans(),
    timestamps=st.booleans(),
)
def test_many_lines_at_once_come_out_as_each_by_itself(
    entries: list[tuple[int, Entry]],
    named: bool,
    timestamps: bool,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    prefixes = [b"one ", b"two "] if named else [b"", b""]
    output = logs._Output(prefixes, timestamps=timestamps)
    for index, entry in entries:
        output.write(index, [entry])
    found = capsysbinary.readouterr().out
    if not (named or timestamps):
        assert found == b"".join(entry.text for _, entry in entries)
    else:
        assert found == line_by_line(prefixes, entries, timestamps=timestamps)


@pytest.mark.parametrize(
    ("text", "ahead", "expected"),
    [
        ("1700000000", False, 1_700_000_000), ("1700000000.5", True, 1_700_000_000.5),
        ("2023-11-14T22:13:20Z", False, NOON), ("2023-11-14T22:13:20.5+00:00", False, NOON + 0.5),
        ("2023-11-14", False, 1_699_920_000), ("10m", False, NOON - 600),
        ("10m", True, NOON + 600), ("-10m", True, NOON - 600), ("-1h30m", False, NOON + 5400),
        ("0", False, 0), ("0s", False, NOON),
    ],
)  # fmt: skip
def test_times(text: str, ahead: bool, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOON)
    assert moment.parse_moment(text, "--since", ahead=ahead) == expected


@pytest.mark.parametrize("text", ["", "-", "soon", "1d", "2023-13-01", "--5m", "1e5"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        moment.parse_moment(text, "--since")


@pytest.mark.parametrize("text", ["x", "-2", "+1", "1.5", ""])
def test_a_tail_is_a_number_or_all(text: str) -> None:
    assert logs._tail("all") is None
    assert logs._tail("-1") is None
    assert logs._tail("0") == 0
    with pytest.raises(UsageError, match=re.escape(f"--tail {text!r}")):
        logs._tail(text)
