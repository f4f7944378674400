"""`rp logs`: what containers have said, and are saying."""

# ruff: noqa: B008, UP045
# typer 0.7 knows neither Annotated nor X | None.

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, BinaryIO, Optional

import typer

from rootlesspy.cli import completion, moment, operations
from rootlesspy.engine import record
from rootlesspy.engine.inputs import values
from rootlesspy.engine.output import logs as engine_logs
from rootlesspy.engine.output.log_lines import Lines
from rootlesspy.errors import Conflict, NotFound, UsageError

if TYPE_CHECKING:
    from rootlesspy.engine.output.log_lines import Entry
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

_SHORT_ID = 12
_COLOURS = (36, 33, 32, 35, 34, 31, 96, 93, 92, 95, 94, 91)
_END_COLOUR = b"\x1b[0m"


def logs(
    context: typer.Context,
    names: list[str] = typer.Argument(
        None, metavar="CONTAINER...", help="Names, ids or unique beginnings of ids.",
        autocompletion=completion.containers, show_default=False,
    ),
    follow: bool = typer.Option(
        False, "--follow", "-f", help="Go on until the containers end.", show_default=False
    ),
    since: Optional[str] = typer.Option(
        None, "--since", metavar="TIME", show_default=False,
        help="Not what is older: 10m, 2026-11-21T08:00:00 or 1700000000.",
    ),
    until: Optional[str] = typer.Option(
        None, "--until", metavar="TIME", show_default=False,
        help="Not what is newer; a duration counts from now on, with a minus back.",
    ),
    tail: str = typer.Option(
        "-1", "--tail", metavar="NUMBER", show_default=False,
        help="The last NUMBER lines of each; -1 or all: all (default).",
    ),
    timestamps: bool = typer.Option(
        False, "--timestamps", "-t", help="Begin each line with its time.", show_default=False
    ),
    with_names: bool = typer.Option(
        False, "--names", "-n", show_default=False,
        help="Of several containers, begin each line with its name instead of its id.",
    ),
    colour: bool = typer.Option(
        False, "--color", help="Give each container's name a colour.", show_default=False
    ),
    latest: bool = typer.Option(
        False, "--latest", "-l", help="Of the newest container.", show_default=False
    ),
) -> int:  # fmt: skip
    """Show what containers have written to stdout and stderr.

    Bytes come out as they went in, stdout to stdout and stderr to stderr.
    journalctl --user -u rp-NAME.scope shows the same lines of containers with the journald driver.
    """
    session = context.obj
    if bool(names) == latest:
        raise UsageError("rp logs: name the containers, or say --latest", hint="rp logs --help")
    selection = engine_logs.Selection(
        since_s=None if since is None else moment.parse_moment(since, "--since"),
        until_s=None if until is None else moment.parse_moment(until, "--until", ahead=True),
        tail=_tail(tail),
        follow=follow,
    )
    paths = session.paths()
    chosen = operations.chosen(session, "logs", names or (), latest=latest)
    records = [_record(paths, name) for name in chosen]
    several = len(records) > 1
    prefixes = [
        _prefix(each, index, name=with_names, colour=colour) if several else b""
        for index, each in enumerate(records)
    ]
    output = _Output(prefixes, timestamps=timestamps)
    for index, entry in engine_logs.read(paths, records, selection):
        output.write(index, entry)
    return 0


class _Output:
    """Writes entries to stdout and stderr."""

    def __init__(self, prefixes: list[bytes], *, timestamps: bool) -> None:
        self._prefixes = prefixes
        self._timestamps = timestamps
        self._lines = [Lines() for _ in prefixes]
        self._inside: dict[str, int] = {}
        self._streams: dict[str, BinaryIO] = {
            "stdout": sys.stdout.buffer,
            "stderr": sys.stderr.buffer,
        }

    def write(self, index: int, entry: Entry) -> None:
        stream = self._streams[entry.stream]
        if self._timestamps or self._prefixes[index]:
            head = self._prefixes[index]
            if self._timestamps:
                head += f"{_timestamp(entry.time_ns)} ".encode()
            for piece in self._lines[index].cut(entry):
                begins = piece.begins
                if self._inside.get(entry.stream, index) != index:
                    # Another container's line is unfinished: two in one line read as one.
                    stream.write(b"\n")
                    begins = True
                stream.write(head + piece.text if begins else piece.text)
                self._inside[entry.stream] = index
                if piece.text.endswith(b"\n"):
                    del self._inside[entry.stream]
        else:
            stream.write(entry.text)
        stream.flush()


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
    seconds, rest = divmod(time_ns, 1_000_000_000)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{rest:09d}{zone}"
