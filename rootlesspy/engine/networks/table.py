"""The names of a network's members, read from the leases again whenever these change."""

from __future__ import annotations

import os
import time

from rootlesspy.engine.networks import leases, store
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network.names.table import Member, NetworkNames, Table, View

if TYPE_CHECKING:
    from rootlesspy.engine.networks.leases import Lease
    from rootlesspy.network.networks import Network
    from rootlesspy.paths import Paths

# Two changes within one tick of the kernel's clock have the same time.
_TICK_NS = 20_000_000


class LiveTable(Table):
    """What the DNS server of a network answers from, as it is now."""

    def __init__(self, paths: Paths, network: Network) -> None:
        super().__init__(_names(network, ()))
        self._paths = paths
        self._network = network
        self._times: tuple[int, ...] = ()
        self._pods: set[str] = set()
        self._current: Table = Table(_names(network, ()))

    def view(self, client: str) -> View | None:
        """Return what the asker with this address sees, None for somebody outside."""
        networks = store.all_names(self._paths)
        times = self._changes(networks)
        if times != self._times:
            self._pods = set()
            others = [
                each for each in store.all_networks(self._paths) if each.name != self._network.name
            ]
            self._current = Table(
                self._read(self._network), tuple(self._read(each) for each in others)
            )
            times = self._changes(networks)
            newest = max(times, default=0)
            self._times = times if time.time_ns() - newest > _TICK_NS else ()
        return self._current.view(client)

    def _changes(self, networks: list[str]) -> tuple[int, ...]:
        """Return when something that the names come from changed last."""
        found = [_changed(self._paths, each) for each in networks]
        if self._pods:
            from rootlesspy.engine.pods import store as pods

            found += [pods.members_changed_ns(self._paths, each) for each in sorted(self._pods)]
        return tuple(found)

    def _read(self, network: Network) -> NetworkNames:
        found = leases.living(self._paths, network.name)
        return _names(network, tuple(self._named(each) for each in found if each.pid))

    def _named(self, lease: Lease) -> Lease:
        """Add the names of a pod's members, all of which have the pod's address."""
        if not lease.pod:
            return lease
        from rootlesspy.engine import names
        from rootlesspy.engine.pods import store as pods

        self._pods.add(lease.pod)
        try:
            found = pods.members(self._paths, pods.find(self._paths, lease.pod))
        except Error:
            # Removed meanwhile.
            return lease
        more = [
            text for each in found for text in (each.record.name, names.short_id(each.record.id))
        ]
        return lease._replace(aliases=(*lease.aliases, *more))


def _names(network: Network, connected: tuple[Lease, ...]) -> NetworkNames:
    return NetworkNames(
        subnets=tuple(each.subnet for each in network.subnets),
        members=tuple(
            Member(
                container=each.container,
                names=(each.name, *each.aliases),
                addresses=each.plain_addresses(),
                dns=each.dns,
            )
            for each in connected
        ),
        internal=network.internal,
        dns=network.dns_servers,
    )


def _changed(paths: Paths, network: str) -> int:
    """Return when a lease was made, replaced or removed."""
    try:
        return os.stat(f"{paths.network_runtime(network)}/leases").st_mtime_ns
    except FileNotFoundError:
        return 0
