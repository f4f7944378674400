"""A buffered reader of one descriptor: exact reads, skips, and copies that bypass Python."""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.errors import ImageError

_CHUNK = 1 << 18
# Below this a system call of its own costs more than the copy that it saves.
_DIRECT_MIN = 1 << 16
# What says that a file system, or two of them, cannot do it; nothing was copied then.
_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


class Stream:
    """Reads fd from where it stands; the descriptor stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        status = os.fstat(fd)
        self._is_pipe = stat.S_ISFIFO(status.st_mode)
        self._file_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._has_ranges = self._file_bytes is not None
        # One buffer for all: new memory for each piece costs more than reading it.
        self._buffer = bytearray(_CHUNK)
        self._view = memoryview(self._buffer)
        self._at = self._end = 0
        self.total = 0
        """Bytes that were taken from the descriptor, passed over or not."""

    def exactly(self, count: int) -> bytes:
        """Return count bytes; raise ImageError when the stream ends before."""
        end = self._at + count
        if end > self._end:
            return self._gathered(count)
        data = bytes(self._view[self._at : end])
        self._at = end
        return data

    def at_end(self) -> bool:
        """Say whether nothing is left."""
        return self._at == self._end and not self._fill()

    def offset(self) -> int:
        """Return how far a file was read; raise OSError for a pipe."""
        return os.lseek(self._fd, 0, os.SEEK_CUR) - (self._end - self._at)

    def skip(self, count: int) -> None:
        """Pass over count bytes; raise ImageError when the stream ends before."""
        available = self._end - self._at
        if self._file_bytes is not None and count > available:
            self._at = self._end
            self.total += count - available
            # No file system can seek as far as an archive may say.
            if count - available > self._file_bytes:
                raise _truncated()
            if os.lseek(self._fd, count - available, os.SEEK_CUR) > self._file_bytes:
                raise _truncated()
            return
        while count > 0:
            if self._at == self._end and not self._fill():
                raise _truncated()
            step = min(count, self._end - self._at)
            self._at += step
            count -= step

    def copy(self, out_fd: int, count: int) -> None:
        """Write the next count bytes to out_fd; raise ImageError when the stream ends before."""
        while count > 0:
            available = self._end - self._at
            if available:
                view = self._view[self._at : self._at + min(available, count)]
                written = os.write(out_fd, view)
                self._at += written
            elif count >= _DIRECT_MIN and (self._is_pipe or self._has_ranges):
                written = self._copy_directly(out_fd, count)
            else:
                if not self._fill():
                    raise _truncated()
                continue
            count -= written

    def drain(self, limit: int) -> int:
        """Read to the end and return how many bytes there were, at most about limit."""
        total = self._end - self._at
        self._at = self._end
        while total <= limit and self._fill():
            total += self._end
            self._at = self._end
        return total

    def _gathered(self, count: int) -> bytes:
        pieces = []
        while count > 0:
            if self._at == self._end and not self._fill():
                raise _truncated()
            step = min(count, self._end - self._at)
            pieces.append(bytes(self._view[self._at : self._at + step]))
            self._at += step
            count -= step
        return b"".join(pieces)

    def _copy_directly(self, out_fd: int, count: int) -> int:
        """Have the kernel pass on up to count bytes; return how many, 0 where it cannot."""
        if self._is_pipe:
            written = os.splice(self._fd, out_fd, count)
        else:
            try:
                written = os.copy_file_range(self._fd, out_fd, count)
            except OSError as error:
                if error.errno not in _NO_RANGE:
                    raise
                self._has_ranges = False
                return 0
        if written == 0:
            raise _truncated()
        self.total += written
        return written

    def _fill(self) -> bool:
        """Read more, when all that was read before is used up."""
        self._at, self._end = 0, os.readv(self._fd, (self._buffer,))
        self.total += self._end
        return self._end > 0


def _truncated() -> ImageError:
    return ImageError("layer is truncated: the tar archive ends inside an entry")
