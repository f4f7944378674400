"""tap devices of the caller's network namespace that stay when nobody has them open.

Sources: Documentation/networking/tuntap.rst of the kernel, <linux/if_tun.h>.  Raises OSError only.
"""

from __future__ import annotations

import fcntl
import os

from rootlesspy.light_modules import socket, struct

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TAP = 0x2
_IFF_NO_PI = 0x1000
# <linux/sockios.h>, <linux/if.h>
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFF_MULTICAST = 0x1000
# Documentation/networking/ip-sysctl.rst.  The kernel shows those of the namespace of who looks.
_IGNORES_ROUTES = "/proc/sys/net/{}/conf/{}/ignore_routes_with_linkdown"


def make_tap(name: str) -> None:
    """Make a tap device to which a program attaches later; it goes with its namespace.

    It is up, without a carrier: only then does the kernel take notice of the program at once.  Of
    one that is down it says "no carrier" for up to a second more (net/core/link_watch.c).  When the
    program has gone its routes do not count, as if the device had gone with it.
    """
    _set_persistent(name, 1)
    try:
        _bring_up(name)
        _ignore_dead_routes(name)
    except OSError:
        remove_tap(name)
        raise


def remove_tap(name: str) -> None:
    """Remove a tap device that make_tap() has made; EBUSY as long as a program has it."""
    _set_persistent(name, 0)


def _set_persistent(name: str, wanted: int) -> None:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", os.fsencode(name), _IFF_TAP | _IFF_NO_PI)
        fcntl.ioctl(fd, _TUNSETIFF, request)
        fcntl.ioctl(fd, _TUNSETPERSIST, wanted)
    finally:
        os.close(fd)


def _bring_up(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        flags = struct.pack("16sh14x", os.fsencode(name), _IFF_UP | _IFF_MULTICAST)
        fcntl.ioctl(control, _SIOCSIFFLAGS, flags)


def _ignore_dead_routes(name: str) -> None:
    for family in ("ipv4", "ipv6"):
        try:
            fd = os.open(_IGNORES_ROUTES.format(family, name), os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            # A kernel without IPv6.
            continue
        try:
            os.write(fd, b"1")
        finally:
            os.close(fd)
