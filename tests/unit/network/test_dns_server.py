"""The DNS server with real sockets on loopback, where 127.0.0.N are the containers."""

from __future__ import annotations

import contextlib
import resource
import socket
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from rootlesspy.engine.supervision.loop import WRITE, Loop
from rootlesspy.network.names import forwarder, server, streams
from rootlesspy.network.names.server import Server
from rootlesspy.network.names.table import Member, NetworkNames, Table
from rootlesspy.network.names.upstreams import HostResolvers, nameservers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Script = Callable[[dns.message.Message, bool], dns.message.Message | bytes | None]

SERVER, RESOLVER, SECOND, NOBODY = "127.0.0.1", "127.0.0.101", "127.0.0.102", "127.0.0.103"
DB, WEB = "127.0.0.2", "127.0.0.3"
LIMIT_S = 60.0


class Resolver:
    """A resolver that answers by a script: a message, bytes, or nothing."""

    def __init__(self, loop: Loop, address: str, port: int) -> None:
        self.queries: list[tuple[dns.message.Message, bool]] = []
        self.senders: list[tuple[str, int]] = []
        self.script: Script = lambda query, _tcp: answer(query)
        self._loop = loop
        self.datagrams, self.listener = server.listen((address,), port)
        loop.watch(self.datagrams.fileno(), self._datagram)
        loop.watch(self.listener.fileno(), self._accept)

    def say(self, response: dns.message.Message | bytes, to: int) -> None:
        """Send a late answer to the sender of a query."""
        wire = response if isinstance(response, bytes) else response.to_wire()
        self.datagrams.sendto(wire, self.senders[to])

    def close(self) -> None:
        for sock in (self.datagrams, self.listener):
            self._loop.forget(sock.fileno())
            sock.close()

    def _datagram(self) -> None:
        wire, sender = self.datagrams.recvfrom(65535)
        self.senders.append(sender)
        response = self._hear(wire, False)
        if response is not None:
            self.datagrams.sendto(response, sender)

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        data = bytearray()

        def read() -> None:
            data.extend(connection.recv(65535))
            if len(data) > 1 and len(data) == 2 + int.from_bytes(data[:2], "big"):
                response = self._hear(bytes(data[2:]), True)
                if response is not None:
                    connection.sendall(len(response).to_bytes(2, "big") + response)
                self._loop.forget(connection.fileno())
                connection.close()

        self._loop.watch(connection.fileno(), read)

    def _hear(self, wire: bytes, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        self.queries.append((query, tcp))
        response = self.script(query, tcp)
        return response.to_wire() if isinstance(response, dns.message.Message) else response


class Rig:
    """A server, its resolvers and its clients on one loop."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.loop = Loop()
        self._stack = stack
        self.port = self._free_port()
        self.resolver = self.add_resolver(RESOLVER)
        self.hosts_servers: tuple[str, ...] = (RESOLVER,)
        self.network = NetworkNames(
            ("127.0.0.0/24",),
            (Member("d" * 64, ("db",), (DB,)), Member("e" * 64, ("web",), (WEB,))),
        )
        self.server = Server(
            self.loop,
            server.listen((SERVER,), self.port),
            Table(self.network),
            lambda: self.hosts_servers,
            resolver_port=self.port,
        )
        stack.callback(self.server.close)

    def add_resolver(self, address: str) -> Resolver:
        made = Resolver(self.loop, address, self.port)
        self._stack.callback(made.close)
        return made

    def until(self, done: Callable[[], object]) -> None:
        """Turn the loop until something is so."""

        def fail() -> None:
            raise AssertionError("nothing happened")

        self.loop.after("test", LIMIT_S, fail)
        while not done():
            self.loop.turn()
        self.loop.cancel("test")

    def client(
        self, address: str = WEB, kind: int = socket.SOCK_DGRAM, *, buffer_bytes: int = 0
    ) -> socket.socket:
        """Return a socket of a container, connected to the server."""
        sock = socket.socket(socket.AF_INET, kind)
        self._stack.callback(sock.close)
        if buffer_bytes:
            # Before it connects: the window is agreed on then.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        sock.bind((address, 0))
        sock.connect((SERVER, self.port))
        sock.setblocking(False)
        return sock

    def receive(self, sock: socket.socket) -> dns.message.Message:
        """Wait for an answer over UDP."""
        found: list[bytes] = []
        self.loop.watch(sock.fileno(), lambda: found.append(sock.recv(65535)))
        self.until(lambda: found)
        self.loop.forget(sock.fileno())
        return dns.message.from_wire(found[0])

    def receive_over_tcp(self, sock: socket.socket) -> bytes:
        """Wait for an answer's bytes over TCP; b"": the server hung up."""
        data = bytearray()
        ended: list[bool] = []

        def read() -> None:
            with contextlib.suppress(ConnectionResetError):
                part = sock.recv(65535)
                data.extend(part)
                if part:
                    return
            ended.append(True)

        def whole() -> bool:
            return len(data) > 1 and len(data) >= 2 + int.from_bytes(data[:2], "big")

        self.loop.watch(sock.fileno(), read)
        self.until(lambda: ended or whole())
        self.loop.forget(sock.fileno())
        return bytes(data[2:])

    def ask(
        self, name: str, rdtype: str = "A", *, client: str = WEB, tcp: bool = False
    ) -> dns.message.Message:
        """Ask and return the answer."""
        query = dns.message.make_query(name, rdtype)
        sock = self.client(client, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        if tcp:
            sock.send(framed(query))
            response = dns.message.from_wire(self.receive_over_tcp(sock))
        else:
            sock.send(query.to_wire())
            response = self.receive(sock)
        assert query.is_response(response)
        sock.close()
        return response

    def quiet(self) -> None:
        """See that everything that was sent is handled: a query after it is answered."""
        assert texts(self.ask("db")) == [DB]

    def _free_port(self) -> int:
        """Return a port that is free on all addresses, of both protocols."""
        while True:
            with contextlib.ExitStack() as stack:
                first = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                first.bind(("0.0.0.0", 0))
                port = int(first.getsockname()[1])
                second = stack.enter_context(socket.socket())
                with contextlib.suppress(OSError):
                    second.bind(("0.0.0.0", port))
                    return port


@pytest.fixture
def rig() -> Iterator[Rig]:
    with contextlib.ExitStack() as stack:
        yield Rig(stack)


class Clock:
    """What the server takes for the time: it stands still, however busy the machine is."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(forwarder, "time", made)
    monkeypatch.setattr(streams, "time", made)
    return made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server look at its clock more often: what it does then is the same."""
    monkeypatch.setattr(forwarder, "PATIENCE_S", 0.05)
    monkeypatch.setattr(forwarder, "LIMIT_S", 0.2)
    monkeypatch.setattr(streams, "IDLE_S", 0.1)


def silent(rig: Rig, clock: Clock) -> Script:
    """Return the script of a resolver that says nothing until the server has lost patience.

    The second time it is until the server gives up.
    """

    def script(_query: dns.message.Message, _tcp: bool) -> None:
        first = len(rig.resolver.queries) == 1
        clock.now_s += forwarder.PATIENCE_S if first else forwarder.LIMIT_S

    return script


def answer(query: dns.message.Message, *values: str) -> dns.message.Message:
    """Return a resolver's answer."""
    response = dns.message.make_response(query, recursion_available=True)
    rdtype = dns.rdatatype.to_text(query.question[0].rdtype)
    rrset = dns.rrset.from_text_list(
        query.question[0].name, 300, "IN", rdtype, values or ["192.0.2.1"]
    )
    response.answer.append(rrset)
    return response


def framed(message: dns.message.Message) -> bytes:
    """Return a message as it travels over TCP."""
    wire = message.to_wire()
    return len(wire).to_bytes(2, "big") + wire


def fail(query: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query)
    response.set_rcode(rcode)
    return response


def texts(response: dns.message.Message) -> list[str]:
    assert response.rcode() == dns.rcode.NOERROR
    return [record.to_text() for rrset in response.answer for record in rrset]


# --- its own names ----------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True], ids=["UDP", "TCP"])
def test_names_of_the_network(rig: Rig, tcp: bool) -> None:
    assert texts(rig.ask("db", tcp=tcp)) == [DB]
    assert texts(rig.ask("2.0.0.127.in-addr.arpa", "PTR", tcp=tcp)) == ["db.", "dddddddddddd."]
    assert rig.resolver.queries == []


def test_another_table(rig: Rig) -> None:
    rig.server.update(Table(rig.network._replace(members=())))
    assert texts(rig.ask("db")) == ["192.0.2.1"]


def test_several_queries_on_one_connection(rig: Rig) -> None:
    sock = rig.client(kind=socket.SOCK_STREAM)
    queries = [dns.message.make_query(name, "A") for name in ["db", "web", "x.org"] * 10]
    for byte in b"".join(framed(query) for query in queries[:3]):
        sock.send(bytes([byte]))
    sock.send(b"".join(framed(query) for query in queries[3:]))
    sock.shutdown(socket.SHUT_WR)
    got = bytearray()
    ended: list[bool] = []
    rig.loop.watch(
        sock.fileno(),
        lambda: got.extend(part) if (part := sock.recv(65535)) else ended.append(True),
    )
    rig.until(lambda: ended)
    rig.loop.forget(sock.fileno())
    numbers = []
    while got:
        length = int.from_bytes(got[:2], "big")
        numbers.append(dns.message.from_wire(bytes(got[2 : 2 + length])).id)
        del got[: 2 + length]
    assert sorted(numbers) == sorted(query.id for query in queries)


def test_nobody_else_is_answered(rig: Rig) -> None:
    """A forged address of another network gets nothing."""
    rig.server.update(Table(rig.network._replace(subnets=("127.0.0.0/30",))))
    sock = rig.client("127.0.0.77")
    sock.send(dns.message.make_query("db", "A").to_wire())
    rig.quiet()
    with pytest.raises(BlockingIOError):
        sock.recv(9)


@pytest.mark.parametrize("wire", [b"", b"\0" * 12, b"\xff" * 100, b"x" * 60000])
def test_garbage_is_ignored(rig: Rig, wire: bytes) -> None:
    sock = rig.client()
    sock.send(wire)
    rig.quiet()
    if wire != bytes(12):
        with pytest.raises(BlockingIOError):
            sock.recv(9)
    stream = rig.client(kind=socket.SOCK_STREAM)
    stream.send(wire or b"\0\1x")
    assert len(rig.receive_over_tcp(stream)) <= 12


# --- forwarding -------------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True], ids=["UDP", "TCP"])
def test_other_names_are_asked_of_the_hosts_resolver(rig: Rig, tcp: bool) -> None:
    response = rig.ask("example.org", tcp=tcp)
    assert texts(response) == ["192.0.2.1"]
    assert response.flags & dns.flags.RA
    assert len(rig.resolver.queries) == 1


def test_the_number_and_the_port_of_a_query_are_new(rig: Rig) -> None:
    """RFC 5452: neither is the container's."""
    sock = rig.client()
    numbers = set()
    for turn in range(20):
        sock.send(dns.message.make_query(f"{turn}.org", "A", id=1).to_wire())
        assert rig.receive(sock).id == 1
        numbers.add(rig.resolver.queries[-1][0].id)
    assert len(numbers) > 15
    assert len({port for _address, port in rig.resolver.senders}) > 10


def test_forged_answers_are_not_believed(rig: Rig) -> None:
    def forge(query: dns.message.Message, _tcp: bool) -> None:
        other = dns.message.make_query("evil.org", "A", id=query.id)
        wrong = answer(query, "6.6.6.6")
        wrong.id = query.id ^ 1
        for each in (wrong, answer(other, "6.6.6.6"), b"", b"\xff" * 30):
            rig.resolver.say(each, -1)
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with stranger:
            stranger.bind((SECOND, 0))
            stranger.sendto(answer(query, "6.6.6.6").to_wire(), rig.resolver.senders[-1])
        rig.resolver.say(answer(query, "192.0.2.2"), -1)

    rig.resolver.script = forge
    assert texts(rig.ask("example.org")) == ["192.0.2.2"]


def test_the_next_resolver_is_asked_when_nobody_listens(rig: Rig) -> None:
    rig.hosts_servers = (NOBODY, RESOLVER)
    assert texts(rig.ask("example.org")) == ["192.0.2.1"]


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP])
def test_the_next_resolver_is_asked_when_one_fails(rig: Rig, rcode: dns.rcode.Rcode) -> None:
    rig.hosts_servers = (RESOLVER, SECOND)
    second = rig.add_resolver(SECOND)
    rig.resolver.script = lambda query, _tcp: fail(query, rcode)
    assert texts(rig.ask("example.org")) == ["192.0.2.1"]
    # Nobody knows better: what the last one said.
    second.script = rig.resolver.script
    assert rig.ask("example.net").rcode() == rcode


@pytest.mark.usefixtures("impatient")
def test_the_next_resolver_is_asked_when_one_is_silent(rig: Rig, clock: Clock) -> None:
    rig.hosts_servers = (RESOLVER, SECOND)
    second = rig.add_resolver(SECOND)
    rig.resolver.script = silent(rig, clock)
    assert texts(rig.ask("example.org")) == ["192.0.2.1"]
    assert len(second.queries) == 1


@pytest.mark.usefixtures("impatient")
def test_a_late_answer_of_the_first_resolver_counts(rig: Rig, clock: Clock) -> None:
    rig.hosts_servers = (RESOLVER, SECOND)
    second = rig.add_resolver(SECOND)
    rig.resolver.script = silent(rig, clock)
    second.script = lambda _query, _tcp: rig.resolver.say(
        answer(rig.resolver.queries[0][0], "192.0.2.7"), 0
    )
    assert texts(rig.ask("example.org")) == ["192.0.2.7"]


@pytest.mark.usefixtures("impatient")
def test_silence_of_all_resolvers_is_a_failure(rig: Rig, clock: Clock) -> None:
    """A lost datagram is sent again; in the end the client is told."""
    rig.resolver.script = silent(rig, clock)
    assert rig.ask("example.org").rcode() == dns.rcode.SERVFAIL
    assert len(rig.resolver.queries) == 2


@pytest.mark.parametrize("servers", [(NOBODY,), ("192.0.2.300",), ("fe80::1",), ()])
def test_resolvers_that_cannot_be_asked(rig: Rig, servers: tuple[str, ...]) -> None:
    rig.hosts_servers = servers
    assert rig.ask("example.org").rcode() == dns.rcode.SERVFAIL


def test_truncated_answers_are_fetched_over_tcp(rig: Rig) -> None:
    long = ["a" * 250 for _ in range(1)] + [f"{n:0250}" for n in range(20)]

    def script(query: dns.message.Message, tcp: bool) -> dns.message.Message:
        if tcp:
            return answer(query, *long)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return response

    rig.resolver.script = script
    # The client is told, and comes back over TCP.
    assert rig.ask("example.org", "TXT").flags & dns.flags.TC
    assert len(texts(rig.ask("example.org", "TXT", tcp=True))) == 21
    assert [tcp for _query, tcp in rig.resolver.queries] == [False, False, True]


def test_answers_longer_than_asked_for_are_truncated(rig: Rig) -> None:
    rig.resolver.script = lambda query, _tcp: answer(query, *[f"{n:0250}" for n in range(4)])
    response = rig.ask("example.org", "TXT")
    assert response.flags & dns.flags.TC
    assert response.answer == []
    assert len(texts(rig.ask("example.org", "TXT", tcp=True))) == 4


def test_dns_of_a_container(rig: Rig) -> None:
    """--dns replaces the host's resolvers, for this container only."""
    second = rig.add_resolver(SECOND)
    db, web = rig.network.members
    rig.server.update(Table(rig.network._replace(members=(db, web._replace(dns=(SECOND,))))))
    rig.ask("example.org", client=WEB)
    rig.ask("example.org", client=DB)
    assert (len(second.queries), len(rig.resolver.queries)) == (1, 1)
    assert texts(rig.ask("db", client=WEB)) == [DB]


def test_dns_of_an_internal_network_asks_nobody(rig: Rig) -> None:
    """CVE-2024-29018."""
    rig.server.update(Table(rig.network._replace(internal=True)))
    assert rig.ask("example.org").rcode() == dns.rcode.NXDOMAIN
    assert rig.resolver.queries == []


def test_the_same_question_is_sent_once(rig: Rig) -> None:
    rig.resolver.script = lambda _query, _tcp: None
    socks = [rig.client(), rig.client(), rig.client(DB)]
    for number, sock in enumerate(socks):
        sock.send(dns.message.make_query("example.org", "A", id=number).to_wire())
    rig.quiet()
    rig.resolver.say(answer(rig.resolver.queries[0][0]), 0)
    assert [rig.receive(sock).id for sock in socks] == [0, 1, 2]
    assert len(rig.resolver.queries) == 1


@pytest.mark.usefixtures("impatient")
def test_a_circle_ends(rig: Rig, clock: Clock) -> None:
    """The host's resolver asks a container, which asks us: the query waits for itself."""
    forwarded = rig.client()
    says_nothing = silent(rig, clock)

    def ask_again(query: dns.message.Message, tcp: bool) -> None:
        forwarded.send(query.to_wire())
        says_nothing(query, tcp)

    rig.resolver.script = ask_again
    assert rig.ask("example.org").rcode() == dns.rcode.SERVFAIL
    assert len(rig.resolver.queries) <= 3


# --- limits -----------------------------------------------------------------------------------


def descriptors() -> int:
    import os

    return len(os.listdir("/proc/self/fd"))


def test_pending_queries_are_bounded(rig: Rig) -> None:
    """A thousand queries that nobody answers: some fail at once, names are still answered."""
    rig.resolver.script = lambda _query, _tcp: None
    before = descriptors()
    socks = [rig.client() for _ in range(4)]
    for number in range(1000):
        socks[number % 4].send(dns.message.make_query(f"{number}.org", "A").to_wire())
        if number % 50 == 0:
            rig.quiet()
    rig.quiet()
    assert len(rig.resolver.queries) <= forwarder.MAX_PER_CLIENT
    assert descriptors() <= before + forwarder.MAX_PER_CLIENT + 10
    assert rig.receive(socks[0]).rcode() == dns.rcode.SERVFAIL
    # One container's queries are not in another one's way.
    rig.resolver.script = lambda query, _tcp: answer(query)
    assert texts(rig.ask("example.org", client=DB)) == ["192.0.2.1"]


def test_cve_2024_8418_idle_tcp_clients(rig: Rig) -> None:
    """A thousand idle TCP clients: everybody else is answered over UDP and TCP."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    try:
        for number in range(1000):
            sock = rig.client(f"127.0.0.{10 + number % 40}", socket.SOCK_STREAM)
            sock.send(b"\0" if number % 2 else b"\0\x40abc")
            if number % 20 == 0:
                rig.quiet()
        for tcp in (False, True):
            assert texts(rig.ask("db", tcp=tcp)) == [DB]
            assert texts(rig.ask("example.org", tcp=tcp)) == ["192.0.2.1"]
        assert len(rig.server._streams._streams) <= streams.MAX_STREAMS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_clients_streams_make_room_for_its_own(rig: Rig) -> None:
    mine = rig.client(DB, socket.SOCK_STREAM)
    others = [rig.client(WEB, socket.SOCK_STREAM) for _ in range(streams.MAX_PER_CLIENT + 5)]
    rig.quiet()
    assert [rig.receive_over_tcp(sock) for sock in others[:5]] == [b""] * 5
    for sock in (mine, others[5], others[-1]):
        sock.send(framed(dns.message.make_query("db", "A")))
        assert texts(dns.message.from_wire(rig.receive_over_tcp(sock))) == [DB]


@pytest.mark.usefixtures("impatient")
def test_idle_streams_are_closed(rig: Rig, clock: Clock) -> None:
    sock = rig.client(kind=socket.SOCK_STREAM)
    rig.until(lambda: rig.server._streams._streams)
    clock.now_s += 2 * streams.IDLE_S
    assert rig.receive_over_tcp(sock) == b""


def test_who_does_not_fetch_answers_is_not_read_from(rig: Rig) -> None:
    sock = rig.client(kind=socket.SOCK_STREAM, buffer_bytes=4096)
    wire = framed(dns.message.make_query("db", "A"))
    rig.until(lambda: rig.server._streams._streams)
    (stream,) = rig.server._streams._streams.values()
    rest, after = b"", 0
    while after < 20:
        rest = rest or wire * 1000
        with contextlib.suppress(BlockingIOError):
            rest = rest[sock.send(rest) :]
        rig.quiet()
        # From when on it waits.
        after += bool(stream._out)
    assert len(stream._out) < streams._MAX_UNSENT_BYTES
    # Nor does what it sends keep the server busy.
    assert rig.loop._events[stream._fd] == WRITE


@pytest.mark.usefixtures("impatient")
def test_no_timer_is_left_when_nothing_is_under_way(rig: Rig, clock: Clock) -> None:
    """No idle wake-ups."""
    rig.ask("example.org", tcp=True)
    clock.now_s += forwarder.LIMIT_S
    rig.until(lambda: not rig.loop._timers or set(rig.loop._timers) == {"test"})


# --- resolv.conf of the host ------------------------------------------------------------------


def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    resolvers = HostResolvers(str(file), without=("10.89.0.1",))
    assert resolvers() == ("127.0.0.1",)
    file.write_text("# VPN\nnameserver 10.8.0.1 \nsearch corp\nnameserver 10.89.0.1\n")
    assert resolvers() == ("10.8.0.1",)
    other = tmp_path / "other"
    other.write_text("nameserver fe80::1%eth0\n")
    other.replace(file)
    assert resolvers() == ("fe80::1%eth0",)
    file.unlink()
    file.symlink_to(other)
    assert resolvers() == ("127.0.0.1",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("127.0.0.1",)),
        ("nameserver\n#nameserver 1.1.1.1\nnameserver 127.0.0.53\n", ("127.0.0.53",)),
        ("nameserver 1.1.1.1\nnameserver 1.1.1.1\nnameserver ::1\n", ("1.1.1.1", "::1")),
        ("".join(f"nameserver 1.1.1.{n}\n" for n in range(9)), ("1.1.1.0", "1.1.1.1", "1.1.1.2")),
    ],
)
def test_nameservers(text: str, expected: tuple[str, ...]) -> None:
    assert nameservers(text) == expected
