"""A writer of plain tar archives: files and directories with short names, nothing else.

The same content gives the same archive: no owners, no times.  Source: POSIX.1-2017 ustar.
"""

from __future__ import annotations

import os

from rootlesspy.errors import Error
from rootlesspy.image import pax, tar
from rootlesspy.image.transfer import write_all
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_BLOCK = 512
_MAX_NAME_BYTES = 100


class TarWriter:
    """Writes to out_fd, which stays the caller's."""

    def __init__(self, out_fd: int) -> None:
        self._fd = out_fd
        self.can_seek = _can_seek(out_fd)

    def add(self, name: str, data: bytes) -> None:
        """Add a file that is in memory.  Raises OSError."""
        self.add_stream(name, len(data), (data,))

    def add_stream(self, name: str, size: int, pieces: Iterable[bytes]) -> None:
        """Add a file of size bytes.  Raises Error when another number of them came, OSError."""
        write_all(self._fd, header(name, size))
        written = self._write(pieces)
        if written != size:
            raise Error(f"{name} has {written} bytes instead of {size}")
        write_all(self._fd, bytes(-size % _BLOCK))

    def add_unmeasured(self, name: str, pieces: Iterable[bytes]) -> None:
        """Add a file whose size is known only afterwards; needs can_seek.  Raises OSError."""
        at = os.lseek(self._fd, 0, os.SEEK_CUR)
        write_all(self._fd, bytes(_BLOCK))
        size = self._write(pieces)
        write_all(self._fd, bytes(-size % _BLOCK))
        end = os.lseek(self._fd, 0, os.SEEK_CUR)
        os.lseek(self._fd, at, os.SEEK_SET)
        write_all(self._fd, header(name, size))
        os.lseek(self._fd, end, os.SEEK_SET)

    def add_directory(self, name: str) -> None:
        """Add a directory.  Raises OSError."""
        write_all(self._fd, header(f"{name}/", 0, kind=tar.DIRECTORY))

    def finish(self) -> None:
        """Write the end of the archive.  Raises OSError."""
        write_all(self._fd, bytes(2 * _BLOCK))

    def _write(self, pieces: Iterable[bytes]) -> int:
        written = 0
        for piece in pieces:
            write_all(self._fd, piece)
            written += len(piece)
        return written


def header(name: str, size: int, *, kind: bytes = tar.REGULAR) -> bytes:
    """Return the header block of an entry; a name of more than 100 bytes is a defect of rp."""
    encoded = os.fsencode(name)
    if len(encoded) > _MAX_NAME_BYTES:
        raise Error(f"{name} is too long for an archive")
    return pax.block_of(
        tar.Entry(
            name=encoded,
            kind=kind,
            mode=0o644 if kind == tar.REGULAR else 0o755,
            uid=0,
            gid=0,
            size=size,
            mtime_ns=0,
            link=b"",
            device=(0, 0),
            xattrs=(),
        )
    )


def _can_seek(fd: int) -> bool:
    try:
        # Appending (>>) would put the header at the end.
        import fcntl

        os.lseek(fd, 0, os.SEEK_CUR)
        return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    except OSError:
        return False
