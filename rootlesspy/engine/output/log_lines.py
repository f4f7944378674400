"""What is in a log, whatever the driver: pieces of text of two streams, and lines made of them."""

from __future__ import annotations

import io

from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Entry(NamedTuple):
    """Something that one stream said at a time: whole lines, or a part of one at the end."""

    time_ns: int
    stream: str
    """stdout or stderr."""
    text: bytes


class Piece(NamedTuple):
    """A line or a part of one; its line end is in text when it has come."""

    time_ns: int
    stream: str
    text: bytes
    begins: bool
    """Whether a line begins here."""


class Lines:
    """Cuts entries into lines, knowing for each stream whether one has begun."""

    def __init__(self) -> None:
        self._inside = {"stdout": False, "stderr": False}

    def has_begun(self, stream: str) -> bool:
        """Say whether a line of a stream goes on."""
        return self._inside[stream]

    def cut(self, entry: Entry) -> Iterator[Piece]:
        """Yield the pieces of one entry."""
        for text in split(entry.text):
            begins = not self._inside[entry.stream]
            self._inside[entry.stream] = not text.endswith(b"\n")
            yield Piece(entry.time_ns, entry.stream, text, begins)


def split(text: bytes) -> list[bytes]:
    """Split at line ends alone and keep them; bytes.splitlines() also splits at CR."""
    return io.BytesIO(text).readlines()


def last(newest_first: Iterable[Entry], count: int) -> list[Entry]:
    """Return the entries of the last count lines, oldest first, reading no more than these need.

    A part of a line at the end of a stream counts as a line.
    """
    found: list[Entry] = []
    started: set[str] = set()
    lines = 0
    for entry in newest_first:
        kept: list[bytes] = []
        for text in reversed(split(entry.text)):
            if text.endswith(b"\n") or entry.stream not in started:
                started.add(entry.stream)
                lines += 1
            if lines > count:
                break
            kept.append(text)
        if kept:
            found.append(entry._replace(text=b"".join(reversed(kept))))
        if lines > count:
            break
    return found[::-1]
