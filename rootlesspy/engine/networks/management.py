"""Networks made, changed and removed: `rp network create`, `update`, `rm`, `prune`."""

from __future__ import annotations

import os
import time

from rootlesspy.engine import ending, names, record, reservation, statefile
from rootlesspy.engine.networks import client, leases, store
from rootlesspy.engine.output import events
from rootlesspy.engine.supervision import control
from rootlesspy.errors import Conflict, Error, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.network import driver, host_routes, networks
from rootlesspy.network.networks import Network, Route, Subnet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootlesspy.engine.networks.membership import Party
    from rootlesspy.engine.pods.store import Pod
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.network.attachment import Attachment
    from rootlesspy.network.networks import Prefix
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

# Words of --network that are no names of networks, podman's too.
_MODES = frozenset((*driver.DRIVERS, *driver.SHARED, "bridge", "default", "private"))
_MTU_KEYS = ("mtu", "com.docker.network.driver.mtu")
# The least that IPv6 allows (RFC 8200), the most of an Ethernet interface here.
_LEAST_MTU, _MOST_MTU = 1280, 65535


class Wanted(NamedTuple):
    """What a network is asked to be."""

    name: str = ""
    """Empty: network1, network2…"""
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    ipv6: bool = False
    internal: bool = False
    dns: bool = True
    dns_servers: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    routes: tuple[str, ...] = ()
    interface_name: str = ""


def create(paths: Paths, wanted: Wanted, *, ignore: bool = False) -> Network:
    """Make a network; ignore: return the one that there is.

    Raises UsageError, Conflict (name or subnet are in use), OSError.
    """
    if wanted.name in _MODES:
        raise UsageError(f"network name {wanted.name!r} is a word of --network")
    if wanted.name:
        names.check_name(wanted.name)
    if wanted.dns_servers and not wanted.dns:
        raise UsageError("--dns does not go with --disable-dns")
    lock_fd = store.lock(paths)
    try:
        if wanted.name and store.exists(paths, wanted.name):
            if ignore:
                return store.load(paths, wanted.name)
            raise Conflict(f"network {wanted.name} exists already", hint="rp network ls")
        network = _planned(paths, wanted)
        reservation.check_unit(paths, "network", network.name)
        store.save(paths, network)
    finally:
        os.close(lock_fd)
    events.send("network", "create", name=network.name, id=network.id)
    return network


def update(
    paths: Paths, text: str, *, add: Sequence[str] = (), drop: Sequence[str] = ()
) -> Network:
    """Change the name servers of a network; they count at once.  Raises NotFound, UsageError."""
    lock_fd = store.lock(paths)
    try:
        network = store.find(paths, text)
        if not network.dns:
            raise UsageError(f"network {network.name} has no DNS")
        dropped = [str(networks.parse_address(each, "--dns-drop")) for each in drop]
        added = [str(networks.parse_address(each, "--dns-add")) for each in add]
        kept = [each for each in network.dns_servers if each not in dropped]
        network = network._replace(dns_servers=tuple(dict.fromkeys((*kept, *added))))
        store.save(paths, network)
    finally:
        os.close(lock_fd)
    client.tell(paths, network.name, "reload", wait=True)
    return network


def remove(
    paths: Paths,
    text: str,
    reporter: Reporter,
    *,
    force: bool = False,
    timeout_s: float | None = None,
) -> str:
    """Remove a network and return its name; force: its containers first.

    Raises NotFound, Conflict while containers, running or not, are of it.
    """
    network = _to_remove(paths, text, force=force)
    using, pods = users(paths, network.name), _pods_of(paths, network.name)
    if (using or pods) and not force:
        listed = ", ".join([*(each.name for each in using), *(f"pod {each.name}" for each in pods)])
        raise Conflict(
            f"network {network.name} is used by {listed}",
            hint=f"rp rm them, rp network disconnect, or rp network rm -f {network.name}",
        )
    ending.remove(
        paths, [each.id for each in using], force=True, reporter=reporter, timeout_s=timeout_s
    )
    for pod in pods:
        from rootlesspy.engine.pods import actions

        actions.remove(paths, pod, reporter, force=True, timeout_s=timeout_s)
    lock_fd = store.lock(paths)
    try:
        _remove_locked(paths, network)
    finally:
        os.close(lock_fd)
    return network.name


def _to_remove(paths: Paths, text: str, *, force: bool) -> Network:
    """Return a network; with force also one whose file is damaged, as far as it is known."""
    try:
        return store.find(paths, text)
    except statefile.DamagedError:
        if not force:
            raise
        return Network(text, "", 0.0, ())


def prune(paths: Paths, fits: Callable[[Network], bool]) -> list[str]:
    """Remove the networks that no container is of and that fit; return their names."""
    removed = []
    lock_fd = store.lock(paths)
    try:
        taken = used(paths)
        for network in store.all_networks(paths):
            if network.name not in taken and fits(network):
                _remove_locked(paths, network)
                removed.append(network.name)
    finally:
        os.close(lock_fd)
    return removed


def used(paths: Paths) -> frozenset[str]:
    """Return the names of all networks that containers and pods, running or not, are of."""
    parties: list[Party] = [*records(paths), *_pods(paths)]
    return frozenset(each.name for found in parties for each in _attachments(found))


def users(paths: Paths, network: str) -> list[ContainerRecord]:
    """Return the containers of a network, running or not, by name."""
    found = [
        each
        for each in records(paths)
        if any(attachment.name == network for attachment in _attachments(each))
    ]
    return sorted(found, key=lambda each: each.name)


def records(paths: Paths) -> list[ContainerRecord]:
    """Return the records of all containers that can be read."""
    found = []
    for container_id in record.ids(paths):
        try:
            found.append(record.load_record(paths.container(container_id)))
        except (Error, OSError):
            continue
    return found


def _pods(paths: Paths) -> list[Pod]:
    from rootlesspy.engine.pods import store as pods

    return pods.everything(paths)


def _pods_of(paths: Paths, network: str) -> list[Pod]:
    return [each for each in _pods(paths) if network in (one.name for one in _attachments(each))]


def _attachments(found: Party) -> tuple[Attachment, ...]:
    return driver.restore(found.network).networks


def _remove_locked(paths: Paths, network: Network) -> None:
    """Forget a network; its service, which may not have noticed that it is alone, is stopped."""
    if paths.runtime is not None and os.path.isdir(paths.network_runtime(network.name)):
        client.stop(paths, network.name)
        fd = leases.lock(paths, network.name)
        try:
            if leases.living(paths, network.name, purge=True):
                raise Conflict(f"a container of network {network.name} is being started")
            _unlink(f"{paths.network_runtime(network.name)}/{control.CONTROL}")
            leases.remove_directory(paths, network.name)
        finally:
            os.close(fd)
    try:
        store.delete(paths, network.name)
    except FileNotFoundError:
        raise networks.not_found(network.name) from None
    events.send("network", "remove", name=network.name, id=network.id)


def _planned(paths: Paths, wanted: Wanted) -> Network:
    """Return the network that is made; the caller holds the lock.  Raises UsageError, Conflict."""
    others = store.all_networks(paths)
    subnets = _subnets(wanted, others)
    name = wanted.name
    if not name:
        taken = {each.name for each in others}
        name = next(
            each for number in range(1, len(taken) + 2) if (each := f"network{number}") not in taken
        )
    return Network(
        name=name,
        id=names.new_id(),
        created_s=time.time(),
        subnets=subnets,
        internal=wanted.internal,
        dns=wanted.dns,
        dns_servers=tuple(
            str(networks.parse_address(each, "--dns")) for each in wanted.dns_servers
        ),
        options=_options(wanted.options),
        labels=dict(wanted.labels),
        routes=tuple(_route(each, subnets) for each in wanted.routes),
        interface_name=wanted.interface_name,
    )


def _subnets(wanted: Wanted, others: list[Network]) -> tuple[Subnet, ...]:
    taken = [subnet.subnet for network in others for subnet in network.subnets]
    routes = host_routes.destinations()
    prefixes = [networks.parse_subnet(each) for each in wanted.subnets]
    for index, prefix in enumerate(prefixes):
        for other in others:
            own = [each.subnet for each in other.subnets]
            networks.check_overlap(prefix, own, f"network {other.name}")
        networks.check_overlap(prefix, routes, "the host's routes")
        networks.check_overlap(prefix, map(str, prefixes[:index]), "this network")
    versions = {each.version for each in prefixes}
    if 4 not in versions and (wanted.ipv6 or not prefixes):
        prefixes.insert(0, networks.free_ipv4((*taken, *routes)))
    if wanted.ipv6 and 6 not in versions:
        prefixes.append(networks.free_ipv6((*taken, *routes), os.urandom(7)))
    gateways, ranges = list(wanted.gateways), list(wanted.ranges)
    made = tuple(
        networks.make_subnet(each, _take(gateways, each), _take_range(ranges, each))
        for each in prefixes
    )
    for left, what in ((gateways, "gateway"), (ranges, "range")):
        if left:
            listed = ", ".join(map(str, prefixes))
            raise UsageError(f"{what} {left[0]} is not in subnet {listed}, or not the only one")
    return made


def _take(gateways: list[str], subnet: Prefix) -> str:
    """Take the gateway of a subnet out of the list; "" when there is none."""
    for text in gateways:
        if networks.parse_address(text, "gateway") in subnet:
            gateways.remove(text)
            return text
    return ""


def _take_range(ranges: list[str], subnet: Prefix) -> str:
    for text in ranges:
        first = text.partition("/")[0].partition("-")[0]
        if networks.parse_address(first, "range") in subnet:
            ranges.remove(text)
            return text
    return ""


def _options(given: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in given:
        if key in _MTU_KEYS:
            digits = value.isascii() and value.isdigit() and len(value) <= 5
            if not digits or not _LEAST_MTU <= int(value) <= _MOST_MTU:
                raise UsageError(f"mtu {value!r} is not between {_LEAST_MTU} and {_MOST_MTU}")
            found["mtu"] = str(int(value))
        elif key == "isolate" and value in ("true", "strict"):
            # As every network here is.
            found[key] = value
        else:
            raise UsageError(f"network option {key!r} is unknown", hint="options: mtu, isolate")
    return found


def _route(text: str, subnets: Sequence[Subnet]) -> Route:
    """Parse DESTINATION/LENGTH,GATEWAY[,METRIC].  Raises UsageError."""
    destination, _, rest = text.partition(",")
    gateway, comma, metric = rest.partition(",")
    number = metric.isascii() and metric.isdigit() and len(metric) <= 9
    if not gateway or (comma and not number):
        raise UsageError(f"route {text!r} is not DESTINATION/LENGTH,GATEWAY[,METRIC]")
    prefix = networks.parse_prefix(destination)
    via = networks.parse_address(gateway, "route's gateway")
    if via.version != prefix.version or not any(
        via in networks.parse_subnet(each.subnet) for each in subnets
    ):
        raise UsageError(f"the gateway of route {text} is not in the network")
    return Route(str(prefix), str(via), int(metric or "0"))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
