"""User-defined networks: what one is, and which subnets and addresses are given out.

Pure: files are `engine.networks.store`'s, interfaces `network.bridge`'s.  Loaded only where a
network has a part in what is done.
"""

from __future__ import annotations

import ipaddress

from rootlesspy.errors import Conflict, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address
    Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network

# What podman chooses from, too: 10.89.0.0/24 to 10.255.255.0/24 of RFC 1918.
_FIRST_POOL, _LAST_POOL = "10.89.0.0", "10.255.255.0"
_POOL_LENGTH = 24
_UNIQUE_LOCAL = 0xFD << 120
# The kernel hands out no host addresses in smaller ones (RFC 3021 is for two routers).
_LONGEST = {4: 30, 6: 126}


class Subnet(NamedTuple):
    """One subnet of a network; addresses as text, in their canonical form."""

    subnet: str
    """ADDRESS/LENGTH."""
    gateway: str
    """The bridge's own address: it answers DNS, and routes nothing."""
    first: str = ""
    """First and last address to give out; empty: the whole subnet."""
    last: str = ""


class Route(NamedTuple):
    """A route that every member gets."""

    destination: str
    gateway: str
    metric: int = 0


class Network(NamedTuple):
    """One user-defined network."""

    name: str
    id: str
    """64 hexadecimal digits."""
    created_s: float
    """Seconds since the epoch."""
    subnets: tuple[Subnet, ...]
    internal: bool = False
    """Members that are in such networks alone have no way out, and DNS forwards nothing."""
    dns: bool = True
    """Names of members are answered at the gateway addresses."""
    dns_servers: tuple[str, ...] = ()
    """Where other names are looked up; empty: the host's resolvers."""
    options: dict[str, str] = {}  # noqa: RUF012 - never written to
    labels: dict[str, str] = {}  # noqa: RUF012 - never written to
    routes: tuple[Route, ...] = ()
    interface_name: str = ""
    """The bridge's name in the network's namespace; empty: bridge0."""

    @property
    def ipv6(self) -> bool:
        """Whether members get IPv6 addresses."""
        return any(":" in each.subnet for each in self.subnets)

    @property
    def mtu(self) -> int:
        """The MTU of its interfaces, 0 for the kernel's default."""
        return int(self.options.get("mtu", "0"))


def parse_subnet(text: str) -> Prefix:
    """Parse ADDRESS/LENGTH with a zero host part.  Raises UsageError."""
    length = text.partition("/")[2]
    # Not a net mask, nor other countries' digits: "x" is what ip_network refuses.
    plain = text if length.isascii() and length.isdigit() else "x"
    try:
        found = ipaddress.ip_network(plain)
    except ValueError:
        raise UsageError(
            f"subnet {text!r} is not ADDRESS/LENGTH with a zero host part",
            hint="for example 10.89.5.0/24 or fd00:5::/64",
        ) from None
    if found.prefixlen > _LONGEST[found.version]:
        raise UsageError(f"subnet {text} has no room for a gateway and a container")
    if found.is_loopback or found.is_multicast or found.is_unspecified or found.prefixlen == 0:
        raise UsageError(f"subnet {text} is not for containers")
    return found


def parse_address(text: str, what: str = "address") -> Address:
    """Parse an IP address without a zone.  Raises UsageError."""
    try:
        # Not with a zone: "" is what ip_address refuses.
        return ipaddress.ip_address("" if "%" in text else text)
    except ValueError:
        raise UsageError(f"{what} {text!r} is not an IP address") from None


def make_subnet(subnet: Prefix, gateway: str = "", ip_range: str = "") -> Subnet:
    """Return a subnet with its gateway (the first address unless given) and its range.

    ip_range is ADDRESS/LENGTH or FIRST-LAST.  Raises UsageError.
    """
    own = parse_address(gateway, "gateway") if gateway else subnet[1]
    if own not in subnet or own in _unusable(subnet):
        raise UsageError(f"gateway {own} is no host address of subnet {subnet}")
    first = last = ""
    if ip_range:
        low, high = _range(ip_range, subnet)
        first, last = str(low), str(high)
    return Subnet(subnet=str(subnet), gateway=str(own), first=first, last=last)


def free_ipv4(taken: Iterable[str]) -> Prefix:
    """Return the first subnet of the pool that overlaps none of those taken.  Raises Conflict."""
    used = [each for each in map(ipaddress.ip_network, taken) if each.version == 4]
    low, high = int(ipaddress.ip_address(_FIRST_POOL)), int(ipaddress.ip_address(_LAST_POOL))
    step = 1 << (32 - _POOL_LENGTH)
    at = low
    while at <= high:
        candidate = ipaddress.ip_network((at, _POOL_LENGTH))
        clash = next((each for each in used if candidate.overlaps(each)), None)
        if clash is None:
            return candidate
        at = max(at + step, (int(clash.broadcast_address) // step + 1) * step)
    raise Conflict("no subnet is free", hint="give one with --subnet, or: rp network prune")


def free_ipv6(taken: Iterable[str], random: bytes) -> Prefix:
    """Return a unique local /64 (RFC 4193) made of random's first seven bytes.  Raises Conflict."""
    prefix = ipaddress.ip_network((_UNIQUE_LOCAL | int.from_bytes(random[:7], "big") << 64, 64))
    check_overlap(prefix, taken, "a network")
    return prefix


def check_overlap(subnet: Prefix, taken: Iterable[str], what: str) -> None:
    """Raise Conflict when a subnet overlaps one that is taken."""
    for text in taken:
        other = ipaddress.ip_network(text)
        if subnet.version == other.version and subnet.overlaps(other):
            raise Conflict(f"subnet {subnet} overlaps {other} of {what}")


def give_address(subnet: Subnet, taken: Collection[str], wanted: str = "") -> str:
    """Return an address of the subnet that nobody has: the wanted one, or the lowest.

    Raises UsageError (outside of the subnet), Conflict (taken, or none is free).
    """
    prefix = ipaddress.ip_network(subnet.subnet)
    unusable = _unusable(prefix)
    if wanted:
        address = parse_address(wanted)
        if address not in prefix or address in unusable:
            raise UsageError(f"address {address} is no host address of subnet {prefix}")
        if str(address) == subnet.gateway or str(address) in taken:
            raise Conflict(f"address {address} is in use")
        return str(address)
    low, high = int(prefix.network_address) + 1, int(prefix.broadcast_address)
    if subnet.first:
        low, high = (int(ipaddress.ip_address(each)) for each in (subnet.first, subnet.last))
    make = type(prefix.network_address)
    for number in range(low, high + 1):
        address = make(number)
        text = str(address)
        if text != subnet.gateway and text not in taken and address not in unusable:
            return text
    raise Conflict(f"subnet {prefix} has no free address")


def subnet_of(network: Network, address: str) -> Subnet:
    """Return the subnet of a network that an address is of.  Raises UsageError."""
    parsed = parse_address(address)
    for subnet in network.subnets:
        if parsed in ipaddress.ip_network(subnet.subnet):
            return subnet
    raise UsageError(
        f"address {parsed} is in no subnet of network {network.name}",
        hint=f"it has {', '.join(each.subnet for each in network.subnets)}",
    )


def with_length(subnet: Subnet, address: str) -> str:
    """Return ADDRESS/LENGTH."""
    return f"{address}/{subnet.subnet.partition('/')[2]}"


def not_found(name: str) -> NotFound:
    """Return the error for a network that does not exist."""
    return NotFound(f"network {name!r} does not exist", hint="rp network ls; rp network create")


def _unusable(prefix: Prefix) -> tuple[Address, ...]:
    """Return the subnet's own address (RFC 4291: the routers' anycast) and the broadcast one."""
    if prefix.version == 6:
        return (prefix.network_address,)
    return (prefix.network_address, prefix.broadcast_address)


def _range(text: str, subnet: Prefix) -> tuple[Address, Address]:
    if "/" in text:
        within = parse_prefix(text)
        low, high = within.network_address, within.broadcast_address
    else:
        first, dash, last = text.partition("-")
        if not dash:
            raise UsageError(f"range {text!r} is neither ADDRESS/LENGTH nor FIRST-LAST")
        low, high = parse_address(first, "range"), parse_address(last, "range")
    if low not in subnet or high not in subnet:
        raise UsageError(f"range {text} is not within subnet {subnet}")
    if int(low) > int(high):
        raise UsageError(f"range {text} ends before it begins")
    return low, high


def parse_prefix(text: str) -> Prefix:
    """Parse ADDRESS/LENGTH of any length.  Raises UsageError."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise UsageError(f"{text!r} is not ADDRESS/LENGTH with a zero host part") from None
