"""Reads what `engine.output.log_file` wrote, across rotation.  Cold."""

from __future__ import annotations

import json
import os
import select
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rootlesspy.engine.output import log_file, log_lines, logs
from rootlesspy.engine.output.log_lines import Entry
from rootlesspy.linux import inotify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

_READ_BYTES = 1 << 18
_LONGEST_LINE_BYTES = 1 << 24
_CHANGES = (
    inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO
    | inotify.IN_MOVE_SELF | inotify.IN_DELETE_SELF
)  # fmt: skip


class FileReader:
    """Reads one container's log from its files."""

    def __init__(self, paths: Paths, of: ContainerRecord, selection: logs.Selection) -> None:
        self._selection = selection
        self._path = log_file.location(paths, of)
        self._max_file = log_file.max_file(of)
        self._poll = select.epoll()
        self._changes_fd = -1
        if selection.follow:
            # Before the first look at the files, or a change between them would be missed.
            self._changes_fd = inotify.watch(os.path.dirname(self._path), _CHANGES)
            self._poll.register(self._changes_fd, select.EPOLLIN)
        self._watch = logs.Watch(paths, of.id, self._poll)
        self._partial = b""
        self._ready: list[Entry] = []
        self._files = _open_all(self._path, self._max_file)
        self._busy = True
        # Lines that were read together have the same time: it is worked out once.
        self._when = ""
        self._time_ns = 0
        self.done = False
        if selection.tail is not None:
            self._ready = log_lines.last(self._newest_first(), selection.tail)
            self._skip_all()

    def fileno(self) -> int:
        """Return the descriptor of everything that this waits for."""
        return -1 if self._busy or self._ready else self._poll.fileno()

    def timeout_s(self) -> float | None:
        """Return when to look although nothing came."""
        due = [logs.LOOK_S] if self._watch.blind() else []
        if self._selection.until_s is not None:
            due.append(max(0.0, self._selection.until_s - time.time()))
        return min(due, default=None)

    def read(self) -> list[Entry]:
        """Return what came; sets done at the end."""
        if self._ready:
            entries, self._ready = self._ready, []
            return entries
        if self._changes_fd >= 0:
            inotify.drain(self._changes_fd)
        if self._selection.follow:
            # Before the file is read: what was said before the end is in it then.
            self._watch.look()
        data = os.read(self._files[0], _READ_BYTES) if self._files else b""
        self._busy = bool(data) or self._next_file()
        until_s = self._selection.until_s
        if not self._busy:
            self.done = (
                not self._selection.follow
                or self._watch.ended
                or (until_s is not None and time.time() > until_s)
            )
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop() if len(lines[-1]) < _LONGEST_LINE_BYTES else b""
        return _joined(entry for line in lines if (entry := self._selected(line)) is not None)

    def close(self) -> None:
        """Let go of everything."""
        for fd in self._files:
            os.close(fd)
        self._files = []
        self._watch.close()
        if self._changes_fd >= 0:
            os.close(self._changes_fd)
            self._changes_fd = -1
        self._poll.close()

    def _next_file(self) -> bool:
        """Go on to the next file after the end of one; False: there is none yet."""
        if len(self._files) > 1:
            os.close(self._files.pop(0))
            self._partial = b""
            return True
        newer = _open_all(self._path, self._max_file)
        if self._files:
            current = os.fstat(self._files[0]).st_ino
            inodes = [os.fstat(fd).st_ino for fd in newer]
            known = inodes.index(current) + 1 if current in inodes else 0
            for fd in newer[:known]:
                os.close(fd)
            newer = newer[known:]
        # The old one stays first: more may have been written before it was renamed.
        self._files += newer
        return bool(newer)

    def _newest_first(self) -> Iterator[Entry]:
        for fd in reversed(self._files):
            for line in _backwards(fd):
                entry = self._selected(line)
                if entry is not None:
                    yield entry

    def _skip_all(self) -> None:
        for fd in self._files[:-1]:
            os.close(fd)
        self._files = self._files[-1:]

    def _entry(self, line: bytes) -> Entry | None:
        """Understand one line; None for what a crash or somebody else left there."""
        try:
            fields = json.loads(line)
            text, stream, when = fields["log"], fields["stream"], fields["time"]
            if stream not in ("stdout", "stderr"):
                return None
            if when != self._when:
                self._time_ns, self._when = _nanoseconds(when), when
            text = text.encode("utf-8", "surrogateescape")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return Entry(self._time_ns, stream, text)

    def _selected(self, line: bytes) -> Entry | None:
        entry = self._entry(line)
        if entry is None:
            return None
        time_s = entry.time_ns / 1e9
        since_s, until_s = self._selection.since_s, self._selection.until_s
        early = since_s is not None and time_s < since_s
        return None if early or (until_s is not None and time_s > until_s) else entry


def _open_all(path: str, max_file: int) -> list[int]:
    """Open the files of a log, oldest first, none twice although they may be renamed meanwhile."""
    while True:
        found: list[int] = []
        for number in range(max_file - 1, -1, -1):
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                found.append(os.open(_name(path, number), flags))
            except FileNotFoundError:
                continue
        inodes = [os.fstat(fd).st_ino for fd in found]
        if inodes == _inodes(path, max_file):
            return found
        for fd in found:
            os.close(fd)


def _inodes(path: str, max_file: int) -> list[int]:
    inodes = []
    for number in range(max_file - 1, -1, -1):
        try:
            inodes.append(os.lstat(_name(path, number)).st_ino)
        except FileNotFoundError:
            continue
    return inodes


def _name(path: str, number: int) -> str:
    return f"{path}.{number}" if number else path


def _backwards(fd: int) -> Iterator[bytes]:
    """Yield the whole lines of a file, the last one first; leave the position behind that one."""
    at = os.fstat(fd).st_size
    rest = b""
    ended = False
    while at > 0:
        step = min(at, _READ_BYTES)
        at -= step
        block = os.pread(fd, step, at) + rest
        if not ended:
            end = block.rfind(b"\n") + 1
            if not end:
                rest = block
                continue
            os.lseek(fd, at + end, os.SEEK_SET)
            block, ended = block[: end - 1], True
        rest, *lines = block.split(b"\n")
        yield from reversed(lines)
    if ended:
        yield rest


def _nanoseconds(when: str) -> int:
    """Understand a time of log_file.timestamp(); raises ValueError, TypeError."""
    moment = datetime.fromisoformat(when[:19]).replace(tzinfo=UTC)
    fraction = int(when[20:].rstrip("Z").ljust(9, "0")[:9])
    return int(moment.timestamp()) * 1_000_000_000 + fraction


def _joined(entries: Iterable[Entry]) -> list[Entry]:
    """Make one entry of those that one stream wrote at one time."""
    found: list[Entry] = []
    texts: list[bytes] = []
    for entry in entries:
        if found and found[-1][:2] == entry[:2]:
            texts.append(entry.text)
            continue
        if found:
            found[-1] = found[-1]._replace(text=b"".join(texts))
        found.append(entry)
        texts = [entry.text]
    if found:
        found[-1] = found[-1]._replace(text=b"".join(texts))
    return found
