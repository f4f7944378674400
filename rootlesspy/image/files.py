"""Files of a saved image: in a tar archive or in a directory, read by name and never extracted.

An archive must be a plain file: what comes compressed or through a pipe is decompressed into an
unlinked file of the store first, with the same limits as a layer.  Every name is looked up in what
the archive really holds, so that no link in it leads anywhere else.
"""

from __future__ import annotations

import os
import stat

from rootlesspy.errors import ImageError, NotFound
from rootlesspy.image import tar
from rootlesspy.image.decompress import Reader
from rootlesspy.image.stream import Stream
from rootlesspy.image.transfer import File, write_all
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, Protocol
from rootlesspy.linux import pathrs
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from rootlesspy.image.transfer import BlobBody
    from rootlesspy.paths import Paths
    from rootlesspy.settings import Source

_CHUNK = 1 << 18
_MAX_FILES = 100_000
_MAX_LINKS = 8
# In place of the size of a file whose holes are not in the archive.
_SPARSE = -1
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class Extent(NamedTuple):
    """Where a file's bytes are: a part of an open file, which the caller does not close."""

    fd: int
    offset: int
    size: int


class Files(Protocol):
    """The files of a saved image."""

    where: str

    def find(self, name: str) -> Extent | None:
        """Return where a file is, or None when there is no such file.  Raises ImageError."""

    def close(self) -> None:
        """Let go of everything."""


class TarFiles:
    """The files of a tar archive in a seekable descriptor, which is closed with this."""

    def __init__(self, fd: int, where: str) -> None:
        self._fd = fd
        self.where = where
        self._extents: dict[str, Extent] = {}
        self._links: dict[str, str] = {}
        try:
            self._index()
        except ImageError as error:
            os.close(fd)
            raise ImageError(f"{where} {error.message.removeprefix('layer ')}") from error

    def find(self, name: str) -> Extent | None:
        """See Files."""
        name = _plain(name)
        for _ in range(_MAX_LINKS):
            if name not in self._links:
                found = self._extents.get(name)
                if found is not None and found.size == _SPARSE:
                    raise ImageError(f"{self.where} holds a sparse file {name}")
                return found
            name = self._links[name]
        raise ImageError(f"{self.where}: {name} is a link without end")

    def close(self) -> None:
        """See Files."""
        os.close(self._fd)

    def rewound(self) -> int:
        """Return the descriptor, at the beginning of the archive."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        return self._fd

    def _index(self) -> None:
        os.lseek(self._fd, 0, os.SEEK_SET)
        stream = Stream(self._fd)
        reader = tar.TarReader(stream)
        while (entry := reader.next()) is not None:
            name = _plain(os.fsdecode(entry.name))
            if len(self._extents) + len(self._links) > _MAX_FILES:
                raise ImageError(f"holds more than {_MAX_FILES} files")
            if entry.kind in (tar.REGULAR, tar.HARD_LINK, tar.SYMLINK) and (
                name in self._extents or name in self._links
            ):
                # Two readers could take different ones.
                raise ImageError(f"holds {name} twice")
            if entry.kind == tar.REGULAR:
                size = _SPARSE if reader.is_sparse() else entry.size
                self._extents[name] = Extent(self._fd, stream.offset(), size)
            elif entry.kind == tar.HARD_LINK:
                self._links[name] = _plain(os.fsdecode(entry.link))
            elif entry.kind == tar.SYMLINK:
                self._links[name] = _plain(f"{os.path.dirname(name)}/{os.fsdecode(entry.link)}")


class DirectoryFiles:
    """The files below a directory; links do not lead out of it."""

    def __init__(self, path: str) -> None:
        self.where = path
        self._root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: dict[str, Extent] = {}

    def find(self, name: str) -> Extent | None:
        """See Files."""
        found = self._open.get(name)
        if found is not None:
            return found
        try:
            fd = pathrs.open_in_root(self._root_fd, name, _OPEN)
        except OSError:
            return None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            return None
        self._open[name] = found = Extent(fd, 0, status.st_size)
        return found

    def close(self) -> None:
        """See Files."""
        for extent in self._open.values():
            os.close(extent.fd)
        os.close(self._root_fd)


class Saved:
    """An origin of blobs: files by digest, as transfer.Origin wants it."""

    def __init__(self, files: Files, names: Mapping[str, str]) -> None:
        self._files = files
        self._names = names

    def forget_connections(self) -> None:
        """There are none."""

    def blob(self, source: Source, digest: str, *, offset: int, size: int) -> BlobBody:
        """Open a blob.  Raises NotFound, ImageError when its size is another one."""
        name = self._names.get(digest)
        extent = self._files.find(name) if name is not None else None
        if extent is None:
            raise NotFound(f"{self._files.where} has no blob {digest}")
        if extent.size != size:
            raise ImageError(
                f"{self._files.where}: blob {digest} has {extent.size} bytes instead of {size}"
            )
        return Part(extent, offset, self._files.where)

    def pause(self, attempt: int) -> None:
        """Waiting helps nothing here."""


class Part:
    """A file of an archive as a body; reads at its own place, whoever shares the descriptor."""

    def __init__(self, extent: Extent, offset: int, where: str) -> None:
        self._extent = extent
        self.offset = offset
        self.where = where

    def read(self, size: int) -> bytes:
        """Return at most size bytes, nothing at the end.  Raises OSError."""
        size = min(size, self._extent.size - self.offset)
        if size <= 0:
            return b""
        data = os.pread(self._extent.fd, size, self._extent.offset + self.offset)
        self.offset += len(data)
        return data

    def close(self) -> None:
        """The descriptor is the archive's."""


class Opened:
    """An archive or directory that was typed, open in a with statement."""

    def __init__(self, paths: Paths, path: str | None, stdin_fd: int = 0) -> None:
        """Take path, or standard input when it is None."""
        self._paths = paths
        self._path = path
        self._stdin_fd = stdin_fd
        self.files: Files

    def __enter__(self) -> Self:
        """Open it.  Raises NotFound, ImageError, OSError for a full disk."""
        if self._path is None:
            self.files = TarFiles(self._seekable(os.dup(self._stdin_fd)), "standard input")
            return self
        try:
            if os.path.isdir(self._path):
                self.files = DirectoryFiles(self._path)
                return self
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotFound(
                f"cannot open {self._path}: {error.strerror}", hint=f"ls -l {self._path}"
            ) from error
        self.files = TarFiles(self._seekable(fd), self._path)
        return self

    def __exit__(self, *_failure: object) -> None:
        self.files.close()

    def _seekable(self, fd: int) -> int:
        """Return fd, or in its place that of an unlinked file with the decompressed content."""
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        if is_file and os.lseek(fd, 0, os.SEEK_CUR) == 0:
            head = Reader(File(fd))
            os.lseek(fd, 0, os.SEEK_SET)
            if not head.format:
                return fd
        try:
            out_fd = os.open(
                self._paths.tmp, os.O_RDWR | os.O_TMPFILE | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            try:
                reader = Reader(File(fd))
                while data := reader.read(_CHUNK):
                    write_all(out_fd, data)
            except BaseException:
                os.close(out_fd)
                raise
        finally:
            os.close(fd)
        return out_fd


def read_document(files: Files, name: str) -> bytes | None:
    """Return a small file whole, None when there is none.  Raises ImageError when it is long."""
    extent = files.find(name)
    if extent is None:
        return None
    if extent.size > image_spec.MAX_DOCUMENT_BYTES:
        raise ImageError(f"{files.where}: {name} is {extent.size} bytes long")
    part, data = Part(extent, 0, files.where), b""
    while chunk := part.read(_CHUNK):
        data += chunk
    if len(data) != extent.size:
        raise ImageError(f"{files.where} is truncated: {name}")
    return data


def _plain(name: str) -> str:
    """Return a name from the root of the archive, "." and ".." resolved; never above the root."""
    return os.path.normpath(f"/{name}").lstrip("/")
