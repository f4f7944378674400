"""Turns blocks of the json-file driver's lines into entries, many lines in one step.  Cold.

Lines that were written together end alike: `\\n","stream":"stdout","time":"..."}`.  What is between
that and the `{"log":"` of the next one is the text, and all their texts together are one JSON
string.  Lines that are not exactly as `engine.output.log_file` writes them are read one by one;
both ways give the same bytes.
"""

from __future__ import annotations

import io
from itertools import groupby
from operator import itemgetter

from rootlesspy.engine.output.log_lines import Entry
from rootlesspy.light_typing import TYPE_CHECKING, Any

try:
    from _json import scanstring
except ImportError:
    # Another Python than CPython.
    from json.decoder import scanstring  # type: ignore[attr-defined,no-redef]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_HEAD = b'{"log":"'
_STREAMS = {rb'\n","stream":"%s",' % each.encode(): each for each in ("stdout", "stderr")}
_TIME = b'"time":"0000-00-00T00:00:00.000000000Z"}\n'
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_MIDDLE = len(rb'\n","stream":"stdout",')
_END_BYTES = _MIDDLE + len(_TIME)
_head_of = itemgetter(slice(len(_HEAD)))
_end_of = itemgetter(slice(-_END_BYTES, None))
_body_of = itemgetter(slice(len(_HEAD), -_END_BYTES))


class Decoder:
    """Understands lines."""

    def __init__(self, *, times: bool = True) -> None:
        """times: entries have their times; otherwise these are 0, whatever the lines say."""
        self._times = times
        # Most lines are of the same second as the one before.
        self._second = "none yet"
        self._second_ns = 0

    def entries(self, block: bytes) -> list[Entry]:
        """Return what whole lines say; what a crash or somebody else left there is left out."""
        lines = io.BytesIO(block).readlines()
        if set(map(_head_of, lines)) != {_HEAD} or b"\0" in block:
            return list(self._one_by_one(lines))
        found: list[Entry] = []
        at = 0
        for ending, count in self._runs(list(map(_end_of, lines))):
            alike = lines[at : at + count]
            at += count
            together = self._together(alike, ending)
            found += self._one_by_one(alike) if together is None else [together]
        return found

    def _runs(self, endings: list[bytes]) -> Iterator[tuple[bytes, int]]:
        """Yield the ending of lines that end alike, and how many of them follow each other."""
        if self._times:
            for ending, group in groupby(endings):
                yield ending, len(list(group))
            return
        streams = {each: _stream(each) for each in set(endings)}
        at = 0
        for _, group in groupby(endings, streams.get):
            count = len(list(group))
            yield endings[at], count
            at += count

    def _together(self, lines: list[bytes], ending: bytes) -> Entry | None:
        """Understand lines with this head and ending at once; None when one is not as it should be.

        Each of them is a whole line of text, so no character can begin in one and end in the next.
        """
        stream = _stream(ending)
        if stream is None:
            return None
        try:
            time_ns = self._time_ns(ending[_MIDDLE + 8 : -3].decode("ascii"))
            return Entry(time_ns, stream, _text(list(map(_body_of, lines))))
        except (ValueError, SystemError):
            # SystemError: the C half of json looks for its exception in what nobody has imported.
            return None

    def _one_by_one(self, lines: Iterable[bytes]) -> Iterator[Entry]:
        import json

        # Control characters as they are: docker's reader refuses them, its writer makes none.
        decode = json.JSONDecoder(strict=False).decode
        return _joined(entry for line in lines if (entry := self._entry(line, decode)) is not None)

    def _entry(self, line: bytes, decode: Callable[[str], Any]) -> Entry | None:
        if b"\0" in line:
            # The power went, and the file system had given the file only its size.
            return None
        try:
            fields = decode(line.decode("utf-8", "surrogatepass"))
            text, stream, when = fields["log"], fields["stream"], fields["time"]
            if stream not in ("stdout", "stderr"):
                return None
            return Entry(self._time_ns(when), stream, text.encode("utf-8", "surrogateescape"))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def _time_ns(self, when: str) -> int:
        """Understand a time of log_file.timestamp(); raises ValueError, TypeError."""
        if not self._times:
            return 0
        second = when[:19]
        if second != self._second:
            from datetime import UTC, datetime

            moment = datetime.fromisoformat(second).replace(tzinfo=UTC)
            self._second_ns = int(moment.timestamp()) * 1_000_000_000
            self._second = second
        return self._second_ns + int(when[20:].rstrip("Z").ljust(9, "0")[:9])


def _stream(ending: bytes) -> str | None:
    """Return whose line ends so; None when it is not an ending that log_file writes."""
    alike = ending[_MIDDLE:].translate(_DIGITS) == _TIME
    return _STREAMS.get(ending[:_MIDDLE]) if alike else None


def _text(bodies: list[bytes]) -> bytes:
    """Return the text of JSON strings without quotes and line ends.  Raises ValueError."""
    text = b"\n".join(bodies) + b"\n"
    if b"\\" not in text and b'"' not in text:
        text.decode()
        return text
    quoted = (b'"%s\\n"' % rb"\n".join(bodies)).decode()
    decoded, end = scanstring(quoted, 1, False)
    if end != len(quoted):
        raise ValueError("a quote within a string")
    return decoded.encode("utf-8", "surrogateescape")


def _joined(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Make one entry of those that one stream wrote at one time."""
    for (time_ns, stream), group in groupby(entries, itemgetter(0, 1)):
        yield Entry(time_ns, stream, b"".join(entry.text for entry in group))
