"""The names of a network's members: what its DNS server answers from.

Leases are the truth; nothing is kept that cannot be read again.  A container asks the service of
one of its networks, its first name server, and is told the names of all networks that it is in.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from rootlesspy.engine.networks import leases, store

if TYPE_CHECKING:
    from rootlesspy.engine.networks.leases import Lease
    from rootlesspy.paths import Paths

# Two changes within one tick of the kernel's clock have the same time.
_TICK_NS = 20_000_000


class Names:
    """Names and addresses, as a container of one network may see them."""

    def __init__(self, paths: Paths, network: str) -> None:
        self._paths = paths
        self._network = network
        self._cache: dict[str, tuple[int, list[Lease]]] = {}

    def lookup(self, name: str, client: str) -> tuple[str, ...]:
        """Return the addresses of a name as the container with address client sees them.

        name is without a final dot, in any case of letters; the addresses are of both versions, of
        all containers that have it.  Empty when no member has the name.
        """
        wanted = name.lower()
        found: dict[str, None] = {}
        for lease in self._visible(client):
            if any(each.lower() == wanted for each in lease.known_as()):
                found.update(dict.fromkeys(lease.plain_addresses()))
        return tuple(found)

    def reverse(self, address: str, client: str) -> tuple[str, ...]:
        """Return the names of an address, the container's own name first; empty: not a member's."""
        for lease in self._visible(client):
            if address in lease.plain_addresses():
                return lease.known_as()
        return ()

    def _visible(self, client: str) -> list[Lease]:
        """Return the leases of all networks that the asking container is in."""
        own = self._leases(self._network)
        asking = next((each.container for each in own if client in each.plain_addresses()), "")
        found = list(own)
        for network in store.all_names(self._paths) if asking else []:
            if network != self._network:
                others = self._leases(network)
                if any(each.container == asking for each in others):
                    found += others
        return found

    def _leases(self, network: str) -> list[Lease]:
        """Return the leases of a network, read again when a file was made, replaced or removed."""
        try:
            changed = os.stat(f"{self._paths.network_runtime(network)}/leases").st_mtime_ns
        except FileNotFoundError:
            return []
        cached = self._cache.get(network)
        if cached is None or cached[0] != changed:
            connected = [each for each in leases.living(self._paths, network) if each.pid]
            if time.time_ns() - changed < _TICK_NS:
                return connected
            cached = self._cache[network] = (changed, connected)
        return cached[1]
