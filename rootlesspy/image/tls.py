"""TLS contexts for registries, with certs.d, and what a failed verification means.

Source: containers-certs.d(5).
"""

from __future__ import annotations

import os
import ssl

from rootlesspy.errors import RegistryError
from rootlesspy.light_typing import NamedTuple

# From <openssl/x509_vfy.h>.
_NOT_YET_VALID = 9
_EXPIRED = 10
_HOSTNAME_MISMATCH = 62
_IP_ADDRESS_MISMATCH = 64


class CertificateProblem(NamedTuple):
    """Why a certificate was refused: OpenSSL's code and words."""

    code: int
    words: str

    def message(self, host: str) -> str:
        """Say what is wrong, for people."""
        if self.code in (_EXPIRED, _NOT_YET_VALID):
            state = "has expired" if self.code == _EXPIRED else "is not valid yet"
            return f"certificate of registry {host} {state}, or the clock of this machine is wrong"
        if self.code in (_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH):
            return f"certificate of registry {host} is for another name"
        if not self.code:
            return f"no TLS with registry {host}: {self.words}"
        return f"certificate of registry {host} is not trusted: {self.words}"

    def hint(self, host: str) -> str:
        """Say what cures it."""
        if self.code in (_EXPIRED, _NOT_YET_VALID):
            return "date"
        if not self.code:
            return f'if it has no TLS: insecure = true for location "{host}" in registries.conf'
        return f"put the certificate of its authority in ~/.config/containers/certs.d/{host}/ca.crt"


def context(
    host: str,
    *,
    insecure: bool,
    config_directory: str,
    compares_names: bool,
    certificates: str | None = None,
) -> ssl.SSLContext:
    """Return a context that verifies host (host:port as in certs.d) unless insecure.

    certificates is a directory to use in place of those below certs.d.  Without compares_names the
    caller compares the name in the certificate.  Raises RegistryError for a file that cannot be
    used.
    """
    if insecure:
        # Without the authorities of the system, which take 10 ms to read: nobody asks them.
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    else:
        made = ssl.create_default_context()
        made.check_hostname = compares_names
    bases = (f"{config_directory}/containers", "/etc/containers", "/etc/docker")
    directories = [f"{base}/certs.d/{host}" for base in bases]
    for directory in directories if certificates is None else (certificates,):
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            _load(made, f"{directory}/{name}")
    return made


def certificate_problem(error: BaseException | None) -> CertificateProblem | None:
    """Find a TLS failure in an exception, its arguments and its causes."""
    pending: list[object] = [error]
    for _ in range(16):
        if not pending:
            return None
        found = pending.pop(0)
        if isinstance(found, ssl.SSLCertVerificationError) and hasattr(found, "verify_code"):
            return CertificateProblem(found.verify_code, found.verify_message)
        if type(found).__name__ == "CertificateError":
            # urllib3's own comparison of names, or that of ssl before Python 3.12.
            return CertificateProblem(_HOSTNAME_MISMATCH, str(found))
        if isinstance(found, ssl.SSLError):
            return CertificateProblem(0, (found.reason or str(found)).replace("_", " ").lower())
        if isinstance(found, BaseException):
            pending += [*found.args, getattr(found, "reason", None), found.__cause__]
            pending.append(found.__context__)
    return None


def _load(made: ssl.SSLContext, path: str) -> None:
    try:
        if path.endswith(".crt"):
            made.load_verify_locations(path)
        elif path.endswith(".cert"):
            made.load_cert_chain(path, f"{path.removesuffix('.cert')}.key")
    except (OSError, ValueError) as error:
        raise RegistryError(f"cannot use {path}: {error}", hint=f"ls -l {path}") from error
