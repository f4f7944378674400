"""The supervisor's clients over real sockets, with a poll loop and duties that are written down."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from rootlesspy.engine.supervision import control, loop
from rootlesspy.engine.supervision.clients import Client, Clients
from rootlesspy.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootlesspy.engine.supervision.control import Message
    from rootlesspy.engine.supervision.listener import Listener


class Duties:
    """What was asked of the supervisor, in order."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def stop(self, reason: str, timeout_s: float | None = None) -> None:
        self.asked.append(("stop", reason, timeout_s))

    def signal(self, number: int, reason: str = "") -> None:
        self.asked.append(("signal", number, reason))

    def started_fields(self) -> dict[str, object]:
        return {"pid": 7}

    def serve_other(self, _client: Client, message: Message) -> None:
        message.close()
        if message.kind == "broken":
            raise ZeroDivisionError("by zero")
        self.asked.append(("other", message.kind, len(message.fds)))

    def client_left(self, _client: Client, *, said_bye: bool) -> None:
        self.asked.append(("left", said_bye))


class Streams:
    """A terminal that one client has at a time."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.taken = False

    def begin(self, _master_fd: int) -> None:
        """Nothing is copied here."""

    def attach(self, *, stdin: bool, first: bool) -> tuple[Listener | None, tuple[int, ...]]:
        del stdin, first
        if self.taken:
            raise Conflict("its terminal is attached elsewhere", hint="detach there first")
        self.taken = True
        return None, (0,)

    def detach(self, _listener: Listener) -> None:
        """No client has a listener here."""

    def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    def finish(self) -> str:
        return ""


class Bench:
    """Clients of a supervisor, and the ends of theirs that a test holds."""

    def __init__(self) -> None:
        self.turns, self.duties, self.streams = loop.Loop(), Duties(), Streams()
        self.clients = Clients(self.turns, self.duties, self.streams)
        self.ends: list[socket.socket] = []

    def connect(self) -> socket.socket:
        ours, theirs = control.socket_pair()
        self.clients.add(ours)
        theirs.settimeout(30)
        self.ends.append(theirs)
        return theirs

    def ask(self, end: socket.socket, kind: str, **fields: object) -> None:
        """Send a request and let the supervisor serve it."""
        control.tell(end, kind, **fields)
        self.turn()

    def turn(self) -> None:
        self.turns.after("no waiting", 0, lambda: None)
        self.turns.turn()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for end in made.ends:
        end.close()
    # It has seen the ends of all of them, and closed its own.
    made.turn()


def told(end: socket.socket) -> tuple[str, dict[str, Any]]:
    message = control.receive(end)
    assert message is not None
    message.close()
    return message.kind, dict(message.fields)


def test_requests_reach_the_duties(bench: Bench) -> None:
    end = bench.connect()
    bench.ask(end, "stop", reason="stop", timeout_s=1.5)
    bench.ask(end, "stop")
    bench.ask(end, "signal", number=10, reason="kill")
    assert told(end)[0] == "done"
    bench.ask(end, "exec", args=["true"])
    assert bench.duties.asked == [
        ("stop", "stop", 1.5), ("stop", "stop", 0.0), ("signal", 10, "kill"), ("other", "exec", 0),
    ]  # fmt: skip
    bench.ask(end, "resize", rows=3, columns=9)
    assert bench.streams.sizes == [(3, 9)]
    bench.ask(end, "watch")
    assert told(end) == ("started", {"pid": 7})


def test_who_attaches_gets_descriptors_and_the_next_one_a_reason(bench: Bench) -> None:
    first, second = bench.connect(), bench.connect()
    bench.ask(first, "attach", stdin=1)
    message = control.receive(first)
    assert message is not None
    assert (message.kind, len(message.fds)) == ("started", 1)
    message.close()
    bench.ask(second, "attach", stdin=1)
    kind, fields = told(second)
    assert (kind, fields["exit_code"], fields["hint"]) == ("failed", 125, "detach there first")


def test_a_request_that_fails_inside_takes_nobody_along(bench: Bench) -> None:
    end, other = bench.connect(), bench.connect()
    bench.ask(end, "broken")
    kind, fields = told(end)
    assert (kind, fields["message"]) == (
        "failed", "internal error in the supervisor: ZeroDivisionError: by zero",
    )  # fmt: skip
    bench.ask(other, "stop", timeout_s=0)
    assert bench.duties.asked == [("stop", "stop", 0.0)]


@pytest.mark.parametrize(
    "packet", [b"", b"{", b"[]", b"7", b'{"kind": 1}', b"\xff" * 9, b"[" * 100_000]
)
def test_rubbish_ends_the_connection_and_nothing_else(bench: Bench, packet: bytes) -> None:
    end, other = bench.connect(), bench.connect()
    end.send(packet)
    bench.turn()
    bench.ask(other, "stop", timeout_s=0)
    assert ("stop", "stop", 0.0) in bench.duties.asked
    assert bench.duties.asked.count(("left", False)) <= 1


@pytest.mark.parametrize("said_bye", [True, False])
def test_who_leaves_is_forgotten(bench: Bench, said_bye: bool) -> None:
    end = bench.connect()
    if said_bye:
        control.tell(end, "bye")
    end.close()
    bench.turn()
    assert bench.duties.asked == [("left", said_bye)]
    # Nobody is there to be told, and no descriptor is left to be watched.
    bench.clients.tell_end(0, "")
    bench.turn()
    assert bench.duties.asked == [("left", said_bye)]


def test_everybody_hears_of_the_end_and_who_does_not_read_holds_nobody_up(bench: Bench) -> None:
    deaf, hearing = bench.connect(), bench.connect()
    for end in (deaf, hearing):
        control.tell(end, "watch")
    bench.turn()
    assert told(hearing)[0] == "started"
    for _ in range(2000):
        bench.clients.tell_end(4, "x" * 500)
        kind, fields = told(hearing)
        assert (kind, fields["exit_code"]) == ("exited", 4)
    deaf.close()


def test_who_asked_for_something_else_is_not_told_the_container_s_exit_code(bench: Bench) -> None:
    end = bench.connect()
    control.tell(end, "exec", args=["true"])
    bench.clients.tell_end(143, "")
    kind, fields = told(end)
    assert (kind, fields["exit_code"]) == ("failed", 125)
    assert "has ended" in str(fields["message"])
    bench.turn()


def test_a_signal_of_an_exec_client_is_its_session_s(bench: Bench) -> None:
    sent: list[int] = []

    class Session:
        def signal(self, number: int) -> None:
            sent.append(number)

    ours, theirs = control.socket_pair()
    bench.ends.append(theirs)
    bench.clients.add(ours).session = Session()  # type: ignore[assignment]  # the part that is asked
    bench.ask(theirs, "signal", number=2)
    assert (sent, bench.duties.asked) == ([2], [])


def test_connections_are_accepted_as_they_come(bench: Bench, tmp_path: Any) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # A path that fits into an address, wherever temporary files are.
    directory = os.open(tmp_path, os.O_PATH)
    address = f"/proc/self/fd/{directory}/control"
    listener.bind(address)
    listener.listen()
    bench.clients.listen(listener)
    for _ in range(3):
        end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        end.connect(address)
        bench.ends.append(end)
        bench.turn()
        bench.ask(end, "watch")
        assert told(end)[0] == "started"
    bench.turns.forget(listener.fileno())
    listener.close()
    os.close(directory)
