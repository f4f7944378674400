"""Lines out of pieces, and the last of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rootlesspy.engine.output.log_lines import Entry, Lines, last, split

STREAMS = st.sampled_from(["stdout", "stderr"])
TEXTS = st.lists(st.sampled_from([b"a", b"\n", b"bc", b"\r", b"\x0c", b"\n\n"])).map(b"".join)
ENTRIES = st.lists(st.builds(Entry, st.just(0), STREAMS, TEXTS.filter(bool)), max_size=8)


@settings(deadline=None)
@given(text=TEXTS)
def test_splitting_loses_nothing_and_ends_lines_at_line_feeds_alone(text: bytes) -> None:
    lines = split(text)
    assert b"".join(lines) == text
    assert all(b"\n" not in line[:-1] and line for line in lines)


@settings(deadline=None)
@given(entries=ENTRIES)
def test_a_line_begins_where_the_stream_was_at_an_end(entries: list[Entry]) -> None:
    cut = Lines()
    pieces = [piece for entry in entries for piece in cut.cut(entry)]
    for stream in ("stdout", "stderr"):
        text = b"".join(entry.text for entry in entries if entry.stream == stream)
        mine = [piece for piece in pieces if piece.stream == stream]
        assert b"".join(piece.text for piece in mine) == text
        assert sum(piece.begins for piece in mine) == len(split(text))


@settings(deadline=None)
@given(texts=st.lists(TEXTS.filter(bool), max_size=8), count=st.integers(0, 6))
def test_the_last_lines_of_one_stream_are_those_of_all_its_text(
    texts: list[bytes], count: int
) -> None:
    entries = [Entry(0, "stdout", text) for text in texts]
    found = b"".join(entry.text for entry in last(reversed(entries), count))
    lines = split(b"".join(texts))
    assert found == b"".join(lines[len(lines) - min(count, len(lines)) :])


def test_both_streams_count_and_no_more_is_read_than_needed() -> None:
    entries = iter(
        [
            Entry(3, "stderr", b"e\n"),
            Entry(2, "stdout", b"half"),
            Entry(1, "stdout", b"one\ntwo\n"),
            Entry(0, "stdout", b"zero\n"),
        ]
    )
    assert last(entries, 3) == [
        Entry(1, "stdout", b"two\n"),
        Entry(2, "stdout", b"half"),
        Entry(3, "stderr", b"e\n"),
    ]
    assert next(entries).text == b"zero\n"
