"""Images that are saved somewhere: in an OCI layout, a docker archive or a dir: directory.

Each becomes what a registry would have sent: a manifest, a configuration, and blobs by digest.
A docker archive has no manifest; one is made for it, as other tools do.  Nothing is believed:
digests are compared when the blobs are read, and sizes before.

Sources: OCI image-spec image-layout.md; moby image/spec v1.2; containers-transports(5).
"""

from __future__ import annotations

import hashlib

from rootlesspy.errors import ImageError, NotFound, UsageError
from rootlesspy.image import platforms
from rootlesspy.image.documents import encode, has_digest, manifest_document, sha256
from rootlesspy.image.files import Part, read_document
from rootlesspy.image.reference import parse, parse_local
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.oci import image_spec
from rootlesspy.oci.image_spec import Descriptor

if TYPE_CHECKING:
    from rootlesspy.image.files import Files
    from rootlesspy.oci.image_spec import ImageConfig, Manifest

_CONTAINERD_NAME = "io.containerd.image.name"
_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_CHUNK = 1 << 18
_MAX_IMAGES = 1000


class Original(NamedTuple):
    """An image as it is saved: documents, where its blobs are, and the names it claims."""

    data: bytes
    digest: str
    manifest: Manifest
    config_data: bytes
    config: ImageConfig
    blobs: dict[str, str]
    names: tuple[str, ...] = ()
    index_digest: str | None = None
    is_made_up: bool = False
    """The manifest is rp's: the place has none."""

    @property
    def diff_ids(self) -> list[str]:
        """The diff IDs of the layers."""
        return self.config["rootfs"]["diff_ids"]


def images(files: Files, platform: str | None = None, wanted: str | None = None) -> list[Original]:
    """Return the images that files hold, for this machine or the platform.

    wanted chooses one by the name it has there.  Raises ImageError for what is malformed, NotFound.
    """
    try:
        manifest = read_document(files, "manifest.json")
        if manifest is not None and manifest.lstrip()[:1] == b"[":
            found = _docker_archive(files, manifest, wanted)
        elif manifest is not None:
            found = [_directory(files, manifest)]
        elif read_document(files, "index.json") is not None:
            found = _layout(files, platform, wanted)
        else:
            raise ImageError(
                f"{files.where} holds no image: neither index.json nor manifest.json",
                hint="rp import makes an image of a tar archive of a file system",
            )
    except image_spec.MalformedError as error:
        raise ImageError(f"{files.where}: {error}") from error
    if not found:
        what = f"image {wanted}" if wanted else "image"
        raise NotFound(f"{files.where} holds no {what}")
    return found


# --- OCI layout ------------------------------------------------------------------------------


def _layout(files: Files, platform: str | None, wanted: str | None) -> list[Original]:
    if read_document(files, "oci-layout") is None:
        raise ImageError(f"{files.where} is not an OCI layout: it has no oci-layout")
    index = read_document(files, "index.json") or b""
    found: dict[str, Original] = {}
    for entry in image_spec.parse_index(index)[:_MAX_IMAGES]:
        annotations = dict(entry.annotations)
        name = annotations.get(_CONTAINERD_NAME) or annotations.get(image_spec.REF_NAME)
        if wanted is not None and wanted not in (name, annotations.get(image_spec.REF_NAME)):
            continue
        if entry.platform == "unknown/unknown":
            # Attestations of docker buildx.
            continue
        index_digest = None
        if entry.media_type in image_spec.INDEX_TYPES:
            index_digest = entry.digest
            data = document(files, entry)
            chosen = platforms.choose_from(
                image_spec.parse_index(data, entry.media_type), platform, files.where
            )
            original = _original(files, chosen, index_digest)
        else:
            original = _original(files, entry, None)
        names = (*(found[original.digest].names if original.digest in found else ()), name)
        found[original.digest] = original._replace(names=tuple(each for each in names if each))
    return [each._replace(names=_understood(each.names, local=True)) for each in found.values()]


def _original(files: Files, entry: Descriptor, index_digest: str | None) -> Original:
    data = document(files, entry)
    manifest = image_spec.parse_manifest(data, entry.media_type)
    config_data = document(files, manifest.config)
    blobs = {each.digest: blob_name(each.digest) for each in (manifest.config, *manifest.layers)}
    return _checked(
        Original(
            data,
            entry.digest,
            manifest,
            config_data,
            image_spec.parse_config(config_data),
            blobs,
            index_digest=index_digest,
        ),
        files.where,
    )


def document(files: Files, entry: Descriptor) -> bytes:
    """Return a document of a layout, verified.  Raises ImageError."""
    data = read_document(files, blob_name(entry.digest))
    if data is None:
        raise ImageError(f"{files.where} lacks blob {entry.digest}")
    if len(data) != entry.size or not has_digest(data, entry.digest):
        raise ImageError(f"digest mismatch: blob {entry.digest} of {files.where} is another one")
    return data


def blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


# --- dir: ------------------------------------------------------------------------------------


def _directory(files: Files, data: bytes) -> Original:
    """Read what skopeo copy … dir: wrote: manifest.json, and blobs by the hex of their digest."""
    manifest = image_spec.parse_manifest(data)
    blobs = {
        each.digest: each.digest.partition(":")[2] for each in (manifest.config, *manifest.layers)
    }
    config_data = read_document(files, blobs[manifest.config.digest])
    if config_data is None or not has_digest(config_data, manifest.config.digest):
        raise ImageError(f"{files.where} lacks configuration {manifest.config.digest}, or has "
                         "another one under its name")  # fmt: skip
    return _checked(
        Original(
            data,
            sha256(data),
            manifest,
            config_data,
            image_spec.parse_config(config_data),
            blobs,
        ),
        files.where,
    )


# --- docker archive --------------------------------------------------------------------------


def _docker_archive(files: Files, data: bytes, wanted: str | None) -> list[Original]:
    entries = image_spec.parse_document(b'{"images":' + data + b"}", "manifest.json")["images"]
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise image_spec.MalformedError("manifest.json is not a list of images")
    found = []
    for entry in entries[:_MAX_IMAGES]:
        names = _strings(entry.get("RepoTags"), "RepoTags")
        understood = _understood(tuple(names), local=False)
        if wanted is not None and str(parse(wanted)) not in understood:
            continue
        found.append(_docker_image(files, entry)._replace(names=understood))
    return found


def _docker_image(files: Files, entry: dict[str, object]) -> Original:
    config_name = entry.get("Config")
    if not isinstance(config_name, str):
        raise image_spec.MalformedError("manifest.json: Config is not a string")
    config_data = read_document(files, config_name)
    if config_data is None:
        raise image_spec.MalformedError(f"it lacks {json.dumps(config_name)}")
    config = image_spec.parse_config(config_data)
    names, diff_ids = _strings(entry.get("Layers"), "Layers"), config["rootfs"]["diff_ids"]
    if len(names) != len(diff_ids) or len(names) > image_spec.MAX_LAYERS:
        raise image_spec.MalformedError("manifest.json: layers and diff IDs differ in number")
    layers = tuple(
        _docker_layer(files, name, diff_id) for name, diff_id in zip(names, diff_ids, strict=True)
    )
    document = encode(manifest_document(config_data, layers, docker=True))
    manifest = image_spec.parse_manifest(document)
    blobs = {each.digest: name for each, name in zip(layers, names, strict=True)}
    blobs[manifest.config.digest] = config_name
    return Original(
        document, sha256(document), manifest, config_data, config, blobs, is_made_up=True
    )


def _docker_layer(files: Files, name: str, diff_id: str) -> Descriptor:
    """Describe a layer: its own digest is its diff ID, unless it is compressed."""
    extent = files.find(name)
    if extent is None:
        raise image_spec.MalformedError(f"it lacks {json.dumps(name)}")
    part = Part(extent, 0, files.where)
    head = part.read(4)
    suffix = ".gzip" if head[:2] == _GZIP else ".zstd" if head == _ZSTD else ""
    if not suffix:
        return Descriptor(_LAYER_TYPE, diff_id, extent.size)
    digest = hashlib.sha256(head)
    while data := part.read(_CHUNK):
        digest.update(data)
    return Descriptor(f"{_LAYER_TYPE}{suffix}", f"sha256:{digest.hexdigest()}", extent.size)


def _strings(value: object, name: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise image_spec.MalformedError(f"manifest.json: {name} is not a list of strings")
    return list(value)


# --- all of them -----------------------------------------------------------------------------


def _checked(original: Original, where: str) -> Original:
    if len(original.diff_ids) != len(original.manifest.layers):
        raise ImageError(f"{where}: layers and diff IDs differ in number")
    return original


def _understood(names: tuple[str, ...], *, local: bool) -> tuple[str, ...]:
    """Return names as canonical references; what cannot be one is no name.

    local: a short name is localhost's, as in layouts, else docker.io's, as in docker's archives.
    """
    found = []
    for name in dict.fromkeys(names):
        try:
            reference = parse_local(name) if local else parse(name)
        except UsageError:
            continue
        found.append(str(reference._replace(digest=None) if reference.tag else reference))
    return tuple(dict.fromkeys(found))
