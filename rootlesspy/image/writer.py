"""The one way into the image store: content first, verified and on disk; the name last of all.

A Writer holds the store against the removal of content while it works.  Layers and documents are
renamed to their places when they are complete, and an image enters index.json in one step when all
that it needs is on disk: whoever is killed on the way leaves garbage that the next one removes, and
never half an image.
"""

from __future__ import annotations

import os
import select

from rootlesspy.errors import Error, ImageError
from rootlesspy.image import children, layer, layout, locks, naming
from rootlesspy.image.decompress import Reader, media_suffix
from rootlesspy.image.documents import (
    Described,
    Layer,
    encode,
    has_digest,
    manifest_document,
    sha256,
)
from rootlesspy.image.events import Listener
from rootlesspy.image.progress import NoProgress
from rootlesspy.image.store import Image, Store
from rootlesspy.image.transfer import File, write_all
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux.sync import syncfs
from rootlesspy.oci import image_spec
from rootlesspy.oci.image_spec import Descriptor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from rootlesspy.image.agent import Agent
    from rootlesspy.image.layout import IndexEntry
    from rootlesspy.image.progress import Progress
    from rootlesspy.image.transfer import Origin
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.image_spec import Manifest
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.settings import Source

_MIN_JOBS = 2
_MAX_JOBS = 6
_END_OF_CHILDREN_S = 5.0
_CHUNK = 1 << 18
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Writer:
    """Adds layers and images; to be used in a with statement.

    Entering and leaving raise Error where the store cannot be used, Unsupported for directories
    of somebody else.  Leaving turns an OSError of the body into an Error with a cure.
    """

    def __init__(
        self, paths: Paths, maps: IdMaps, reporter: Reporter, progress: Progress | None = None
    ) -> None:
        self._paths = paths
        self._maps = maps
        self._reporter = reporter
        self._progress: Progress = progress or NoProgress()
        self._held: int | None = None
        self._old_umask = 0

    def __enter__(self) -> Self:
        # Parents that are made on the way must be as private as the rest (SECURITY.md I8).
        self._old_umask = os.umask(0o077)
        try:
            layout.prepare(self._paths)
            self._held = layout.hold(self._paths, exclusive=False)
            locks.sweep(self._paths, self._maps)
        except OSError as error:
            self._let_go()
            raise explained(self._paths, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                # What a killed pull left may have been held by its dying processes before.
                locks.sweep(self._paths, self._maps)
        finally:
            self._let_go()
        if isinstance(error, OSError):
            raise explained(self._paths, error) from error

    def add_layer(self, fd: int) -> Layer:
        """Store the tar archive in fd, compressed or not, as a layer, and unpack it.

        The descriptor is read to its end and stays the caller's.  Raises ImageError, Unsupported,
        Error for a full disk, OSError.
        """
        item = locks.new_item(self._paths)
        try:
            descriptor, diff_id, plain_fd = _spool(fd, item.fd)
            blob = layout.blob_path(self._paths, descriptor.digest)
            layout.install(f"{item.path}/blob", blob)
        finally:
            locks.remove_item(self._paths, item, self._maps)
        job = layer.Job(descriptor, diff_id, vouched=False, plain_fd=plain_fd)
        try:
            self.make_layers([job], None, ())
        finally:
            if plain_fd >= 0:
                os.close(plain_fd)
        return Layer(descriptor, diff_id)

    def add_image(
        self,
        config: dict[str, object],
        layers: Sequence[Layer],
        names: Sequence[str],
        *,
        docker: bool = False,
    ) -> Image:
        """Store an image of layers that are here, base first, and give it names.

        rootfs of the configuration is filled in from the layers.  names are canonical references;
        each is taken from the image that had it.  Raises ImageError, Error, OSError.
        """
        diff_ids = [each.diff_id for each in layers]
        document = {**config, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        config_data = encode(document)
        manifest_data = encode(
            manifest_document(config_data, [each.descriptor for each in layers], docker=docker)
        )
        media_type = image_spec.DOCKER_MANIFEST if docker else image_spec.MANIFEST
        described = Described(manifest_data, sha256(manifest_data), media_type, config_data)
        return self.commit(described, names)

    def commit(
        self,
        described: Described,
        names: Sequence[str],
        *,
        index_digest: str | None = None,
        alias: str | None = None,
    ) -> Image:
        """List an image whose layers are all here under its names.

        Raises ImageError for documents that are malformed, Error, OSError.
        """
        try:
            manifest = image_spec.parse_manifest(described.data, described.media_type)
            config = image_spec.parse_config(described.config_data)
        except image_spec.MalformedError as error:
            raise ImageError(f"image {described.digest}: {error}") from error
        if len(config["rootfs"]["diff_ids"]) != len(manifest.layers):
            raise ImageError(f"image {described.digest}: layers and diff IDs differ in number")
        self.put_document(manifest.config.digest, described.config_data)
        self.put_document(described.digest, described.data)
        self.sync()
        annotations = {layout.SIZE: str(self._size(config["rootfs"]["diff_ids"]))}
        if index_digest is not None:
            annotations[layout.INDEX_DIGEST] = index_digest
        entry: IndexEntry = {
            "mediaType": described.media_type,
            "digest": described.digest,
            "size": len(described.data),
        }
        entries: list[IndexEntry] = []
        for name in names:
            named = {image_spec.REF_NAME: name, **annotations}
            if alias is not None:
                named[layout.ALIAS] = alias
            entries.append({**entry, "annotations": named})
        nameless: IndexEntry = {**entry, "annotations": annotations}
        layout.update_index(
            self._paths,
            lambda old: self._without_doubles(_with(old, entries, nameless), entry, manifest),
        )
        return Store(self._paths).by_digest(described.digest)

    def known(self, config_digest: str) -> Image | None:
        """Return an image of this configuration that is here with all its blobs and layers."""
        store = Store(self._paths)
        for image in store.images():
            if image.id != config_digest or store.layers(image, self._maps) is None:
                continue
            manifest = image_spec.parse_manifest(layout.read_blob(self._paths, image.digest))
            blobs = (layout.blob_path(self._paths, each.digest) for each in manifest.layers)
            if all(os.path.exists(blob) for blob in blobs):
                return image
        return None

    def name(self, image: Image, names: Sequence[str]) -> Image:
        """Give an image that is here more names, in full.  Raises NotFound, OSError."""
        naming.tag(self._paths, image, names)
        return Store(self._paths).by_digest(image.digest)

    def vouched(self) -> frozenset[tuple[str, str]]:
        """Return the (blob, diff ID) pairs of listed images: those were verified."""
        pairs: set[tuple[str, str]] = set()
        for image in Store(self._paths).images():
            manifest = image_spec.parse_manifest(layout.read_blob(self._paths, image.digest))
            digests = [each.digest for each in manifest.layers]
            pairs.update(zip(digests, image.diff_ids, strict=False))
        return frozenset(pairs)

    def make_layers(
        self,
        jobs: Sequence[layer.Job],
        origin: Origin | Agent | None,
        sources: tuple[Source, ...],
    ) -> None:
        """Bring layers in, some at a time, each in a process of its own.

        origin is where blobs that are missing come from.  Raises what layer.make() raises.
        """
        layout.claim_default_maps(self._paths, self._maps)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        listener = Listener(reader, self._progress, self._reporter)
        pending = list(jobs)
        shop = layer.Shop(self._paths, self._maps, origin, sources, writer, len(pending) == 1)
        running: dict[int, children.Child] = {}
        limit = min(max(len(os.sched_getaffinity(0)), _MIN_JOBS), _MAX_JOBS)
        try:
            while pending or running:
                while pending and len(running) < limit:
                    child = _start(pending.pop(0), shop)
                    running[child.result_fd] = child
                ready = select.select([reader, *running], [], [])[0]
                if reader in ready:
                    listener.receive()
                for fd in ready:
                    if fd in running:
                        children.wait(running.pop(fd))
            os.close(writer)
            while listener.receive():
                pass
        except BaseException:
            os.close(writer)
            self._abandon(running, origin, reader)
            raise
        finally:
            os.close(reader)

    def document_here(self, digest: str) -> bytes | None:
        """Return a document of the store if it is whole: a crash may have left an empty file."""
        try:
            data = layout.read_blob(self._paths, digest)
        except ImageError:
            return None
        return data if has_digest(data, digest) else None

    def put_document(self, digest: str, data: bytes) -> None:
        """Put a manifest or configuration among the blobs; raise ImageError for a wrong digest."""
        if not has_digest(data, digest):
            raise ImageError(f"digest mismatch: a document of {digest} is another one")
        if self.document_here(digest) is not None:
            return
        path = layout.blob_path(self._paths, digest)
        item = locks.new_item(self._paths)
        try:
            layout.write_file(f"{item.path}/blob", data, durable=False)
            layout.install(f"{item.path}/blob", path)
        finally:
            locks.remove_item(self._paths, item, self._maps)

    def _without_doubles(
        self, entries: list[IndexEntry], new: IndexEntry, manifest: Manifest
    ) -> list[IndexEntry]:
        """Leave out nameless entries of the same image, of which another manifest was here."""
        return [
            entry
            for entry in entries
            if entry["digest"] == new["digest"]
            or image_spec.REF_NAME in entry.get("annotations", {})
            or self._config_digest(entry) != manifest.config.digest
        ]

    def _config_digest(self, entry: IndexEntry) -> str | None:
        try:
            data = layout.read_blob(self._paths, entry["digest"])
            return image_spec.parse_manifest(data).config.digest
        except (ImageError, image_spec.MalformedError):
            return None

    def _size(self, diff_ids: Sequence[str]) -> int:
        suffix = layout.maps_suffix(self._paths, self._maps)
        return sum(
            layout.layer_size(self._paths, diff_id, suffix) for diff_id in dict.fromkeys(diff_ids)
        )

    def sync(self) -> None:
        """Wait once for everything that the index is about to promise, renames included."""
        held = os.open(self._paths.images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(held)
        finally:
            os.close(held)

    def _abandon(
        self, running: dict[int, children.Child], origin: Origin | Agent | None, reader: int
    ) -> None:
        """End what still runs, wait until it is gone, and remove what it leaves."""
        for child in running.values():
            children.kill(child)
        if origin is not None:
            origin.forget_connections()
        # Every descendant holds the other end of this pipe; they die with the jobs.
        while select.select([reader], [], [], _END_OF_CHILDREN_S)[0] and os.read(reader, 65536):
            pass
        killed = {child.pid for child in running.values()}
        locks.sweep_after(self._paths, self._maps, killed, _END_OF_CHILDREN_S)

    def _let_go(self) -> None:
        os.umask(self._old_umask)
        if self._held is not None:
            os.close(self._held)
            self._held = None


def jobs_for(
    layers: Sequence[Descriptor], diff_ids: Sequence[str], vouched: frozenset[tuple[str, str]]
) -> list[layer.Job]:
    """Pair layers with their diff IDs, each pair once."""
    pairs = dict.fromkeys(zip(layers, diff_ids, strict=True))
    return [
        layer.Job(descriptor, diff_id, (descriptor.digest, diff_id) in vouched)
        for descriptor, diff_id in pairs
    ]


def explained(paths: Paths, error: OSError) -> Error:
    """Turn what the kernel refused into words with a cure."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return layout.no_space(paths, 0)
    if error.errno == errno.EROFS:
        return Error(f"{paths.data} is on a read-only file system", hint="set XDG_DATA_HOME")
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return Error(f"image store: {where}{error.strerror}", hint=f"ls -la {paths.data}")


def _start(job: layer.Job, shop: layer.Shop) -> children.Child:
    return children.fork(lambda: layer.make(job, shop))


def _with(old: list[IndexEntry], named: list[IndexEntry], nameless: IndexEntry) -> list[IndexEntry]:
    for entry in named:
        old = layout.with_entry(old, entry)
    if named or any(entry["digest"] == nameless["digest"] for entry in old):
        return old
    return [*old, nameless]


def _spool(fd: int, item_fd: int) -> tuple[Descriptor, str, int]:
    """Copy everything to "blob" of an item; return what a manifest calls it, and its diff ID.

    Last comes the file itself where it is plain tar, for the caller to close, else -1.
    """
    blob_fd = os.open("blob", _NEW_FILE, 0o600, dir_fd=item_fd)
    kept_fd = -1
    try:
        digest, size = _copy(File(fd), blob_fd)
        os.lseek(blob_fd, 0, os.SEEK_SET)
        reader = Reader(File(blob_fd))
        suffix = media_suffix(reader.format)
        if suffix:
            diff_id, _ = _copy(reader, None)
            return Descriptor(f"{_LAYER_TYPE}{suffix}", digest, size), diff_id, -1
        if suffix is None:
            # No media type says xz or bzip2.
            os.unlink("blob", dir_fd=item_fd)
            plain_fd = os.open("blob", _NEW_FILE, 0o600, dir_fd=item_fd)
            blob_fd, packed_fd = plain_fd, blob_fd
            try:
                digest, size = _copy(reader, blob_fd)
            finally:
                os.close(packed_fd)
        kept_fd = blob_fd
        return Descriptor(_LAYER_TYPE, digest, size), digest, kept_fd
    finally:
        if kept_fd < 0:
            os.close(blob_fd)


def _copy(source: File | Reader, out_fd: int | None) -> tuple[str, int]:
    """Read a source to its end; return digest and size.  Raises ImageError, OSError."""
    import hashlib

    digest, size = hashlib.sha256(), 0
    while data := source.read(_CHUNK):
        digest.update(data)
        size += len(data)
        if size > image_spec.MAX_BLOB_BYTES:
            raise ImageError(f"layer is longer than {image_spec.MAX_BLOB_BYTES} bytes")
        if out_fd is not None:
            write_all(out_fd, data)
    return f"sha256:{digest.hexdigest()}", size
