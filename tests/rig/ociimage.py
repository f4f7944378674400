"""Write container images byte by byte: layers, OCI layouts and a registry's storage.

`tarfile` refuses much of what hostile images contain, so headers are written here field by
field and may lie. Standard library only.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

FILE, HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK, DIRECTORY, FIFO = (
    b"0", b"1", b"2", b"3", b"4", b"5", b"6",
)  # fmt: skip

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

Json = dict[str, Any]


class Entry(NamedTuple):
    """One tar entry. `size` and `checksum` replace the true values when given."""

    name: str | bytes
    kind: bytes = FILE
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str | bytes = b""
    mtime: int = 0
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str | bytes] = {}
    size: int | None = None
    checksum: int | None = None


def directory(name: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    """Return a directory entry."""
    return Entry(name=name.rstrip("/") + "/", kind=DIRECTORY, mode=mode, uid=uid, gid=gid)


def symlink(name: str, target: str) -> Entry:
    """Return a symbolic link entry."""
    return Entry(name=name, kind=SYMBOLIC_LINK, link=target, mode=0o777)


def hard_link(name: str, target: str) -> Entry:
    """Return a hard link entry."""
    return Entry(name=name, kind=HARD_LINK, link=target)


def tar(entries: Iterable[Entry], *, end: bool = True) -> bytes:
    """Return a tar stream; without `end` the two closing zero blocks are missing."""
    stream = b"".join(tar_entry(entry) for entry in entries)
    return stream + bytes(1024) if end else stream


def tar_entry(entry: Entry) -> bytes:
    """Return header, extended header where needed, and data of one entry."""
    name, link = _bytes(entry.name), _bytes(entry.link)
    pax = {key: _bytes(value) for key, value in entry.pax.items()}
    if len(name) > 100:
        pax.setdefault("path", name)
    if len(link) > 100:
        pax.setdefault("linkpath", link)
    if entry.uid >= 8**7:
        pax.setdefault("uid", str(entry.uid).encode())
    if entry.gid >= 8**7:
        pax.setdefault("gid", str(entry.gid).encode())
    extended = b""
    if pax:
        records = b"".join(_pax_record(key.encode(), value) for key, value in pax.items())
        plain = Entry(name="PaxHeaders/x", kind=b"x", data=records)
        extended = _header(plain, b"PaxHeaders/x", b"") + _padded(records)
    return extended + _header(entry, name, link) + _padded(entry.data)


def _header(entry: Entry, name: bytes, link: bytes) -> bytes:
    size = len(entry.data) if entry.size is None else entry.size
    fields = [
        name[:100].ljust(100, b"\0"),
        _octal(entry.mode, 8),
        _octal(entry.uid if entry.uid < 8**7 else 0, 8),
        _octal(entry.gid if entry.gid < 8**7 else 0, 8),
        _octal(size, 12),
        _octal(entry.mtime, 12),
        b" " * 8,
        entry.kind,
        link[:100].ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),
        _octal(entry.device[0], 8),
        _octal(entry.device[1], 8),
        bytes(167),
    ]
    header = b"".join(fields)
    checksum = sum(header) if entry.checksum is None else entry.checksum
    return header[:148] + b"%06o\0 " % checksum + header[156:]


def _octal(value: int, width: int) -> bytes:
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    # Base 256, as GNU tar writes what octal cannot hold.
    return b"\x80" + value.to_bytes(width - 1, "big", signed=value < 0)


def _pax_record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


class Blob(NamedTuple):
    """Content with the media type that a descriptor of it says."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        """Return the digest of the content."""
        return digest(self.data)

    def descriptor(self, **more: object) -> Json:
        """Return a descriptor of the content."""
        return {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.data),
            **more,
        }


class Image(NamedTuple):
    """A manifest and the blobs that it names."""

    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]
    platform: Json


def digest(data: bytes) -> str:
    """Return the sha256 digest as images write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def gzipped(data: bytes) -> bytes:
    """Compress the same way every time."""
    return gzip.compress(data, compresslevel=6, mtime=0)


def image(
    layers: Sequence[bytes],
    config: Json | None = None,
    *,
    docker: bool = False,
    compress: Callable[[bytes], bytes] | None = gzipped,
    suffix: str | None = None,
    architecture: str = "amd64",
    diff_ids: Sequence[str] | None = None,
    history: Sequence[Json] = (),
) -> Image:
    """Make an image of uncompressed tar layers.

    `config` is the inner configuration (Cmd, Env, User…); `suffix` is what the compression adds
    to the layer's media type; `diff_ids` replaces the true ones.
    """
    if suffix is None:
        suffix = "" if compress is None else ".gzip" if docker else "+gzip"
    media_type = (DOCKER_LAYER if docker else OCI_LAYER) + suffix
    blobs = tuple(Blob(media_type, compress(layer) if compress else layer) for layer in layers)
    true_ids = [digest(layer) for layer in layers]
    return assemble(
        blobs,
        list(diff_ids) if diff_ids is not None else true_ids,
        config,
        docker=docker,
        architecture=architecture,
        history=history,
    )


def assemble(
    layers: tuple[Blob, ...],
    diff_ids: list[str],
    config: Json | None = None,
    *,
    docker: bool = False,
    architecture: str = "amd64",
    history: Sequence[Json] = (),
) -> Image:
    """Make an image of finished layer blobs."""
    platform = {"architecture": architecture, "os": "linux"}
    config_json: Json = {
        "created": "2024-01-01T00:00:00Z",
        **platform,
        "config": config if config is not None else {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    if history:
        config_json["history"] = list(history)
    config_blob = Blob(DOCKER_CONFIG if docker else OCI_CONFIG, _json(config_json))
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config_blob.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
    }
    return Image(
        manifest=Blob(media_type, _json(manifest)),
        config=config_blob,
        layers=layers,
        platform=platform,
    )


def index(images: Sequence[Image]) -> Blob:
    """Return an index of images for several platforms."""
    manifests = [image.manifest.descriptor(platform=image.platform) for image in images]
    return Blob(
        OCI_INDEX, _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
    )


def write_layout(path: Path, images: Mapping[str, Image]) -> None:
    """Write an OCI image layout; the keys are reference names."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    manifests = []
    for name, one in images.items():
        for blob in (one.manifest, one.config, *one.layers):
            (blobs / blob.digest.partition(":")[2]).write_bytes(blob.data)
        annotations = {"org.opencontainers.image.ref.name": name}
        manifests.append(one.manifest.descriptor(annotations=annotations))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="ascii")
    (path / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": manifests}))


def write_registry(storage: Path, repository: str, tags: Mapping[str, Image]) -> None:
    """Write images into the storage directory of a docker-registry, as pushes would leave them."""
    base = storage / "docker" / "registry" / "v2"
    names = base / "repositories" / repository
    for tag, one in tags.items():
        for blob in (one.manifest, one.config, *one.layers):
            algorithm, _, hexadecimal = blob.digest.partition(":")
            data = base / "blobs" / algorithm / hexadecimal[:2] / hexadecimal / "data"
            data.parent.mkdir(parents=True, exist_ok=True)
            data.write_bytes(blob.data)
        for blob in (one.config, *one.layers):
            _link(names / "_layers", blob.digest)
        _link(names / "_manifests" / "revisions", one.manifest.digest)
        _link(names / "_manifests" / "tags" / tag / "index", one.manifest.digest)
        current = names / "_manifests" / "tags" / tag / "current" / "link"
        current.parent.mkdir(parents=True, exist_ok=True)
        current.write_text(one.manifest.digest, encoding="ascii")


def _link(directory: Path, digest: str) -> None:
    algorithm, _, hexadecimal = digest.partition(":")
    path = directory / algorithm / hexadecimal / "link"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest, encoding="ascii")


def _json(value: Json) -> bytes:
    return json.dumps(value, indent=1).encode()
