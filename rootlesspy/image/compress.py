"""Compressing layers on their way to another place, or decompressing them."""

from __future__ import annotations

import hashlib
import os
import zlib

from rootlesspy.errors import NotFound
from rootlesspy.image.documents import encode, manifest_document, sha256
from rootlesspy.image.files import Extent, Part
from rootlesspy.image.save import Copyable, plain
from rootlesspy.image.transfer import write_all
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.oci import image_spec
from rootlesspy.oci.image_spec import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rootlesspy.image.transfer import BlobBody, Origin
    from rootlesspy.paths import Paths
    from rootlesspy.settings import Source

FORMATS = ("gzip", "zstd")
NONE = "none"
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
_CHUNK = 1 << 18


def compressed(
    paths: Paths, image: Copyable, form: str, level: int | None, *, force: bool
) -> Copyable:
    """Return an image whose layers are compressed; with force those that are in another form too.

    form "none", which needs force, decompresses.

    What is made lies in unlinked files of the store.  Raises ImageError, OSError.
    """
    manifest = image.original.manifest
    made: dict[str, Extent] = {}
    layers = []
    for layer, diff_id in zip(manifest.layers, image.original.diff_ids, strict=True):
        old = next((each for each in FORMATS if layer.media_type.endswith(each)), NONE)
        if old != form and (force or old == NONE):
            descriptor, extent = _compress(paths, image, layer, diff_id, form, level)
            made[descriptor.digest] = extent
            layers.append(descriptor)
        else:
            layers.append(layer)
    if not made:
        return image
    docker = manifest.media_type == image_spec.DOCKER_MANIFEST
    data = encode(manifest_document(image.original.config_data, layers, docker=docker))
    original = image.original._replace(
        data=data, digest=sha256(data), manifest=image_spec.parse_manifest(data)
    )
    return Copyable(original, _Overlaid(image.origin, made), image.sources)


class _Overlaid:
    """An origin in front of which some blobs are put."""

    def __init__(self, origin: Origin, extents: dict[str, Extent]) -> None:
        self._origin = origin
        self._extents = extents

    def forget_connections(self) -> None:
        self._origin.forget_connections()

    def blob(self, source: Source, digest: str, *, offset: int, size: int) -> BlobBody:
        extent = self._extents.get(digest)
        if extent is None:
            return self._origin.blob(source, digest, offset=offset, size=size)
        if extent.size != size:
            raise NotFound(f"blob {digest} has another size")
        return Part(extent, offset, "the store")

    def pause(self, attempt: int) -> None:
        self._origin.pause(attempt)


def _compress(
    paths: Paths, image: Copyable, layer: Descriptor, diff_id: str, form: str, level: int | None
) -> tuple[Descriptor, Extent]:
    flags = os.O_RDWR | os.O_TMPFILE | os.O_EXCL | os.O_CLOEXEC
    # Closed with the process: it ends with the push.
    fd = os.open(paths.tmp, flags, 0o600)
    digest, size = hashlib.sha256(), 0
    pieces = plain(image, layer, diff_id)
    if form != NONE:
        pieces = _gzip(pieces, level) if form == "gzip" else _zstd(pieces, level)
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        write_all(fd, piece)
    media_type = "application/vnd.oci.image.layer.v1.tar" + (f"+{form}" if form != NONE else "")
    return (
        Descriptor(media_type, f"sha256:{digest.hexdigest()}", size),
        Extent(fd, 0, size),
    )


def _gzip(pieces: Iterable[bytes], level: int | None) -> Iterator[bytes]:
    """Compress without names and times, so that the same layer gives the same blob."""
    deflate = zlib.compressobj(_GZIP_LEVEL if level is None else level, wbits=31)
    for piece in pieces:
        if data := deflate.compress(piece):
            yield data
    yield deflate.flush()


def _zstd(pieces: Iterable[bytes], level: int | None) -> Iterator[bytes]:
    import zstandard

    maker: Any = zstandard.ZstdCompressor(level=_ZSTD_LEVEL if level is None else level)
    deflate = maker.compressobj()
    for piece in pieces:
        if data := deflate.compress(piece):
            yield data
    yield deflate.flush()
