"""pasta(1): one per container, addresses and routes copied from the host.

Works with the pasta of Debian 12 (March 2023) and of Debian 13 (May 2025); what only the newer one
knows is looked up in the program file, which costs less than running it.
"""

from __future__ import annotations

import os

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network.addresses import Addresses, canonical_address, outbound_addresses
from rootlesspy.network.process import find_program

if TYPE_CHECKING:
    from rootlesspy.network.ports import PortMapping

# Link-local, so that they hide nothing: what podman uses for the same purposes.
DNS_ADDRESS = "169.254.1.1"
# Not link-local: that would need the name of an interface. Unique local (RFC 4193), of no network.
DNS_ADDRESS6 = "fd72:703a:a9fe:101::53"
HOST_ADDRESS = "169.254.1.2"

# Set by us: the supervisor would lose the helper, or the namespace, if they came from elsewhere.
_OWN_OPTIONS = frozenset(
    (
        "-f", "--foreground", "-P", "--pid", "-F", "--fd", "-s", "--socket",
        "--netns", "--userns", "--netns-only", "--no-netns-quit", "--runas",
        "-h", "--help", "--version", "-l", "--log-file",
    )
)  # fmt: skip
# Podman's word for "do not pass --no-map-gw": it makes the host's loopback reachable.
_MAP_GATEWAY = "--map-gw"


def check_options(options: tuple[str, ...]) -> None:
    """Raise UsageError for an option that rp has to set itself, or that is none."""
    for index, option in enumerate(options):
        if option.partition("=")[0] in _OWN_OPTIONS:
            raise UsageError(f"network option {option!r} of pasta is set by rp itself")
        if index == 0 and not option.startswith("-"):
            # A leading word would be taken as a command or process id.
            raise UsageError(
                f"network option {option!r} of pasta does not begin with -",
                hint="for example --network pasta:--mtu,1500",
            )


def check_ports(ports: tuple[PortMapping, ...]) -> None:
    """Raise UsageError for what pasta cannot do: one port of two addresses to different ports."""
    targets: dict[tuple[str, int], int] = {}
    for mapping in ports:
        if mapping.host_port:
            target = targets.setdefault(
                (mapping.protocol, mapping.host_port), mapping.container_port
            )
            if target != mapping.container_port:
                raise UsageError(
                    f"port {mapping.host_port}/{mapping.protocol} is published to {target} and to "
                    f"{mapping.container_port}: pasta maps a port the same way on all addresses",
                    hint="--network slirp4netns can",
                )


def arguments(
    options: tuple[str, ...],
    ports: tuple[PortMapping, ...],
    *,
    guest_address: str,
    netns_path: str,
    userns_path: str,
    interface: str = "",
) -> list[str]:
    """Return pasta's command line; interface: the tap device that is there for it.

    In the foreground, so that it is our own child.  The "pid file" is its stdout, a pipe: it is
    written when everything is configured, so it tells readiness.
    """
    result = [
        "--foreground",
        "--quiet",
        "--pid", "/dev/stdout",
        "--config-net",
        # It ends by its lifeline. To watch the namespace it would have to list /proc/PID/ns, which
        # it may not when it is started again while the payload runs as another user.
        "--no-netns-quit",
        "--dns-forward", DNS_ADDRESS,
        "--dns-forward", DNS_ADDRESS6,
    ]  # fmt: skip
    if _MAP_GATEWAY not in options:
        # With it the gateway's address would lead to 127.0.0.1 of the host.
        result.append("--no-map-gw")
    if guest_address:
        # Also what connections from the host's own address seem to come from, which would
        # otherwise be the container's own address.
        result += ["--map-guest-addr", guest_address]
    if interface:
        result += ["--ns-ifname", interface]
    result += (option for option in options if option != _MAP_GATEWAY)
    for short, long, protocol in (("-t", "--tcp-ports", "tcp"), ("-u", "--udp-ports", "udp")):
        specs = _specs([mapping for mapping in ports if mapping.protocol == protocol])
        for spec in specs:
            result += (short, spec)
        if not specs and not _given(options, short, long):
            # The default, auto, opens on the host whatever port the container listens on.
            result += (short, "none")
    for short, long in (("-T", "--tcp-ns"), ("-U", "--udp-ns")):
        if not _given(options, short, long):
            result += (short, "none")
    return [*result, "--userns", userns_path, "--netns", netns_path]


def addresses(options: tuple[str, ...]) -> Addresses:
    """Say which addresses the container will have and which ones pasta answers for."""
    given = tuple(
        canonical_address(value.partition("/")[0]) or ""
        for option, value in zip(options, options[1:], strict=False)  # noqa: RUF007 no itertools
        if option in ("-a", "--address")
    )
    program = find_program("pasta") or ""
    host = HOST_ADDRESS if _knows(program, b"map-guest-addr") else ""
    outbound = outbound_addresses()
    # Without an IPv6 route the container has no IPv6 either, but with no route at all it has both.
    dns6 = DNS_ADDRESS6 if not outbound or any(":" in each for each in outbound) else ""
    return Addresses(container=given or outbound, host=host, dns=DNS_ADDRESS, dns6=dns6)


def template_interface() -> str:
    """Return the host's interface after which pasta calls the container's; "" without a route.

    It is that of the first default route for IPv4 (passt(1), --interface and --ns-ifname).
    """
    try:
        with open("/proc/net/route", "rb") as file:
            lines = file.read().splitlines()[1:]
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        # Iface Destination Gateway Flags RefCnt Use Metric Mask …
        if len(fields) > 7 and fields[1] == fields[7] == b"00000000" and fields[0] != b"lo":
            return os.fsdecode(fields[0])
    return ""


def needs_default_route(program: str) -> bool:
    """Say whether this pasta is older than the local mode (2024), which works without a route."""
    return not _knows(program, b"map-guest-addr")


def joins_loopbacks(program: str) -> bool:
    """Say whether connections of the host's loopback to a published port end at the container's.

    So until October 2024, when the option to have it so was added, and no option turns it off: the
    listening sockets are pasta's, and whoever comes from 127.0.0.1 is connected to 127.0.0.1.
    """
    return not _knows(program, b"host-lo-to-ns-lo")


def _knows(program: str, option: bytes) -> bool:
    """Say whether the program's table of long options has this one."""
    try:
        with open(program, "rb") as file:
            return option + b"\0" in file.read()
    except OSError:
        return False


def _given(options: tuple[str, ...], short: str, long: str) -> bool:
    return any(
        option.partition("=")[0] == long if option.startswith("--") else option.startswith(short)
        for option in options
    )


def _specs(ports: list[PortMapping]) -> list[str]:
    """Write the mappings as pasta takes them, neighbours joined into ranges."""
    specs: list[str] = []
    index = 0
    while index < len(ports):
        first = ports[index]
        length = 1
        while index + length < len(ports) and ports[index + length] == first._replace(
            host_port=first.host_port + length, container_port=first.container_port + length
        ):
            length += 1
        address = f"{first.host_ip}/" if first.host_ip else ""
        host, container = _range(first.host_port, length), _range(first.container_port, length)
        specs.append(f"{address}{host}:{container}")
        index += length
    return specs


def _range(first: int, length: int) -> str:
    return str(first) if length == 1 else f"{first}-{first + length - 1}"
