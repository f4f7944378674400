"""Clients of the server over TCP: framed queries, few at a time, and never too many clients.

The one that has been silent longest makes room for a new one; of an address that has many, one of
its own.  Source: RFC 7766.
"""

from __future__ import annotations

import time
from functools import partial
from socket import MSG_NOSIGNAL

from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network.names import answers
from rootlesspy.network.names.polling import READ, WRITE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rootlesspy.network.names.polling import Loop

    Asked = Callable[[bytes, str, Callable[[bytes], None]], None]

MAX_STREAMS = 128
MAX_PER_CLIENT = 32
IDLE_S = 10.0
# Queries of one client that wait for their answers, and bytes it has not fetched.
_MAX_OPEN = 16
_MAX_UNSENT_BYTES = 256 << 10
# Some 80 queries: others are waiting.
_READ_BYTES = 2048
_ACCEPTED_IN_A_ROW = 64
_TIMER = "dns-streams"


class Streams:
    """The connections to the listening sockets."""

    def __init__(self, loop: Loop, listeners: list[socket.socket], asked: Asked) -> None:
        """Call asked with query, client's address and whom to give the answer (b"": none)."""
        self._loop = loop
        self._asked = asked
        # In the order of their last sign of life.
        self._streams: dict[int, _Stream] = {}
        self._listeners = listeners
        for listener in listeners:
            loop.watch(listener.fileno(), partial(self._accept, listener))

    def close(self) -> None:
        """Close all connections; the listening sockets are their owner's."""
        for listener in self._listeners:
            self._loop.forget(listener.fileno())
        for stream in list(self._streams.values()):
            stream.close()
        self._loop.cancel(_TIMER)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_IN_A_ROW):
            try:
                connection, address = listener.accept()
            except BlockingIOError:
                break
            except OSError:
                # ECONNABORTED, or out of descriptors: one is freed for the next turn.
                self._make_room(1)
                break
            connection.setblocking(False)
            client = str(address[0])
            self._make_room(MAX_PER_CLIENT, client)
            self._make_room(MAX_STREAMS)
            stream = _Stream(self._loop, connection, client, self._asked, self._streams)
            stream.start()
        self._set_timer()

    def _make_room(self, limit: int, client: str = "") -> None:
        """Close the most silent stream (of one client) when there are as many as there may be."""
        streams = [each for each in self._streams.values() if client in ("", each.client)]
        if len(streams) >= limit:
            streams[0].close()

    def _set_timer(self) -> None:
        for stream in self._streams.values():
            left_s = stream.active_s + IDLE_S - time.monotonic()
            self._loop.after_at_most(_TIMER, max(0.0, left_s), self._drop_idle)
            return

    def _drop_idle(self) -> None:
        limit_s = time.monotonic() - IDLE_S
        for stream in list(self._streams.values()):
            if stream.active_s > limit_s:
                break
            stream.close()
        self._set_timer()


class _Stream:
    """One client's connection."""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        client: str,
        asked: Asked,
        streams: dict[int, _Stream],
    ) -> None:
        self.client = client
        self.active_s = time.monotonic()
        self._loop = loop
        self._socket = connection
        self._fd = connection.fileno()
        self._asked = asked
        self._streams = streams
        self._in = b""
        self._out = b""
        self._open = 0
        self._ended = False
        streams[self._fd] = self

    def start(self) -> None:
        """Listen to it."""
        self._watch()

    def close(self) -> None:
        """Hang up; answers that come later go nowhere."""
        if self._streams.pop(self._fd, None) is not None:
            self._loop.forget(self._fd)
            self._socket.close()
        self._ended = True

    def _watch(self) -> None:
        # Who does not fetch its answers is not read from either.
        events = WRITE if self._out else 0 if self._paused() else READ
        self._loop.watch(self._fd, self._go_on, events)

    def _paused(self) -> bool:
        return self._ended or self._open >= _MAX_OPEN

    def _go_on(self) -> None:
        try:
            if self._out:
                self._out = self._out[self._socket.send(self._out, MSG_NOSIGNAL) :]
            elif self._paused():
                # Not asked for: the other side hung up or reset the connection.
                self.close()
            else:
                self._read()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
        self._settle()

    def _read(self) -> None:
        part = self._socket.recv(_READ_BYTES)
        self._ended = not part
        self._in += part
        self._take_queries()

    def _take_queries(self) -> None:
        while self._fd in self._streams and self._open < _MAX_OPEN and len(self._in) > 1:
            length = int.from_bytes(self._in[:2], "big")
            if not answers.HEADER_BYTES <= length <= answers.MAX_QUERY_BYTES:
                self.close()
                return
            if len(self._in) < 2 + length:
                return
            query, self._in = self._in[2 : 2 + length], self._in[2 + length :]
            self._touch()
            self._open += 1
            self._asked(query, self.client, self._reply)

    def _touch(self) -> None:
        """Move to the end of the line: only whole queries count, not single bytes."""
        self.active_s = time.monotonic()
        self._streams[self._fd] = self._streams.pop(self._fd)

    def _reply(self, response: bytes) -> None:
        self._open -= 1
        if self._streams.get(self._fd) is not self:
            return
        if not response or len(self._out) > _MAX_UNSENT_BYTES:
            self.close()
            return
        self._out += len(response).to_bytes(2, "big") + response
        self._watch()

    def _settle(self) -> None:
        """Say what is waited for next; hang up when it is nothing."""
        if self._streams.get(self._fd) is not self:
            return
        if self._in and self._open < _MAX_OPEN:
            self._take_queries()
            if self._streams.get(self._fd) is not self:
                return
        if self._ended and not self._open and not self._out:
            self.close()
        else:
            self._watch()
