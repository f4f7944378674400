"""Manifests and their like as rp writes them, and the digests that name them."""

from __future__ import annotations

from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.oci.image_spec import Descriptor


class Document(NamedTuple):
    """A manifest or index as the registry sent it; digest is that of data."""

    data: bytes
    media_type: str
    digest: str


class Layer(NamedTuple):
    """A layer of the store: its blob as a manifest names it, and its diff ID."""

    descriptor: Descriptor
    diff_id: str


class Described(NamedTuple):
    """A manifest with its configuration, both verified, as they are to be stored."""

    data: bytes
    digest: str
    media_type: str
    config_data: bytes


def manifest_document(
    config_data: bytes, layers: Sequence[Descriptor], *, docker: bool = False
) -> dict[str, object]:
    """Return the manifest of an image, OCI's or Docker's schema 2."""
    config_type = image_spec.DOCKER_CONFIG if docker else image_spec.CONFIG
    return {
        "schemaVersion": 2,
        "mediaType": image_spec.DOCKER_MANIFEST if docker else image_spec.MANIFEST,
        "config": {
            "mediaType": config_type,
            "digest": sha256(config_data),
            "size": len(config_data),
        },
        "layers": [
            {
                "mediaType": image_spec.layer_type(each.media_type, docker=docker),
                "digest": each.digest,
                "size": each.size,
            }
            for each in layers
        ],
    }


def encode(document: object) -> bytes:
    """Return JSON as it is stored: compact, members in the order given."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def sha256(data: bytes) -> str:
    """Return the digest of data."""
    import hashlib

    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def has_digest(data: bytes, digest: str) -> bool:
    """Say whether data is what digest, which has been checked, says."""
    algorithm = digest.partition(":")[0]
    import hashlib

    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}" == digest
