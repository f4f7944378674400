"""An index with everything that it lists, wherever it is: read, converted, kept, written.

Instances are images, or artifacts such as attestations, which are only copied.  What an index
lists has been verified against it when it is here.
"""

from __future__ import annotations

import os

from rootlesspy.errors import ImageError, UsageError
from rootlesspy.image import compress, layout, locks, manifest_list, push, save, saved, upload
from rootlesspy.image.documents import has_digest, sha256
from rootlesspy.image.files import DirectoryFiles, Saved, read_document
from rootlesspy.image.save import Copyable
from rootlesspy.image.saved import Original
from rootlesspy.image.transfer import write_all
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple, cast
from rootlesspy.oci import image_spec
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.image.files import Files
    from rootlesspy.image.lookup import Finder
    from rootlesspy.image.manifest_list import Document
    from rootlesspy.image.progress import Progress
    from rootlesspy.image.reference import Reference
    from rootlesspy.image.registry import Client
    from rootlesspy.image.save import Target
    from rootlesspy.image.writer import Writer
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.oci.image_spec import Descriptor, ImageConfig
    from rootlesspy.paths import Paths

_STORE = "the store"
_MAX_INSTANCES = 500


class Group(NamedTuple):
    """An index; instances in its order, none where only the index itself is meant."""

    data: bytes
    media_type: str
    instances: tuple[Copyable, ...]
    sources: tuple[Source, ...] = ()
    """Where in registries it was found."""

    @property
    def digest(self) -> str:
        """The digest of the index."""
        return sha256(self.data)

    def document(self) -> Document:
        """Return the index."""
        return manifest_list.parse(self.data, self.media_type)


# --- reading -----------------------------------------------------------------------------------


def of_files(files: Files, wanted: str | None, *, whole: bool = True) -> Group | None:
    """Return the index that a layout or dir: directory holds; None for a plain image.

    wanted chooses one of a layout by its name; whole is False for the index alone.  Raises
    ImageError, NotFound.
    """
    try:
        manifest = read_document(files, "manifest.json")
        if manifest is not None:
            if b'"manifests"' not in manifest or manifest.lstrip()[:1] == b"[":
                return None
            read = _from_directory
            return _of_index(manifest, None, lambda entry: read(files, entry), whole=whole)
        index = read_document(files, "index.json")
        entries = () if index is None else image_spec.parse_index(index)
        found = [each for each in entries if wanted in (None, *_names(each))]
        if len(found) != 1 or found[0].media_type not in image_spec.INDEX_TYPES:
            return None
        return of_layout(files, found[0], whole=whole)
    except image_spec.MalformedError as error:
        raise ImageError(f"{files.where}: {error}") from error


def of_layout(files: Files, entry: Descriptor, *, whole: bool = True) -> Group:
    """Return an index of a layout.  Raises ImageError."""
    return _of_index(
        saved.document(files, entry),
        entry.media_type,
        lambda each: _from_layout(files, each),
        whole=whole,
    )


def of_store(paths: Paths, data: bytes, media_type: str, *, whole: bool = True) -> Group:
    """Return an index of the store.  Raises ImageError when something is missing of it."""
    files = DirectoryFiles(paths.images)
    files.where = _STORE
    return _of_index(data, media_type, lambda each: _from_layout(files, each), whole=whole)


def of_registry(
    client: Client, finder: Finder, reference: Reference, *, whole: bool = True
) -> Group | None:
    """Return the index that a name leads to in a registry; None for a plain image.

    Raises NotFound, RegistryError, ImageError.
    """
    document, sources = finder.top(reference)
    if document.media_type not in image_spec.INDEX_TYPES:
        return None

    def read(entry: Descriptor) -> Copyable:
        data = finder.first_document(sources, entry.digest, reference)[0].data
        _check(data, entry, str(reference))
        manifest = image_spec.parse_any_manifest(data, entry.media_type)
        config_data = finder.config_data(sources, manifest.config)
        original = _original(data, entry, config_data, {})
        return Copyable(original, client, sources)

    try:
        found = _of_index(document.data, document.media_type, read, whole=whole)
    except image_spec.MalformedError as error:
        raise ImageError(f"{reference}: {error}") from error
    return found._replace(sources=sources)


def of_image(image: Copyable) -> Document:
    """Return what an index says of an image."""
    original = image.original
    platform = image_spec.platform_of(original.config) if is_image(original) else None
    more: dict[str, Any] = {}
    document = cast("dict[str, Any]", original.config)
    for member in ("os.version", "os.features"):
        if platform is not None and document.get(member):
            more[member] = document[member]
    return manifest_list.entry(
        original.manifest.media_type, original.digest, len(original.data), platform, more
    )


def is_image(original: Original) -> bool:
    """Say whether this can be unpacked and run."""
    layers = original.manifest.layers
    return (
        original.manifest.config.media_type in image_spec.CONFIG_TYPES
        and all(each.media_type in image_spec.LAYER_TYPES for each in layers)
        and len(original.diff_ids) == len(layers)
    )


def _of_index(
    data: bytes, media_type: str | None, read: Callable[[Descriptor], Copyable], *, whole: bool
) -> Group:
    entries = image_spec.parse_index(data, media_type)
    if len(entries) > _MAX_INSTANCES:
        raise image_spec.MalformedError(f"index lists {len(entries)} images")
    kind = manifest_list.media_type_of(manifest_list.parse(data, media_type))
    for entry in entries if whole else ():
        if entry.media_type in image_spec.INDEX_TYPES:
            raise image_spec.MalformedError("an index in an index is not supported")
    return Group(data, kind, tuple(read(entry) for entry in entries) if whole else ())


def _from_layout(files: Files, entry: Descriptor) -> Copyable:
    data = saved.document(files, entry)
    manifest = image_spec.parse_any_manifest(data, entry.media_type)
    config_data = saved.document(files, manifest.config)
    each = (manifest.config, *manifest.layers)
    blobs = {one.digest: f"blobs/{one.digest.replace(':', '/')}" for one in each}
    original = _original(data, entry, config_data, blobs)
    return Copyable(original, Saved(files, blobs), (Source(files.where, "", False),))


def _from_directory(files: Files, entry: Descriptor) -> Copyable:
    data = read_document(files, f"{_hex(entry.digest)}.manifest.json")
    if data is None:
        raise ImageError(f"{files.where} lacks the manifest {entry.digest}")
    _check(data, entry, files.where)
    manifest = image_spec.parse_any_manifest(data, entry.media_type)
    each = (manifest.config, *manifest.layers)
    blobs = {one.digest: _hex(one.digest) for one in each}
    config_data = read_document(files, blobs[manifest.config.digest])
    if config_data is None or not has_digest(config_data, manifest.config.digest):
        raise ImageError(f"{files.where} lacks configuration {manifest.config.digest}")
    original = _original(data, entry, config_data, blobs)
    return Copyable(original, Saved(files, blobs), (Source(files.where, "", False),))


def _original(
    data: bytes, entry: Descriptor, config_data: bytes, blobs: dict[str, str]
) -> Original:
    manifest = image_spec.parse_any_manifest(data, entry.media_type)
    try:
        config = image_spec.parse_config(config_data)
    except image_spec.MalformedError:
        # An artifact's may be anything; an image's is read again before it is used.
        config = cast("ImageConfig", {"rootfs": {"type": "layers", "diff_ids": []}})
    return Original(data, entry.digest, manifest, config_data, config, blobs)


def _check(data: bytes, entry: Descriptor, where: str) -> None:
    if len(data) != entry.size or not has_digest(data, entry.digest):
        raise ImageError(f"{where}: its index describes another manifest than {entry.digest}")


def _names(entry: Descriptor) -> tuple[str | None, ...]:
    annotations = dict(entry.annotations)
    return annotations.get(image_spec.REF_NAME), annotations.get("io.containerd.image.name")


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


# --- converting --------------------------------------------------------------------------------


def converted(group: Group, *, docker: bool) -> Group:
    """Return an index and its images in OCI's or Docker's form.  Raises UsageError."""
    document = group.document()
    made = []
    for image in group.instances:
        if docker and not is_image(image.original):
            raise UsageError(
                f"{image.original.digest} is an artifact, which v2s2 cannot hold",
                hint="--format oci",
            )
        convert = save.as_docker if docker else save.as_oci
        new = image._replace(original=convert(image.original))
        document = _with(document, image.original.digest, new)
        made.append(new)
    document = manifest_list.as_kind(document, docker=docker)
    data = manifest_list.encode(document)
    return Group(data, manifest_list.media_type_of(document), tuple(made))


def compressed(paths: Paths, group: Group, form: str, level: int | None, *, force: bool) -> Group:
    """Return an index whose images' layers are compressed; see compress.compressed()."""
    document = group.document()
    made = []
    for image in group.instances:
        new = image
        if is_image(image.original):
            new = compress.compressed(paths, image, form, level, force=force)
        document = _with(document, image.original.digest, new)
        made.append(new)
    if tuple(made) == group.instances:
        return group
    return group._replace(data=manifest_list.encode(document), instances=tuple(made))


def _with(document: Document, old: str, new: Copyable) -> Document:
    original = new.original
    return manifest_list.replaced(
        document,
        old,
        {
            "mediaType": original.manifest.media_type,
            "digest": original.digest,
            "size": len(original.data),
        },
    )


# --- writing -----------------------------------------------------------------------------------


def to_registry(
    client: Client,
    group: Group,
    target: Source,
    reference: str,
    *,
    elsewhere: Mapping[str, str],
    progress: Progress,
) -> None:
    """Send images and then their index.  Raises RegistryError, NotFound, ImageError."""
    for image in group.instances:
        push.push(
            client, image, target, image.original.digest, elsewhere=elsewhere, progress=progress
        )
    upload.Uploader(client, target).manifest(reference, group.data, group.media_type)


def to_layout(target: Target, group: Group, name: str, old: list[dict[str, object]]) -> None:
    """Write images and index, which are OCI's, as an OCI layout."""
    written: set[str] = set()
    for image in group.instances:
        save.add_to_layout(target, image, image.original, written)
    target.add(f"blobs/{group.digest.replace(':', '/')}", group.data)
    entry: dict[str, object] = {
        "mediaType": group.media_type,
        "digest": group.digest,
        "size": len(group.data),
    }
    if name:
        entry["annotations"] = {image_spec.REF_NAME: name}
    save.finish_layout(target, [entry], old)


def to_directory(target: Target, group: Group) -> None:
    """Write images and index as skopeo's dir: does."""
    target.add("version", b"Directory Transport Version: 1.1\n")
    written: set[str] = set()
    for image in group.instances:
        save.add_to_directory(target, image, image.original, written)
        target.add(f"{_hex(image.original.digest)}.manifest.json", image.original.data)
    target.add("manifest.json", group.data)


def keep(paths: Paths, maps: IdMaps, writer: Writer, image: Copyable, progress: Progress) -> None:
    """Put the blobs of an image into the store, not unpacked, its manifest last.

    The caller holds the store and lists what needs them.  Raises ImageError, NotFound,
    RegistryError, OSError.
    """
    original = image.original
    for layer in dict.fromkeys(original.manifest.layers):
        _keep_blob(paths, maps, image, layer, progress)
    writer.put_document(original.manifest.config.digest, original.config_data)
    writer.put_document(original.digest, original.data)


def _keep_blob(
    paths: Paths, maps: IdMaps, image: Copyable, blob: Descriptor, progress: Progress
) -> None:
    short = _hex(blob.digest)[:12]
    path = layout.blob_path(paths, blob.digest)
    lock = locks.lock_blob(paths, blob.digest, lambda pid: None)
    try:
        # Blobs are renamed into place when they have been verified; a crash can only cut them.
        if os.path.exists(path) and os.path.getsize(path) == blob.size:
            return
        progress.start(short, short, blob.size)
        item = locks.new_item(paths)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open("blob", flags, 0o600, dir_fd=item.fd)
            try:
                for piece in image.blob(blob):
                    write_all(fd, piece)
                    progress.advance(short, len(piece))
                os.fsync(fd)
            finally:
                os.close(fd)
            layout.install(f"{item.path}/blob", path)
        finally:
            locks.remove_item(paths, item, maps)
        progress.finish(short)
    finally:
        lock.release()
