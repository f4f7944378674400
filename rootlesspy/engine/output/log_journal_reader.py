"""Reads back what `engine.output.log_journal` wrote: records become text again.  Cold.

The end of the log is the event `died`, which the supervisor sends after the last words: journald
keeps the order of what one process sends.
"""

from __future__ import annotations

import os
import select
import time

from rootlesspy.engine import record
from rootlesspy.engine.output import log_lines, logs
from rootlesspy.engine.output.events import MESSAGE_ID
from rootlesspy.engine.output.log_lines import Entry
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.systemd import journal_reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

_FIELDS = ("MESSAGE", "PRIORITY", "CONTAINER_PARTIAL_MESSAGE", "RP_LINE_END", "RP_EVENT", "RP_TIME")
_LATE_S = 5.0
"""How long after the last record a container's last words may take to be in the journal."""
_RECENT_S = 10.0
"""As long after its end nobody takes the journal for whole without the event of it."""


class JournalReader:
    """Reads one container's log from the journal."""

    def __init__(self, paths: Paths, of: ContainerRecord, selection: logs.Selection) -> None:
        self._selection = selection
        self._poll = select.epoll()
        self._watch = logs.Watch(paths, of.id, self._poll)
        self._died = False
        self._deadline_s = time.monotonic() + _LATE_S
        self._ready: list[Entry] = []
        self._reader: journal_reader.Reader | None = None
        self.done = False
        after = ""
        if not selection.follow:
            _await_last_words(paths, of)
        if selection.tail is not None:
            self._ready, after = _last(of, selection, selection.tail)
        if selection.follow or selection.tail is None:
            self._start(of, after)

    def fileno(self) -> int:
        """Return the descriptor of everything that this waits for."""
        return -1 if self._ready or self._reader is None else self._poll.fileno()

    def timeout_s(self) -> float | None:
        """Return when to look although nothing came."""
        if not self._selection.follow:
            return None
        due = [logs.LOOK_S] if self._watch.blind() else []
        if self._watch.ended:
            due.append(max(0.0, self._deadline_s - time.monotonic()))
        if self._selection.until_s is not None:
            due.append(max(0.0, self._selection.until_s - time.time()))
        return min(due, default=None)

    def read(self) -> list[Entry]:
        """Return what came; sets done at the end."""
        entries, self._ready = self._ready, []
        reader = self._reader
        if reader is None or entries:
            self.done = reader is None
            return entries
        if logs.readable(reader.fileno()):
            entries = [entry for each in reader.read() if (entry := self._take(each)) is not None]
            self._deadline_s = time.monotonic() + _LATE_S
        else:
            self._look()
        if self._selection.follow:
            if self._died:
                self._look()
            late = time.monotonic() >= self._deadline_s
            self.done = self._watch.ended and (self._died or late)
            until_s = self._selection.until_s
            self.done = self.done or (until_s is not None and time.time() > until_s)
        self.done = self.done or reader.done
        return entries

    def close(self) -> None:
        """End journalctl."""
        if self._reader is not None:
            self._reader.close()
        self._watch.close()
        self._poll.close()

    def _look(self) -> None:
        before = self._watch.ended
        self._watch.look()
        if self._watch.ended and not before:
            self._deadline_s = time.monotonic() + _LATE_S

    def _start(self, of: ContainerRecord, after: str) -> None:
        selection = self._selection
        self._reader = journal_reader.Reader(
            [*_output_of(of), "+", *_end_of(of)] if selection.follow else _output_of(of),
            fields=_FIELDS,
            follow=selection.follow,
            since_s=None if after else selection.since_s,
            until_s=None if selection.follow else selection.until_s,
            after=after,
        )
        self._poll.register(self._reader.fileno(), select.EPOLLIN)

    def _take(self, each: journal_reader.Record) -> Entry | None:
        if "RP_EVENT" in each:
            self._died = int(each.get("RP_TIME", b"0")) >= self._watch.started_s * 1e9
            return None
        self._died = False
        entry = _entry(each)
        return entry if _selected(entry, self._selection) else None


def _last(of: ContainerRecord, selection: logs.Selection, count: int) -> tuple[list[Entry], str]:
    """Return the last lines that there are now, and the cursor of the newest record."""
    cursor = ""
    reader = journal_reader.Reader(
        _output_of(of),
        fields=_FIELDS,
        reverse=True,
        since_s=selection.since_s,
        until_s=selection.until_s,
    )

    def newest_first() -> Iterator[Entry]:
        nonlocal cursor
        while not reader.done:
            for each in reader.read():
                cursor = cursor or each[journal_reader.CURSOR].decode()
                entry = _entry(each)
                if _selected(entry, selection):
                    yield entry

    try:
        return log_lines.last(newest_first(), count), cursor
    finally:
        reader.close()


def _await_last_words(paths: Paths, of: ContainerRecord) -> None:
    """Wait until what a container said before its recent end is in the journal."""
    found = record.load(paths, of.id)
    ended = found.exit if found is not None else None
    ago_s = time.time() - ended.finished_s if ended is not None else _RECENT_S
    if ended is None or not 0 <= ago_s < _RECENT_S:
        return
    reader = journal_reader.Reader(
        _end_of(of), fields=("RP_TIME",), follow=True, since_s=ended.started_s
    )
    deadline = time.monotonic() + _RECENT_S - ago_s
    poller = select.poll()
    poller.register(reader.fileno(), select.POLLIN)
    try:
        while not reader.done and (left_s := deadline - time.monotonic()) > 0:
            if poller.poll(int(left_s * 1000) + 1) and any(
                int(each.get("RP_TIME", b"0")) >= ended.started_s * 1e9 for each in reader.read()
            ):
                return
    finally:
        reader.close()


def _output_of(of: ContainerRecord) -> list[str]:
    return [f"_UID={os.getuid()}", f"CONTAINER_ID_FULL={of.id}"]


def _end_of(of: ContainerRecord) -> list[str]:
    return [f"_UID={os.getuid()}", f"MESSAGE_ID={MESSAGE_ID}", f"RP_ID={of.id}", "RP_EVENT=died"]


def _entry(fields: journal_reader.Record) -> Entry:
    text = fields.get("MESSAGE", b"")
    if "CONTAINER_PARTIAL_MESSAGE" not in fields:
        text += b"\n"
    if fields.get("RP_LINE_END") == b"crlf":
        text = text.replace(b"\n", b"\r\n")
    return Entry(
        time_ns=int(fields["__REALTIME_TIMESTAMP"]) * 1000,
        stream="stdout" if fields.get("PRIORITY") == b"6" else "stderr",
        text=text,
    )


def _selected(entry: Entry, selection: logs.Selection) -> bool:
    time_s = entry.time_ns / 1e9
    return (selection.since_s is None or time_s >= selection.since_s) and (
        selection.until_s is None or time_s <= selection.until_s
    )
