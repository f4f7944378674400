"""The DNS server of a network: sockets in the network's namespace, everything else outside.

A socket belongs to the network namespace in which it was made, so the server itself need not be
there: `listen` is called by a process in the namespace, which hands the sockets over; the server
stays in the host's network, where the resolvers are that it asks.

    loop = …; server = Server(loop, sockets, table, HostResolvers(without=gateways))
    server.update(table)     whenever a container comes or goes
    server.close()
"""

from __future__ import annotations

import socket
from functools import partial

from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network.names import answers
from rootlesspy.network.names.forwarder import Forwarder
from rootlesspy.network.names.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.network.names.polling import Loop
    from rootlesspy.network.names.table import Table

DNS_PORT = 53
# Datagrams of one socket that are answered before others have their turn.
_IN_A_ROW = 64
_BACKLOG = 256
_SEND_BYTES = 64 << 10
# <linux/in.h>, <linux/in6.h>
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78


def listen(addresses: tuple[str, ...], port: int = DNS_PORT) -> list[socket.socket]:
    """Return bound sockets for these addresses, a datagram and a listening one for each.

    Called in the network namespace.  The addresses may still be tentative, or be given to the
    bridge later.  Raises OSError.
    """
    made: list[socket.socket] = []
    try:
        for address in addresses:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                made.append(_bind(address, port, kind))  # noqa: PERF401 closed when one fails
    except OSError:
        for each in made:
            each.close()
        raise
    return made


class Server:
    """Answers what comes in at the sockets, from the table or by asking others."""

    def __init__(
        self,
        loop: Loop,
        sockets: list[socket.socket],
        table: Table,
        host_resolvers: Callable[[], tuple[str, ...]],
        *,
        resolver_port: int = DNS_PORT,
    ) -> None:
        self._loop = loop
        self._table = table
        self._host_resolvers = host_resolvers
        self._sockets = sockets
        self._turns: answers.Turns = {}
        self._forwarder = Forwarder(loop, port=resolver_port)
        self._datagrams = [each for each in sockets if each.type == socket.SOCK_DGRAM]
        listeners = [each for each in sockets if each.type == socket.SOCK_STREAM]
        self._streams = Streams(loop, listeners, self._asked_over_tcp)
        for sock in self._datagrams:
            loop.watch(sock.fileno(), partial(self._receive, sock))

    def update(self, table: Table) -> None:
        """Answer from another table from now on."""
        self._table = table
        self._turns.clear()

    def close(self) -> None:
        """Stop answering and close the sockets."""
        self._streams.close()
        self._forwarder.close()
        for sock in self._datagrams:
            self._loop.forget(sock.fileno())
        for sock in self._sockets:
            sock.close()

    def _receive(self, sock: socket.socket) -> None:
        for _ in range(_IN_A_ROW):
            try:
                wire, sender = sock.recvfrom(answers.MAX_QUERY_BYTES + 1)
            except OSError:
                # Nothing more, or an error that concerns an answer sent before.
                return
            self._answer(wire, str(sender[0]), partial(_send, sock, sender), tcp=False)

    def _asked_over_tcp(self, wire: bytes, client: str, reply: Callable[[bytes], None]) -> None:
        self._answer(wire, client, reply, tcp=True)

    def _answer(
        self, wire: bytes, client: str, reply: Callable[[bytes], None], *, tcp: bool
    ) -> None:
        view = self._table.view(client)
        if view is None:
            # No answer to addresses that are not of the network, which may be forged.
            reply(b"")
            return
        result = answers.respond(wire, view, self._turns, tcp=tcp)
        if not result.forward:
            reply(result.wire)
            return
        servers = self._host_resolvers() if view.resolvers is None else view.resolvers
        if not tcp:
            reply = partial(_fit, reply, result.limit_bytes)
        self._forwarder.ask(wire, servers, reply, client=client, tcp=tcp)


def _bind(address: str, port: int, kind: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Its connections have it too: what nobody fetches does not pile up in the kernel.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        made.bind((address, port))
        if kind == socket.SOCK_STREAM:
            made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _send(sock: socket.socket, client: tuple[object, ...], response: bytes) -> None:
    if not response:
        return
    try:
        sock.sendto(response, client)
    except OSError:
        # It asks again when it does not hear from us.
        return


def _fit(reply: Callable[[bytes], None], limit_bytes: int, response: bytes) -> None:
    """Hand on what a resolver said, shortened when its client does not take so much."""
    reply(response if len(response) <= limit_bytes else answers.truncated(response))
