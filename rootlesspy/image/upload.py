"""Sending blobs and manifests to a registry: whole, in pieces, or not at all where it has them.

Source: the OCI distribution specification, "Push".
"""

from __future__ import annotations

from rootlesspy.errors import RegistryError
from rootlesspy.image.body import finish
from rootlesspy.image.registry import failure
from rootlesspy.image.transfer import Interrupted
from rootlesspy.image.transport import Content
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from rootlesspy.image.body import Response
    from rootlesspy.image.registry import Client
    from rootlesspy.oci.image_spec import Descriptor
    from rootlesspy.settings import Source

    class Pieces(Protocol):
        """Makes the pieces of a blob from an offset on, each time anew."""

        def __call__(self, offset: int) -> Iterator[bytes]: ...


_SCOPE = "pull,push"
# Below this one request does; above, a broken line costs no more than one part.
_WHOLE_BYTES = 16 << 20
_PART_BYTES = 64 << 20
_MAX_PART_BYTES = 1 << 30
_MAX_BREAKS = 5


class Uploader:
    """Sends to one repository."""

    def __init__(
        self,
        client: Client,
        target: Source,
        *,
        whole_bytes: int = _WHOLE_BYTES,
        part_bytes: int = _PART_BYTES,
    ) -> None:
        self._client = client
        self._target = target
        self._whole_bytes = whole_bytes
        self._part_bytes = part_bytes

    def has(self, digest: str) -> bool:
        """Say whether the repository has a blob.  Raises RegistryError."""
        path = f"blobs/{digest}"
        response = self._client.ask(self._target, path, {}, method="HEAD", scope=_SCOPE)
        try:
            if response.status == 404:
                return False
            if response.status not in (200, 307):
                raise failure(self._target, response, path)
            return True
        finally:
            finish(response)

    def blob(
        self,
        descriptor: Descriptor,
        pieces: Pieces,
        *,
        mount_from: str | None = None,
        advanced: Callable[[int], None],
    ) -> str:
        """Send a blob that the repository lacks; return "mounted" or "sent".

        mount_from is a repository of the same registry that may have it.  Raises RegistryError.
        """
        breaks = 0
        while True:
            try:
                return self._blob(descriptor, pieces, mount_from, advanced)
            except Interrupted:
                breaks += 1
                if breaks > _MAX_BREAKS:
                    raise
                self._client.pause(breaks)

    def manifest(self, reference: str, data: bytes, media_type: str) -> None:
        """Send a manifest under a tag or digest.  Raises RegistryError."""
        path = f"manifests/{reference}"
        response = self._client.ask(
            self._target,
            path,
            {"Content-Type": media_type},
            method="PUT",
            content=Content(len(data), lambda: iter((data,))),
            scope=_SCOPE,
        )
        try:
            if response.status not in (200, 201, 202):
                raise failure(self._target, response, path)
        finally:
            finish(response)

    def _blob(
        self,
        descriptor: Descriptor,
        pieces: Pieces,
        mount_from: str | None,
        advanced: Callable[[int], None],
    ) -> str:
        path = "blobs/uploads/"
        if mount_from is not None:
            path += f"?mount={descriptor.digest}&from={mount_from}"
        response = self._client.ask(
            self._target,
            path,
            {},
            method="POST",
            content=Content(0, lambda: iter(())),
            scope=_SCOPE,
            mount_from=mount_from or "",
        )
        if response.status == 201:
            finish(response)
            return "mounted"
        location = self._next(response, path, 202)
        part_bytes = self._part_size(response)
        if descriptor.size > self._whole_bytes:
            location = self._parts(location, descriptor, pieces, part_bytes, advanced)
            self._close(location, descriptor, Content(0, lambda: iter(())))
        else:
            content = Content(descriptor.size, lambda: _counted(pieces(0), advanced))
            self._close(location, descriptor, content)
        return "sent"

    def _parts(
        self,
        location: str,
        descriptor: Descriptor,
        pieces: Pieces,
        part_bytes: int,
        advanced: Callable[[int], None],
    ) -> str:
        """Send a blob part by part; return where to close it.  Raises RegistryError."""
        at = breaks = 0
        while at < descriptor.size:
            size = min(part_bytes, descriptor.size - at)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{at}-{at + size - 1}",
            }
            start = at
            content = Content(size, lambda: _counted(_first(pieces(start), size), advanced))  # noqa: B023 - used within this turn
            try:
                response = self._client.ask(
                    self._target, location, headers, method="PATCH", content=content, scope=_SCOPE
                )
                location, at = self._next(response, location, 202), at + size
            except Interrupted:
                breaks += 1
                if breaks > _MAX_BREAKS:
                    raise
                self._client.pause(breaks)
                location, at = self._resumed(location)
        return location

    def _resumed(self, location: str) -> tuple[str, int]:
        """Ask how far an upload has come; return where it goes on, and at which byte."""
        response = self._client.ask(self._target, location, {}, scope=_SCOPE)
        first, dash, last = (response.headers.get("Range") or "").partition("-")
        location = self._next(response, location, 204)
        if first != "0" or not dash or not (last.isascii() and last.isdigit()):
            raise Interrupted(f"registry {self._target.registry} lost an upload")
        return location, 0 if last == "0" else int(last) + 1

    def _close(self, location: str, descriptor: Descriptor, content: Content) -> None:
        mark = "&" if "?" in location else "?"
        response = self._client.ask(
            self._target,
            f"{location}{mark}digest={descriptor.digest}",
            {"Content-Type": "application/octet-stream"},
            method="PUT",
            content=content,
            scope=_SCOPE,
        )
        try:
            if response.status not in (201, 204):
                raise failure(self._target, response, "upload")
        finally:
            finish(response)

    def _next(self, response: Response, path: str, expected: int) -> str:
        """Return the Location of an answer.  Raises RegistryError for another status."""
        try:
            if response.status != expected:
                raise failure(self._target, response, "upload")
            location = response.headers.get("Location")
            if location is None:
                raise RegistryError(f"registry {self._target.registry} gave no place for an upload")
            return self._client.location_of(self._target, path, location)
        finally:
            finish(response)

    def _part_size(self, response: Response) -> int:
        """Return how long parts are: longer where the registry wants that."""
        least = response.headers.get("OCI-Chunk-Min-Length") or ""
        if least.isascii() and least.isdigit() and len(least) < 12:
            return min(max(self._part_bytes, int(least)), _MAX_PART_BYTES)
        return self._part_bytes


def _counted(pieces: Iterator[bytes], advanced: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        advanced(len(piece))


def _first(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield the first size bytes."""
    while size > 0 and (piece := next(pieces, b"")):
        yield piece[:size]
        size -= len(piece[:size])


def from_offset(pieces: Iterator[bytes], offset: int) -> Iterator[bytes]:
    """Yield what follows the first offset bytes."""
    for piece in pieces:
        if offset >= len(piece):
            offset -= len(piece)
            continue
        yield piece[offset:]
        offset = 0
