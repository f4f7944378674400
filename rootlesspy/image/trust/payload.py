"""What a signature says: the JSON that is signed, the same for simple signing and for cosign.

    {"critical": {"type": …, "identity": {"docker-reference": …},
                  "image": {"docker-manifest-digest": …}}, "optional": …}

Only what is understood whole is believed: one more member in "critical" refuses it.
Source: containers-signature(5); sigstore's specification of signatures of containers is the same.
"""

from __future__ import annotations

from rootlesspy.image.documents import has_digest
from rootlesspy.image.trust import identity
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, cast
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from rootlesspy.image.reference import Reference
    from rootlesspy.image.trust.identity import Identity

SIMPLE = "atomic container signature"
COSIGN = "cosign container image signature"


class Refused(Exception):
    """A signature does not prove what is required; the text says why, with the signature as its
    subject.
    """


class Subject(NamedTuple):
    """The image that is judged: its manifest, and the name it was asked for by, if it has one."""

    manifest: bytes
    digest: str
    asked: Reference | None


def check(data: bytes, kind: str, subject: Subject, wanted: Identity) -> None:
    """Raise Refused unless signed data speaks for the subject, under a name that is wanted."""
    digest, signed = _parse(data, kind)
    if not has_digest(subject.manifest, digest):
        raise Refused(f"it is for the manifest {digest}, not for {subject.digest}")
    if not identity.matches(wanted, subject.asked, signed):
        what = wanted.first or (str(subject.asked) if subject.asked else "an image without a name")
        raise Refused(f"it is for {signed!r}, which is no {wanted.type} of {what}")


def _parse(data: bytes, kind: str) -> tuple[str, str]:
    """Return the digest of the manifest and the name.  Raises Refused."""
    try:
        document = image_spec.parse_document(data, "its content")
    except image_spec.MalformedError as error:
        raise Refused(str(error)) from None
    critical = _member(document, "critical", ("type", "image", "identity"))
    optional = document.get("optional")
    if set(document) != {"critical", "optional"} or not isinstance(optional, dict | None):
        raise Refused("its content is not critical and optional")
    if optional:
        creator, timestamp = optional.get("creator"), optional.get("timestamp")
        if not isinstance(creator, str | None) or not isinstance(timestamp, int | None):
            raise Refused("its creator or timestamp is malformed")
    if critical["type"] != kind:
        raise Refused(f"it is a {critical['type']!r}, not a {kind!r}")
    digest = _member(critical, "image", ("docker-manifest-digest",))["docker-manifest-digest"]
    name = _member(critical, "identity", ("docker-reference",))["docker-reference"]
    if not image_spec.is_digest(digest) or not isinstance(name, str):
        raise Refused("its digest or name is malformed")
    return cast("str", digest), name


def _member(table: dict[str, object], name: str, keys: tuple[str, ...]) -> dict[str, object]:
    value = table.get(name)
    if not isinstance(value, dict) or set(value) != set(keys):
        raise Refused(f"its content has no {name} of {', '.join(keys)}")
    return value
