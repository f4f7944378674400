"""OpenPGP keys and signed messages as gpg makes them, without gpg and its agent (RFC 9580, v4).

What is made here is real: gpg verifies it, and podman and skopeo accept it as a signature.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import time
import zlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_RSA, _SHA256 = 1, 8
_BINARY, _CERTIFICATION = 0x00, 0x13
_USER_ID, _PUBLIC_KEY, _SIGNATURE, _ONE_PASS, _LITERAL, _COMPRESSED = 13, 6, 2, 4, 11, 8


class Key:
    """A key pair with one user id."""

    def __init__(self, user: str, *, created: int | None = None) -> None:
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._created = int(time.time()) - 3600 if created is None else created
        numbers = self._private.public_key().public_numbers()
        self._body = (
            struct.pack(">BIB", 4, self._created, _RSA) + _integer(numbers.n) + _integer(numbers.e)
        )
        hashed = hashlib.sha1(b"\x99" + struct.pack(">H", len(self._body)) + self._body)
        self.fingerprint = hashed.hexdigest().upper()
        self._id = hashed.digest()[-8:]
        self._user = user.encode()

    def public(self) -> bytes:
        """Return the public key as gpg --export writes it."""
        certified = (
            b"\x99" + struct.pack(">H", len(self._body)) + self._body
            + b"\xb4" + struct.pack(">I", len(self._user)) + self._user
        )  # fmt: skip
        flags = _subpacket(27, b"\x03")
        return (
            _packet(_PUBLIC_KEY, self._body)
            + _packet(_USER_ID, self._user)
            + self._signature(_CERTIFICATION, certified, self._created, flags)
        )

    def armored(self) -> bytes:
        """Return the public key as gpg --armor --export writes it."""
        data = self.public()
        lines = base64.encodebytes(data).decode()
        check = base64.b64encode(_crc24(data).to_bytes(3, "big")).decode()
        return (
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"
            f"{lines}={check}\n-----END PGP PUBLIC KEY BLOCK-----\n"
        ).encode()

    def sign(self, data: bytes, *, made: int | None = None, lasts: int = 0) -> bytes:
        """Return data as a signed message; lasts: seconds until the signature expires, 0: never."""
        made = int(time.time()) - 60 if made is None else made
        more = _subpacket(3, struct.pack(">I", lasts)) if lasts else b""
        ops = struct.pack(">BBBB", 3, _BINARY, _SHA256, _RSA) + self._id + b"\x01"
        literal = b"b\x00" + struct.pack(">I", made) + data
        return (
            _packet(_ONE_PASS, ops)
            + _packet(_LITERAL, literal)
            + self._signature(_BINARY, data, made, more)
        )

    def _signature(self, kind: int, data: bytes, made: int, more: bytes) -> bytes:
        subpackets = _subpacket(2, struct.pack(">I", made)) + more
        head = struct.pack(">BBBBH", 4, kind, _RSA, _SHA256, len(subpackets)) + subpackets
        trailer = b"\x04\xff" + struct.pack(">I", len(head))
        hashed = hashlib.sha256(data + head + trailer).digest()
        made_signature = self._private.sign(
            data + head + trailer, padding.PKCS1v15(), hashes.SHA256()
        )
        issuer = _subpacket(16, self._id)
        body = (
            head + struct.pack(">H", len(issuer)) + issuer + hashed[:2]
            + _integer(int.from_bytes(made_signature, "big"))
        )  # fmt: skip
        return _packet(_SIGNATURE, body)


def unsigned(data: bytes) -> bytes:
    """Return data as a literal message that nobody signed."""
    return _packet(_LITERAL, b"b\x00" + bytes(4) + data)


def compressed(message: bytes) -> bytes:
    """Return a message as gpg compresses it."""
    deflater = zlib.compressobj(wbits=-15)
    return _packet(_COMPRESSED, b"\x01" + deflater.compress(message) + deflater.flush())


def _packet(tag: int, body: bytes) -> bytes:
    """Return a packet of the old format with four octets of length, as gpg writes long ones."""
    return bytes((0x80 | tag << 2 | 2,)) + struct.pack(">I", len(body)) + body


def _subpacket(kind: int, body: bytes) -> bytes:
    return bytes((len(body) + 1, kind)) + body


def _integer(number: int) -> bytes:
    bits = number.bit_length()
    return struct.pack(">H", bits) + number.to_bytes((bits + 7) // 8, "big")


def _crc24(data: bytes) -> int:
    crc = 0xB704CE
    for octet in data:
        crc ^= octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc & 0xFFFFFF
