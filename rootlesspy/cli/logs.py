"""`rp logs`: what containers have said, and are saying.  Hot: no typer."""

from __future__ import annotations

import sys

from rootlesspy.cli import operations
from rootlesspy.engine import record
from rootlesspy.engine.inputs import values
from rootlesspy.engine.output import logs as engine_logs
from rootlesspy.engine.output.log_lines import Lines
from rootlesspy.errors import Conflict, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from rootlesspy.cli.argv import Values
    from rootlesspy.cli.session import Session
    from rootlesspy.engine.output.log_lines import Entry
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

_SHORT_ID = 12
_COLOURS = (36, 33, 32, 35, 34, 31, 96, 93, 92, 95, 94, 91)
_END_COLOUR = b"\x1b[0m"


def show(given: Values, session: Session) -> int:
    """Write what was asked for of the containers' logs."""
    names, latest = given.values("names"), given.flag("latest")
    if bool(names) == latest:
        raise UsageError("rp logs: name the containers, or say --latest", hint="rp logs --help")
    selection = _selection(given)
    paths = session.paths()
    chosen = operations.chosen(session, "logs", names, latest=latest)
    records = [_record(paths, name) for name in chosen]
    several = len(records) > 1
    with_names, colour = given.flag("with_names"), given.flag("colour")
    prefixes = [
        _prefix(each, index, name=with_names, colour=colour) if several else b""
        for index, each in enumerate(records)
    ]
    output = _Output(prefixes, timestamps=selection.times)
    for index, entries in engine_logs.read(paths, records, selection):
        output.write(index, entries)
    return 0


class _Output:
    """Writes entries to stdout and stderr."""

    def __init__(self, prefixes: list[bytes], *, timestamps: bool) -> None:
        self._prefixes = prefixes
        self._timestamps = timestamps
        self._lines = [Lines() for _ in prefixes]
        self._inside: dict[str, int] = {}
        """Whose line is unfinished."""
        self._streams: dict[str, BinaryIO] = {
            "stdout": sys.stdout.buffer,
            "stderr": sys.stderr.buffer,
        }

    def write(self, index: int, entries: Iterable[Entry]) -> None:
        """Write what a container has said."""
        last = ""
        for entry in entries:
            if last and entry.stream != last:
                # Both may be the same terminal.
                self._streams[last].flush()
            last = entry.stream
            if self._timestamps or self._prefixes[index]:
                self._write_lines(index, entry)
            else:
                self._streams[last].write(entry.text)
        if last:
            self._streams[last].flush()

    def _write_lines(self, index: int, entry: Entry) -> None:
        stream, text = self._streams[entry.stream], entry.text
        head = self._prefixes[index]
        if self._timestamps:
            head += f"{_timestamp(entry.time_ns)} ".encode()
        lines = self._lines[index]
        whole = text.rfind(b"\n") + 1
        if whole and entry.stream not in self._inside and not lines.has_begun(entry.stream):
            stream.write(head + text[: whole - 1].replace(b"\n", b"\n" + head) + b"\n")
            entry = entry._replace(text=text[whole:])
        for piece in lines.cut(entry):
            begins = piece.begins
            if self._inside.get(entry.stream, index) != index:
                # Another container's line is unfinished: two in one line read as one.
                stream.write(b"\n")
                begins = True
            stream.write(head + piece.text if begins else piece.text)
            self._inside[entry.stream] = index
            if piece.text.endswith(b"\n"):
                del self._inside[entry.stream]


def _selection(given: Values) -> engine_logs.Selection:
    since, until = given.value("since"), given.value("until")
    tail = given.value("tail")
    times = given.flag("timestamps")
    chosen = engine_logs.Selection(
        tail=None if tail is None else _tail(tail), follow=given.flag("follow"), times=times
    )
    if since is None and until is None:
        return chosen
    from rootlesspy.cli import moment

    return chosen._replace(
        since_s=None if since is None else moment.parse_moment(since, "--since"),
        until_s=None if until is None else moment.parse_moment(until, "--until", ahead=True),
    )


def _record(paths: Paths, name: str) -> ContainerRecord:
    container_id = record.find(paths, name)
    found = record.load(paths, container_id)
    if found is None:
        raise NotFound(f"no container with name or id {name!r}", hint="rp ps -a lists them")
    if found.state == "broken":
        raise Conflict(f"container {name} is damaged", hint=f"rp rm -f {name}")
    return found.record


def _tail(text: str) -> int | None:
    if text in ("-1", "all"):
        return None
    try:
        return values.parse_integer(text, "--tail", 0, 2**31 - 1)
    except UsageError:
        values.reject("--tail", text, "a number of lines, or all")


def _prefix(of: ContainerRecord, index: int, *, name: bool, colour: bool) -> bytes:
    text = (of.name if name else of.id[:_SHORT_ID]).encode()
    if colour:
        text = b"\x1b[%dm%s%s" % (_COLOURS[index % len(_COLOURS)], text, _END_COLOUR)
    return text + b" "


def _timestamp(time_ns: int) -> str:
    """Write a time as podman does: RFC 3339 in the local zone with nanoseconds."""
    import time

    seconds, rest = divmod(time_ns, 1_000_000_000)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{rest:09d}{zone}"
