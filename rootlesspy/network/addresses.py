"""Addresses: how they are spelled, which ones names resolve to, and which are the host's own."""

from __future__ import annotations

import _socket

from rootlesspy.light_typing import NamedTuple

# Documentation addresses (RFC 5737, RFC 3849): nothing is sent there, only the route is looked up.
_ANYWHERE = ((_socket.AF_INET, "192.0.2.1"), (_socket.AF_INET6, "2001:db8::1"))


class Addresses(NamedTuple):
    """What names resolve to inside the container; empty where there is no such address."""

    container: tuple[str, ...] = ()
    """The container's own addresses, as far as they are known before it starts."""
    host: str = ""
    """Leads to the host's services, those of its loopback excepted (host-gateway)."""
    dns: str = ""
    """Queries sent there are answered by the host's first IPv4 resolver, or 127.0.0.1."""
    dns6: str = ""
    """Queries sent there are answered by the host's first IPv6 resolver."""
    networks: tuple[str, ...] = ()
    """The container's own addresses in user-defined networks: what its names resolve to then."""
    name_servers: tuple[str, ...] = ()
    """The resolvers of its networks, in order; the first one knows the names of all of them."""


def canonical_address(text: str) -> str | None:
    """Return an IP address in its canonical form, or None when text is not exactly one.

    inet_pton is strict where inet_aton is not: 127.1, 010.0.0.1 and zones are refused.
    """
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            return _socket.inet_ntop(family, _socket.inet_pton(family, text))
        except (OSError, ValueError):
            continue
    return None


def outbound_addresses() -> tuple[str, ...]:
    """Return the host's address towards the rest of the world, per family that has a route."""
    return tuple(
        address
        for family, destination in _ANYWHERE
        if (address := _source_address(family, destination))
    )


def is_host_address(address: str) -> bool:
    """Say whether an address is one of this host's: the only ones that bind(2) accepts."""
    if canonical_address(address) is None:
        return False
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    sock = _socket.socket(family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sock.bind((address, 0))
    except OSError:
        return False
    else:
        return True
    finally:
        sock.close()


def _source_address(family: int, destination: str) -> str:
    """Return the address that the kernel would send from; no packet is sent."""
    try:
        sock = _socket.socket(family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    except OSError:
        return ""
    try:
        sock.connect((destination, 9))
        return str(sock.getsockname()[0])
    except OSError:
        return ""
    finally:
        sock.close()
