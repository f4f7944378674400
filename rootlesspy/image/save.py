"""Writing images to archives and directories, in the forms that other tools read.

Blobs go from where they are to where they go as a stream, verified on the way; what could not be
written whole is taken away again.  Sources: OCI image-spec image-layout.md; moby image/spec v1.2;
containers-transports(5).
"""

from __future__ import annotations

import hashlib
import os

from rootlesspy.errors import Conflict, Error, ImageError
from rootlesspy.image import children, documents, layout
from rootlesspy.image.decompress import Reader
from rootlesspy.image.files import DirectoryFiles, Saved
from rootlesspy.image.saved import Original
from rootlesspy.image.transfer import File, chunks, pipe, verified, write_all
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, Protocol
from rootlesspy.oci import image_spec
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rootlesspy.image.store import Image
    from rootlesspy.image.tarwrite import TarWriter
    from rootlesspy.image.transfer import Origin
    from rootlesspy.oci.image_spec import Descriptor
    from rootlesspy.paths import Paths

_CHUNK = 1 << 18


class Copyable(NamedTuple):
    """An image wherever it is, and how to get at its blobs."""

    original: Original
    origin: Origin
    sources: tuple[Source, ...]
    plain_size: Callable[[str], int] = lambda diff_id: 0
    """Returns how long a layer is when it is not compressed, by its diff ID; 0: nobody knows."""

    def blob(self, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield a blob, verified.  Raises ImageError, NotFound, RegistryError."""
        return verified(descriptor, self.origin, self.sources)


class Target(Protocol):
    """Where files of a saved image go: a tar archive or a directory."""

    def add(self, name: str, data: bytes) -> None: ...

    def add_stream(self, name: str, size: int, pieces: Iterable[bytes]) -> None: ...


def stored(paths: Paths, image: Image) -> Copyable:
    """Return an image of the store.  Raises ImageError when it is damaged."""
    data = layout.read_blob(paths, image.digest)
    try:
        manifest = image_spec.parse_manifest(data)
    except image_spec.MalformedError as error:
        raise ImageError(f"blob {image.digest} of the store: {error}") from error
    config_data = layout.read_blob(paths, manifest.config.digest)
    blobs = {
        each.digest: f"blobs/{each.digest.replace(':', '/')}"
        for each in (manifest.config, *manifest.layers)
    }
    original = Original(data, image.digest, manifest, config_data, image.config, blobs, image.names)
    origin = Saved(DirectoryFiles(paths.images), blobs)
    sources = (Source("the store", "", False),)
    return Copyable(original, origin, sources, lambda each: layout.archive_size(paths, each))


def docker_archive(tar: TarWriter, images: Sequence[tuple[Copyable, Sequence[str]]]) -> None:
    """Write images, each with its names, as docker load reads them.

    Raises ImageError, Error, OSError.
    """
    written: set[str] = set()
    described: list[dict[str, object]] = []
    repositories: dict[str, dict[str, str]] = {}
    for image, names in images:
        original = image.original
        for layer, diff_id in zip(original.manifest.layers, original.diff_ids, strict=True):
            if diff_id not in written:
                written.add(diff_id)
                _add_plain(tar, image, layer, diff_id)
        config_name = f"{_hex(original.manifest.config.digest)}.json"
        if config_name not in written:
            written.add(config_name)
            tar.add(config_name, original.config_data)
        tops = [_hex(diff_id) for diff_id in original.diff_ids]
        described.append(
            {
                "Config": config_name,
                "RepoTags": list(names),
                "Layers": [f"{top}.tar" for top in tops],
            }
        )
        for name in names:
            repository, _, tag = name.rpartition(":")
            repositories.setdefault(repository, {})[tag] = tops[-1] if tops else ""
    tar.add("repositories", documents.encode(repositories))
    tar.add("manifest.json", documents.encode(described))
    tar.finish()


def oci_archive(tar: TarWriter, images: Sequence[tuple[Copyable, Sequence[str]]]) -> None:
    """Write an OCI layout as a tar archive.  Raises ImageError, Error, OSError."""
    # Others unpack the archive and want to own what they make.
    for name in ("blobs", "blobs/sha256"):
        tar.add_directory(name)
    oci_layout(tar, images)
    tar.finish()


def oci_layout(
    target: Target,
    images: Sequence[tuple[Copyable, Sequence[str]]],
    *,
    old: Sequence[dict[str, object]] = (),
) -> None:
    """Write images, each with its names, as an OCI image layout that has the old entries already.

    Manifests of Docker's kind become OCI ones; configurations stay as they are, so that an image
    keeps its id.  Raises ImageError, Error, OSError.
    """
    written: set[str] = set()
    entries: list[dict[str, object]] = []
    for image, names in images:
        original = as_oci(image.original)
        add_to_layout(target, image, original, written)
        entry: dict[str, object] = {
            "mediaType": image_spec.MANIFEST,
            "digest": original.digest,
            "size": len(original.data),
        }
        named = [{**entry, "annotations": {image_spec.REF_NAME: name}} for name in names]
        entries += named or [entry]
    finish_layout(target, entries, old)


def add_to_layout(target: Target, image: Copyable, original: Original, written: set[str]) -> None:
    """Write the blobs of an image that are not written yet, its manifest last.

    Raises ImageError, Error, OSError.
    """
    for layer in original.manifest.layers:
        if layer.digest not in written:
            written.add(layer.digest)
            target.add_stream(_blob_name(layer.digest), layer.size, image.blob(layer))
    config = original.manifest.config
    for digest, data in (
        (config.digest, original.config_data), (original.digest, original.data)
    ):  # fmt: skip
        if digest not in written:
            written.add(digest)
            target.add(_blob_name(digest), data)


def finish_layout(
    target: Target, entries: Sequence[dict[str, object]], old: Sequence[dict[str, object]]
) -> None:
    """Write the index of a layout, last, as it promises the rest."""
    entries = [*(each for each in old if not _is_replaced(each, entries)), *entries]
    target.add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    index = {"schemaVersion": 2, "mediaType": image_spec.INDEX, "manifests": entries}
    target.add("index.json", documents.encode(index))


def _is_replaced(old: dict[str, object], entries: Sequence[dict[str, object]]) -> bool:
    """Say whether a new entry has the name of an old one, or is the same without a name."""
    annotations = old.get("annotations")
    name = annotations.get(image_spec.REF_NAME) if isinstance(annotations, dict) else None
    for entry in entries:
        named = entry.get("annotations")
        if isinstance(named, dict):
            if named.get(image_spec.REF_NAME) == name:
                return True
        elif name is None and entry["digest"] == old.get("digest"):
            return True
    return False


def directory(target: Target, image: Copyable, *, docker: bool | None = None) -> None:
    """Write an image as skopeo's dir: does; docker chooses the kind of manifest.

    Raises ImageError, Error, OSError.
    """
    original = image.original
    if docker is not None:
        original = as_docker(original) if docker else as_oci(original)
    target.add("version", b"Directory Transport Version: 1.1\n")
    add_to_directory(target, image, original, set())
    target.add("manifest.json", original.data)


def add_to_directory(
    target: Target, image: Copyable, original: Original, written: set[str]
) -> None:
    """Write the blobs of an image that are not written yet.  Raises ImageError, Error, OSError."""
    for layer in original.manifest.layers:
        if layer.digest not in written:
            written.add(layer.digest)
            target.add_stream(_hex(layer.digest), layer.size, image.blob(layer))
    if original.manifest.config.digest not in written:
        written.add(original.manifest.config.digest)
        target.add(_hex(original.manifest.config.digest), original.config_data)


def as_oci(original: Original) -> Original:
    """Return an image with an OCI manifest; config and layers are the same blobs."""
    if original.manifest.media_type == image_spec.MANIFEST:
        return original
    return _converted(original, docker=False)


def as_docker(original: Original) -> Original:
    """Return an image with a Docker schema 2 manifest; config and layers are the same blobs."""
    if original.manifest.media_type == image_spec.DOCKER_MANIFEST:
        return original
    return _converted(original, docker=True)


def _converted(original: Original, *, docker: bool) -> Original:
    document = documents.manifest_document(
        original.config_data, original.manifest.layers, docker=docker
    )
    data = documents.encode(document)
    manifest = image_spec.parse_manifest(data)
    return original._replace(data=data, digest=documents.sha256(data), manifest=manifest)


class DirectoryTarget:
    """A directory that is made, or that is empty; each file is written whole or not at all."""

    def __init__(self, path: str, *, add: bool = False) -> None:
        """Raises Conflict when there is something already, unless it is to be added to, OSError."""
        os.makedirs(path, exist_ok=True)
        if not add and os.listdir(path):
            raise Conflict(f"{path} is not empty", hint="name a directory that does not exist yet")
        self._path = path

    def add(self, name: str, data: bytes) -> None:
        """Write a file that is in memory."""
        self.add_stream(name, len(data), (data,))

    def add_stream(self, name: str, size: int, pieces: Iterable[bytes]) -> None:
        """Write a file.  Raises Error when another number of bytes came, OSError."""
        path = f"{self._path}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_file(path, lambda fd: _write_pieces(fd, name, size, pieces))


def write_file(path: str, write: Callable[[int], None]) -> None:
    """Make or replace a file by what write puts into a descriptor; all of it or nothing.

    What is not a plain file (a pipe, /dev/stdout) is written to directly.  Raises OSError.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            write(fd)
        finally:
            os.close(fd)
        return
    path = os.path.realpath(path)
    temporary = f"{path}.{os.urandom(4).hex()}.new"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o666)
    try:
        write(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _write_pieces(fd: int, name: str, size: int, pieces: Iterable[bytes]) -> None:
    written = 0
    for piece in pieces:
        write_all(fd, piece)
        written += len(piece)
    if written != size:
        raise Error(f"{name} has {written} bytes instead of {size}")


def _add_plain(tar: TarWriter, image: Copyable, layer: Descriptor, diff_id: str) -> None:
    """Add a layer uncompressed.  Raises ImageError when it is not what the diff ID says."""
    name = f"{_hex(diff_id)}.tar"
    if layer.digest == diff_id:
        tar.add_stream(name, layer.size, image.blob(layer))
    elif tar.can_seek:
        tar.add_unmeasured(name, plain(image, layer, diff_id))
    else:
        size = image.plain_size(diff_id) or sum(map(len, plain(image, layer, diff_id)))
        tar.add_stream(name, size, plain(image, layer, diff_id))


def plain(image: Copyable, layer: Descriptor, diff_id: str) -> Iterator[bytes]:
    """Yield a layer decompressed; raise ImageError at the end of one that is another.

    Its diff ID vouches for it, whatever the compressed form was.  Decompressing is done in a
    process of its own beside whatever the caller does with the content.
    """
    digest = hashlib.new(diff_id.partition(":")[0])
    reader, writer = pipe()
    try:
        child = children.fork(lambda: _decompress(image, layer, reader, writer))
    finally:
        os.close(writer)
    source = File(reader)
    try:
        while data := source.read(_CHUNK):
            digest.update(data)
            yield data
    except BaseException:
        os.close(reader)
        children.kill(child)
        raise
    os.close(reader)
    children.wait(child)
    if f"{digest.name}:{digest.hexdigest()}" != diff_id:
        raise ImageError(f"layer {layer.digest}: diff ID mismatch: it is not {diff_id}")


def _decompress(image: Copyable, layer: Descriptor, reader: int, writer: int) -> None:
    os.close(reader)
    image.origin.forget_connections()
    source = Reader(_Pieces(chunks(layer, image.origin, image.sources)))
    while data := source.read(_CHUNK):
        write_all(writer, data)


class _Pieces:
    """Pieces of a blob as a source to decompress."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
