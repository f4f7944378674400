"""OCI image format: digests, descriptors, manifests, indexes, image configurations.

Types and checks, no I/O.  Sources: OCI image-spec 1.1 (descriptor.md, manifest.md, image-index.md,
config.md) and the Docker "image manifest version 2, schema 2" documents, which differ from it only
in media types.  Everything that comes from a registry or an archive passes through the parse_*
functions once, at the edge; whatever they return can be trusted in shape, never in intent.
"""

from __future__ import annotations

from rootlesspy.light_modules import json
from rootlesspy.light_typing import NamedTuple, NoReturn, TypedDict, cast

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MANIFEST_TYPES = frozenset((MANIFEST, DOCKER_MANIFEST))
INDEX_TYPES = frozenset((INDEX, DOCKER_LIST))
CONFIG_TYPES = frozenset((CONFIG, DOCKER_CONFIG))
# Non-distributable and foreign layers are left out on purpose: their content lies on hosts that
# the manifest names (CVE-2020-15157).
LAYER_TYPES = frozenset(
    (
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    )
)
REF_NAME = "org.opencontainers.image.ref.name"

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
# overlayfs takes 500 lower directories; Docker itself makes at most 127 layers.
MAX_LAYERS = 500
MAX_BLOB_BYTES = 1 << 40
_HEX_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")


class MalformedError(ValueError):
    """A document is not what its media type promises; the text says where and why."""


class Descriptor(NamedTuple):
    """What points to a blob; platform and annotations as the index gives them."""

    media_type: str
    digest: str
    size: int
    platform: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()


class Manifest(NamedTuple):
    """One image of one platform: its configuration and its layers, base first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


class ContainerConfig(TypedDict, total=False):
    """The "config" member of an image configuration: how to run it.  No value is null."""

    User: str
    ExposedPorts: dict[str, object]
    Env: list[str]
    Entrypoint: list[str]
    Cmd: list[str]
    Volumes: dict[str, object]
    WorkingDir: str
    Labels: dict[str, str]
    StopSignal: str
    Healthcheck: dict[str, object]
    Shell: list[str]
    OnBuild: list[str]


class RootFs(TypedDict):
    """The digests of the uncompressed layers, base first."""

    type: str
    diff_ids: list[str]


class ImageConfig(TypedDict, total=False):
    """An image configuration document; "rootfs" and "config" are always there."""

    created: str
    author: str
    architecture: str
    variant: str
    os: str
    config: ContainerConfig
    rootfs: RootFs
    history: list[dict[str, object]]


def layer_type(media_type: str, *, docker: bool) -> str:
    """Return OCI's or Docker's name of a layer type that either of them gave."""
    compression = next((each for each in ("gzip", "zstd") if media_type.endswith(each)), "")
    if docker:
        return f"{_DOCKER_LAYER}.{compression}" if compression else _DOCKER_LAYER
    return f"{_LAYER}+{compression}" if compression else _LAYER


def is_digest(text: object) -> bool:
    """Say whether text is algorithm:hex of an algorithm that is understood, in lower case."""
    if not isinstance(text, str):
        return False
    algorithm, _, encoded = text.partition(":")
    return len(encoded) == _HEX_LENGTHS.get(algorithm) and _HEX.issuperset(encoded)


def check_digest(text: object, where: str) -> str:
    """Return text as a digest; only what passes here may become a path or a URL.

    Raises MalformedError.
    """
    if not is_digest(text):
        raise MalformedError(f"{where}: {text!r} is not a sha256 or sha512 digest")
    return cast("str", text)


def parse_document(data: bytes, what: str) -> dict[str, object]:
    """Parse a JSON object as strictly as two different parsers could agree on.

    Refuses duplicate keys, NaN and infinities, NUL and lone surrogates in strings, deep nesting and
    more than 4 MiB.  Raises MalformedError.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise MalformedError(f"{what} is longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        document = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
        # The encoder meets what the decoder let pass: lone surrogates, infinities like 1e999.
        encoded = json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except RecursionError:
        raise MalformedError(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise MalformedError(f"{what} is not valid JSON: {_shortened(str(error))}") from None
    if not isinstance(document, dict):
        raise MalformedError(f"{what} is not a JSON object")
    if b"\\u0000" in encoded.replace(b"\\\\", b""):
        raise MalformedError(f"{what} contains a NUL character")
    return document


def media_type_of(document: dict[str, object], content_type: str | None) -> str:
    """Return the media type of a manifest or index, where all that tells it agrees.

    content_type is what the registry or the descriptor says, None when nobody does.  A document
    that is both manifest and index is refused (CVE-2021-41190).  Raises MalformedError.
    """
    own = document.get("mediaType")
    if own is not None and not isinstance(own, str):
        raise MalformedError("manifest: mediaType is not a string")
    if own is not None and content_type is not None and own != content_type:
        raise MalformedError(f"manifest says it is {own!r}, but was sent as {content_type!r}")
    is_index, is_manifest = "manifests" in document, "layers" in document or "config" in document
    if is_index and is_manifest:
        raise MalformedError("manifest is an image and an index at once")
    media_type = own or content_type
    if media_type is None:
        media_type = INDEX if is_index else MANIFEST
    if media_type not in (INDEX_TYPES if is_index else MANIFEST_TYPES):
        raise MalformedError(f"{media_type!r} is not an image manifest or index")
    if document.get("schemaVersion") != 2 or document.get("schemaVersion") is True:
        raise MalformedError("manifest: schemaVersion is not 2")
    return media_type


def parse_manifest(data: bytes, content_type: str | None = None) -> Manifest:
    """Parse an OCI or Docker schema 2 image manifest.  Raises MalformedError."""
    manifest = parse_any_manifest(data, content_type)
    if manifest.config.media_type not in CONFIG_TYPES:
        raise MalformedError(f"not a container image: its config is {manifest.config.media_type!r}")
    for layer in manifest.layers:
        if layer.media_type not in LAYER_TYPES:
            raise MalformedError(f"layer type {layer.media_type!r} is not supported")
    return manifest


def parse_any_manifest(data: bytes, content_type: str | None = None) -> Manifest:
    """Parse the manifest of an image or of an artifact: its blobs may be of any type.

    For what is only copied.  Raises MalformedError, also for content that lies elsewhere.
    """
    document = parse_document(data, "manifest")
    media_type = media_type_of(document, content_type)
    if media_type not in MANIFEST_TYPES:
        raise MalformedError("manifest: found an index where an image was expected")
    config = _descriptor(document.get("config"), "manifest: config")
    layers = document.get("layers")
    if not isinstance(layers, list):
        raise MalformedError("manifest: layers is not a list")
    if len(layers) > MAX_LAYERS:
        raise MalformedError(f"manifest has {len(layers)} layers, more than {MAX_LAYERS}")
    parsed = tuple(
        _descriptor(layer, f"manifest: layer {number}") for number, layer in enumerate(layers)
    )
    for layer in parsed:
        if any(word in layer.media_type for word in ("foreign", "nondistributable")):
            raise MalformedError(f"layer type {layer.media_type!r} is not supported")
    return Manifest(media_type, config, parsed)


def parse_index(data: bytes, content_type: str | None = None) -> tuple[Descriptor, ...]:
    """Parse an OCI image index or Docker manifest list.  Raises MalformedError."""
    document = parse_document(data, "index")
    if media_type_of(document, content_type) not in INDEX_TYPES:
        raise MalformedError("index: found an image where an index was expected")
    manifests = document["manifests"]
    if not isinstance(manifests, list):
        raise MalformedError("index: manifests is not a list")
    return tuple(
        _descriptor(entry, f"index: manifest {number}") for number, entry in enumerate(manifests)
    )


def parse_config(data: bytes) -> ImageConfig:
    """Parse an image configuration; members that are null are left out.

    Raises MalformedError, also for an environment entry without "=" (CVE-2026-57231: such entries
    once pulled values out of the host's environment).
    """
    document = {k: v for k, v in parse_document(data, "config").items() if v is not None}
    for name in ("architecture", "os", "variant", "created", "author"):
        _optional_string(document, name, "config")
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise MalformedError("config: rootfs is missing or not of type layers")
    diff_ids = rootfs.get("diff_ids")
    if not isinstance(diff_ids, list):
        raise MalformedError("config: rootfs.diff_ids is not a list")
    for diff_id in diff_ids:
        check_digest(diff_id, "config: rootfs.diff_ids")
    document["config"] = _container_config(document.get("config", {}))
    return cast("ImageConfig", document)


def platform_of(config: ImageConfig) -> str:
    """Return os/architecture[/variant] of an image configuration."""
    return _platform_text(
        config.get("os", "linux"), config.get("architecture", "unknown"), config.get("variant", "")
    )


def _container_config(value: object) -> ContainerConfig:
    if not isinstance(value, dict):
        raise MalformedError("config: config is not an object")
    config = {k: v for k, v in value.items() if v is not None}
    for name in ("User", "WorkingDir", "StopSignal"):
        _optional_string(config, name, "config")
    for name in ("Env", "Entrypoint", "Cmd", "Shell", "OnBuild"):
        items = config.get(name, [])
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise MalformedError(f"config: {name} is not a list of strings")
    for name in ("ExposedPorts", "Volumes", "Labels", "Healthcheck"):
        if not isinstance(config.get(name, {}), dict):
            raise MalformedError(f"config: {name} is not an object")
    if not all(isinstance(label, str) for label in config.get("Labels", {}).values()):
        raise MalformedError("config: Labels holds something else than strings")
    for entry in config.get("Env", ()):
        if entry.find("=") < 1:
            raise MalformedError(f"config: Env entry {_shortened(entry)!r} is not NAME=VALUE")
    return cast("ContainerConfig", config)


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise MalformedError(f"{where} is not an object")
    media_type, size = value.get("mediaType"), value.get("size")
    if not isinstance(media_type, str):
        raise MalformedError(f"{where}: mediaType is not a string")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_BLOB_BYTES:
        raise MalformedError(f"{where}: size is not a number of bytes")
    annotations = value.get("annotations") or {}
    if not isinstance(annotations, dict) or not all(
        isinstance(text, str) for text in annotations.values()
    ):
        raise MalformedError(f"{where}: annotations are not strings")
    return Descriptor(
        media_type=media_type,
        digest=check_digest(value.get("digest"), f"{where}: digest"),
        size=size,
        platform=_platform(value.get("platform"), where),
        annotations=tuple(annotations.items()),
    )


def _platform(value: object, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise MalformedError(f"{where}: platform is not an object")
    fields = [value.get(name) or "" for name in ("os", "architecture", "variant")]
    if not all(isinstance(field, str) for field in fields):
        raise MalformedError(f"{where}: platform holds something else than strings")
    return _platform_text(*fields)


def _platform_text(system: str, architecture: str, variant: str) -> str:
    return f"{system}/{architecture}" + (f"/{variant}" if variant else "")


def _optional_string(document: dict[str, object], name: str, where: str) -> None:
    if not isinstance(document.get(name, ""), str):
        raise MalformedError(f"{where}: {name} is not a string")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _shortened(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
