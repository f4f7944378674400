"""Who may be told a password: challenges of registries, realms, and the user's auth.json.

Pure decisions, no network but name resolution.  The rules are SECURITY.md G: a password goes to
the registry it belongs to or to a token server of the same domain, over TLS, and nowhere else; a
registry on the internet cannot send us to addresses of the local network.

Sources: RFC 9110 section 11.6.1, the distribution project's token specification,
containers-auth.json(5).
"""

from __future__ import annotations

import binascii
import ipaddress

from rootlesspy.errors import RegistryError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

DOCKER_HUB = ("docker.io", "registry-1.docker.io", "index.docker.io")
_TOKEN_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~"
)


class Challenge(NamedTuple):
    """One scheme of a WWW-Authenticate header, in lower case, with its parameters."""

    scheme: str
    parameters: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """Return a parameter or the empty string."""
        return dict(self.parameters).get(name, "")


class Credentials(NamedTuple):
    """What somebody is known by to a registry."""

    username: str
    password: str

    def basic(self) -> str:
        """Return the value of a Basic Authorization header."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {binascii.b2a_base64(pair, newline=False).decode()}"


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Parse WWW-Authenticate headers; what cannot be understood is left out."""
    found: list[Challenge] = []
    for header in headers:
        scheme = ""
        parameters: list[tuple[str, str]] = []
        for word in _split_commas(header[:8192]):
            start, space, rest = word.partition(" ")
            if space and _TOKEN_CHARACTERS.issuperset(start) and "=" not in start:
                if scheme:
                    found.append(Challenge(scheme, tuple(parameters)))
                scheme, parameters, word = start.lower(), [], rest
            elif "=" not in word:
                if scheme:
                    found.append(Challenge(scheme, tuple(parameters)))
                scheme, parameters = word.lower(), []
                continue
            name, _, value = word.partition("=")
            parameters.append((name.strip().lower(), _unquoted(value.strip())))
        if scheme:
            found.append(Challenge(scheme, tuple(parameters)))
    return found


def check_realm(realm: str, registry_host: str, *, insecure: bool, resolve: bool) -> None:
    """Refuse a token server that a registry may not name.  Raises RegistryError.

    resolve says whether names can be looked up here (not behind a proxy).
    """
    parts = _split(realm)
    if parts is None or parts.hostname is None or parts.username is not None:
        raise _refused(registry_host, realm, "it is not a URL of a server")
    same = parts.hostname == registry_host
    if parts.scheme != "https" and not (parts.scheme == "http" and insecure and same):
        raise _refused(registry_host, realm, "it is not https")
    if not same:
        check_not_private(parts.hostname, registry_host, resolve=resolve)


def check_not_private(host: str, registry_host: str, *, resolve: bool) -> None:
    """Refuse to be sent from a public registry to a host on this machine or its networks."""
    if _is_private(host, resolve) and not _is_private(registry_host, resolve):
        raise RegistryError(
            f"registry {registry_host} points to {host}, which is on a private network",
        )


def may_have_password(realm: str, registry_host: str) -> bool:
    """Say whether the password of a registry may be sent to a token server."""
    parts = _split(realm)
    if parts is None or parts.scheme != "https" or parts.hostname is None:
        return False
    if parts.hostname == registry_host:
        return True
    if registry_host in DOCKER_HUB:
        return parts.hostname == "auth.docker.io"
    domain = _registrable_domain(registry_host)
    return domain is not None and domain == _registrable_domain(parts.hostname)


def _split_commas(header: str) -> list[str]:
    """Split at commas outside quotes."""
    words, word, quoted, escaped = [], "", False, False
    for character in header:
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            words.append(word.strip())
            word = ""
            continue
        word += character
    return [word for word in (*words, word.strip()) if word]


def _unquoted(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    text, escaped = "", False
    for character in value[1:-1]:
        if character == "\\" and not escaped:
            escaped = True
            continue
        escaped = False
        text += character
    return text


class _Url(NamedTuple):
    scheme: str
    hostname: str | None
    username: str | None


def _split(url: str) -> _Url | None:
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return None
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return _Url(parts.scheme, parts.hostname, parts.username)


def _is_private(host: str, resolve: bool) -> bool:
    import socket

    try:
        return not ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_global
    except ValueError:
        pass
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    # 0x7f.1, 2130706433 and their like are addresses for the C library.
    digits = host.replace(".", "").replace("x", "").replace("X", "")
    if digits.isalnum() and not host.rpartition(".")[2].strip("0123456789abcdefABCDEFxX"):
        try:
            return not ipaddress.ip_address(socket.inet_aton(host)).is_global
        except OSError:
            pass
    if not resolve:
        return False
    try:
        answers = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    addresses = [ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers]
    return any(not address.is_global for address in addresses)


def _registrable_domain(host: str) -> str | None:
    """Return the part of a name that one owner has; None for addresses and single labels.

    An approximation of the public suffix list: two labels, three where the second is as short as
    in co.uk.  Errs towards not sending a password.
    """
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        labels = host.split(".")
        count = 3 if len(labels) > 1 and len(labels[-2]) <= 3 else 2
        return ".".join(labels[-count:]) if len(labels) >= count else None
    return None


def _refused(registry_host: str, realm: str, why: str) -> RegistryError:
    return RegistryError(f"registry {registry_host} names the token server {realm!r}: {why}")
