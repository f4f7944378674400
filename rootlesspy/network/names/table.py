"""The names of a network: who may ask, and what each container sees.

A container of several networks asks the server of one of them and is told the names of all: musl
asks every server of resolv.conf at once and takes the first NXDOMAIN for the truth, glibc never
asks the second one after it.  So the servers know, of the networks that their members are in too,
the members.
"""

from __future__ import annotations

import ipaddress

from rootlesspy.light_typing import NamedTuple

_ID_CHARACTERS = 12


class Member(NamedTuple):
    """A container in a network."""

    container: str
    """Its whole id."""
    names: tuple[str, ...]
    """Its name first, then aliases and names of services, which others may have too."""
    addresses: tuple[str, ...]
    dns: tuple[str, ...] = ()
    """--dns of the container: asked instead of the network's and the host's resolvers."""


class NetworkNames(NamedTuple):
    """What the server of a network answers from."""

    subnets: tuple[str, ...]
    """ADDRESS/LENGTH; nobody else is answered."""
    members: tuple[Member, ...] = ()
    internal: bool = False
    dns: tuple[str, ...] = ()
    """--dns of the network: asked instead of the host's resolvers."""


class View(NamedTuple):
    """The names as one container sees them."""

    addresses: dict[str, tuple[str, ...]]
    """By name, in small letters."""
    names: dict[str, tuple[str, ...]]
    """By address, the container's own name first."""
    subnets: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    resolvers: tuple[str, ...] | None
    """Who is asked for other names: None the host's resolvers, empty nobody (--internal)."""


class Table:
    """The members of a network, and of the networks that these are in too."""

    def __init__(self, own: NetworkNames, others: tuple[NetworkNames, ...] = ()) -> None:
        self._own = own
        self._others = others
        self._subnets = _parse_subnets((own,))
        self._members = {
            address: member for member in own.members for address in map(_text, member.addresses)
        }
        self._views: dict[str, View] = {}

    def view(self, client: str) -> View | None:
        """Return what the asker with this address sees, None for somebody outside."""
        member = self._members.get(client)
        if member is None and not _is_inside(client, self._subnets):
            return None
        key = member.container if member else ""
        if key not in self._views:
            self._views[key] = self._make_view(member)
        return self._views[key]

    def _make_view(self, member: Member | None) -> View:
        networks: tuple[NetworkNames, ...] = (self._own,)
        if member is not None:
            networks += tuple(
                network
                for network in self._others
                if any(other.container == member.container for other in network.members)
            )
        addresses: dict[str, list[str]] = {}
        names: dict[str, list[str]] = {}
        for known in (known for network in networks for known in network.members):
            own = [*known.names, known.container[:_ID_CHARACTERS]]
            for address in map(_text, known.addresses):
                _add_all(names.setdefault(address, []), own)
                for name in own:
                    _add_all(addresses.setdefault(name.lower(), []), [address])
        return View(
            addresses={name: tuple(found) for name, found in addresses.items()},
            names={address: tuple(found) for address, found in names.items()},
            subnets=_parse_subnets(networks),
            resolvers=_resolvers(member, networks),
        )


def _resolvers(member: Member | None, networks: tuple[NetworkNames, ...]) -> tuple[str, ...] | None:
    open_networks = [network for network in networks if not network.internal]
    if not open_networks:
        return ()
    if member is not None and member.dns:
        return member.dns
    return next((network.dns for network in open_networks if network.dns), None)


def _parse_subnets(
    networks: tuple[NetworkNames, ...],
) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(
        ipaddress.ip_network(subnet, strict=False)
        for network in networks
        for subnet in network.subnets
    )


def _is_inside(
    client: str, subnets: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    return any(address in subnet for subnet in subnets)


def _text(address: str) -> str:
    """Return an address as the kernel writes it."""
    return str(ipaddress.ip_address(address.partition("/")[0]))


def _add_all(to: list[str], words: list[str]) -> None:
    to += [word for word in words if word not in to]
