"""Networks as podman's JSON has them, with who is in them now."""

from __future__ import annotations

from datetime import UTC, datetime

from rootlesspy.engine import names, record
from rootlesspy.engine.networks import leases, store
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.network import driver
from rootlesspy.network.bridge import DEFAULT_NAME

if TYPE_CHECKING:
    from rootlesspy.engine.networks.leases import Lease
    from rootlesspy.engine.networks.membership import Party
    from rootlesspy.engine.pods.store import Pod
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.network.attachment import Attachment
    from rootlesspy.network.networks import Network, Subnet
    from rootlesspy.paths import Paths


def document(network: Network) -> dict[str, Any]:
    """Return what `rp network ls --format json` prints of a network."""
    found: dict[str, Any] = {
        "name": network.name,
        "id": network.id,
        "driver": "bridge",
        "network_interface": network.interface_name or DEFAULT_NAME,
        "created": created(network.created_s),
        "subnets": [_subnet(each) for each in network.subnets],
    }
    if network.routes:
        found["routes"] = [
            {"destination": each.destination, "gateway": each.gateway, "metric": each.metric}
            for each in network.routes
        ]
    found["ipv6_enabled"] = network.ipv6
    found["internal"] = network.internal
    found["dns_enabled"] = network.dns
    optional = {
        "network_dns_servers": list(network.dns_servers),
        "labels": dict(network.labels),
        "options": dict(network.options),
    }
    found |= {key: value for key, value in optional.items() if value}
    found["ipam_options"] = {"driver": "host-local"}
    return found


def inspected(paths: Paths, network: Network) -> dict[str, Any]:
    """Return what `rp network inspect` prints of a network."""
    connected = leases.living(paths, network.name) if paths.runtime is not None else []
    return {
        **document(network),
        "containers": {
            each.container: {
                "name": each.name,
                "interfaces": {
                    each.interface: {
                        "subnets": [
                            {"ipnet": address, "gateway": gateway_of(network, address)}
                            for address in each.addresses
                        ],
                        "mac_address": each.mac,
                    }
                },
            }
            for each in sorted(connected, key=lambda lease: lease.name)
            if each.pid
        },
    }


def networks_of(paths: Paths, found: ContainerRecord) -> dict[str, Any]:
    """Return NetworkSettings.Networks of `rp inspect`; without addresses while it is stopped."""
    is_running = paths.runtime is not None and record.is_locked(paths.container(found.id))
    return _all_settings(paths, found, is_running=is_running)


def networks_of_pod(paths: Paths, pod: Pod) -> dict[str, Any]:
    """Return the same of a pod, which its members have."""
    from rootlesspy.engine.pods import store as pods

    is_running = paths.runtime is not None and pods.is_held(paths, pod.name)
    return _all_settings(paths, pod, is_running=is_running)


def _all_settings(paths: Paths, found: Party, *, is_running: bool) -> dict[str, Any]:
    known = {each.name: each for each in store.all_networks(paths)}
    return {
        each.name: _settings(
            known.get(each.name),
            each,
            names.short_id(found.id),
            leases.load(paths, each.name, found.id) if is_running else None,
        )
        for each in driver.restore(found.network).networks
    }


def _settings(
    network: Network | None, wanted: Attachment, short_id: str, lease: Lease | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": "",
        "NetworkID": network.id if network else wanted.name,
        "DriverOpts": None,
        "IPAMConfig": None,
        "Links": None,
        "Aliases": [*wanted.aliases, short_id],
    }
    if lease is None:
        return found
    found["MacAddress"] = lease.mac
    for text in lease.addresses:
        address, _, length = text.partition("/")
        gateway = gateway_of(network, text) if network else ""
        if ":" in address:
            found["GlobalIPv6Address"], found["GlobalIPv6PrefixLen"] = address, int(length)
            found["IPv6Gateway"] = gateway
        else:
            found["IPAddress"], found["IPPrefixLen"] = address, int(length)
            found["Gateway"] = gateway
    return found


def gateway_of(network: Network, address: str) -> str:
    """Return the gateway of the subnet that ADDRESS/LENGTH is of."""
    import ipaddress

    prefix = str(ipaddress.ip_interface(address).network)
    return next((each.gateway for each in network.subnets if each.subnet == prefix), "")


def created(moment_s: float) -> str:
    """Return a moment as podman writes it: RFC 3339 in UTC."""
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _subnet(subnet: Subnet) -> dict[str, Any]:
    found: dict[str, Any] = {"subnet": subnet.subnet, "gateway": subnet.gateway}
    if subnet.first:
        found["lease_range"] = {"start_ip": subnet.first, "end_ip": subnet.last}
    return found
