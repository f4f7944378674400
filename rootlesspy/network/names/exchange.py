"""One query to one resolver, over UDP or TCP."""

from __future__ import annotations

import socket

from rootlesspy.light_typing import TYPE_CHECKING, Protocol
from rootlesspy.network.names import answers
from rootlesspy.network.names.polling import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.network.names.polling import Loop

    Heard = Callable[[bytes | None], None]

MAX_MESSAGE_BYTES = 65535
# Strangers' datagrams that are read in a row before others have their turn.
_MAX_STRAY = 16


class Exchange(Protocol):
    """A query under way."""

    server: str
    stream: bool

    def start(self, heard: Heard) -> None:
        """Call heard once: with the answer, or None when the resolver cannot be asked."""

    def repeat(self) -> None:
        """Say it again: datagrams get lost."""

    def close(self) -> None:
        """Give up; heard is not called any more."""


class UdpExchange:
    """One datagram there; the first one back that answers it counts."""

    stream = False

    def __init__(self, loop: Loop, server: str, port: int, wire: bytes) -> None:
        """Send the query.  Raises OSError."""
        self.server = server
        self._loop = loop
        self._wire = wire
        self._socket, address = _socket(server, port, socket.SOCK_DGRAM)
        try:
            # Connected: what comes from elsewhere is no business of ours.
            self._socket.connect(address)
            self._socket.send(wire)
        except OSError:
            self._socket.close()
            raise

    def start(self, heard: Heard) -> None:
        """Wait for the answer."""
        self._loop.watch(self._socket.fileno(), lambda: self._read(heard))

    def repeat(self) -> None:
        """Send the query again."""
        try:
            self._socket.send(self._wire)
        except OSError:
            # Told to whoever reads the socket.
            return

    def close(self) -> None:
        """Give up."""
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            self._socket.close()

    def _read(self, heard: Heard) -> None:
        for _ in range(_MAX_STRAY):
            try:
                response = self._socket.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                # ECONNREFUSED: nobody listens there.
                heard(None)
                return
            if answers.is_answer(response, self._wire):
                heard(response)
                return


class TcpExchange:
    """A connection for one query (RFC 7766 allows more)."""

    stream = True

    def __init__(self, loop: Loop, server: str, port: int, wire: bytes) -> None:
        """Begin to connect.  Raises OSError."""
        self.server = server
        self._loop = loop
        self._wire = wire
        self._out = len(wire).to_bytes(2, "big") + wire
        self._in = b""
        self._socket, address = _socket(server, port, socket.SOCK_STREAM)
        try:
            self._socket.connect(address)
        except BlockingIOError:
            return
        except OSError:
            self._socket.close()
            raise

    def start(self, heard: Heard) -> None:
        """Send when connected, then wait for the answer."""
        self._loop.watch(self._socket.fileno(), lambda: self._go_on(heard), WRITE)

    def repeat(self) -> None:
        """Do nothing: the kernel repeats."""

    def close(self) -> None:
        """Give up."""
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            self._socket.close()

    def _go_on(self, heard: Heard) -> None:
        try:
            if self._out:
                self._out = self._out[self._socket.send(self._out, socket.MSG_NOSIGNAL) :]
                if not self._out:
                    self._loop.watch(self._socket.fileno(), lambda: self._go_on(heard), READ)
                return
            part = self._socket.recv(MAX_MESSAGE_BYTES + 2)
        except BlockingIOError:
            return
        except OSError:
            heard(None)
            return
        self._in += part
        length = int.from_bytes(self._in[:2], "big") if len(self._in) > 1 else None
        if length is not None and len(self._in) >= 2 + length:
            response = self._in[2 : 2 + length]
            heard(response if answers.is_answer(response, self._wire) else None)
        elif not part:
            heard(None)


def _socket(server: str, port: int, kind: int) -> tuple[socket.socket, tuple[object, ...]]:
    """Return a non-blocking socket, and the address with the interface of a link-local one."""
    # Numbers only: no name is looked up, nothing blocks.
    found = socket.getaddrinfo(server, port, type=kind, flags=socket.AI_NUMERICHOST)
    family, _kind, _protocol, _name, address = found[0]
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    return made, address
