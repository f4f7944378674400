"""What the transparency log of sigstore confirms: that a signature was entered, and when.

A signed entry timestamp comes with the signature, so nothing is asked over the network.
Source: the hashedrekord type of Rekor, version 0.0.1, and cosign's bundle annotation.
"""

from __future__ import annotations

import hashlib
import json

from rootlesspy.image.trust import sigstore
from rootlesspy.image.trust.payload import Refused
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.trust.sigstore import Key

_PAYLOAD = {"body": str, "integratedTime": int, "logIndex": int, "logID": str}


def check(bundle: str, logs: Sequence[Key], signer: Key, signature: str, data: bytes) -> None:
    """Raise Refused unless one of the logs confirms the signature over data by the signer."""
    document = _document(bundle.encode(), ("SignedEntryTimestamp", "Payload"))
    entry = document["Payload"]
    if (
        not isinstance(entry, dict)
        or set(entry) != set(_PAYLOAD)
        or not all(type(entry[name]) is kind for name, kind in _PAYLOAD.items())
    ):
        raise Refused("its entry of the transparency log is malformed")
    timestamp = sigstore.decode(document["SignedEntryTimestamp"], "its timestamp")
    # RFC 8785 has nothing more to say about ASCII names, integers and ASCII texts.
    signed = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    if not any(sigstore.verifies(key, timestamp, signed) for key in logs):
        raise Refused("its entry of the transparency log does not verify")
    _check_body(sigstore.decode(entry["body"], "its log entry"), signer, signature, data)


def _check_body(body: bytes, signer: Key, signature: str, data: bytes) -> None:
    """Check that what was entered in the log is this signature."""
    entry = _document(body, ("apiVersion", "kind", "spec"))
    if (entry["kind"], entry["apiVersion"]) != ("hashedrekord", "0.0.1"):
        raise Refused("its log entry is of another kind")
    try:
        spec = entry["spec"]
        told = spec["signature"]["content"], spec["data"]["hash"]  # type: ignore[index]  # a stranger's JSON
        key = spec["signature"]["publicKey"]["content"]  # type: ignore[index]  # as above
    except (LookupError, TypeError):
        raise Refused("its log entry is malformed") from None
    hashed = {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}
    if told != (signature, hashed):
        raise Refused("its log entry is that of another signature")
    if not _is_same_key(sigstore.decode(key, "the key of its log entry"), signer):
        raise Refused("its log entry is that of another key")


def _is_same_key(pem: bytes, signer: Key) -> bool:
    from cryptography.hazmat.primitives import serialization

    try:
        other = serialization.load_pem_public_key(pem)
    except ValueError:
        return False
    form = (
        serialization.Encoding.DER,
        serialization.PublicFormat.SubjectPublicKeyInfo,
    )
    return other.public_bytes(*form) == signer.public.public_bytes(*form)


def _document(data: bytes, keys: tuple[str, ...]) -> dict[str, object]:
    try:
        document = image_spec.parse_document(data, "its entry of the transparency log")
    except image_spec.MalformedError as error:
        raise Refused(str(error)) from None
    if set(document) != set(keys):
        raise Refused("its entry of the transparency log is malformed")
    return document
