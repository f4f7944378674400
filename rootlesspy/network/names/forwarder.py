"""Queries that others are to answer: sent to the resolvers, the answers handed back.

The sockets are made where this process lives, in the host's network: 127.0.0.53 is the host's, and
the queries leave like those of any program of the user.  Each query has a socket of its own, so a
source port of the kernel's choice, and a number that is not the container's (RFC 5452); the bytes
of the question stay as they are.

Queries that differ only in their number are sent once: that is what a clumsy client repeats, what
a forger needs many of, and what comes round again when the host's resolver asks a container that
asks us.  A query in a circle finds itself waiting, and both end with SERVFAIL.
"""

from __future__ import annotations

import os
import time

from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.network.names import answers
from rootlesspy.network.names.exchange import Exchange, TcpExchange, UdpExchange

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.network.names.polling import Loop

# The next resolver is asked when one has said nothing for so long; glibc and musl give up, or
# repeat themselves, after 5 s and 2.5 s.
PATIENCE_S = 1.5
LIMIT_S = 6.0
# Each takes up to three descriptors, of the 1024 that a process usually has.
MAX_QUERIES = 200
MAX_PER_CLIENT = 100
_MAX_WAITING = 100
_SERVFAIL = 2
_PORT = 53
_TIMER = "dns-forwarder"

Key = tuple[bytes, tuple[str, ...], bool]


class _Waiting(NamedTuple):
    """Somebody who asked."""

    client: str
    number: bytes
    reply: Callable[[bytes], None]


class _Query:
    """A question under way."""

    def __init__(self, key: Key, servers: tuple[str, ...], now: float) -> None:
        self.key = key
        self.wire = os.urandom(2) + key[0]
        self.servers = list(servers)
        self.waiting: list[_Waiting] = []
        self.exchanges: list[Exchange] = []
        self.next_s = now
        self.end_s = now + LIMIT_S
        self.last = b""
        """What to say when nobody knows better."""


class Forwarder:
    """Asks resolvers in their order, over UDP, and over TCP what does not fit."""

    def __init__(self, loop: Loop, *, port: int = _PORT) -> None:
        self._loop = loop
        self._port = port
        self._queries: dict[Key, _Query] = {}
        self._clients: dict[str, int] = {}

    def ask(
        self,
        wire: bytes,
        servers: tuple[str, ...],
        reply: Callable[[bytes], None],
        *,
        client: str,
        tcp: bool,
    ) -> None:
        """Have a valid query answered: reply is called once, now or later, on failure too.

        tcp: whoever asked takes answers of any length.
        """
        key = (wire[2:], servers, tcp)
        query = self._queries.get(key)
        busy = self._clients.get(client, 0) >= MAX_PER_CLIENT
        full = query is None and len(self._queries) >= MAX_QUERIES
        if busy or full or (query and len(query.waiting) >= _MAX_WAITING):
            reply(answers.failure(wire, _SERVFAIL))
            return
        self._clients[client] = self._clients.get(client, 0) + 1
        waiting = _Waiting(client=client, number=wire[:2], reply=reply)
        if query is not None:
            query.waiting.append(waiting)
            return
        query = self._queries[key] = _Query(key, servers, time.monotonic())
        query.waiting.append(waiting)
        self._proceed(query)

    def close(self) -> None:
        """Forget everybody who waits."""
        for query in list(self._queries.values()):
            self._end(query)
        self._loop.cancel(_TIMER)

    def _proceed(self, query: _Query) -> None:
        """Ask the next resolver; nobody left and nothing under way: give up."""
        while query.servers:
            server = query.servers.pop(0)
            try:
                self._start(query, UdpExchange(self._loop, server, self._port, query.wire))
            except (OSError, ValueError):
                # No route, no such address: as good as no answer.
                continue
            query.next_s = time.monotonic() + PATIENCE_S
            break
        else:
            query.next_s = query.end_s
            for exchange in query.exchanges:
                exchange.repeat()
        if query.exchanges:
            self._set_timer(query)
        else:
            self._finish(query, query.last or answers.failure(query.wire, _SERVFAIL))

    def _start(self, query: _Query, exchange: Exchange) -> None:
        query.exchanges.append(exchange)
        exchange.start(lambda response: self._heard(query, exchange, response))

    def _heard(self, query: _Query, exchange: Exchange, response: bytes | None) -> None:
        """Take what a resolver said; None: it cannot be asked."""
        exchange.close()
        query.exchanges.remove(exchange)
        if response is None or answers.is_refusal(response):
            query.last = response or query.last
            self._proceed(query)
        elif answers.is_truncated(response) and query.key[2] and not exchange.stream:
            try:
                again = TcpExchange(self._loop, exchange.server, self._port, query.wire)
            except OSError:
                self._proceed(query)
                return
            query.last = answers.failure(query.wire, _SERVFAIL)
            self._start(query, again)
        else:
            self._finish(query, response)

    def _finish(self, query: _Query, response: bytes) -> None:
        self._end(query)
        for each in query.waiting:
            each.reply(each.number + response[2:])

    def _end(self, query: _Query) -> None:
        del self._queries[query.key]
        for exchange in query.exchanges:
            exchange.close()
        query.exchanges.clear()
        for each in query.waiting:
            self._clients[each.client] -= 1
            if not self._clients[each.client]:
                del self._clients[each.client]

    def _set_timer(self, query: _Query) -> None:
        due_s = min(query.next_s, query.end_s)
        self._loop.after_at_most(_TIMER, max(0.0, due_s - time.monotonic()), self._look_at_clock)

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        for query in list(self._queries.values()):
            if query.end_s <= now:
                self._finish(query, query.last or answers.failure(query.wire, _SERVFAIL))
            elif query.next_s <= now:
                self._proceed(query)
            else:
                self._set_timer(query)
