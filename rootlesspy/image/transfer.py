"""The transfer of one blob from where it is to the store, over several connections if need be."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Protocol

from rootlesspy.errors import NotFound, RegistryError

if TYPE_CHECKING:
    from rootlesspy.image.events import Events
    from rootlesspy.oci.image_spec import Descriptor
    from rootlesspy.settings import Source

_CHUNK = 1 << 18
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
    """The download of one blob, over several connections where it must be."""

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
        self._sources = list(sources)
        self._origin = origin
        self._events = events
        self._blob_fd = blob_fd
        self._out_fd: int | None = out_fd
        self._digest = hashlib.new(descriptor.digest.partition(":")[0])
        self._done = 0

    def run(self) -> str:
        """Fetch everything; return the digest of what came.  Raises RegistryError, NotFound."""
        if self._origin is None:
            raise NotFound(f"blob {self._descriptor.digest} is missing in the store")
        self._origin.forget_connections()
        breaks, since = 0, 0
        while self._done < self._descriptor.size:
            try:
                self._fetch_rest(self._origin)
            except Interrupted:
                if self._done - since > _FORGIVEN_AFTER_BYTES:
                    breaks, since = 0, self._done
                breaks += 1
                if breaks > _MAX_BREAKS:
                    raise
                self._origin.pause(breaks)
            except (RegistryError, NotFound):
                # The place that had the manifest may lack the blob: a mirror in the making.
                if len(self._sources) < 2:
                    raise
                self._sources.pop(0)
        self._events.flush()
        return f"{self._digest.name}:{self._digest.hexdigest()}"

    def _fetch_rest(self, origin: Origin) -> None:
        descriptor = self._descriptor
        body = origin.blob(
            self._sources[0], descriptor.digest, offset=self._done, size=descriptor.size
        )
        try:
            # A registry without ranges begins again: what is here already is passed over.
            at = body.offset
            while data := body.read(min(_CHUNK, descriptor.size - at + 1)):
                at += len(data)
                if at > descriptor.size:
                    raise RegistryError(
                        f"{body.where} sent more than the "
                        f"{descriptor.size} bytes of blob {descriptor.digest}"
                    )
                if at > self._done:
                    self._take(data[self._done - at :])
        finally:
            body.close()
        if at < descriptor.size:
            raise Interrupted(
                f"{body.where} ended blob {descriptor.digest} after {at} of {descriptor.size} bytes"
            )

    def _take(self, data: bytes) -> None:
        self._digest.update(data)
        write_all(self._blob_fd, data)
        self._done += len(data)
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
        self._fd = fd

    def read(self, size: int) -> bytes:
        return os.read(self._fd, size)


def write_all(fd: int, data: bytes) -> None:
    """Write all of data.  Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
