"""Names of containers in user-defined networks, asked from inside as programs ask.

musl asks through BusyBox, glibc through the machine's own getent and Python (WITH_GLIBC).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from namespace.living import rp, show, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

IN_OUTSIDE = ["ip", "netns", "exec", "outside"]
OUTSIDE = "10.99.0.1"
# The machine's programs with its C library.
WITH_GLIBC = ("-v", "/usr:/glibc/usr:ro")
GETENT = "$(echo /glibc/usr/lib/*/ld-linux*.so.*) --library-path $(echo /glibc/usr/lib/*-linux-gnu)"
# Answers every name with the address given, text records with long ones, and counts.
RESOLVER = """
import socket, sys, threading
import dns.flags, dns.message, dns.rrset
address, answer = sys.argv[1:3]
def respond(wire, tcp):
    query = dns.message.from_wire(wire)
    question = query.question[0]
    response = dns.message.make_response(query)
    if question.rdtype == 1:
        response.answer.append(dns.rrset.from_text(question.name, 9, "IN", "A", answer))
    elif question.rdtype == 16 and not tcp:
        response.flags |= dns.flags.TC
    elif question.rdtype == 16:
        texts = [f"{number:0200}" for number in range(20)]
        response.answer.append(dns.rrset.from_text(question.name, 9, "IN", "TXT", *texts))
    print(question.name, flush=True)
    return response.to_wire()
def streams(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            length = int.from_bytes(connection.recv(2), "big")
            wire = respond(connection.recv(length), True)
            connection.sendall(len(wire).to_bytes(2, "big") + wire)
family = socket.AF_INET6 if ":" in address else socket.AF_INET
listener = socket.create_server((address, 53), family=family)
datagrams = socket.socket(family, socket.SOCK_DGRAM)
datagrams.bind((address, 53))
threading.Thread(target=streams, args=(listener,), daemon=True).start()
print("up", flush=True)
while True:
    wire, client = datagrams.recvfrom(4096)
    datagrams.sendto(respond(wire, False), client)
"""
# Runs with the machine's Python and dnspython: asks a server NAME/TYPE…, over TCP if so asked.
ASK = """
import json, sys
import dns.flags, dns.message, dns.query
server, way, *questions = sys.argv[1:]
ask = dns.query.tcp if way == "tcp" else dns.query.udp
found = []
for question in questions:
    response = ask(dns.message.make_query(*question.split("/")), server, timeout=30)
    answers = sorted(each.to_text() for rrset in response.answer for each in rrset)
    found.append([response.rcode(), bool(response.flags & dns.flags.TC), answers])
print(json.dumps(found))
"""
# 1,000 connections that say nothing, then questions over UDP and TCP.
IDLE = """
import resource, socket, sys
import dns.message, dns.query
server = sys.argv[1]
_soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
held = [socket.create_connection((server, 53), timeout=30) for _ in range(1000)]
for each in held[::2]:
    try:
        each.send(b"\\0")
    except OSError:
        pass
for ask in (dns.query.udp, dns.query.tcp):
    response = ask(dns.message.make_query("db", "A"), server, timeout=30)
    print(*(each.to_text() for rrset in response.answer for each in rrset))
"""


@pytest.fixture(scope="module")
def resolver(rig: Machine) -> Iterator[None]:
    """Have a resolver on the other host, which is the only one that resolv.conf names."""
    with serving(rig, OUTSIDE, "192.0.2.53", outside=True):
        yield


@contextlib.contextmanager
def serving(
    rig: Machine, address: str, answer: str, *, outside: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Hold a resolver; its output names what it was asked."""
    if not rig.has_root:
        pytest.skip("only root can be a resolver")
    argv = [*(IN_OUTSIDE if outside else []), "python3", "-c", RESOLVER, address, answer]
    process = rig.popen(argv, user="root", stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def networks(rig: Machine, alpine: str, resolver: None) -> Iterator[None]:
    """Two networks, one with IPv6; `db` is in both, `web-1` and `web-2` in the first."""
    assert resolver is None
    make = ["rp", "run", "-d", alpine, "sleep", "1000"]
    create = ["rp", "network", "create", "--subnet"]
    rig.run([*create, "10.91.1.0/24", "front"])
    rig.run([*create, "10.91.2.0/24", "--subnet", "fd91:2::/64", "back"])
    rig.run([*create, "10.91.3.0/24", "--internal", "inner"])
    members = [
        ("db", "front:ip=10.91.1.10,alias=Data", "back:ip=10.91.2.10,ip6=fd91:2::10"),
        ("web-1", "front:ip=10.91.1.11,alias=web"),
        ("web-2", "front:ip=10.91.1.12,alias=web"),
        ("cache", "back:ip=10.91.2.20,ip6=fd91:2::20"),
        ("cell", "inner:ip=10.91.3.10"),
    ]
    try:
        for name, *places in members:
            options = [f"--network={place}" for place in places]
            rig.run([*make[:3], "--name", name, *WITH_GLIBC, *options, *make[3:]])
        yield
    finally:
        rp(rig, "rm", "-f", *(name for name, *_ in members))
        until(
            lambda: rp(rig, "network", "rm", "front", "back", "inner").returncode in (0, 1),
            "the networks are in use",
        )


def inside(rig: Machine, container: str, script: str) -> str:
    """Run a script in a container."""
    return str(rig.run(["rp", "exec", container, "sh", "-c", script]).stdout)


def addresses(rig: Machine, container: str, name: str, libc: str = "musl") -> list[str]:
    """Return a name's addresses as programs of that C library see them."""
    if libc == "musl":
        text = inside(rig, container, f"getent ahosts {name} || true")
    else:
        text = inside(rig, container, f"{GETENT} /glibc/usr/bin/getent ahosts {name} || true")
    return sorted({line.split()[0] for line in text.splitlines()})


def ask(
    rig: Machine, container: str, server: str, *questions: str, way: str = "udp"
) -> list[list[object]]:
    """Ask a server from a container's network; return code, truncation and answers of each."""
    argv = ["python3", "-c", ASK, server, way, *questions]
    found: list[list[object]] = json.loads(rig.root([*entered(rig, container), *argv]).stdout)
    return found


def entered(rig: Machine, container: str) -> list[str]:
    """Return what runs a program of the machine's in a container's network."""
    pid = rig.run(["rp", "inspect", "--format", "{{.State.Pid}}", container]).stdout.strip()
    return ["nsenter", f"--net=/proc/{pid}/ns/net"]


pytestmark = pytest.mark.usefixtures("networks")


@pytest.mark.parametrize("libc", ["musl", "glibc"])
@pytest.mark.parametrize(
    ("container", "name", "expected"),
    [
        ("web-1", "db", ["10.91.1.10"]),
        ("web-1", "DATA", ["10.91.1.10"]),
        ("web-1", "db.dns.podman", ["10.91.1.10"]),
        ("web-1", "web", ["10.91.1.11", "10.91.1.12"]),
        ("web-1", "cache", ["192.0.2.53"]),
        ("db", "cache", ["10.91.2.20", "fd91:2::20"]),
        ("cache", "db", ["10.91.2.10", "fd91:2::10"]),
        ("web-1", "nobody.dns.podman", []),
        ("web-1", "outside.example", ["192.0.2.53"]),
        ("cell", "cell", ["10.91.3.10"]),
    ],
)
def test_names(rig: Machine, libc: str, container: str, name: str, expected: list[str]) -> None:
    assert addresses(rig, container, name, libc) == expected


def test_ids_are_names(rig: Machine) -> None:
    identity = rig.run(["rp", "inspect", "--format", "{{.ID}}", "db"]).stdout.strip()
    assert addresses(rig, "web-1", identity[:12]) == ["10.91.1.10"]


def test_reverse(rig: Machine) -> None:
    text = inside(rig, "web-1", f"{GETENT} /glibc/usr/bin/getent hosts 10.91.1.10")
    assert text.split() == ["10.91.1.10", "db"]
    name = ipaddress.ip_address("fd91:2::10").reverse_pointer
    ((rcode, _truncated, answers),) = ask(rig, "db", "fd91:2::1", f"{name}/PTR")
    assert (rcode, "db." in str(answers)) == (0, True)


def test_missing_names_and_records(rig: Machine) -> None:
    no_record: list[object] = [0, False, []]
    no_name: list[object] = [3, False, []]
    found = ask(
        rig, "web-1", "10.91.1.1",
        "db/AAAA", "db/MX", "x.dns.podman/A", "99.1.91.10.in-addr.arpa/PTR",
    )  # fmt: skip
    assert found == [no_record, no_record, no_name, no_name]


def test_what_does_not_fit_comes_over_tcp(rig: Machine) -> None:
    assert ask(rig, "web-1", "10.91.1.1", "long.example/TXT") == [[0, True, []]]
    ((rcode, truncated, answers),) = ask(rig, "web-1", "10.91.1.1", "long.example/TXT", way="tcp")
    assert (rcode, truncated) == (0, False)
    assert isinstance(answers, list)
    assert len(answers) == 20


@pytest.mark.row("CVE-2024-29018", "--internal: no answer for outside names")
def test_cve_2024_29018_internal_networks_ask_nobody(rig: Machine) -> None:
    assert addresses(rig, "cell", "outside.example") == []
    assert ask(rig, "cell", "10.91.3.1", "outside.example/A") == [[3, False, []]]


@pytest.mark.row("CVE-2024-8418", "1,000 idle clients over TCP: answered at once")
def test_cve_2024_8418_idle_tcp_clients(rig: Machine) -> None:
    argv = [*entered(rig, "web-1"), "python3", "-c", IDLE, "10.91.1.1"]
    assert rig.root(argv).stdout.split() == ["10.91.1.10"] * 2
    # And from elsewhere.
    assert addresses(rig, "db", "web") == ["10.91.1.11", "10.91.1.12"]


def test_files_of_a_member(rig: Machine) -> None:
    text = inside(rig, "db", "cat /etc/resolv.conf /etc/hosts").splitlines()
    identity = rig.run(["rp", "inspect", "--format", "{{.ID}}", "db"]).stdout.strip()[:12]
    assert text[:2] == ["search dns.podman", "nameserver 10.91.1.1"]
    assert {line for line in text if line.startswith("nameserver")} == {
        f"nameserver {each}" for each in ("10.91.1.1", "10.91.2.1", "fd91:2::1")
    }
    for address in ("10.91.1.10", "10.91.2.10", "fd91:2::10"):
        assert f"{address}\t{identity} db" in text
    assert any("host.containers.internal" in line for line in text)


def test_options(rig: Machine, alpine: str) -> None:
    with serving(rig, "10.99.0.2", "192.0.2.99"):
        script = "cat /etc/resolv.conf /etc/hosts; getent ahosts db; getent ahosts other.example"
        # fmt: off
        text = rig.run(
            ["rp", "run", "--rm", "--network", "front", "--dns", "10.99.0.2", "--dns-search", "x",
             "--dns-option", "ndots:2", "--add-host", "me:host-gateway", alpine, "sh", "-c", script]
        ).stdout
        # fmt: on
        lines = text.splitlines()
        assert lines[:3] == ["search dns.podman x", "nameserver 10.91.1.1", "options ndots:2"]
        assert "10.91.1.10" in text
        assert "192.0.2.99" in text
        assert "169.254.1.2\tme" in lines


def test_connect_and_disconnect(rig: Machine) -> None:
    """Names, /etc/hosts and resolv.conf of a running container follow."""
    assert addresses(rig, "web-2", "cache") == ["192.0.2.53"]
    late = ["--ip", "10.91.2.30", "--ip6", "fd91:2::30", "--alias", "late"]
    rig.run(["rp", "network", "connect", *late, "back", "web-2"])
    assert addresses(rig, "web-2", "cache") == ["10.91.2.20", "fd91:2::20"]
    assert addresses(rig, "cache", "late") == ["10.91.2.30", "fd91:2::30"]
    assert "10.91.2.30" in inside(rig, "web-2", "cat /etc/hosts")
    assert "nameserver 10.91.2.1" in inside(rig, "web-2", "cat /etc/resolv.conf")
    rig.run(["rp", "network", "disconnect", "back", "web-2"])
    assert addresses(rig, "web-2", "cache") == ["192.0.2.53"]
    assert addresses(rig, "cache", "late") == ["192.0.2.53"]
    assert "10.91.2" not in inside(rig, "web-2", "cat /etc/hosts /etc/resolv.conf")


def test_names_come_and_go_with_their_containers(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "run", "-d", "--name", "short", "--network", "front", alpine, "sleep", "1000"])
    try:
        assert len(addresses(rig, "web-1", "short.dns.podman")) == 1
    finally:
        rig.run(["rp", "rm", "-f", "short"])
    until(lambda: addresses(rig, "web-1", "short.dns.podman") == [], "the name is still there")


def test_names_after_the_service_was_killed(rig: Machine) -> None:
    unit = "rp-network-front.service"
    before = show(rig, unit, "MainPID")

    def is_back() -> bool:
        now = show(rig, unit, "MainPID", "ActiveState")
        return now["ActiveState"] == "active" and now["MainPID"] not in ("0", before["MainPID"])

    rig.run(["systemctl", "--user", "kill", "-s", "KILL", unit])
    until(is_back, "the service stays away")
    assert addresses(rig, "web-1", "db") == ["10.91.1.10"]
    assert addresses(rig, "web-1", "outside.example") == ["192.0.2.53"]


def test_resolvers_of_the_host_are_looked_up_again(rig: Machine) -> None:
    """A VPN changes resolv.conf: the next query goes to its resolver."""
    with serving(rig, "127.0.0.53", "192.0.2.153"), resolvers(rig, "nameserver 127.0.0.53"):
        assert addresses(rig, "web-1", "vpn.example") == ["192.0.2.153"]
    assert addresses(rig, "web-1", "vpn.example") == ["192.0.2.53"]


@contextlib.contextmanager
def resolvers(rig: Machine, text: str) -> Iterator[None]:
    """Change the host's resolv.conf meanwhile, as a new file."""
    before = rig.run(["cat", "/etc/resolv.conf"]).stdout
    script = "cat >/etc/resolv.new; mv /etc/resolv.new /etc/resolv.conf"
    rig.root(["sh", "-c", script], input=f"{text}\n")
    try:
        yield
    finally:
        rig.root(["sh", "-c", script], input=before)
