"""Bridges, veth pairs, addresses and routes: the messages of rtnetlink(7), by pyroute2.

Only its message classes are used, over sockets that come out of other namespaces: `namespace` says
why every message is sent with an address.  What the service of a network does itself (`interfaces`,
`remove`) has no need of them; all else is done by its short-lived child, `plumbing`, which alone
loads pyroute2 (20 MB, 0.3 s).
"""

from __future__ import annotations

import errno
import ipaddress
import os

from rootlesspy.light_modules import socket, struct
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.network.networks import Route

DEFAULT_NAME = "bridge0"

# <linux/rtnetlink.h>, <linux/netlink.h>
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 17, 18, 20, 24
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLM_F_EXCL, _NLM_F_CREATE = 0x200, 0x400
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("IHHII")
_LINK = struct.Struct("BxHiII")
_IFLA_IFNAME = 3
_RTPROT_STATIC, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, _RT_TABLE_MAIN = 4, 0, 1, 254
# <linux/if.h>, <linux/if_addr.h>
_IFF_UP = 1
_IFA_F_NODAD = 0x02
_ANSWER_BYTES = 1 << 17
_TIMEOUT_S = 20.0


class Port(NamedTuple):
    """A member's place: its end of the veth pair, seen from both sides."""

    name: str
    """At the bridge."""
    interface: str
    """In the container."""
    mac: str
    mtu: int = 0
    """0: the kernel's default."""


def load() -> None:
    """Import pyroute2 now, so that the first message need not wait for it."""
    _message("ifinfmsg", {})


def open_netlink() -> int:
    """Open a netlink socket in the namespace that this process is in.  Raises OSError."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    return socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE).detach()


class Netlink:
    """A netlink socket of some network namespace; every method raises OSError."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.settimeout(_TIMEOUT_S)
        # Somebody else may have used the socket before, and left answers unread.
        self._sequence = int.from_bytes(os.urandom(3), "little")

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def make_bridge(self, name: str, addresses: Sequence[str], mtu: int) -> None:
        """Make a bridge with the addresses of the gateways, ADDRESS/LENGTH each."""
        # Its own MAC for good: else it would be the lowest of its ports', and change with them.
        raw = bytearray(os.urandom(6))
        raw[0] = raw[0] & 0xFC | 0x02
        attributes: list[tuple[str, Any]] = [
            ("IFLA_IFNAME", name),
            ("IFLA_ADDRESS", raw.hex(":")),
            ("IFLA_LINKINFO", _kind("bridge", [("IFLA_BR_MCAST_SNOOPING", 0)])),
        ]
        if mtu:
            attributes.append(("IFLA_MTU", mtu))
        self._link(_RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, attributes)
        self.configure(name, addresses)

    def add_port(self, bridge: str, port: Port, netns_fd: int) -> None:
        """Make a veth pair: one end here, the other one in another network namespace, down."""
        self.remove(port.name)
        shared: list[tuple[str, Any]] = [("IFLA_MTU", port.mtu)] if port.mtu else []
        peer: dict[str, Any] = {
            "attrs": [
                ("IFLA_IFNAME", port.interface),
                ("IFLA_ADDRESS", port.mac),
                ("IFLA_NET_NS_FD", netns_fd),
                *shared,
            ]
        }
        info = _kind("veth", [("VETH_INFO_PEER", peer)])
        attributes = [("IFLA_IFNAME", port.name), *shared, ("IFLA_LINKINFO", info)]
        self._link(_RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, attributes)
        master = [("IFLA_IFNAME", port.name), ("IFLA_MASTER", self.index(bridge))]
        self._link(_RTM_NEWLINK, 0, master, up=True)

    def configure(
        self, interface: str, addresses: Sequence[str], routes: Sequence[Route] = ()
    ) -> None:
        """Give an interface its addresses, bring it up, and add routes."""
        index = self.index(interface)
        for each in addresses:
            self._add_address(index, each)
        self._link(_RTM_NEWLINK, 0, [("IFLA_IFNAME", interface)], up=True)
        for route in routes:
            self._add_route(index, route)

    def remove(self, interface: str) -> None:
        """Remove an interface, and the other end of its pair; one that is not there, no harm."""
        try:
            self._send(_named(interface), _RTM_DELLINK, 0)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def index(self, interface: str) -> int:
        """Return the index of an interface."""
        answer = self._send(_named(interface), _RTM_GETLINK, 0)[0]
        return int(_LINK.unpack_from(answer)[2])

    def interfaces(self) -> list[str]:
        """Return the names of all interfaces."""
        found = []
        for answer in self._send(bytes(_LINK.size), _RTM_GETLINK, _NLM_F_DUMP):
            at = _LINK.size
            while at + 4 <= len(answer):
                length, kind = struct.unpack_from("HH", answer, at)
                if kind == _IFLA_IFNAME:
                    found.append(answer[at + 4 : at + length].rstrip(b"\0").decode())
                at += max(4, (length + 3) & ~3)
        return found

    def _link(
        self, kind: int, flags: int, attributes: list[tuple[str, Any]], *, up: bool = False
    ) -> None:
        state = {"flags": _IFF_UP, "change": _IFF_UP} if up else {}
        self._send(_message("ifinfmsg", {"index": 0, "attrs": attributes, **state}), kind, flags)

    def _add_address(self, index: int, text: str) -> None:
        found = ipaddress.ip_interface(text)
        attributes: list[tuple[str, Any]] = [
            ("IFA_LOCAL", str(found.ip)),
            ("IFA_ADDRESS", str(found.ip)),
        ]
        if isinstance(found, ipaddress.IPv4Interface):
            attributes.append(("IFA_BROADCAST", str(found.network.broadcast_address)))
        fields = {
            "family": _family(text),
            "prefixlen": found.network.prefixlen,
            # Leases are unique; with detection the address could not be used for a second.
            "flags": _IFA_F_NODAD if found.version == 6 else 0,
            "index": index,
            "attrs": attributes,
        }
        flags = _NLM_F_CREATE | _NLM_F_EXCL
        self._send(_message("ifaddrmsg", fields), _RTM_NEWADDR, flags)

    def _add_route(self, index: int, route: Route) -> None:
        destination, _, length = route.destination.partition("/")
        attributes: list[tuple[str, Any]] = [("RTA_GATEWAY", route.gateway), ("RTA_OIF", index)]
        if int(length):
            attributes.append(("RTA_DST", destination))
        if route.metric:
            attributes.append(("RTA_PRIORITY", route.metric))
        fields = {
            "family": _family(route.gateway),
            "dst_len": int(length),
            "table": _RT_TABLE_MAIN,
            "proto": _RTPROT_STATIC,
            "scope": _RT_SCOPE_UNIVERSE,
            "type": _RTN_UNICAST,
            "attrs": attributes,
        }
        self._send(_message("rtmsg", fields), _RTM_NEWROUTE, _NLM_F_CREATE | _NLM_F_EXCL)

    def _send(self, body: bytes, kind: int, flags: int) -> list[bytes]:
        """Send one request and return the bodies of the answers."""
        self._sequence += 1
        # Who asks for something is answered; what changes something is acknowledged.
        flags |= _NLM_F_REQUEST | (0 if kind == _RTM_GETLINK else _NLM_F_ACK)
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, kind, flags, self._sequence, 0)
        self._socket.sendto(header + body, (0, 0))
        found: list[bytes] = []
        while True:
            packet = self._socket.recv(_ANSWER_BYTES)
            at = 0
            while at + _HEADER.size <= len(packet):
                length, answer, _, sequence, _ = _HEADER.unpack_from(packet, at)
                content = packet[at + _HEADER.size : at + length]
                at += max(_HEADER.size, (length + 3) & ~3)
                if sequence != self._sequence:
                    continue
                if answer == _NLMSG_ERROR:
                    number = -struct.unpack_from("i", content)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return found
                if answer == _NLMSG_DONE:
                    return found
                found.append(content)
                if kind == _RTM_GETLINK and not flags & _NLM_F_DUMP:
                    return found


def _named(interface: str) -> bytes:
    """Return the body of a message about an interface, which says nothing but its name."""
    name = interface.encode() + b"\0"
    attribute = struct.pack("HH", 4 + len(name), _IFLA_IFNAME) + name
    return bytes(_LINK.size) + attribute + bytes(-len(attribute) % 4)


def _kind(kind: str, data: list[tuple[str, Any]]) -> dict[str, Any]:
    return {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", {"attrs": data})]}


def _family(text: str) -> int:
    return int(socket.AF_INET6 if ":" in text else socket.AF_INET)


def _message(kind: str, fields: dict[str, Any]) -> bytes:
    """Encode the body of a message, without its header."""
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    message = {"ifinfmsg": ifinfmsg, "ifaddrmsg": ifaddrmsg, "rtmsg": rtmsg}[kind]()
    for key, value in fields.items():
        message[key] = value
    message.encode()
    return bytes(message.data[_HEADER.size :])
