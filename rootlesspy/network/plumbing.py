"""What makes bridges, veth pairs and addresses: a child that is there only while it has work.

pyroute2 weighs 20 MB and takes 0.3 s to be imported, and who connects containers does it seldom:
so a child imports it, carries out what it is asked for, and is ended when nothing has been asked
for some time.  Its caller, the service of a network, stays small, and does other things meanwhile.

The netlink sockets are the caller's: they come with each order, and with them the namespace that
they are of.  One order at a time; an order and its answer are one packet each.
"""

from __future__ import annotations

import errno
import gc
import os
import socket

from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, Any, NoReturn
from rootlesspy.linux import process
from rootlesspy.network import bridge
from rootlesspy.network.networks import Route

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT_S = 60.0
_PACKET_BYTES = 65536
_MOST_FDS = 2
_ERRNO_BYTES = 4
# The child's end; everything above is the caller's business, who would wait for it to be closed.
_CHILDS_FD = 3


class Plumber:
    """Orders to the child, which is made by the first one; every method raises OSError."""

    def __init__(self) -> None:
        self._end: socket.socket | None = None
        self._pid = 0

    def begin(self) -> None:
        """Have the child make itself ready, which takes a while; it may be ready already."""
        if self._end is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            _serve(theirs)
        theirs.close()
        ours.settimeout(_TIMEOUT_S)
        self._end, self._pid = ours, pid

    def rest(self) -> None:
        """End the child; none, no harm."""
        if self._end is not None:
            self._end.close()
            self._end = None
            os.waitpid(self._pid, 0)

    def make_bridge(self, netlink_fd: int, name: str, addresses: Sequence[str], mtu: int) -> None:
        """Make a bridge, as `bridge.Netlink` does."""
        self._order("bridge", (netlink_fd,), [name, list(addresses), mtu])

    def add_port(self, netlink_fd: int, name: str, port: bridge.Port, netns_fd: int) -> None:
        """Make a veth pair from the bridge of this name into a namespace."""
        self._order("port", (netlink_fd, netns_fd), [name, list(port)])

    def configure(
        self,
        netlink_fd: int,
        interface: str,
        addresses: Sequence[str],
        routes: Sequence[Route] = (),
    ) -> None:
        """Give an interface its addresses and routes and bring it up."""
        told = [interface, list(addresses), [list(each) for each in routes]]
        self._order("configure", (netlink_fd,), told)

    def _order(self, kind: str, fds: tuple[int, ...], arguments: Sequence[object]) -> None:
        packet = json.dumps([kind, arguments]).encode()
        try:
            socket.send_fds(self._ready(), [packet], fds)
        except BrokenPipeError:
            # Killed while it had nothing to do.
            self._kill()
            socket.send_fds(self._ready(), [packet], fds)
        try:
            answer = self._ready().recv(_ERRNO_BYTES)
        except OSError:
            self._kill()
            raise
        if not answer:
            self._kill()
            raise OSError(errno.EIO, "the child that makes interfaces has ended")
        number = int.from_bytes(answer, "little")
        if number:
            raise OSError(number, os.strerror(number))

    def _ready(self) -> socket.socket:
        """Return the way to the child, which is made when there is none."""
        self.begin()
        if self._end is None:
            raise OSError(errno.EIO, "there is no child")
        return self._end

    def _kill(self) -> None:
        """End a child that does not do what it should."""
        try:
            os.kill(self._pid, 9)
        except ProcessLookupError:
            pass
        self.rest()


def _serve(end: socket.socket) -> NoReturn:
    """Be the child, until the other end is closed: never returns."""
    try:
        # What the caller had open is closed below its objects: none of them may be collected here.
        gc.freeze()
        process.set_parent_death_signal(9)
        os.dup2(end.fileno(), _CHILDS_FD, inheritable=False)
        process.close_from(_CHILDS_FD + 1)
        connection = socket.socket(fileno=_CHILDS_FD)
        bridge.load()
        while True:
            packet, fds, _, _ = socket.recv_fds(
                connection, _PACKET_BYTES, _MOST_FDS, socket.MSG_CMSG_CLOEXEC
            )
            if not packet:
                break
            number = _answer(packet, fds)
            connection.send(number.to_bytes(_ERRNO_BYTES, "little"))
    finally:
        os._exit(0)


def _answer(packet: bytes, fds: list[int]) -> int:
    """Carry out one order; return 0 or what went wrong."""
    netlink = bridge.Netlink(fds[0])
    try:
        _carry_out(netlink, json.loads(packet), fds[1:])
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        netlink.close()
        for fd in fds[1:]:
            os.close(fd)
    return 0


def _carry_out(netlink: bridge.Netlink, order: Any, fds: list[int]) -> None:
    kind, arguments = order
    if kind == "bridge":
        name, addresses, mtu = arguments
        netlink.make_bridge(name, addresses, mtu)
    elif kind == "port":
        name, port = arguments
        netlink.add_port(name, bridge.Port(*port), fds[0])
    else:
        interface, addresses, routes = arguments
        netlink.configure(interface, addresses, [Route(*each) for each in routes])
