"""Signatures of OpenPGP, by the program gpg: in a home of its own that holds the given keys only.

The user's keyring, trust settings and agent have no say, so whatever verifies there was made by one
of the keys.  Cold: a pull whose policy asks for signedBy, `rp image trust`, and signing.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import contextmanager

from rootlesspy.errors import Error, Unsupported, UsageError
from rootlesspy.image.trust.payload import Refused
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TIMEOUT_S = 120
_MAX_CONTENT_BYTES = 1 << 20
# Packets that a signed message begins with (RFC 9580, 5): signature, one-pass, compressed.
_FIRST_PACKETS = frozenset((2, 4, 8))
_BAD = frozenset(
    ("BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NODATA", "BEGIN_DECRYPTION",
     "FAILURE", "UNEXPECTED")
)  # fmt: skip


class Keyring:
    """The public keys of one requirement; made by keyring()."""

    def __init__(self, home: str) -> None:
        self._home = home

    def add(self, key: bytes, where: str) -> None:
        """Take keys in.  Raises UsageError for what holds none."""
        done = self._gpg(["--import"], key)
        if "IMPORT_OK" not in _status(done, self._home):
            raise UsageError(
                f"{where} holds no OpenPGP public key", hint=f"gpg --show-keys {where}"
            )

    def content(self, signature: bytes) -> bytes:
        """Return what is signed by one of the keys.  Raises Refused."""
        if _packet(signature) not in _FIRST_PACKETS:
            raise Refused("it is not an OpenPGP message")
        output = f"{self._home}/content"
        done = self._gpg(
            ["--max-output", str(_MAX_CONTENT_BYTES), "--output", output, "--decrypt"], signature
        )
        status = _status(done, self._home)
        try:
            with open(output, "rb") as file:
                data = file.read()
            os.unlink(output)
        except FileNotFoundError:
            data = b""
        if "NO_PUBKEY" in status:
            raise Refused(f"it was made by another key, {status['NO_PUBKEY'][0]}")
        for word, why in (("EXPSIG", "it has expired"), ("EXPKEYSIG", "its key has expired"),
                          ("REVKEYSIG", "its key is revoked")):  # fmt: skip
            if word in status:
                raise Refused(why)
        counts = [len(status.get(word, ())) for word in ("GOODSIG", "VALIDSIG", "PLAINTEXT")]
        if done.returncode != 0 or counts != [1, 1, 1] or _BAD & set(status):
            raise Refused("it does not verify")
        return data

    def users(self) -> list[str]:
        """Return the user ids of the keys, the first of each."""
        done = self._gpg(["--with-colons", "--list-keys"], b"")
        found: list[str] = []
        fresh = False
        for line in done.stdout.decode("utf-8", "replace").splitlines():
            fields = line.split(":")
            fresh = fresh or fields[0] == "pub"
            if fields[0] == "uid" and fresh and len(fields) > 9:
                found.append(fields[9])
                fresh = False
        return found

    def _gpg(self, words: Sequence[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
        return run(
            [
                "--homedir", self._home, "--no-options", "--no-autostart", "--no-auto-key-locate",
                "--no-auto-key-retrieve", "--trust-model", "always", "--weak-digest", "SHA1",
                "--status-file", f"{self._home}/status", *words,
            ],
            data,
        )  # fmt: skip


@contextmanager
def keyring() -> Iterator[Keyring]:
    """Make an empty keyring, which is gone afterwards.  Raises Unsupported without gpg."""
    with tempfile.TemporaryDirectory(prefix="rp-gpg-", ignore_cleanup_errors=True) as home:
        yield Keyring(home)


def run(words: Sequence[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run gpg with data as its input.  Raises Unsupported where it is missing, Error."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        return subprocess.run(
            ["gpg", "--batch", "--no-tty", "--yes", *words],
            input=data,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except FileNotFoundError:
        raise Unsupported(
            "OpenPGP signatures need the program gpg", hint="apt install gpg"
        ) from None
    except subprocess.TimeoutExpired:
        raise Error(f"gpg does not end within {_TIMEOUT_S} s") from None


def _packet(message: bytes) -> int | None:
    """Return the type of a message's first packet, None for what is no OpenPGP in binary."""
    if not message or not message[0] & 0x80:
        return None
    return message[0] & 0x3F if message[0] & 0x40 else message[0] >> 2 & 0xF


def _status(done: subprocess.CompletedProcess[bytes], home: str) -> dict[str, list[str]]:
    """Return gpg's status lines by their word, and forget them.  Raises Error."""
    path = f"{home}/status"
    found: dict[str, list[str]] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                _, _, text = line.rstrip("\n").partition("[GNUPG:] ")
                word, _, rest = text.partition(" ")
                found.setdefault(word, []).append(rest)
        os.unlink(path)
    except FileNotFoundError:
        if done.returncode:
            told = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise Error(f"gpg failed: {told[-1] if told else done.returncode}") from None
    return found
