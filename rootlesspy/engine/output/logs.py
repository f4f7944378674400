"""Reads what a container has said, past and coming, whichever driver wrote it.  Cold.

A reader is polled: what is slow is the terminal or the pipe of whoever reads, never the container.
"""

from __future__ import annotations

import os
import select

from rootlesspy.engine import record
from rootlesspy.engine.output import logging
from rootlesspy.engine.output.log_lines import Lines
from rootlesspy.errors import Error, NotFound, Unsupported
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, Protocol
from rootlesspy.systemd import journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rootlesspy.engine.output.log_lines import Entry
    from rootlesspy.engine.record import Container, ContainerRecord
    from rootlesspy.paths import Paths

LOOK_S = 1.0
"""How often to look where nothing tells."""
_LONGEST_S = 3600.0
"""How long to wait for a moment that the clock may jump to; poll(2) ends at 25 days."""


class Selection(NamedTuple):
    """Which part of a log is wanted."""

    since_s: float | None = None
    until_s: float | None = None
    tail: int | None = None
    """This many lines at most, the newest; None: all."""
    follow: bool = False
    times: bool = True
    """Whether entries need have their times."""


class Reader(Protocol):
    """Reads one container's log."""

    done: bool

    def fileno(self) -> int:
        """Return the descriptor that is readable when `read` may have something; -1: none."""

    def timeout_s(self) -> float | None:
        """Return when to call `read` although nothing came; None: never."""

    def read(self) -> list[Entry]:
        """Return what came; sets done at the end."""

    def close(self) -> None:
        """Let go of everything."""


class Watch:
    """Knows when a container has ended; one that never ran has not."""

    def __init__(self, paths: Paths, container_id: str, poll: select.epoll) -> None:
        self._paths = paths
        self._id = container_id
        self._poll = poll
        self._pidfd = -1
        self.started_s = 0.0
        self.ended = False
        self.look()

    def blind(self) -> bool:
        """Say that nothing tells when to look again."""
        return not self.ended and self._pidfd < 0

    def look(self) -> None:
        """Find out whether it has ended, or runs again."""
        if self._pidfd >= 0 and readable(self._pidfd):
            self.close()
        found = record.load(self._paths, self._id)
        if found is None:
            self.ended = True
            return
        runs = found.state in ("created", "running")
        self.ended = not runs and not _is_to_restart(self._paths, found)
        self.started_s = found.started_s
        if found.state == "running" and self._pidfd < 0:
            self._pidfd = _supervisor(self._paths.container(self._id))
            if self._pidfd >= 0:
                self._poll.register(self._pidfd, select.EPOLLIN)

    def close(self) -> None:
        """Let go of the process."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def driver(paths: Paths, of: ContainerRecord) -> str:
    """Return the driver that wrote a container's log."""
    from rootlesspy.engine.output import log_file

    if of.log_driver:
        return of.log_driver
    live = _live(paths.container(of.id))
    if live is not None and not live.service:
        return "passthrough"
    if os.path.lexists(log_file.location(paths, of)):
        return "json-file"
    return logging.default_driver(paths)


def open_reader(paths: Paths, of: ContainerRecord, selection: Selection) -> Reader:
    """Begin to read a container's log; raises Unsupported when nothing was logged, NotFound."""
    chosen = driver(paths, of)
    if chosen == "passthrough":
        raise Unsupported(
            f"container {of.name} has no log: its output went straight to the caller's terminal "
            "(log driver passthrough)",
            hint="run it with -d, or with --log-driver journald",
        )
    if chosen == "none":
        raise Unsupported(f"container {of.name} has no log: it was run with --log-driver none")
    if chosen == "journald" and not journal.readable():
        raise Unsupported(
            f"the log of container {of.name} is in the journal, and this user cannot read his",
            hint=journal.CURE,
        )
    if chosen == "json-file":
        from rootlesspy.engine.output import log_file_reader

        return log_file_reader.FileReader(paths, of, selection)
    from rootlesspy.engine.output import log_journal_reader

    return log_journal_reader.JournalReader(paths, of, selection)


def read(
    paths: Paths, records: Sequence[ContainerRecord], selection: Selection
) -> Iterator[tuple[int, list[Entry]]]:
    """Yield a container's index and what of its log has come; raises as open_reader.

    Following reads all of them as they speak, otherwise one follows the other.
    """
    readers = [open_reader(paths, each, selection) for each in records]
    try:
        if selection.follow:
            yield from _multiplex(readers)
        else:
            for index, reader in enumerate(readers):
                for _, entries in _multiplex([reader]):
                    yield index, entries
    finally:
        for reader in readers:
            reader.close()


def readable(fd: int) -> bool:
    """Say whether a descriptor has something to read now."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def tail(paths: Paths, of: ContainerRecord, count: int) -> list[str]:
    """Return the last lines of a container's log; empty when it has none or it cannot be read."""
    lines: list[str] = []
    cut = Lines()
    try:
        found = read(paths, [of], Selection(tail=count, times=False))
        entries = (entry for _, several in found for entry in several)
        for piece in (piece for entry in entries for piece in cut.cut(entry)):
            text = piece.text.decode("utf-8", "replace").rstrip("\r\n")
            if piece.begins:
                lines.append(text)
            else:
                lines[-1] += text
    except (Unsupported, NotFound, OSError):
        return []
    return lines[-count:]


def _multiplex(readers: list[Reader]) -> Iterator[tuple[int, list[Entry]]]:
    """Yield from whichever reader has something until all are done."""
    running = dict(enumerate(readers))
    while running:
        # Who has no descriptor has something already.
        if all(each.fileno() >= 0 for each in running.values()):
            _wait(running.values())
        for index, reader in list(running.items()):
            entries = reader.read()
            if entries:
                yield index, entries
            if reader.done:
                del running[index]


def _wait(readers: Iterable[Reader]) -> None:
    """Wait until one of them may have something."""
    poller = select.poll()
    for each in readers:
        poller.register(each.fileno(), select.POLLIN)
    known = [timeout_s for each in readers if (timeout_s := each.timeout_s()) is not None]
    poller.poll(int(min(_LONGEST_S, *known) * 1000) + 1 if known else None)


def _supervisor(directory: str) -> int:
    """Return a pidfd of whoever supervises a container, -1 when nobody does."""
    live = _live(directory)
    try:
        return -1 if live is None else os.pidfd_open(live.supervisor_pid)
    except OSError:
        return -1


def _is_to_restart(paths: Paths, found: Container) -> bool:
    """Say whether systemd is about to start an ended container again, or has not decided yet."""
    if found.record.restart in ("", "no"):
        return False
    from rootlesspy.engine import names
    from rootlesspy.systemd import bus
    from rootlesspy.systemd import service as unit

    name = names.service(found.record.name)
    try:
        connection = bus.connect(os.path.dirname(paths.require_runtime()))
    except Error:
        # Without a manager nobody restarts it.
        return False
    try:
        return not unit.is_over(connection, name)
    except Error:
        return False
    finally:
        connection.close()


def _live(directory: str) -> record.LiveState | None:
    try:
        return record.live_state(directory)
    except (OSError, Error):
        return None
