"""The supervisor's clients: who is connected, what they ask for, and what they are told."""

from __future__ import annotations

import os

from rootlesspy.engine.supervision import control, failure
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rootlesspy.engine.supervision.control import Message
    from rootlesspy.engine.supervision.listener import Listener
    from rootlesspy.engine.supervision.loop import Loop
    from rootlesspy.engine.supervision.sessions import Session
    from rootlesspy.engine.supervision.stdio import Streams


class Client:
    """One connection."""

    def __init__(self, end: socket.socket) -> None:
        # Whoever does not read what it is told must not hold the supervisor up.
        end.setblocking(False)
        self.end = end
        self.listener: Listener | None = None
        self.session: Session | None = None
        """The exec session that it is the caller of."""
        self.follows = False
        """It waits for the container's end; anybody else waits for an answer of its own."""

    def tell(self, kind: str, **fields: object) -> None:
        """Send a packet, if it is still there."""
        self.send(kind, fields)

    def send(self, kind: str, fields: dict[str, object], fds: tuple[int, ...] = ()) -> None:
        """Send a packet with descriptors, if it is still there."""
        control.send(self.end, kind, fds, fields)


class Duties(Protocol):
    """What clients may ask of the supervisor."""

    def stop(self, reason: str, timeout_s: float | None = None) -> None:
        """Stop the container."""

    def signal(self, number: int, reason: str = "") -> None:
        """Signal the payload."""

    def started_fields(self) -> dict[str, object]:
        """Say what runs."""

    def serve_other(self, client: Client, message: Message) -> None:
        """Carry out any other request."""

    def client_left(self, client: Client, *, said_bye: bool) -> None:
        """Notice that a client has gone."""


class Clients:
    """All connections of one supervisor."""

    def __init__(self, loop: Loop, duties: Duties, streams: Streams) -> None:
        self._loop = loop
        self._duties = duties
        self._streams = streams
        self._clients: list[Client] = []

    def listen(self, listener: socket.socket) -> None:
        """Accept whoever connects; the container's runtime directory lets only the user in."""
        listener.setblocking(False)
        self._loop.watch(listener.fileno(), lambda: self._accept(listener))

    def add(self, end: socket.socket) -> Client:
        """Serve a connection."""
        client = Client(end)
        self._clients.append(client)
        self._loop.watch(end.fileno(), lambda: self._serve(client))
        return client

    def attach(self, client: Client, *, stdin: bool, first: bool) -> None:
        """Connect a client with the payload's streams and tell it that the container runs.

        first: it started the container, which waits for it when it reads slowly.
        """
        client.follows = True
        try:
            client.listener, fds = self._streams.attach(stdin=stdin, first=first)
        except Error as error:
            self.refuse(client, error)
            return
        client.send("started", self._duties.started_fields(), fds)
        if client.listener is not None and not client.listener.keeps_fds:
            for fd in fds:
                os.close(fd)

    def refuse(self, client: Client, error: Error) -> None:
        """Tell a client why its request is not carried out."""
        client.tell(
            "failed", exit_code=error.exit_code, message=error.message, hint=error.hint or ""
        )

    def tell_end(self, exit_code: int, message: str) -> None:
        """Tell everybody that the container has ended, and how to those who waited for it."""
        for client in self._clients:
            if client.follows:
                client.tell("exited", exit_code=exit_code, message=message)
            else:
                self.refuse(client, Error("the container has ended"))

    def _accept(self, listener: socket.socket) -> None:
        try:
            end, _ = listener.accept()
        except OSError:
            return
        self.add(end)

    def _serve(self, client: Client) -> None:
        try:
            message = control.receive(client.end)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            message = None
        if message is None or message.kind == "bye":
            self._leave(client, said_bye=message is not None)
            return
        requests: dict[str, Callable[[Client, Message], None]] = {
            "attach": self._attach,
            "stop": self._stop,
            "signal": self._signal,
            "resize": self._resize,
            "watch": self._watch,
        }
        try:
            requests.get(message.kind, self._duties.serve_other)(client, message)
        except Exception as error:  # noqa: BLE001 - one request must not take the container along
            self.refuse(client, Error(failure.words(error)))

    def _attach(self, client: Client, message: Message) -> None:
        self.attach(client, stdin=bool(message.number("stdin")), first=False)

    def _stop(self, client: Client, message: Message) -> None:
        client.follows = True
        self._duties.stop(message.text("reason") or "stop", message.seconds("timeout_s"))

    def _signal(self, client: Client, message: Message) -> None:
        number = message.number("number")
        if client.session is not None:
            client.session.signal(number)
            return
        self._duties.signal(number, message.text("reason"))
        client.tell("done")

    def _resize(self, _client: Client, message: Message) -> None:
        self._streams.resize(message.number("rows"), message.number("columns"))

    def _watch(self, client: Client, _message: Message) -> None:
        client.follows = True
        client.send("started", self._duties.started_fields())

    def _leave(self, client: Client, *, said_bye: bool) -> None:
        self._loop.forget(client.end.fileno())
        if client.listener is not None:
            self._streams.detach(client.listener)
        self._duties.client_left(client, said_bye=said_bye)
        client.end.close()
        self._clients.remove(client)
