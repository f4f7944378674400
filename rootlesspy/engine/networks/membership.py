"""The networks of a container: found, its addresses reserved, joined at its start, left at its end.

The container's record says which networks (`record.network["networks"]`); nothing here is loaded
for one that has none.
"""

from __future__ import annotations

from rootlesspy.engine.networks import client, leases, store
from rootlesspy.errors import Conflict, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import procfs
from rootlesspy.network import driver, networks

if TYPE_CHECKING:
    from typing import Protocol

    from rootlesspy.engine.networks.leases import Lease
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.network.attachment import Attachment
    from rootlesspy.network.driver import NetworkRequest, Selection
    from rootlesspy.network.namespace import Namespace
    from rootlesspy.network.networks import Network
    from rootlesspy.paths import Paths

    class Party(Protocol):
        """Who may be in networks: the record of a container, or a pod."""

        @property
        def id(self) -> str: ...

        @property
        def name(self) -> str: ...

        @property
        def network(self) -> dict[str, object]: ...

        @property
        def resolver(self) -> dict[str, list[object]]: ...


def resolve(paths: Paths, request: NetworkRequest) -> NetworkRequest:
    """Check a container's networks and decide on its way out: none with internal networks alone.

    Raises NotFound (no such network), UsageError (an address outside of it, an interface twice).
    """
    found = [store.load(paths, each.name) for each in request.networks]
    for network, wanted in zip(found, request.networks, strict=True):
        check(network, wanted)
    named = [each.interface for each in request.networks if each.interface]
    for name in named:
        if named.count(name) > 1:
            raise UsageError(f"interface {name} is given more than once")
    if request.chosen:
        return request
    way_out = "none" if all(each.internal for each in found) else driver.NetworkRequest().driver
    return request._replace(driver=way_out)


def check(network: Network, wanted: Attachment) -> None:
    """Raise UsageError for an address that is not of the network."""
    for address in filter(None, (wanted.ip, wanted.ip6)):
        networks.subnet_of(network, address)


def reserve(paths: Paths, found: Party, selection: Selection, *, pod: str = "") -> Selection:
    """Reserve the addresses of a container or pod, the lock of whose directory the caller holds.

    pod: its name.

    Returns the selection with them.  Raises NotFound, UsageError, Conflict, OSError; nothing is
    reserved then.
    """
    interfaces = interface_names(selection.request.networks)
    made: list[Lease] = []
    servers: list[str] = []
    try:
        for wanted, interface in zip(selection.request.networks, interfaces, strict=True):
            network = store.load(paths, wanted.name)
            made.append(reserve_one(paths, network, wanted, found, interface, pod=pod))
            if network.dns:
                servers += (each.gateway for each in network.subnets)
    except BaseException:
        release(paths, found)
        raise
    own = tuple(address for lease in made for address in lease.plain_addresses())
    addresses = selection.addresses._replace(networks=own, name_servers=tuple(servers))
    return selection._replace(addresses=addresses)


def reserve_one(
    paths: Paths,
    network: Network,
    wanted: Attachment,
    found: Party,
    interface: str,
    *,
    pod: str = "",
) -> Lease:
    """Reserve a container's or a pod's addresses in one network; as reserve()."""
    asked = found.resolver.get("dns")
    return leases.reserve(
        paths,
        network,
        wanted,
        leases.Lease(
            container=found.id,
            name=found.name,
            aliases=wanted.aliases,
            addresses=(),
            mac=wanted.mac,
            interface=interface,
            dns=tuple(map(str, asked)) if isinstance(asked, list) else (),
            pod=pod,
        ),
    )


def interface_names(attachments: tuple[Attachment, ...]) -> list[str]:
    """Return the name of each network's interface: eth0, eth1… where none was asked for."""
    taken = {each.interface for each in attachments}
    free = (name for number in range(2 * len(attachments)) if (name := f"eth{number}") not in taken)
    return [each.interface or next(free) for each in attachments]


def join(paths: Paths, found: ContainerRecord, pid: int) -> None:
    """Connect a container, whose PID 1 is there and still dumpable, with its networks.

    Raises RuntimeFailure, Unsupported, OSError.
    """
    for wanted in driver.restore(found.network).networks:
        join_one(paths, wanted.name, found.id, pid)


def join_one(paths: Paths, network: str, container_id: str, pid: int) -> None:
    """Connect a running container with a network in which it has a lease; as join()."""
    from rootlesspy.network import namespace

    opened = namespace.of(pid)
    try:
        join_opened(paths, network, container_id, pid, opened)
    finally:
        opened.close()


def join_opened(paths: Paths, network: str, container_id: str, pid: int, opened: Namespace) -> None:
    """Connect whom the caller has the namespaces of, and pid is in; as join()."""
    lease = leases.load(paths, network, container_id)
    start = procfs.start_time(pid)
    if lease is None or start is None:
        raise Conflict(f"container {container_id[:12]} has left network {network}")
    leases.save(paths, network, lease._replace(pid=pid, start=start))
    client.ask(paths, network, "join", opened, container=container_id)


def rename(paths: Paths, found: ContainerRecord) -> None:
    """Have a container be called by its new name in the networks that it is in."""
    if paths.runtime is not None:
        for wanted in of(found):
            leases.rename(paths, wanted.name, found.id, found.name)


def release(paths: Paths, found: Party) -> None:
    """Give all addresses back; doing it twice is harmless, and so is no lease."""
    if paths.runtime is None:
        return
    for wanted in driver.restore(found.network).networks:
        leases.release(paths, wanted.name, found.id)
        # Who notices that PID 1 ended knows; one that failed to start was perhaps the first one.
        client.tell(paths, wanted.name, "leave", container=found.id)


def leave_one(paths: Paths, network: str, container_id: str) -> None:
    """Disconnect a running container from a network.  Raises RuntimeFailure, OSError."""
    leases.release(paths, network, container_id)
    client.tell(paths, network, "leave", container=container_id, wait=True)


def of(found: ContainerRecord) -> tuple[Attachment, ...]:
    """Return the networks that a container is in when it runs."""
    return driver.restore(found.network).networks
