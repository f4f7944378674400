"""Signatures of cosign, verified offline with public keys: sigstoreSigned.

The payload lies in the registry as the layer of an image of its own, the signature in an annotation
of that layer.  The library cryptography does the arithmetic, and is imported when it is needed.

Certificates of Fulcio are not verified: what asks for them is refused.  A key of the transparency
log makes its signed entry timestamp necessary (rekor.py).
Sources: containers-policy.json(5); cosign's SIGNATURE_SPEC.md.
"""

from __future__ import annotations

import base64
import binascii

from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.image.trust import payload
from rootlesspy.image.trust.payload import Refused
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from rootlesspy.image.trust.identity import Identity
    from rootlesspy.image.trust.payload import Subject

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
BUNDLE = "dev.sigstore.cosign/bundle"


class Attachment(NamedTuple):
    """One signature as it is stored: what is signed, and what the annotations say."""

    data: bytes
    annotations: Mapping[str, str]


class Key(NamedTuple):
    """A public key, and where it is from."""

    where: str
    public: PublicKeyTypes


def load(data: bytes, where: str) -> Key:
    """Read a public key in PEM.  Raises UsageError, Unsupported without the library."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise Unsupported(
            "signatures of sigstore need the library cryptography",
            hint="apt install python3-cryptography, or pip install cryptography",
        ) from None
    try:
        return Key(where, load_pem_public_key(data))
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(
            f"{where} is not a public key in PEM that rp understands",
            hint="cosign public-key, or skopeo generate-sigstore-key, makes one",
        ) from None


def check(
    attachment: Attachment,
    keys: Sequence[Key],
    rekor: Sequence[Key],
    subject: Subject,
    wanted: Identity,
) -> None:
    """Raise Refused unless an attachment is a signature for the subject by one of the keys."""
    text = attachment.annotations.get(SIGNATURE, "")
    signature = decode(text, "its signature")
    signer = next((key for key in keys if verifies(key, signature, attachment.data)), None)
    if signer is None:
        raise Refused("it does not verify with the key")
    if rekor:
        from rootlesspy.image.trust import rekor as log

        bundle = attachment.annotations.get(BUNDLE)
        if bundle is None:
            raise Refused("it has no entry of the transparency log")
        log.check(bundle, rekor, signer, text, attachment.data)
    payload.check(attachment.data, payload.COSIGN, subject, wanted)


def verifies(key: Key, signature: bytes, data: bytes) -> bool:
    """Say whether a signature over data is the key's.  Raises UsageError for unusual keys."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    public = key.public
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, data)
        else:
            raise UsageError(f"{key.where} is a key of another kind than ECDSA, RSA or Ed25519")
    except InvalidSignature:
        return False
    return True


def decode(text: object, what: str) -> bytes:
    """Return what base64 text holds.  Raises Refused."""
    try:
        if isinstance(text, str) and text:
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Refused(f"{what} is not base64")
