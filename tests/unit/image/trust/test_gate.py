"""What a policy makes of signatures: good ones pass, and every way in which one is bad does not."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from unit.image import openpgp

from rootlesspy.errors import ImageError, UsageError
from rootlesspy.image.reference import parse as reference
from rootlesspy.image.trust import evidence, gate, policy, sigstore
from rootlesspy.image.trust.payload import Subject
from rootlesspy.image.trust.sigstore import Attachment
from rootlesspy.paths import Paths
from rootlesspy.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANIFEST = b'{"schemaVersion":2}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
NAME = "docker.io/a/b:1"
SIMPLE, COSIGN = "atomic container signature", "cosign container image signature"
HAS_GPG = shutil.which("gpg") is not None
needs_gpg = pytest.mark.skipif(
    not HAS_GPG and not os.environ.get("RP_MUST_WORK"), reason="needs the program gpg"
)


def statement(kind: str, name: str = NAME, digest: str = DIGEST, **more: Any) -> bytes:
    critical = {
        "type": kind,
        "image": {"docker-manifest-digest": digest},
        "identity": {"docker-reference": name},
        **more,
    }
    return json.dumps({"critical": critical, "optional": None}).encode()


class Found(evidence.NoEvidence):
    """Evidence that a test has made."""

    def __init__(self, *, simple: Any = (), attachments: Any = ()) -> None:
        self._simple, self._attachments = list(simple), list(attachments)

    def simple(self) -> list[bytes]:
        return self._simple

    def attachments(self) -> list[Attachment]:
        return self._attachments


def judge(requirement: dict[str, Any], found: Found, *, asked: str | None = NAME) -> str:
    """Return why an image is refused, "" when it is accepted."""
    parsed = policy.parse(json.dumps({"default": [requirement]}).encode(), "p.json")
    paths = Paths(data="/nonexistent", runtime=None, config="/nonexistent")
    made = gate.Gate(paths, Reporter(quiet=True), parsed)
    named = None if asked is None else reference(asked)
    subject = Subject(MANIFEST, DIGEST, named)
    try:
        made._judge("image x", "default", parsed.default, subject, lambda: found)
    except ImageError as error:
        message = error.message
    else:
        return ""
    prefix = f"image x is refused by the signature policy (default: {requirement['type']})"
    assert message.startswith(prefix)
    return message.removeprefix(prefix).removeprefix(": ") or "refused"


def test_accept_and_reject() -> None:
    assert judge({"type": "insecureAcceptAnything"}, Found()) == ""
    assert judge({"type": "reject"}, Found()) == "refused"


# --- sigstore ---------------------------------------------------------------------------------


class Signer:
    """A key of one kind."""

    def __init__(self, kind: str) -> None:
        sha = hashes.SHA256()
        self.sign: Callable[[bytes], bytes]
        if kind == "ed25519":
            edwards = ed25519.Ed25519PrivateKey.generate()
            self.sign = edwards.sign
            public: Any = edwards.public_key()
        elif kind == "rsa":
            numbers = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            self.sign = lambda data: numbers.sign(data, padding.PKCS1v15(), sha)
            public = numbers.public_key()
        else:
            curve = ec.generate_private_key(ec.SECP256R1() if kind == "p256" else ec.SECP384R1())
            self.sign = lambda data: curve.sign(data, ec.ECDSA(sha))
            public = curve.public_key()
        self.pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def requirement(self, **more: Any) -> dict[str, Any]:
        return {"type": "sigstoreSigned", "keyData": base64.b64encode(self.pem).decode(), **more}

    def attachment(self, data: bytes, **annotations: str) -> Attachment:
        text = base64.b64encode(self.sign(data)).decode()
        return Attachment(data, {sigstore.SIGNATURE: text, **annotations})


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer("p256")


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa", "ed25519"])
def test_kinds_of_keys(kind: str) -> None:
    own, other = Signer(kind), Signer(kind)
    found = Found(attachments=[own.attachment(statement(COSIGN))])
    assert judge(own.requirement(), found) == ""
    assert "does not verify with the key" in judge(other.requirement(), found)
    assert "does not verify with the key" in judge(Signer("p256").requirement(), found)


def test_what_a_cosign_signature_has_to_say(signer: Signer) -> None:
    other = f"sha256:{'0' * 64}"
    for data, why in (
        (statement(COSIGN, digest=other), "it is for the manifest"),
        (statement(COSIGN, name="docker.io/a/b:2"), "docker.io/a/b:2"),
        (statement(COSIGN, name="docker.io/a/c:1"), "docker.io/a/c:1"),
        (statement(SIMPLE), "atomic container signature"),
        (statement(COSIGN, extra=1), "no critical of"),
        (statement(COSIGN, image={}), "no image of"),
        (statement(COSIGN, digest="sha256:x"), "malformed"),
        (b'{"critical":{}}', "no critical"),
        (b"[]", "its content"),
        (b"", "its content"),
        (b'{"critical":1,"critical":2}', "its content"),
    ):
        assert why in judge(signer.requirement(), Found(attachments=[signer.attachment(data)]))


def test_one_good_signature_is_enough(signer: Signer) -> None:
    good, stranger = signer.attachment(statement(COSIGN)), Signer("p256")
    bad = [
        Attachment(good.data + b" ", good.annotations),
        Attachment(good.data, {}),
        Attachment(good.data, {sigstore.SIGNATURE: "%"}),
        Attachment(good.data, {sigstore.SIGNATURE: ""}),
        Attachment(good.data, {sigstore.SIGNATURE: "AAAA"}),
        stranger.attachment(good.data),
    ]
    for each in bad:
        assert judge(signer.requirement(), Found(attachments=[each])).startswith("its signature")
    assert "none of its 6 signatures" in judge(signer.requirement(), Found(attachments=bad))
    assert judge(signer.requirement(), Found(attachments=[*bad, good])) == ""
    assert judge(signer.requirement(), Found()) == "it has no signature"


def test_an_image_without_a_name(signer: Signer) -> None:
    found = Found(attachments=[signer.attachment(statement(COSIGN))])
    assert "without a name" in judge(signer.requirement(), found, asked=None)
    exact = {"type": "exactReference", "dockerReference": NAME}
    assert judge(signer.requirement(signedIdentity=exact), found, asked=None) == ""


def test_what_cannot_be_verified_refuses(signer: Signer) -> None:
    fulcio = {"type": "sigstoreSigned", "fulcio": {"caPath": "/x"}}
    assert judge(fulcio, Found()) == "rp cannot verify fulcio"
    with pytest.raises(UsageError, match="not a public key"):
        judge({"type": "sigstoreSigned", "keyData": "AAAA"}, Found())
    with pytest.raises(UsageError, match="No such file"):
        judge({"type": "sigstoreSigned", "keyPath": "/nonexistent/key"}, Found())


# --- the transparency log ---------------------------------------------------------------------


def bundle(log: Signer, signer: Signer, plain: Attachment, **changes: Any) -> str:
    """Return the annotation with an entry of the log; changes replace parts of it."""
    spec = {
        "signature": {
            "content": changes.get("signature", plain.annotations[sigstore.SIGNATURE]),
            "publicKey": {"content": base64.b64encode(changes.get("key", signer.pem)).decode()},
        },
        "data": {
            "hash": {
                "algorithm": "sha256",
                "value": hashlib.sha256(changes.get("data", plain.data)).hexdigest(),
            }
        },
    }
    body = {"apiVersion": "0.0.1", "kind": changes.get("kind", "hashedrekord"), "spec": spec}
    entry: dict[str, Any] = {
        "logIndex": 7, "integratedTime": 1700000000, "logID": "c0ffee",
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
    }  # fmt: skip
    signed = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    stamp = base64.b64encode(log.sign(signed)).decode()
    return json.dumps(
        {"SignedEntryTimestamp": stamp, "Payload": {**entry, **changes.get("entry", {})}}
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"signature": "AAAA"}, "another signature"),
        ({"data": b"other"}, "another signature"),
        ({"key": Signer("p256").pem}, "another key"),
        ({"key": b"x"}, "another key"),
        ({"kind": "intoto"}, "another kind"),
        ({"entry": {"logIndex": 8}}, "does not verify"),
        ({"entry": {"more": 8}}, "malformed"),
        ({"entry": {"logIndex": "7"}}, "malformed"),
    ],
)
def test_the_transparency_log(signer: Signer, changes: dict[str, Any], why: str) -> None:
    log = Signer("p256")
    rekor = base64.b64encode(log.pem).decode()
    data = statement(COSIGN)
    plain = signer.attachment(data)
    text = bundle(log, signer, plain, **changes)
    found = Attachment(data, {**plain.annotations, sigstore.BUNDLE: text})
    wanted = signer.requirement(rekorPublicKeyData=rekor)
    answer = judge(wanted, Found(attachments=[found]))
    assert (why in answer) if why else answer == ""
    assert "no entry of the transparency log" in judge(wanted, Found(attachments=[plain]))
    stranger = base64.b64encode(Signer("p256").pem).decode()
    other = signer.requirement(rekorPublicKeyData=stranger)
    assert judge(other, Found(attachments=[found])) != ""


# --- OpenPGP ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alice() -> openpgp.Key:
    return openpgp.Key("Alice <alice@example.org>", created=1_600_000_000)


def by(key: openpgp.Key, **more: Any) -> dict[str, Any]:
    text = base64.b64encode(key.public()).decode()
    return {"type": "signedBy", "keyType": "GPGKeys", "keyData": text, **more}


@needs_gpg
def test_openpgp_signatures(alice: openpgp.Key, tmp_path: Path) -> None:
    bob = openpgp.Key("Bob <bob@example.org>")
    good = alice.sign(statement(SIMPLE))
    assert judge(by(alice), Found(simple=[good])) == ""
    bad = {
        "it was made by another key": bob.sign(statement(SIMPLE)),
        "does not verify": good.replace(b"a/b:1", b"a/b:2"),
        "it is for 'docker.io/a/b:2'": alice.sign(statement(SIMPLE, name="docker.io/a/b:2")),
        "it is for the manifest": alice.sign(statement(SIMPLE, digest=f"sha256:{'0' * 64}")),
        "cosign container image": alice.sign(statement(COSIGN)),
        "no critical of": alice.sign(statement(SIMPLE, more=1)),
        "it has expired": alice.sign(statement(SIMPLE), made=1_700_000_000, lasts=60),
        "not an OpenPGP message": openpgp.unsigned(statement(SIMPLE)),
    }
    for why, signature in bad.items():
        assert why in judge(by(alice), Found(simple=[signature])), why
    assert judge(by(alice), Found(simple=[openpgp.compressed(good)])) == ""
    nobodys = openpgp.compressed(openpgp.unsigned(statement(SIMPLE)))
    assert "does not verify" in judge(by(alice), Found(simple=[nobodys]))
    for signature in (good + good, good + openpgp.unsigned(b"x"), good[:-9], b"garbage", b""):
        assert judge(by(alice), Found(simple=[signature])) != ""
    assert "none of its 8 signatures counts" in judge(by(alice), Found(simple=bad.values()))
    assert judge(by(alice), Found(simple=[*bad.values(), good])) == ""
    assert judge(by(alice), Found()) == "it has no signature"
    paths = [tmp_path / "alice", tmp_path / "bob"]
    paths[0].write_bytes(alice.armored())
    paths[1].write_bytes(bob.public())
    several = {"type": "signedBy", "keyType": "GPGKeys", "keyPaths": [str(each) for each in paths]}
    assert judge(several, Found(simple=[bob.sign(statement(SIMPLE))])) == ""
    with pytest.raises(UsageError, match="no OpenPGP public key"):
        judge({**by(alice), "keyData": "AAAA"}, Found(simple=[good]))
