"""Image indexes as documents: what `rp manifest` changes in them, and the bytes they become.

The form is OCI's; for Docker's, media types differ and annotations are not known.  No I/O.
Sources: OCI image-spec image-index.md; Docker's "image manifest version 2, schema 2".
"""

from __future__ import annotations

from rootlesspy.errors import NotFound
from rootlesspy.image.documents import encode as encode_json
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Document = dict[str, Any]

_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant", "features")
_DOCKER_ENTRY = ("mediaType", "size", "digest", "urls", "platform")
_OCI_ENTRY = ("mediaType", "digest", "size", "urls", "annotations", "data", "platform",
              "artifactType")  # fmt: skip
_SHOWN_ENTRY = ("mediaType", "size", "digest", "urls", "platform", "annotations", "artifactType")


class Change(NamedTuple):
    """What is to be said of an entry in place of what is said now; None changes nothing."""

    architecture: str | None = None
    system: str | None = None
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


def empty(annotations: Sequence[tuple[str, str]] = ()) -> Document:
    """Return an index without images."""
    document: Document = {"schemaVersion": 2, "mediaType": image_spec.INDEX, "manifests": []}
    if annotations:
        document["annotations"] = dict(annotations)
    return document


def parse(data: bytes, media_type: str | None = None) -> Document:
    """Parse an index of either kind.  Raises MalformedError."""
    image_spec.parse_index(data, media_type)
    document: Document = json.loads(data)
    if not isinstance(document.get("annotations") or {}, dict):
        raise image_spec.MalformedError("index: annotations is not an object")
    return document


def media_type_of(document: Document) -> str:
    """Return the media type, which OCI allows to be left out."""
    return str(document.get("mediaType") or image_spec.INDEX)


def entry(
    media_type: str, digest: str, size: int, platform: str | None, more: Mapping[str, Any] = {}
) -> Document:
    """Return the descriptor of an image; platform is os/architecture[/variant]."""
    described: Document = {"mediaType": media_type, "digest": digest, "size": size}
    if platform is not None:
        system, _, rest = platform.partition("/")
        architecture, _, variant = rest.partition("/")
        described["platform"] = {"architecture": architecture, "os": system}
        if variant:
            described["platform"]["variant"] = variant
        described["platform"].update(more)
    return _ordered(described, _OCI_ENTRY)


def with_entries(document: Document, entries: Sequence[Document]) -> Document:
    """Add entries; one of the same digest is replaced."""
    digests = {each["digest"] for each in entries}
    kept = [each for each in document["manifests"] if each["digest"] not in digests]
    return {**document, "manifests": [*kept, *entries]}


def without(document: Document, digest: str) -> Document:
    """Take an entry away.  Raises NotFound."""
    kept = [each for each in document["manifests"] if each["digest"] != digest]
    if len(kept) == len(document["manifests"]):
        raise _missing(digest)
    return {**document, "manifests": kept}


def annotated(document: Document, digest: str, change: Change) -> Document:
    """Say other things of an entry.  Raises NotFound."""
    if not any(each["digest"] == digest for each in document["manifests"]):
        raise _missing(digest)
    changed = [
        described(each, change) if each["digest"] == digest else each
        for each in document["manifests"]
    ]
    return {**document, "manifests": changed}


def with_annotations(document: Document, annotations: Sequence[tuple[str, str]]) -> Document:
    """Add annotations to the index itself."""
    return {
        **document,
        "annotations": {**(document.get("annotations") or {}), **dict(annotations)},
    }


def described(descriptor: Document, change: Change) -> Document:
    """Return a descriptor with a change made to it."""
    platform = dict(descriptor.get("platform") or {})
    if change.architecture is not None:
        platform["architecture"] = change.architecture
        # A variant is one of an architecture.
        platform.pop("variant", None)
    said = {
        "os": change.system,
        "variant": change.variant,
        "os.version": change.os_version,
        "os.features": list(change.os_features),
        "features": list(change.features),
    }
    platform.update({name: value for name, value in said.items() if value})
    changed = {**descriptor}
    if platform:
        platform.setdefault("architecture", "")
        platform.setdefault("os", "linux")
        changed["platform"] = _ordered(platform, _PLATFORM)
    if change.annotations:
        changed["annotations"] = {
            **(descriptor.get("annotations") or {}),
            **dict(change.annotations),
        }
    return _ordered(changed, _OCI_ENTRY)


def replaced(document: Document, old: str, new: Document) -> Document:
    """Put another digest, size and media type in place of an entry's."""
    members = {name: new[name] for name in ("mediaType", "digest", "size")}
    changed = [
        {**each, **members} if each["digest"] == old else each for each in document["manifests"]
    ]
    return {**document, "manifests": changed}


def as_kind(document: Document, *, docker: bool) -> Document:
    """Return the index in the other kind's form; Docker's knows no annotations."""
    if docker:
        manifests = [_ordered(each, _DOCKER_ENTRY, only=True) for each in document["manifests"]]
        return {"schemaVersion": 2, "mediaType": image_spec.DOCKER_LIST, "manifests": manifests}
    manifests = [_ordered(each, _OCI_ENTRY) for each in document["manifests"]]
    made: Document = {
        "schemaVersion": 2,
        "mediaType": image_spec.INDEX,
        "manifests": manifests,
    }
    if document.get("annotations"):
        made["annotations"] = document["annotations"]
    return made


def encode(document: Document) -> bytes:
    """Return the bytes of an index, as podman and skopeo order its members."""
    docker = media_type_of(document) == image_spec.DOCKER_LIST
    rest = {
        name: value
        for name, value in document.items()
        if name not in ("schemaVersion", "mediaType", "manifests")
    }
    order = _DOCKER_ENTRY if docker else _OCI_ENTRY
    return encode_json(
        {
            "schemaVersion": 2,
            "mediaType": media_type_of(document),
            "manifests": [_ordered(each, order) for each in document["manifests"]],
            **rest,
        }
    )


def shown(document: Document) -> Document:
    """Return an index as `manifest inspect` prints it."""
    manifests = [_ordered(each, _SHOWN_ENTRY) for each in document["manifests"]]
    return {**document, "mediaType": media_type_of(document), "manifests": manifests}


def _ordered(members: Document, order: Sequence[str], *, only: bool = False) -> Document:
    first = {name: members[name] for name in order if name in members}
    return first if only else {**first, **{k: v for k, v in members.items() if k not in first}}


def _missing(digest: str) -> NotFound:
    return NotFound(f"the list has no image {digest}", hint="rp manifest inspect LIST")
