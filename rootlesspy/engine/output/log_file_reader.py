"""Reads what `engine.output.log_file` wrote, across rotation.  Cold."""

from __future__ import annotations

import os
import select
import time

from rootlesspy.engine.output import log_file, log_lines, logs
from rootlesspy.engine.output.log_blocks import Decoder
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootlesspy.engine.output.log_lines import Entry
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

_READ_BYTES = 1 << 18
_LAST_BYTES = 1 << 14
"""How much is read first where the last lines are wanted; each further step reads more."""
_LONGEST_LINE_BYTES = 1 << 24


class FileReader:
    """Reads one container's log from its files."""

    def __init__(self, paths: Paths, of: ContainerRecord, selection: logs.Selection) -> None:
        self._selection = selection
        self._path = log_file.location(paths, of)
        self._max_file = log_file.max_file(of)
        bounded = selection.since_s is not None or selection.until_s is not None
        self._decoder = Decoder(times=selection.times or bounded)
        self._poll = select.epoll()
        self._changes_fd = -1
        if selection.follow:
            # Before the first look at the files, or a change between them would be missed.
            self._changes_fd = _watch_directory(os.path.dirname(self._path))
            self._poll.register(self._changes_fd, select.EPOLLIN)
        self._watch = logs.Watch(paths, of.id, self._poll)
        self._partial = b""
        self._ready: list[Entry] = []
        self._files = _open_all(self._path, self._max_file)
        self._busy = True
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
            _drain(self._changes_fd)
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
        block = self._partial + data
        end = block.rfind(b"\n") + 1
        self._partial = block[end:] if len(block) - end < _LONGEST_LINE_BYTES else b""
        return self._selected(block[:end])

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
            for block in _backwards(fd):
                yield from reversed(self._selected(block))

    def _skip_all(self) -> None:
        for fd in self._files[:-1]:
            os.close(fd)
        self._files = self._files[-1:]

    def _selected(self, block: bytes) -> list[Entry]:
        """Return what is wanted of whole lines."""
        entries = self._decoder.entries(block)
        since_s, until_s = self._selection.since_s, self._selection.until_s
        if since_s is not None:
            entries = [entry for entry in entries if entry.time_ns / 1e9 >= since_s]
        if until_s is not None:
            entries = [entry for entry in entries if entry.time_ns / 1e9 <= until_s]
        return entries


def _watch_directory(path: str) -> int:
    """Return a descriptor that is readable when files of a log have grown or were renamed."""
    from rootlesspy.linux import inotify

    changes = (
        inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO
        | inotify.IN_MOVE_SELF | inotify.IN_DELETE_SELF
    )  # fmt: skip
    return inotify.watch(path, changes)


def _drain(changes_fd: int) -> None:
    from rootlesspy.linux import inotify

    inotify.drain(changes_fd)


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
    """Yield blocks of a file's whole lines, the last one first; leave the position behind that."""
    at = os.fstat(fd).st_size
    step = _LAST_BYTES
    rest = b""
    ended = False
    while at > 0:
        size = min(at, step)
        at -= size
        step = min(_READ_BYTES, 2 * step)
        block = os.pread(fd, size, at) + rest
        if not ended:
            end = block.rfind(b"\n") + 1
            if not end:
                rest = block
                continue
            os.lseek(fd, at + end, os.SEEK_SET)
            block, ended = block[:end], True
        # Where the first line begins is known when the line end before it is.
        begin = block.find(b"\n") + 1 if at else 0
        rest = block[:begin]
        yield block[begin:]
