"""Blocks of a log's lines at once and line by line: the same entries, whatever the lines are."""

from __future__ import annotations

import json
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootlesspy.engine.output import log_blocks
from rootlesspy.engine.output.log_blocks import Decoder
from rootlesspy.engine.output.log_file import FileSink
from rootlesspy.engine.output.log_lines import Entry

TIMES = [
    "2026-01-02T03:04:05.678901234Z", "2026-01-02T03:04:05.678901235Z",
    "2026-01-02T03:04:06.000000000Z", "1969-12-31T23:59:59.000000001Z",
]  # fmt: skip
BROKEN_TIMES = ["2026-13-02T03:04:05.678901234Z", "2026-01-02", "x" * 30, ""]
TEXTS = ["", "n", "\\", "\\n", '"', "\x1b[0m", "\xe9", "\U0001f600", "\udc80", "\ud83d", "a b"]
# Bytes that break lines in many ways, and what separates two lines that are written together.
DAMAGE = st.sampled_from(
    [b"", b"x", b"\\", b'"', b"\n", b"\0", b"\x01", b"\xe9", b"\xc3\xa9", b"\xed\xa0\x80",
     b'"}\n{"log":"', b'\\n","stream":"stdout","time":"%s"}\n{"log":"' % TIMES[0].encode(),
     b'","stream":"stderr","time":"%s"}\n' % TIMES[0].encode()]
)  # fmt: skip


def line(text: str, stream: str, when: str) -> bytes:
    return b'{"log":%s,"stream":"%s","time":"%s"}\n' % (
        json.dumps(text).encode(),
        stream.encode(),
        when.encode(),
    )


LINES = st.builds(
    line,
    st.builds(
        str.__add__, st.lists(st.sampled_from(TEXTS)).map("".join), st.sampled_from("\n\n\nx")
    ),
    st.sampled_from(["stdout", "stdout", "stderr", "stdin"]),
    st.sampled_from(TIMES * 3 + BROKEN_TIMES),
)


def singly(block: bytes, *, times: bool) -> list[Entry]:
    """Read each line by itself; those of one time and stream are together."""
    decoder = Decoder(times=times)
    lines = [each + b"\n" for each in block.split(b"\n")[:-1]]
    return list(log_blocks._joined(each for line in lines for each in decoder._one_by_one([line])))


def together(block: bytes, *, times: bool) -> list[Entry]:
    return list(log_blocks._joined(Decoder(times=times).entries(block)))


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(LINES, max_size=8),
    damage=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 90), DAMAGE), max_size=2),
    times=st.booleans(),
)
def test_a_block_says_what_its_lines_say(
    lines: list[bytes], damage: list[tuple[int, int, bytes]], times: bool
) -> None:
    block = b"".join(lines)
    for at, length, put in damage:
        begin = at % (len(block) + 1)
        block = block[:begin] + put + block[begin + length :]
    block += b"" if block.endswith(b"\n") else b"\n"
    assert together(block, times=times) == singly(block, times=times)


@settings(deadline=None)
@given(
    chunks=st.lists(
        st.tuples(
            st.sampled_from(["stdout", "stderr"]),
            st.lists(st.binary(max_size=9) | st.sampled_from([b"\n", b"\\n", b"\\"])).map(b"".join),
        )
    ),
    times=st.booleans(),
)
def test_what_is_written_is_read_either_way(chunks: list[tuple[str, bytes]], times: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        sink = FileSink(f"{directory}/log", max_size=-1, max_file=1)
        for stream, chunk in chunks:
            sink.write(stream, chunk)
        sink.close()
        with open(f"{directory}/log", "rb") as file:
            block = file.read()
    assert together(block, times=times) == singly(block, times=times)
    for stream in ("stdout", "stderr"):
        found = b"".join(e.text for e in Decoder(times=times).entries(block) if e.stream == stream)
        assert found == b"".join(chunk for of, chunk in chunks if of == stream)


@pytest.mark.parametrize("text", ["plain", 'with "quotes"', "back\\n", "gr\xfc\xdf", "\udcff"])
def test_lines_that_were_written_together_are_one_entry(text: str) -> None:
    block = line(f"{text}\n", "stdout", TIMES[0]) * 50
    expected = (text + "\n").encode("utf-8", "surrogateescape") * 50
    decoder = Decoder()
    decoder._one_by_one = None  # type: ignore[assignment,method-assign]
    assert decoder.entries(block) == [Entry(1767323045678901234, "stdout", expected)]


def test_without_times_all_lines_of_a_stream_are_one_entry() -> None:
    block = b"".join(line("a\n", "stdout", when) for when in TIMES) + line(
        "b\n", "stderr", TIMES[0]
    )
    expected = [Entry(0, "stdout", b"a\na\na\na\n"), Entry(0, "stderr", b"b\n")]
    assert Decoder(times=False).entries(block) == expected


@pytest.mark.parametrize(
    ("inside", "shown"),
    [(b"\0", None), (b"\1", b"\1"), (b"\xc3\xa9", b"\xc3\xa9"), (b"\xed\xb2\x80", b"\x80"),
     (b"\xff", None), (b'"', None), (b"\\b", b"\b"), (b"\\u00", None)],
)  # fmt: skip
@pytest.mark.parametrize("times", [True, False])
def test_a_strange_line_is_the_same_among_others(
    inside: bytes, shown: bytes | None, times: bool
) -> None:
    good = line("a\n", "stdout", TIMES[0])
    block = good + line("xy\n", "stdout", TIMES[0]).replace(b"xy", b"x%sy" % inside) + good
    found = together(block, times=times)
    expected = b"" if shown is None else b"x%sy\n" % shown
    assert b"".join(entry.text for entry in found) == b"a\n%sa\n" % expected
    assert found == singly(block, times=times)
