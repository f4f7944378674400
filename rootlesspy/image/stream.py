"""A buffered reader of one descriptor: exact reads, skips, and copies that bypass Python."""

from __future__ import annotations

import os
import stat

from rootlesspy.errors import ImageError

_CHUNK = 1 << 18
# Below this a splice(2) costs more than the copy that it saves.
_SPLICE_MIN = 1 << 16


class Stream:
    """Reads fd from where it stands; the descriptor stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        status = os.fstat(fd)
        self._is_pipe = stat.S_ISFIFO(status.st_mode)
        self._file_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._buffer = b""
        self._at = 0

    def exactly(self, count: int) -> bytes:
        """Return count bytes; raise ImageError when the stream ends before."""
        end = self._at + count
        while end > len(self._buffer):
            if not self._fill():
                raise _truncated()
            end = self._at + count
        data = self._buffer[self._at : end]
        self._at = end
        return data

    def at_end(self) -> bool:
        """Say whether nothing is left."""
        return self._at == len(self._buffer) and not self._fill()

    def offset(self) -> int:
        """Return how far a file was read; raise OSError for a pipe."""
        return os.lseek(self._fd, 0, os.SEEK_CUR) - (len(self._buffer) - self._at)

    def skip(self, count: int) -> None:
        """Pass over count bytes; raise ImageError when the stream ends before."""
        available = len(self._buffer) - self._at
        if self._file_bytes is not None and count > available:
            self._at = len(self._buffer)
            if os.lseek(self._fd, count - available, os.SEEK_CUR) > self._file_bytes:
                raise _truncated()
            return
        while count > 0:
            if self._at == len(self._buffer) and not self._fill():
                raise _truncated()
            step = min(count, len(self._buffer) - self._at)
            self._at += step
            count -= step

    def copy(self, out_fd: int, count: int) -> None:
        """Write the next count bytes to out_fd; raise ImageError when the stream ends before."""
        while count > 0:
            available = len(self._buffer) - self._at
            if available:
                view = memoryview(self._buffer)[self._at : self._at + min(available, count)]
                written = os.write(out_fd, view)
                self._at += written
            elif self._is_pipe and count >= _SPLICE_MIN:
                written = os.splice(self._fd, out_fd, count)
                if written == 0:
                    raise _truncated()
            else:
                if not self._fill():
                    raise _truncated()
                continue
            count -= written

    def drain(self, limit: int) -> int:
        """Read to the end and return how many bytes there were, at most about limit."""
        total = len(self._buffer) - self._at
        self._at = len(self._buffer)
        while total <= limit and self._fill():
            total += len(self._buffer)
            self._at = len(self._buffer)
        return total

    def _fill(self) -> bool:
        chunk = os.read(self._fd, _CHUNK)
        self._buffer = self._buffer[self._at :] + chunk if self._at < len(self._buffer) else chunk
        self._at = 0
        return bool(chunk)


def _truncated() -> ImageError:
    return ImageError("layer is truncated: the tar archive ends inside an entry")
