"""Where the host's own routes lead: no network of containers may lie there.

Source: proc_pid_net(5), /proc/net/route; Documentation/networking of the kernel for ipv6_route.
"""

from __future__ import annotations

from rootlesspy.light_modules import socket

_IPV4_BYTES, _IPV6_BYTES = 4, 16
# <linux/route.h>, <linux/ipv6_route.h>: unreachable and the host's own addresses are no networks.
_RTF_UP, _RTF_REJECT = 0x1, 0x200
_LEAST_IPV6_FIELDS = 10


def destinations(
    ipv4: str = "/proc/net/route", ipv6: str = "/proc/net/ipv6_route"
) -> tuple[str, ...]:
    """Return the destinations of the host's routes as ADDRESS/LENGTH, default routes left out."""
    found: dict[str, None] = {}
    for fields in _lines(ipv4)[1:]:
        if len(fields) < 8 or not int(fields[3], 16) & _RTF_UP:
            continue
        # The kernel prints the words as they lie in memory.
        raw = int(fields[1], 16).to_bytes(_IPV4_BYTES, "little")
        length = int(fields[7], 16).bit_count()
        if length:
            found[f"{socket.inet_ntop(socket.AF_INET, raw)}/{length}"] = None
    for fields in _lines(ipv6):
        if len(fields) < _LEAST_IPV6_FIELDS or int(fields[8], 16) & _RTF_REJECT:
            continue
        raw, length = bytes.fromhex(fields[0]), int(fields[1], 16)
        # Not multicast, link-local and single addresses.
        if 0 < length < 128 and raw[0] != 0xFF and raw[:2] != b"\xfe\x80":
            found[f"{socket.inet_ntop(socket.AF_INET6, raw)}/{length}"] = None
    return tuple(found)


def _lines(path: str) -> list[list[str]]:
    try:
        with open(path, encoding="ascii") as file:
            return [line.split() for line in file]
    except OSError:
        return []
