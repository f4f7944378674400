"""Who has which address of a network now: one file per container or pod, no counters.

    $XDG_RUNTIME_DIR/rootlesspy/networks/NAME/leases/ID.json

A lease is made before the container is, counts as long as somebody holds the lock of the
container's directory (or the pod's), and is removed with the container's other runtime files; what
a killed supervisor left is removed by the next one who asks for an address.  Addresses are given
out under flock on the directory.
"""

from __future__ import annotations

import fcntl
import os

from rootlesspy.engine import names, record, statefile
from rootlesspy.errors import Conflict, Error
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple
from rootlesspy.network import networks
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from rootlesspy.network.attachment import Attachment
    from rootlesspy.network.networks import Network
    from rootlesspy.paths import Paths

_SUFFIX = ".json"
# Locally administered, unicast; then the address, as podman, docker and others make it.
_MAC_BYTES = 6


class Lease(NamedTuple):
    """A container's place in one network."""

    container: str
    """Its id."""
    name: str
    aliases: tuple[str, ...]
    addresses: tuple[str, ...]
    """ADDRESS/LENGTH each, IPv4 first."""
    mac: str
    interface: str
    """Its name in the container: eth0, eth1…"""
    pid: int = 0
    """PID 1 of the container once it is there, and its start in clock ticks after boot."""
    start: int = 0
    dns: tuple[str, ...] = ()
    """--dns of the container."""
    pod: str = ""
    """The name of the pod that it is the lease of, not a container's."""

    def plain_addresses(self) -> tuple[str, ...]:
        """Return its addresses without the lengths."""
        return tuple(each.partition("/")[0] for each in self.addresses)


def reserve(paths: Paths, network: Network, wanted: Attachment, lease: Lease) -> Lease:
    """Give a container its addresses in a network; a lease that it has already is replaced.

    Raises UsageError (outside of the subnets), Conflict (taken, or none is free), OSError.
    """
    fd = lock(paths, network.name)
    try:
        found = living(paths, network.name, purge=True)
        others = [each for each in found if each.container != lease.container]
        taken = {address for each in others for address in each.plain_addresses()}
        addresses = _addresses(network, wanted, taken)
        mac = wanted.mac or _free_mac(others)
        if any(each.mac == mac for each in others):
            raise Conflict(f"MAC address {mac} is in use in network {network.name}")
        lease = lease._replace(addresses=addresses, mac=mac)
        save(paths, network.name, lease)
        return lease
    finally:
        os.close(fd)


def lock(paths: Paths, network: str) -> int:
    """Wait for the lock of a network's leases; closing the returned descriptor releases it."""
    directory = paths.network_runtime(network)
    private_directory(paths.require_runtime())
    while True:
        try:
            os.makedirs(f"{directory}/leases", 0o700, exist_ok=True)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            # Removed while it was made.
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _is_at(fd, f"{directory}/leases"):
            return fd
        # The service has ended meanwhile and taken the directory along.
        os.close(fd)


def remove_directory(paths: Paths, network: str) -> None:
    """Remove the runtime directory of a network without leases; the caller holds the lock."""
    directory = paths.network_runtime(network)
    try:
        statefile.sweep(f"{directory}/leases")
        for path in (f"{directory}/leases", directory, os.path.dirname(directory)):
            os.rmdir(path)
    except OSError:
        return


def living(paths: Paths, network: str, *, purge: bool = False) -> list[Lease]:
    """Return the leases of containers that run or are being started, in no order.

    purge: remove the others; the caller holds the lock.
    """
    found = []
    for container_id in _ids(paths, network):
        lease = load(paths, network, container_id)
        of_pod = lease is not None and lease.pod
        holder = f"{paths.pods}/{of_pod}" if of_pod else paths.container(container_id)
        if record.is_locked(holder):
            if lease is not None:
                found.append(lease)
        elif purge:
            release(paths, network, container_id)
    return found


def rename(paths: Paths, network: str, container_id: str, name: str) -> None:
    """Change the name of a container that has a lease; names are answered by it at once."""
    if not os.path.lexists(_path(paths, network, container_id)):
        return
    fd = lock(paths, network)
    try:
        lease = load(paths, network, container_id)
        if lease is not None:
            save(paths, network, lease._replace(name=name))
    finally:
        os.close(fd)


def load(paths: Paths, network: str, container_id: str) -> Lease | None:
    """Return a container's lease; None when it has none (or a damaged one)."""
    try:
        value: dict[str, Any] = statefile.read(_path(paths, network, container_id))
        known = {key: value[key] for key in Lease._fields if key in value}
        for key in ("aliases", "addresses", "dns"):
            known[key] = tuple(known.get(key, ()))
        return Lease(**known)
    except (OSError, Error, KeyError, TypeError):
        return None


def save(paths: Paths, network: str, lease: Lease) -> None:
    """Write a lease.  Raises OSError."""
    statefile.write(_path(paths, network, lease.container), lease._asdict(), durable=False)


def release(paths: Paths, network: str, container_id: str) -> None:
    """Give a container's addresses back; doing it twice is harmless."""
    try:
        os.unlink(_path(paths, network, container_id))
    except FileNotFoundError:
        return


def _is_at(fd: int, inner: str) -> bool:
    """Say whether a directory is still where inner, which is in it, lies."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(f"{inner}/.."))
    except FileNotFoundError:
        return False


def _ids(paths: Paths, network: str) -> list[str]:
    try:
        files = os.listdir(f"{paths.network_runtime(network)}/leases")
    except FileNotFoundError:
        return []
    return [
        each.removesuffix(_SUFFIX)
        for each in files
        if each.endswith(_SUFFIX) and names.is_id_prefix(each.removesuffix(_SUFFIX))
    ]


def _path(paths: Paths, network: str, container_id: str) -> str:
    return f"{paths.network_runtime(network)}/leases/{container_id}{_SUFFIX}"


def _addresses(network: Network, wanted: Attachment, taken: set[str]) -> tuple[str, ...]:
    """Return one address per IP version that the network has, IPv4 first."""
    asked = {}
    for text in filter(None, (wanted.ip, wanted.ip6)):
        version = 6 if ":" in text else 4
        asked[version] = text, networks.subnet_of(network, text)
    found = []
    for version in (4, 6):
        of_version = [each for each in network.subnets if (":" in each.subnet) == (version == 6)]
        if version in asked:
            text, subnet = asked[version]
            given = networks.give_address(subnet, taken, text)
            found.append(networks.with_length(subnet, given))
        elif of_version:
            found.append(_lowest(of_version, taken))
    return tuple(found)


def _lowest(subnets: list[networks.Subnet], taken: set[str]) -> str:
    """Return the first free address of several subnets.  Raises Conflict."""
    for subnet in subnets[:-1]:
        try:
            return networks.with_length(subnet, networks.give_address(subnet, taken))
        except Conflict:
            continue
    return networks.with_length(subnets[-1], networks.give_address(subnets[-1], taken))


def _free_mac(others: list[Lease]) -> str:
    while True:
        raw = bytearray(os.urandom(_MAC_BYTES))
        raw[0] = raw[0] & 0xFC | 0x02
        mac = raw.hex(":")
        if all(each.mac != mac for each in others):
            return mac
