"""slirp4netns(1): the fallback where there is no pasta.

The container is 10.0.2.100 behind a NAT; published ports do not show it the client's address.
"""

from __future__ import annotations

import _socket
import os

from rootlesspy.errors import Conflict, RuntimeFailure, Unsupported, UsageError
from rootlesspy.light_typing import NamedTuple
from rootlesspy.network.addresses import Addresses, canonical_address, outbound_addresses
from rootlesspy.network.ports import PortMapping, check_free

_DEFAULT_NETWORK = "10.0.2.0"
_API_TIMEOUT_S = 5.0
_ANSWER_BYTES = 65536


class Options(NamedTuple):
    """slirp4netns:KEY=VALUE,… as podman names them."""

    mtu: int = 65520
    cidr: str = ""
    allow_host_loopback: bool = False
    enable_ipv6: bool = False
    outbound_addr: str = ""
    outbound_addr6: str = ""


def parse_options(options: tuple[str, ...]) -> Options:
    """Parse the driver's options; raises UsageError."""
    parsed = Options()
    for option in options:
        key, _equals, value = option.partition("=")
        if key == "allow_host_loopback" and value in ("true", "false"):
            parsed = parsed._replace(allow_host_loopback=value == "true")
        elif key == "enable_ipv6" and value in ("true", "false"):
            parsed = parsed._replace(enable_ipv6=value == "true")
        elif key == "mtu" and _is_mtu(value):
            parsed = parsed._replace(mtu=int(value))
        elif key == "cidr" and _is_network(value):
            parsed = parsed._replace(cidr=value)
        elif key == "outbound_addr" and canonical_address(value):
            parsed = parsed._replace(outbound_addr=value)
        elif key == "outbound_addr6" and canonical_address(value):
            parsed = parsed._replace(outbound_addr6=value)
        elif option != "port_handler=slirp4netns":
            raise UsageError(
                f"network option {option!r} of slirp4netns is not understood",
                hint="mtu, cidr, allow_host_loopback, enable_ipv6, outbound_addr, outbound_addr6",
            )
    return parsed


def check_ports(ports: tuple[PortMapping, ...]) -> None:
    """Raise Unsupported for what slirp4netns cannot publish: IPv6 addresses of the host."""
    for mapping in ports:
        if ":" in mapping.host_ip:
            raise Unsupported(
                f"port mapping {mapping}: slirp4netns publishes on IPv4 addresses only",
                hint="--network pasta, from the package passt",
            )


def api_socket(runtime_dir: str) -> str:
    """Return where the helper takes orders; a short name, since socket paths end at 107 bytes."""
    return f"{runtime_dir}/slirp"


def arguments(options: tuple[str, ...], *, api: str, netns_path: str) -> list[str]:
    """Return slirp4netns's command line: stdin is its exit pipe, descriptor 3 tells readiness.

    The namespaces are given by process id: with paths, version 1.2 forgets the user namespace when
    it makes its sandbox.
    """
    parsed = parse_options(options)
    result = [
        "--configure",
        f"--mtu={parsed.mtu}",
        "--enable-sandbox",
        "--enable-seccomp",
        "--exit-fd=0",
        "--ready-fd=3",
    ]
    if not parsed.allow_host_loopback:
        result.append("--disable-host-loopback")
    if parsed.enable_ipv6:
        result.append("--enable-ipv6")
    if parsed.cidr:
        result.append(f"--cidr={parsed.cidr}")
    if parsed.outbound_addr:
        result.append(f"--outbound-addr={parsed.outbound_addr}")
    if parsed.outbound_addr6:
        result.append(f"--outbound-addr6={parsed.outbound_addr6}")
    if api:
        # Left behind by a supervisor that was killed; bind(2) would refuse the name.
        _remove(api)
        result.append(f"--api-socket={api}")
    pid = netns_path.removeprefix("/proc/").removesuffix("/ns/net")
    return [*result, pid, "tap0"]


def addresses(options: tuple[str, ...]) -> Addresses:
    """Say which addresses the container will have and which ones slirp4netns answers for."""
    network = parse_options(options).cidr.partition("/")[0] or _DEFAULT_NETWORK
    # slirp4netns answers for the third address of its network; the hundredth is the container's.
    packed = int.from_bytes(_socket.inet_pton(_socket.AF_INET, network), "big")
    dns, guest = (
        _socket.inet_ntop(_socket.AF_INET, (packed + offset).to_bytes(4, "big"))
        for offset in (3, 100)
    )
    # Its gateway address stands for 127.0.0.1, which is closed; the host's own address is not.
    host = next((address for address in outbound_addresses() if ":" not in address), "")
    return Addresses(container=(guest,), host=host, dns=dns)


def publish(api: str, ports: tuple[PortMapping, ...], guest_address: str) -> None:
    """Open the ports on the host; raises Conflict and RuntimeFailure."""
    if not ports:
        return
    import json

    for mapping in ports:
        order = {
            "execute": "add_hostfwd",
            "arguments": {
                "proto": mapping.protocol,
                "host_addr": mapping.host_ip or "0.0.0.0",  # noqa: S104 what -p without IP means
                "host_port": mapping.host_port,
                "guest_addr": guest_address,
                "guest_port": mapping.container_port,
            },
        }
        try:
            answer = json.loads(_ask(api, json.dumps(order).encode()))
        except (OSError, ValueError) as error:
            raise RuntimeFailure(
                f"slirp4netns cannot be told to publish {mapping}: {error}", step="network"
            ) from error
        if "error" in answer:
            # Names who was faster, when it can be found.
            check_free((mapping,))
            text = str(answer["error"].get("desc", "no reason given"))
            raise Conflict(f"port {mapping.host_port}/{mapping.protocol} cannot be bound: {text}")


def _ask(api: str, order: bytes) -> bytes:
    """Send one order over its own connection, as slirp4netns wants it, and read the answer."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(_API_TIMEOUT_S)
        sock.connect(api)
        sock.sendall(order)
        sock.shutdown(_socket.SHUT_WR)
        return sock.recv(_ANSWER_BYTES)
    finally:
        sock.close()


def _is_mtu(value: str) -> bool:
    # The least that IPv4 allows (RFC 791), the most that slirp4netns(1) does.
    return value.isascii() and value.isdigit() and len(value) <= 5 and 68 <= int(value) <= 65521


def _is_network(value: str) -> bool:
    """Say whether value is ADDRESS/8 to /25 with the host part zero, room for address 100."""
    network, _slash, length = value.partition("/")
    if not (length.isascii() and length.isdigit() and 8 <= int(length[:3]) <= 25):
        return False
    try:
        packed = _socket.inet_pton(_socket.AF_INET, network)
    except OSError:
        return False
    return int.from_bytes(packed, "big") & ((1 << (32 - int(length))) - 1) == 0


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
