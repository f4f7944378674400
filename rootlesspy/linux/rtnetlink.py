"""rtnetlink(7): move a network device into another namespace, and what it has with it.

One request at a time over a socket of the namespace that the caller is in.  Raises OSError only.
Sources: rtnetlink(7), netlink(7), <linux/if_link.h>, <linux/if_addr.h>.
"""

from __future__ import annotations

import errno
import os

from rootlesspy.light_modules import socket, struct
from rootlesspy.light_typing import NamedTuple

_RTM_NEWLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 20, 22
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLM_F_CREATE, _NLM_F_EXCL = 0x400, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_IFLA_IFNAME, _IFLA_NET_NS_PID = 3, 19
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_PERMANENT = 0x80
_RT_SCOPE_UNIVERSE = 0
_IFF_UP = 1
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_ANSWER_BYTES = 1 << 17
_TIMEOUT_S = 20.0


class Address(NamedTuple):
    """An address of a device, as the kernel writes it; broadcast is empty without one."""

    family: int
    prefix_length: int
    local: bytes
    address: bytes
    broadcast: bytes


class Rtnetlink:
    """A socket of the caller's network namespace."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.settimeout(_TIMEOUT_S)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def move(self, index: int, pid: int, name: str) -> None:
        """Move a device into the namespace of a process, where it has this name."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
        body += _attribute(_IFLA_NET_NS_PID, struct.pack("=I", pid))
        body += _attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0")
        self._request(_RTM_NEWLINK, _NLM_F_ACK, body)

    def bring_up(self, index: int) -> None:
        """Set a device's flag IFF_UP."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP)
        self._request(_RTM_NEWLINK, _NLM_F_ACK, body)

    def addresses(self, index: int) -> list[Address]:
        """Return the permanent addresses of global scope of a device."""
        answers = self._request(_RTM_GETADDR, _NLM_F_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0))
        return [found for answer in answers if (found := _parse(answer, index)) is not None]

    def add_address(self, index: int, address: Address) -> None:
        """Give a device an address."""
        body = _ADDRESS.pack(address.family, address.prefix_length, 0, _RT_SCOPE_UNIVERSE, index)
        for kind, value in (
            (_IFA_LOCAL, address.local),
            (_IFA_ADDRESS, address.address),
            (_IFA_BROADCAST, address.broadcast),
        ):
            if value:
                body += _attribute(kind, value)
        self._request(_RTM_NEWADDR, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL, body)

    def _request(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """Send one message; return the bodies of the answers."""
        self._sequence += 1
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, kind, flags | _NLM_F_REQUEST, self._sequence, 0)
        self._socket.sendto(header + body, (0, 0))
        found: list[bytes] = []
        while True:
            data = self._socket.recv(_ANSWER_BYTES)
            while len(data) >= _HEADER.size:
                length, kind, _, sequence, _ = _HEADER.unpack_from(data)
                answer, data = data[_HEADER.size : length], data[_align(length) :]
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    number = -int.from_bytes(answer[:4], "little", signed=True)
                    if number:
                        raise OSError(number, os.strerror(number))
                    return found
                found.append(answer)


def index_of(name: str) -> int:
    """Return the index of a device by its name; ENODEV when there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name) from error


def _parse(answer: bytes, index: int) -> Address | None:
    family, prefix_length, flags, scope, owner = _ADDRESS.unpack_from(answer)
    found: dict[int, bytes] = {}
    rest = answer[_ADDRESS.size :]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = rest[_ATTRIBUTE.size : length]
        rest = rest[_align(length) :]
    if _IFA_FLAGS in found:
        flags = int.from_bytes(found[_IFA_FLAGS], "little")
    if owner != index or scope != _RT_SCOPE_UNIVERSE or not flags & _IFA_F_PERMANENT:
        return None
    address = found.get(_IFA_ADDRESS, b"")
    return Address(
        family=family,
        prefix_length=prefix_length,
        # IPv6 has a local one only where there is a peer.
        local=found.get(_IFA_LOCAL, address),
        address=address,
        broadcast=found.get(_IFA_BROADCAST, b""),
    )


def _attribute(kind: int, value: bytes) -> bytes:
    packed = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
    return packed.ljust(_align(len(packed)), b"\0")


def _align(length: int) -> int:
    return (length + 3) & ~3
