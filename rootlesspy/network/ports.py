"""Published ports: what `-p` means, and whether the host's ports are free.

Runs in the CLI before anything of the container exists.  `_socket` instead of `socket` saves the
import of enum and selectors (9 ms).
"""

from __future__ import annotations

import _socket
import errno

from rootlesspy.errors import Conflict, Unsupported, UsageError
from rootlesspy.light_typing import NamedTuple
from rootlesspy.network.addresses import canonical_address

PROTOCOLS = ("tcp", "udp")
MAX_PORT = 65535

_WILDCARDS = ((_socket.AF_INET, "0.0.0.0"), (_socket.AF_INET6, "::"))  # noqa: S104 what -p means
_FORM = "[[IP:][HOSTPORT]:]PORT[-PORT][/tcp|/udp], an IPv6 address in [ ]"


class PortMapping(NamedTuple):
    """One port of the host that leads to one port of the container."""

    host_ip: str
    """Canonical address; empty: every IPv4 and IPv6 address of the host."""
    host_port: int
    """0: a free one, chosen when the container starts."""
    container_port: int
    protocol: str

    def __str__(self) -> str:
        """Write the mapping as `-p` takes it."""
        address = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip
        host = f"{address}:" if address else ""
        return f"{host}{self.host_port or ''}:{self.container_port}/{self.protocol}"


def parse_publish(text: str) -> tuple[PortMapping, ...]:
    """Parse one value of -p/--publish; ranges come back as one mapping per port.

    Raises UsageError.
    """
    address, host_text, container_text, protocols = _split(text)
    container = _port_range(container_text, text)
    if host_text:
        host = _port_range(host_text, text)
        if len(host) != len(container):
            raise UsageError(
                f"port mapping {text!r}: {len(host)} host ports for {len(container)} "
                "container ports",
                hint="give two ranges of the same length, for example 8000-8009:80-89",
            )
    else:
        host = range(1)
    return tuple(
        PortMapping(
            host_ip=address,
            host_port=host[index] if host_text else 0,
            container_port=port,
            protocol=protocol,
        )
        for protocol in protocols
        for index, port in enumerate(container)
    )


def with_exposed(
    mappings: tuple[PortMapping, ...], exposed: tuple[str, ...]
) -> tuple[PortMapping, ...]:
    """Add what an image exposes (80/tcp, 53/udp), each on a free port of all addresses.

    What is published anyway is left out.  Raises UsageError for an entry that is no port.
    """
    taken = {(each.container_port, each.protocol) for each in mappings}
    added = tuple(
        mapping
        for text in exposed
        for mapping in parse_publish(text)
        if (mapping.container_port, mapping.protocol) not in taken
    )
    return merge((*mappings, *added))


def merge(mappings: tuple[PortMapping, ...]) -> tuple[PortMapping, ...]:
    """Drop repeated mappings; raise UsageError when two of them claim the same port of the host."""
    claimed: dict[tuple[str, int, str], PortMapping] = {}
    merged: list[PortMapping] = []
    for mapping in mappings:
        key = (mapping.host_ip, mapping.host_port, mapping.protocol)
        if mapping.host_port and key in claimed:
            if claimed[key] != mapping:
                raise UsageError(
                    f"port {mapping.host_port}/{mapping.protocol} is published twice: "
                    f"to {claimed[key].container_port} and to {mapping.container_port}"
                )
            continue
        if mapping in merged and not mapping.host_port:
            continue
        claimed[key] = mapping
        merged.append(mapping)
    return tuple(merged)


def check_free(mappings: tuple[PortMapping, ...], *, now: bool = True) -> tuple[PortMapping, ...]:
    """Return the mappings with every host port known and seen to be free a moment ago.

    now: False for a container that is started later: what is in use may be free by then.

    Somebody may still take one before the network helper binds it; the helper's own failure is
    reported then.  Raises Conflict (in use), Unsupported (privileged port) and UsageError (an
    address that is not the host's).
    """
    return tuple(
        mapping
        if (mapping.host_port and not now) or _check(mapping)
        else mapping._replace(host_port=_random_port(mapping))
        for mapping in merge(mappings)
    )


def unprivileged_start() -> int:
    """Return the first port that needs no privilege (ip(7), ip_unprivileged_port_start)."""
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024


def _split(text: str) -> tuple[str, str, str, tuple[str, ...]]:
    """Cut into host address, host ports, container ports and protocols."""
    rest, slash, protocol_text = text.partition("/")
    protocols = tuple(protocol_text.lower().split(",")) if slash else ("tcp",)
    for protocol in protocols:
        if protocol == "sctp":
            raise UsageError(
                f"port mapping {text!r}: neither pasta nor slirp4netns forwards sctp",
                hint="--network host shares the host's own ports",
            )
        if protocol not in PROTOCOLS:
            raise UsageError(
                f"port mapping {text!r}: protocol {protocol!r} is not one of tcp, udp",
                hint=f"the form is {_FORM}",
            )
    address, bracket, tail = "", "", rest
    if rest.startswith("["):
        address, bracket, tail = rest[1:].partition("]")
        if not bracket or not tail.startswith(":"):
            raise _malformed(text)
        tail = tail[1:]
    parts = tail.split(":")
    if not bracket and len(parts) == 3:
        address, parts = parts[0], parts[1:]
        if not address or ":" in (canonical_address(address) or ""):
            raise _malformed(text)
    if len(parts) > 2 or (bracket and len(parts) != 2):
        raise _malformed(text)
    if address or bracket:
        known = canonical_address(address)
        if known is None or (bracket and ":" not in known):
            raise UsageError(
                f"port mapping {text!r}: {address!r} is not an IP address",
                hint=f"the form is {_FORM}",
            )
        address = known
    host_text = parts[0] if len(parts) == 2 else ""
    if canonical_address(host_text):
        raise UsageError(
            f"port mapping {text!r} is malformed",
            hint=f"for a host port chosen by the system: {host_text}::{parts[-1]}",
        )
    return address, host_text, parts[-1], tuple(dict.fromkeys(protocols))


def _malformed(text: str) -> UsageError:
    return UsageError(f"port mapping {text!r} is malformed", hint=f"the form is {_FORM}")


def _port_range(text: str, whole: str) -> range:
    first_text, dash, last_text = text.partition("-")
    first = _port(first_text, whole)
    last = _port(last_text, whole) if dash else first
    if last < first:
        raise UsageError(f"port mapping {whole!r}: {text} runs backwards")
    return range(first, last + 1)


def _port(text: str, whole: str) -> int:
    # int() alone takes "+80", " 80", "8_0" and digits of other scripts.
    if text.isascii() and text.isdigit() and len(text) <= 5 and not text.startswith("0"):
        port = int(text)
        if port <= MAX_PORT:
            return port
    raise UsageError(
        f"port mapping {whole!r}: {text!r} is not a port (1 to {MAX_PORT})",
        hint="leave the host port empty to have one chosen" if text == "0" else None,
    )


def _check(mapping: PortMapping) -> bool:
    """Raise when the mapping's host port cannot be bound; say False when it has none yet."""
    if mapping.host_port == 0:
        return False
    for family, address in _addresses(mapping.host_ip):
        try:
            _bind(family, address, mapping.host_port, mapping.protocol).close()
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT and not mapping.host_ip:
                continue
            raise _explain(error, mapping) from error
    return True


def _random_port(mapping: PortMapping) -> int:
    """Return a port that is free on all addresses of the mapping, as the kernel proposes one."""
    for _attempt in range(16):
        port = 0
        sockets: list[_socket.socket] = []
        try:
            for family, address in _addresses(mapping.host_ip):
                try:
                    sockets.append(_bind(family, address, port, mapping.protocol))
                except OSError as error:
                    if error.errno == errno.EADDRINUSE and port:
                        break
                    if error.errno == errno.EAFNOSUPPORT and not mapping.host_ip:
                        continue
                    raise _explain(error, mapping) from error
                port = sockets[-1].getsockname()[1]
            else:
                return port
        finally:
            for sock in sockets:
                sock.close()
    raise Conflict(f"no free {mapping.protocol} port was found for {mapping}")


def _addresses(host_ip: str) -> tuple[tuple[int, str], ...]:
    if not host_ip:
        return _WILDCARDS
    return ((_socket.AF_INET6 if ":" in host_ip else _socket.AF_INET, host_ip),)


def _bind(family: int, address: str, port: int, protocol: str) -> _socket.socket:
    kind = _socket.SOCK_STREAM if protocol == "tcp" else _socket.SOCK_DGRAM
    sock = _socket.socket(family, kind | _socket.SOCK_CLOEXEC)
    try:
        if protocol == "tcp":
            # As pasta binds: connections in TIME_WAIT do not count.  Not for UDP, where two
            # sockets with the option share a port silently and the second gets the datagrams.
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _explain(error: OSError, mapping: PortMapping) -> Conflict | Unsupported | UsageError:
    """Turn the errno of bind(2) into the error that names the cure."""
    name = f"port {mapping.host_port}/{mapping.protocol}"
    if error.errno == errno.EADDRINUSE:
        from rootlesspy.network import holder

        return Conflict(f"{name} is in use{holder.describe(mapping)}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unsupported(
            f"{name} is privileged: ports below {unprivileged_start()} belong to root",
            hint=f"sudo sysctl -w net.ipv4.ip_unprivileged_port_start={mapping.host_port}",
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL):
        return UsageError(
            f"address {mapping.host_ip} is not one of this machine", hint="ip address show"
        )
    return Conflict(f"{name} cannot be bound: {error.strerror}")
