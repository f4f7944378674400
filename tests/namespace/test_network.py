"""Networks of containers from the front door: who reaches whom, on which address, and what is left.

Servers inside are BusyBox's nc, which answers with the kernel's own table of connections: it holds
the client's address as the payload sees it.  Clients speak first: the pasta of Debian 12 finishes
an inbound handshake only then.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.machine import Machine

    Container = Callable[[str, str], subprocess.Popen[str]]
    Listener = Callable[..., None]

HOST, HOST6 = "10.99.0.2", "fd99::2"
OUTSIDE, OUTSIDE6 = "10.99.0.1", "fd99::1"
IN_OUTSIDE = ["ip", "netns", "exec", "outside"]

CLIENT = """
import socket, sys
address, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as sock:
    sock.settimeout(60)
    answer = b""
    try:
        sock.connect((address, port))
        sock.send(b"hello\\n")
        while part := sock.recv(65536):
            answer += part
            sock.settimeout(0.5 if kind == "udp" else 60)
    except OSError as error:
        answer = answer or f"error: {error}".encode()
print(answer.decode())
"""
SERVER = """
import socket, sys, threading
def serve(sock, kind):
    while True:
        if kind == "udp":
            _data, client = sock.recvfrom(999)
            sock.sendto(b"SECRET udp", client)
        else:
            try:
                with sock.accept()[0] as connection:
                    # Closing with unread data would be a reset, which may overtake the answer.
                    connection.recv(999)
                    connection.sendall(b"SECRET tcp")
            except OSError:
                # Who asked has left.
                pass
threads = []
for argument in sys.argv[1:]:
    address, port, kind = argument.rsplit("/", 2)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, int(port)))
    if kind == "tcp":
        sock.listen()
    threads.append(threading.Thread(target=serve, args=(sock, kind)))
for thread in threads:
    thread.start()
print("up", flush=True)
"""
# In the container: answers with its own view of the connection.
ANSWERING = """
import socket, sys
port, kind, mark = sys.argv[1:4]
address = (sys.argv[4:] or ["::"])[0]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sock = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind((address, int(port)))
if kind == "tcp":
    sock.listen()
open(mark, "w").close()
while True:
    if kind == "udp":
        _data, client = sock.recvfrom(999)
        # Connected, the client is in the table.
        sock.connect(client)
    else:
        connection, client = sock.accept()
        connection.recv(999)
    table = "".join(open(f"/proc/net/{kind}{version}").read() for version in ("", "6"))
    (sock if kind == "udp" else connection).sendall(f"ANSWER\\n{table}".encode())
    if kind == "tcp":
        connection.close()
    else:
        sock.close()
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind((address, int(port)))
"""
WITH_PYTHON = ("-v", "/usr:/usr:ro")


@pytest.fixture
def container(rig: Machine, alpine: str) -> Iterator[Container]:
    """Return a function that runs a script in a container until the test ends."""
    with contextlib.ExitStack() as stack:

        def run(options: str, script: str) -> subprocess.Popen[str]:
            argv = ["rp", "run", "--rm", "-i", *WITH_PYTHON, *options.split(), alpine, "sh", "-c"]
            process = rig.popen(
                [*argv, f"{script}\necho up; cat >/dev/null"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(finish, process)
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == "up\n", (line, process.communicate())
            return process

        yield run


def finish(process: subprocess.Popen[str]) -> None:
    """End a container whose main process waits for the end of its standard input."""
    try:
        process.communicate(timeout=60)
    except BaseException:
        process.kill()
        process.communicate()
        raise


@pytest.fixture
def listener(rig: Machine) -> Iterator[Listener]:
    """Return a function that starts servers: ADDRESS/PORT/PROTOCOL…, on the host or outside."""
    with contextlib.ExitStack() as stack:

        def run(*sockets: str, outside: bool = False) -> None:
            process = rig.popen(
                [*(IN_OUTSIDE if outside else []), "python3", "-c", SERVER, *sockets],
                user="root" if outside else "alice",
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(end, process)
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"

        yield run


def end(server: subprocess.Popen[str]) -> None:
    """Kill a server of ours."""
    server.kill()
    server.communicate()


def ask(rig: Machine, address: str, port: int, kind: str = "tcp", *, outside: bool = False) -> str:
    """Send a line and return the answer."""
    argv = [*(IN_OUTSIDE if outside else []), "python3", "-c", CLIENT, address, str(port), kind]
    return str(rig.run(argv, user="root" if outside else "alice").stdout).strip()


def answering(port: int, kind: str = "tcp", address: str = "") -> str:
    """Return a script that answers on a port with the kernel's table of connections.

    In Python, with the machine's own: not every busybox has an nc that can be bound or do UDP.
    """
    mark = f"/tmp/answers-{port}-{kind}"
    # The pasta of Debian 12 lets the kernel look for duplicates of the IPv6 address first.
    settled = "while ip -6 address | grep -q tentative; do sleep 0.1; done"
    # Its loader by name: the container has none where programs look for it.
    python = "$(echo /usr/lib/*/ld-linux*.so.*) /usr/bin/python3"
    server = f"{python} -I -c '{ANSWERING}' {port} {kind} {mark} {address}"
    return f"{settled}; {server} & while ! [ -e {mark} ]; do sleep 0.05; done\n"


def peers(table: str) -> set[str]:
    """Return the addresses of the other ends, from /proc/net/{tcp,udp}{,6}."""
    found = set()
    row = r"^ *\d+: [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]+):[0-9A-F]{4}"
    for remote in re.findall(row, table, re.MULTILINE):
        packed = bytes.fromhex(remote)
        words = [packed[start : start + 4][::-1] for start in range(0, len(packed), 4)]
        address = b"".join(words)
        if address.startswith(bytes(10) + b"\xff\xff"):
            address = address[12:]
        if any(address):
            found.add(
                socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
            )
    return found


def listening(rig: Machine) -> set[str]:
    """Return the sockets that listen on the host."""
    lines = str(rig.run(["ss", "-Hlntu"]).stdout).splitlines()
    return {" ".join((line.split()[0], line.split()[4])) for line in lines}


def helpers(rig: Machine, name: str = "pasta") -> list[str]:
    """Return the process ids of the user's network helpers."""
    # By the command line: the file that pasta executes may be called passt.avx2.
    argv = ["pgrep", "--uid", str(rig.uid), "--full", f"^({name}) "]
    return str(rig.run(argv, check=False).stdout).split()


def eventually_without_helpers(rig: Machine) -> None:
    """Fail when a network helper does not go away."""
    eventually(lambda: not helpers(rig, "pasta|slirp4netns"))


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fail when it still does not after a long time."""
    limit_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit_s, "it never came true"
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def no_helper_is_left(rig: Machine, leaves_nothing: None) -> Iterator[None]:
    """Every test: pasta and slirp4netns end with their container."""
    del leaves_nothing
    yield
    eventually_without_helpers(rig)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_published_port_is_open_on_the_hosts_loopback(
    rig: Machine, container: Container, address: str
) -> None:
    container("-p 8080:80", answering(80))
    assert "ANSWER" in ask(rig, address, 8080)


def test_a_port_published_on_one_address_is_open_there_only(
    rig: Machine, container: Container
) -> None:
    container("-p 127.0.0.1:8080:80", answering(80))
    assert "ANSWER" in ask(rig, "127.0.0.1", 8080)
    assert "refused" in ask(rig, HOST, 8080, outside=True)


def test_a_random_port_is_chosen(rig: Machine, container: Container) -> None:
    before = listening(rig)
    container("-p 127.0.0.1::80", answering(80))
    (new,) = listening(rig) - before
    assert "ANSWER" in ask(rig, "127.0.0.1", int(new.rpartition(":")[2]))


@pytest.mark.row("N1", "1,000 ports are published at once")
def test_a_thousand_ports(rig: Machine, container: Container) -> None:
    container("-p 20000-20999:1000-1999", answering(1999))
    assert "ANSWER" in ask(rig, HOST, 20999, outside=True)


@pytest.mark.row("podman #24045", "nothing listens on the host without -p")
def test_nothing_listens_without_p(rig: Machine, container: Container) -> None:
    """By default pasta forwards whatever the container listens on."""
    before = listening(rig)
    container("", answering(8181) + answering(8181, "udp"))
    # pasta's automatic forwarding looks once a second.
    time.sleep(1.5)
    assert listening(rig) == before
    assert "refused" in ask(rig, HOST, 8181, outside=True)


@pytest.mark.row("podman #24045", "the container's loopback is not published")
def test_the_containers_loopback_stays_its_own(rig: Machine, container: Container) -> None:
    """podman issue 24045: a service bound to loopback must not become public by -p."""
    container("-p 9090:90", answering(90, address="127.0.0.1"))
    assert "ANSWER" not in ask(rig, HOST, 9090, outside=True)
    # Before October 2024 pasta joined the loopbacks of host and container, and doctor says so.
    new = rig.run(["grep", "-q", "host-lo-to-ns-lo", "/usr/bin/pasta"], check=False).returncode == 0
    told = "lets the host's loopback reach" in rig.run(["rp", "doctor"], check=False).stdout
    assert told == (not new)
    assert "ANSWER" not in ask(rig, HOST, 9090)
    assert ("ANSWER" in ask(rig, "127.0.0.1", 9090)) == (not new)


def answer_of(host: str, port: int) -> str:
    """Return a script that prints a server's first words: nc misses an end that pasta swallows."""
    ask = f"(echo x; exec sleep 1000) | nc {host} {port} >/tmp/said"
    return f"{ask} & until [ -s /tmp/said ]; do sleep 0.1; done; cat /tmp/said"


def test_loopback_is_open_to_those_who_ask_for_it(
    rig: Machine, alpine: str, listener: Listener
) -> None:
    """Shows that the tests of section L (catalogue/test_network.py) would notice."""
    listener("127.0.0.1/7777/tcp")
    argv = ["rp", "run", "--rm", "--network", "pasta:--map-gw", alpine]
    assert rig.run([*argv, "sh", "-c", answer_of(OUTSIDE, 7777)]).stdout == "SECRET tcp"


@pytest.mark.parametrize("network", ["pasta", "slirp4netns"])
def test_ports_of_a_running_container_are_changed(
    rig: Machine, container: Container, listener: Listener, network: str
) -> None:
    listener("127.0.0.1/8123/tcp")
    running = container(f"--name web --network {network} -p 8080:80", answering(80))
    rig.run(["rp", "port", "add", "web", "8090:80", "127.0.0.1:5353:53/udp"])
    assert rig.run(["rp", "port", "web"]).stdout.splitlines() == [
        "80/tcp -> 0.0.0.0:8080",
        "80/tcp -> 0.0.0.0:8090",
        "53/udp -> 127.0.0.1:5353",
    ]
    answers = [ask(rig, HOST, port, outside=True) for port in (8080, 8090)]
    assert all("ANSWER" in each for each in answers)
    if network == "pasta":
        assert all(OUTSIDE in peers(each) for each in answers)
    done = rig.run(["rp", "port", "add", "web", "8123:80"], check=False)
    assert (done.returncode, "8123/tcp is in use by python3" in done.stderr) == (125, True)
    rig.run(["rp", "port", "rm", "web", "8080:80", "53/udp"])
    assert rig.run(["rp", "port", "web"]).stdout == "80/tcp -> 0.0.0.0:8090\n"
    assert "refused" in ask(rig, HOST, 8080, outside=True)
    assert "ANSWER" in ask(rig, HOST, 8090, outside=True)
    done = rig.run(["rp", "port", "rm", "web", "8080:80"], check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        125,
        "rp: container web does not publish 8080:80/tcp",
    )
    assert running.poll() is None


@pytest.mark.row("N1", "125 before anything is made, names the program")
@pytest.mark.parametrize(
    ("publish", "kind"), [("8123:80", "tcp"), ("127.0.0.1:8123:80", "tcp"), ("8123:80/udp", "udp")]
)
def test_a_port_in_use(
    rig: Machine, alpine: str, listener: Listener, publish: str, kind: str
) -> None:
    listener(f"127.0.0.1/8123/{kind}")
    done = rig.run(["rp", "run", "--rm", "-p", publish, alpine, "echo", "ran"], check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert re.fullmatch(rf"rp: port 8123/{kind} is in use by python3 \(pid \d+\)\n", done.stderr)


def test_two_containers_cannot_have_one_udp_port(
    rig: Machine, alpine: str, container: Container
) -> None:
    """Both pastas set SO_REUSEADDR: the kernel would let the second steal the datagrams."""
    container("-p 8123:80/udp", "")
    done = rig.run(["rp", "run", "--rm", "-p", "8123:80/udp", alpine, "true"], check=False)
    assert done.returncode == 125
    assert re.fullmatch(
        r"rp: port 8123/udp is in use by a container \(pasta, pid \d+\)\n", done.stderr
    )


@pytest.mark.row("N1", "125, with the setting that would allow it")
def test_a_privileged_port(rig: Machine, alpine: str) -> None:
    done = rig.run(["rp", "run", "--rm", "-p", "80:80", alpine, "true"], check=False)
    assert done.returncode == 125
    assert done.stderr.splitlines() == [
        "rp: port 80/tcp is privileged: ports below 1024 belong to root",
        "hint: sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-p 80:", "port mapping '80:': '' is not a port (1 to 65535)"),
        ("-p 8080:80/sctp", "port mapping '8080:80/sctp': neither pasta nor slirp4netns forwards"),
        ("-p 8080:80/icmp", "port mapping '8080:80/icmp': protocol 'icmp' is not one of tcp, udp"),
        ("-p 203.0.113.9:8080:80", "address 203.0.113.9 is not one of this machine"),
        ("--network bridge", "network 'bridge' does not exist"),
        ("--network pasta:--bogus", "pasta refuses its options"),
    ],
)
def test_bad_input_is_one_line(rig: Machine, alpine: str, options: str, message: str) -> None:
    done = rig.run(["rp", "run", "--rm", *options.split(), alpine, "echo", "ran"], check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("hint:")]) == 1


@pytest.mark.row("CVE-2024-32473", "--network none: no route, no resolver, no address but lo's")
def test_mode_none_has_its_loopback_only(rig: Machine, alpine: str) -> None:
    script = (
        "ip -o addr; ip route; ip -6 route | grep -v lo; cat /etc/resolv.conf; nc -l -p 9 >/tmp/x &"
        "until grep -q :0009 /proc/net/tcp*; do sleep 0.1; done; echo hello | nc ::1 9; "
        "wait; cat /tmp/x"
    )
    lines = rig.run(
        ["rp", "run", "--rm", "--network", "none", "-p", "8080:80", alpine, "sh", "-c", script]
    )
    assert lines.stderr == "rp: -p has no effect with --network none\n"
    interfaces = re.findall(r"^\d+: (\S+) +inet6? (\S+)", lines.stdout, re.MULTILINE)
    assert interfaces == [("lo", "127.0.0.1/8"), ("lo", "::1/128")]
    assert "default" not in lines.stdout
    assert "nameserver" not in lines.stdout
    assert lines.stdout.endswith("hello\n")


def test_mode_host_is_the_hosts_network(rig: Machine, alpine: str, listener: Listener) -> None:
    listener("127.0.0.1/7777/tcp")
    script = "echo x | nc -w 60 127.0.0.1 7777; echo; readlink /proc/self/ns/net; hostname"
    argv = ["rp", "run", "--rm", "--network", "host", alpine, "sh", "-c", script]
    answer, namespace, hostname = rig.run(argv).stdout.splitlines()
    assert answer == "SECRET tcp"
    assert namespace == rig.run(["readlink", "/proc/self/ns/net"]).stdout.strip()
    assert hostname == rig.run(["hostname"]).stdout.strip()
    assert not helpers(rig)


def test_slirp4netns_publishes(rig: Machine, container: Container) -> None:
    container("--network slirp4netns -p 8080:80 -p 5353:53/udp", answering(80))
    assert len(helpers(rig, "slirp4netns")) == 1
    assert "ANSWER" in ask(rig, HOST, 8080, outside=True)
    assert "ANSWER" in ask(rig, "127.0.0.1", 8080)


def test_slirp4netns_publishes_when_root_is_another_user(
    rig: Machine, container: Container
) -> None:
    """Its orders go through a socket that it makes as the container's root."""
    container("--network slirp4netns --userns keep-id -p 8080:8080", answering(8080))
    assert "ANSWER" in ask(rig, "127.0.0.1", 8080)


def test_pasta_when_root_is_another_user(rig: Machine, container: Container) -> None:
    container("--userns keep-id -p 8080:8080", answering(8080))
    assert OUTSIDE in peers(ask(rig, HOST, 8080, outside=True))


def test_slirp4netns_options(rig: Machine, alpine: str) -> None:
    options = "slirp4netns:cidr=10.9.0.0/16,mtu=1400"
    argv = ["rp", "run", "--rm", "--network", options, alpine, "ip", "addr", "show", "tap0"]
    answer = rig.run(argv).stdout
    assert "inet 10.9.0.100/16" in answer
    assert "mtu 1400" in answer


def test_names(rig: Machine, alpine: str) -> None:
    argv = ["rp", "run", "--rm", "--name", "web", "--hostname", "box"]
    argv += ["--add-host", "db:10.1.2.3", "--dns", "9.9.9.9", "--dns-search", "a.example"]
    script = "hostname; cat /etc/hostname; cat /etc/hosts; echo ---; cat /etc/resolv.conf"
    answer = rig.run([*argv, alpine, "sh", "-c", script]).stdout
    hosts, _line, resolv_conf = answer.partition("---\n")
    assert hosts.splitlines()[:2] == ["box", "box"]
    table = [line.split() for line in hosts.splitlines()[2:]]
    assert ["127.0.0.1", "localhost"] in table
    assert ["10.1.2.3", "db"] in table
    assert [HOST, "box", "web"] in table
    assert [HOST6, "box", "web"] in table
    assert resolv_conf == "search a.example\nnameserver 9.9.9.9\n"


@pytest.mark.row("N1", "127.0.0.53 is asked through the helper")
@pytest.mark.parametrize("network", ["pasta", "slirp4netns"])
def test_a_resolver_on_the_hosts_loopback(
    rig: Machine, alpine: str, container: Container, network: str
) -> None:
    """systemd-resolved listens on 127.0.0.53 only, which means something else inside."""
    if not rig.has_root:
        pytest.skip("needs root to change the machine's /etc/resolv.conf")
    original = rig.root(["cat", "/etc/resolv.conf"]).stdout
    server = rig.popen(
        ["python3", "-c", DNS_SERVER], user="root", stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        rig.root(["tee", "/etc/resolv.conf"], input="nameserver 127.0.0.53\n")
        argv = ["rp", "run", "--rm", "--network", network, alpine]
        answer = rig.run([*argv, "nslookup", "-type=a", "name.test"]).stdout
    finally:
        rig.root(["tee", "/etc/resolv.conf"], input=original)
        end(server)
    assert "Address: 192.0.2.77" in answer


DNS_SERVER = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.53", 53))
print("up", flush=True)
while True:
    query, client = sock.recvfrom(999)
    question = query[12:]
    head = query[:2] + bytes.fromhex("8180 0001 0001 0000 0000")
    answer = bytes.fromhex("c00c 0001 0001 0000003c 0004") + bytes([192, 0, 2, 77])
    sock.sendto(head + question + answer, client)
"""


def test_host_gateway(rig: Machine, alpine: str, listener: Listener) -> None:
    """The host's public services are reached by name; those of its loopback are not."""
    listener("0.0.0.0/7779/tcp", "127.0.0.1/7777/tcp")
    argv = ["rp", "run", "--rm", "--add-host", "up:host-gateway", alpine, "sh", "-c"]
    script = f"{answer_of('up', 7779)}; echo; echo x | nc -w 2 up 7777 || echo refused"
    done = rig.run([*argv, script], check=False)
    if done.returncode == 125:
        # The pasta of Debian 12 has no address for it.
        assert "rp: host-gateway has no address with --network pasta here" in done.stderr
        return
    assert done.stdout == "SECRET tcp\nrefused\n"


@pytest.mark.row("N1", "no route: it starts, its ports are open")
def test_without_a_default_route(rig: Machine, container: Container) -> None:
    """A laptop without a connection: containers start, and their ports are open."""
    if not rig.has_root:
        pytest.skip("needs root to take the machine's routes away")
    rig.root(["ip", "route", "delete", "default"])
    rig.root(["ip", "-6", "route", "delete", "default"])
    try:
        container("-p 8080:80", answering(80))
        assert "ANSWER" in ask(rig, "127.0.0.1", 8080)
    finally:
        rig.root(["ip", "route", "add", "default", "via", OUTSIDE])
        rig.root(["ip", "-6", "route", "add", "default", "via", OUTSIDE6])


@pytest.mark.row("P5", "the network helper dies too")
@pytest.mark.parametrize("network", ["pasta", "slirp4netns"])
def test_the_helper_dies_with_a_killed_supervisor(rig: Machine, alpine: str, network: str) -> None:
    process = rig.popen(
        ["rp", "run", "--rm", "-i", "--network", network, alpine, "sh", "-c", "echo up; cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (helper,) = helpers(rig, network)
    supervisor = str(rig.run(["ps", "-o", "ppid=", "-p", helper]).stdout).strip()
    rig.run(["kill", "-KILL", supervisor])
    eventually_without_helpers(rig)
    process.communicate(timeout=60)
    assert process.returncode not in (0, None)


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        # <linux/if_tun.h>: IFF_TAP | IFF_NO_PI, and IFF_PERSIST for one that pasta has found there.
        ("", 0x1802),
        ("--network pasta:--mtu,1400", 0x1002),
    ],
)
def test_pasta_s_device_goes_with_the_namespace(
    rig: Machine, alpine: str, options: str, flags: int
) -> None:
    show = (
        "cd /sys/class/net/eth0; cat tun_flags operstate flags; stat -c %u mtu; "
        "ip -o addr show dev eth0"
    )
    done = rig.run(["rp", "run", "--rm", *options.split(), alpine, "sh", "-c", show])
    found, state, up, owner, *addresses = done.stdout.splitlines()
    assert (int(found, 16), owner) == (flags, "0")
    # <linux/if.h>: IFF_UP, IFF_BROADCAST and IFF_MULTICAST, and with a carrier from the beginning.
    assert (int(up, 16), state in ("up", "unknown")) == (0x1003, True)
    for address in (HOST, HOST6, "fe80:"):
        assert any(f" {address}" in each for each in addresses)


def test_who_shares_a_network_that_has_ended_has_no_route(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    shared = ["--network", "container:first"]
    rig.run(["rp", "run", "-d", "--name", "first", alpine, "sleep", "600"])
    rig.run(["rp", "run", "-d", "--name", "second", *shared, alpine, "sleep", "600"])
    try:
        rig.run(["rp", "stop", "-t", "0", "first"])
        # The kernel takes up to a second to notice that nobody has the device open any more.
        eventually(lambda: routes_are_dead(rig, "second"))
    finally:
        rig.run(["rp", "rm", "-f", "second", "first"])


def routes_are_dead(rig: Machine, name: str) -> bool:
    routes = rig.run(["rp", "exec", name, "ip", "route"]).stdout.splitlines()
    return all("dead" in route for route in routes)


@pytest.mark.row("P7", "started again into the same namespace, same ports")
@pytest.mark.parametrize("network", ["pasta", "slirp4netns"])
def test_p7_a_killed_helper_is_started_again_with_the_same_ports(
    rig: Machine, container: Container, network: str
) -> None:
    """Of the catalogue's ways the better one: the network comes back, the container goes on."""
    running = container(f"--network {network} -p 8080:80", answering(80))
    (helper,) = helpers(rig, network)
    rig.run(["kill", "-KILL", helper])
    eventually(lambda: helpers(rig, network) not in ([], [helper]))
    eventually(lambda: OUTSIDE in peers(ask(rig, HOST, 8080, outside=True)))
    assert running.poll() is None


@pytest.mark.row("N2", "link down and up: reached again, same helper")
def test_n2_a_link_that_goes_away_and_comes_back(rig: Machine, container: Container) -> None:
    """As a cable or a suspended laptop: the same container is reached again, helper and all."""
    if not rig.has_root:
        pytest.skip("needs root to take the machine's link away")
    running = container("-p 8080:80", answering(80))
    (helper,) = helpers(rig)
    rig.root(["sh", "-c", "ip link set eth0 down; ip link set eth0 up"])
    rig.root(["ip", "-6", "address", "replace", f"{HOST6}/64", "dev", "eth0", "nodad"])
    rig.root(["ip", "route", "replace", "default", "via", OUTSIDE])
    rig.root(["ip", "-6", "route", "replace", "default", "via", OUTSIDE6])
    eventually(lambda: OUTSIDE in peers(ask(rig, HOST, 8080, outside=True)))
    assert helpers(rig) == [helper]
    assert running.poll() is None
