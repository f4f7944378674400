"""The transfer of one blob from where it is to the store, over several connections if need be."""

from __future__ import annotations

import errno
import fcntl
import os

from rootlesspy.errors import ImageError, NotFound, RegistryError
from rootlesspy.light_typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootlesspy.image.events import Events
    from rootlesspy.oci.image_spec import Descriptor
    from rootlesspy.settings import Source

_CHUNK = 1 << 18
_PIPE_BYTES = 1 << 18
_DEFAULT_PIPE_BYTES = 1 << 16
_MAX_BREAKS = 5
# What has arrived since the last break for the count of breaks to start again.
_FORGIVEN_AFTER_BYTES = 1 << 20


class Interrupted(RegistryError):
    """A transfer broke; asking for the rest may succeed."""


class BlobBody(Protocol):
    """A blob as it arrives, from offset on; where says who sends it."""

    offset: int
    where: str

    def read(self, size: int) -> bytes: ...

    def close(self) -> None: ...


class Origin(Protocol):
    """Where blobs come from: a registry or an archive."""

    def forget_connections(self) -> None:
        """Begin anew in a forked child."""

    def blob(self, source: Source, digest: str, *, offset: int, size: int) -> BlobBody:
        """Open a blob from offset, or from 0 on."""

    def pause(self, attempt: int) -> None:
        """Wait before trying again."""


class Transfer:
    """The download of one blob into a file of the store and on into the next process."""

    def __init__(
        self,
        descriptor: Descriptor,
        origin: Origin | None,
        sources: tuple[Source, ...],
        events: Events,
        blob_fd: int,
        out_fd: int,
    ) -> None:
        self._descriptor = descriptor
        self._origin = origin
        self._sources = sources
        self._events = events
        self._blob_fd = blob_fd
        self._out_fd: int | None = out_fd

    def run(self) -> str:
        """Fetch everything; return the digest of what came.  Raises RegistryError, NotFound."""
        if self._origin is None:
            raise NotFound(f"blob {self._descriptor.digest} is missing in the store")
        import hashlib

        digest = hashlib.new(self._descriptor.digest.partition(":")[0])
        for data in chunks(self._descriptor, self._origin, self._sources):
            digest.update(data)
            self._take(data)
        self._events.flush()
        return f"{digest.name}:{digest.hexdigest()}"

    def _take(self, data: bytes) -> None:
        write_all(self._blob_fd, data)
        self._events.advance(len(data))
        if self._out_fd is None:
            return
        try:
            write_all(self._out_fd, data)
        except BrokenPipeError:
            # The content is bad, or not what was promised: only the whole digest tells which.
            self._out_fd = None


class File:
    """A descriptor as a source of compressed bytes."""

    def __init__(self, fd: int) -> None:
        self._input = Input(fd)

    def read(self, size: int) -> bytes:
        return bytes(self._input.read(size))


class Input:
    """Reads a descriptor piece by piece into one buffer.

    os.read() has memory mapped, shortened and unmapped for each piece of a pipe that brings less
    than was asked for: three system calls beside the one that reads, and a page fault per page.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()

    def read(self, size: int) -> memoryview:
        """Return at most size bytes, nothing at the end; valid until the next call."""
        if len(self._buffer) != size:
            self._buffer = bytearray(size)
        return memoryview(self._buffer)[: os.readv(self._fd, (self._buffer,))]


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of data.  Raises OSError: BrokenPipeError when nobody reads it any more."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except ConnectionResetError:
        # What a socket in place of a pipe says where its reader left something unread.
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None


def chunks(descriptor: Descriptor, origin: Origin, sources: tuple[Source, ...]) -> Iterator[bytes]:
    """Yield a blob from its beginning to its end, over as many connections as that takes.

    Its digest is the caller's to verify, see verified().  Raises RegistryError, NotFound.
    """
    places = list(sources)
    done = breaks = since = 0
    while done < descriptor.size:
        try:
            for data in _rest(descriptor, origin, places[0], done):
                done += len(data)
                yield data
        except Interrupted:
            if done - since > _FORGIVEN_AFTER_BYTES:
                breaks, since = 0, done
            breaks += 1
            if breaks > _MAX_BREAKS:
                raise
            origin.pause(breaks)
        except (RegistryError, NotFound):
            # The place that had the manifest may lack the blob: a mirror in the making.
            if len(places) < 2:
                raise
            places.pop(0)


def verified(
    descriptor: Descriptor, origin: Origin, sources: tuple[Source, ...]
) -> Iterator[bytes]:
    """Yield a blob as chunks() does; raise ImageError at the end of one that is another."""
    import hashlib

    digest = hashlib.new(descriptor.digest.partition(":")[0])
    for data in chunks(descriptor, origin, sources):
        digest.update(data)
        yield data
    found = f"{digest.name}:{digest.hexdigest()}"
    if found != descriptor.digest:
        raise ImageError(f"digest mismatch: got {found} instead of {descriptor.digest}")


def _rest(descriptor: Descriptor, origin: Origin, source: Source, done: int) -> Iterator[bytes]:
    """Yield what one connection brings of the bytes after the first done ones."""
    body = origin.blob(source, descriptor.digest, offset=done, size=descriptor.size)
    try:
        # A registry without ranges begins again: what is here already is passed over.
        at = body.offset
        while data := body.read(min(_CHUNK, descriptor.size - at + 1)):
            at += len(data)
            if at > descriptor.size:
                raise RegistryError(
                    f"{body.where} sent more than the {descriptor.size} bytes of blob "
                    f"{descriptor.digest}"
                )
            if at > done:
                fresh = data[done - at :]
                done = at
                yield fresh
    finally:
        body.close()
    if at < descriptor.size:
        raise Interrupted(
            f"{body.where} ended blob {descriptor.digest} after {at} of {descriptor.size} bytes"
        )


def pipe() -> tuple[int, int]:
    """Return both ends of a pipe that holds much: reader, writer.

    Where all pipes of the user together hold what they may (fs.pipe-user-pages-soft, 64 MiB: a few
    hundred containers), the kernel gives a new one two pages.  A socket pair then does the same
    with far fewer turns between its two processes.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        if fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) < _DEFAULT_PIPE_BYTES:
            os.close(reader)
            os.close(writer)
            return _socket_pair()
    return reader, writer


def _socket_pair() -> tuple[int, int]:
    import socket

    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()
