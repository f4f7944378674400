"""Network namespaces with nobody in them: made, entered and configured by short-lived children.

A socket belongs to the network namespace in which it was made.  So a child goes in, opens what is
wanted and hands it out; the caller stays in the host's namespaces.  It keeps the rights of root in
the namespaces all the same: whoever owns a user namespace has all capabilities in it, from the one
above (user_namespaces(7)); and netlink asks for those of the sender (netlink_ns_capable(), as long
as the message has an address: NETLINK_SKB_DST of the kernel).
"""

from __future__ import annotations

import os
import socket

from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, NoReturn
from rootlesspy.linux import process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST_FDS = 64
_ERRNO_BYTES = 4


class Namespace(NamedTuple):
    """A network namespace and the user namespace that owns it; the descriptors keep them."""

    userns_fd: int
    netns_fd: int

    def close(self) -> None:
        """Let go of them."""
        os.close(self.userns_fd)
        os.close(self.netns_fd)


def make() -> Namespace:
    """Make a user namespace and a network namespace in it.  Raises OSError."""

    def inside() -> Sequence[int]:
        process.unshare(process.CLONE_NEWUSER | process.CLONE_NEWNET)
        return [open_path("/proc/self/ns/user"), open_path("/proc/self/ns/net")]

    return Namespace(*_run(inside))


def of(pid: int) -> Namespace:
    """Open the namespaces of a process.  Raises OSError."""
    userns_fd = open_path(f"/proc/{pid}/ns/user")
    try:
        return Namespace(userns_fd, open_path(f"/proc/{pid}/ns/net"))
    except BaseException:
        os.close(userns_fd)
        raise


def call(namespace: Namespace, function: Callable[[], Sequence[int]]) -> list[int]:
    """Run function in a child that is in the namespaces; return the descriptors that it returns.

    The child has all capabilities there.  Raises the function's OSError.
    """

    def inside() -> Sequence[int]:
        process.setns(namespace.userns_fd, process.CLONE_NEWUSER)
        process.setns(namespace.netns_fd, process.CLONE_NEWNET)
        return function()

    return _run(inside)


def write_sysctls(values: Sequence[tuple[str, str]]) -> None:
    """Write net.* settings of the namespace that this process is in; missing ones are left out."""
    for key, value in values:
        try:
            fd = os.open(f"/proc/sys/net/{key}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            # A kernel without IPv6.
            continue
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)


def open_path(path: str) -> int:
    """Open a file for reading."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _run(function: Callable[[], Sequence[int]]) -> list[int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _serve(theirs, function)
    theirs.close()
    try:
        packet, fds, _, _ = socket.recv_fds(ours, _ERRNO_BYTES, _MOST_FDS, socket.MSG_CMSG_CLOEXEC)
    finally:
        ours.close()
        os.waitpid(pid, 0)
    number = int.from_bytes(packet, "little") if packet else 5
    if number:
        raise OSError(number, os.strerror(number))
    return fds


def _serve(end: socket.socket, function: Callable[[], Sequence[int]]) -> NoReturn:
    """Be the child: never returns."""
    number = 0
    try:
        process.set_parent_death_signal(9)
        fds = function()
    except OSError as error:
        number, fds = error.errno or 5, ()
    except BaseException:  # noqa: BLE001 - the child's last line; EIO is what the parent says
        number, fds = 5, ()
    try:
        socket.send_fds(end, [number.to_bytes(_ERRNO_BYTES, "little")], list(fds))
    finally:
        os._exit(0)
