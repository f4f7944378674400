"""The host's links, addresses, routes and resolvers change; containers that run go on.

With pasta nothing of it has to be followed but resolv.conf: its sockets are the host's own.
"""

from __future__ import annotations

import contextlib
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest
from namespace.living import rp, until
from namespace.test_dns import IN_OUTSIDE, OUTSIDE, resolvers, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

OUTSIDE6 = "fd99::1"
# Beyond the other host: reached by a default route only.
FAR, FAR6 = "203.0.113.1", "2001:db8:77::1"
# Says whom it sees.
SERVER = """
import select, socket
made = []
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    made.append(socket.create_server((address, 7777), family=family))
print("up", flush=True)
while True:
    for listener in select.select(made, [], [])[0]:
        try:
            with listener.accept()[0] as connection:
                connection.sendall(connection.getpeername()[0].encode())
        except OSError:
            # A link that goes takes connections along.
            pass
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 30) as connection:
    print(connection.recv(99).decode())
"""
ROUTES = """
ip route replace default via 10.99.0.1
ip -6 route replace default via fd99::1
"""
ADDRESSES = """
ip link set eth0 up
ip address flush dev eth0 scope global
ip address add 10.99.0.2/24 dev eth0
ip address add fd99::2/64 dev eth0 nodad
"""
VPN_UP = """
ip link add vpn0 type veth peer name vpn0 netns outside
ip address add 10.98.0.2/24 dev vpn0
ip link set vpn0 up
ip -n outside address add 10.98.0.1/24 dev vpn0
ip -n outside link set vpn0 up
ip route add 0.0.0.0/1 via 10.98.0.1
ip route add 128.0.0.0/1 via 10.98.0.1
"""
VPN_DOWN = "ip link delete vpn0"


@pytest.fixture(scope="module", autouse=True)
def far(rig: Machine) -> Iterator[None]:
    """Have servers on the other host, with addresses beyond it; put the links back in order."""
    if not rig.has_root:
        pytest.skip("only root can change links")
    for address in (f"{FAR}/32", f"{FAR6}/128"):
        rig.root(["ip", "-n", "outside", "address", "replace", address, "dev", "lo"])
    argv = [*IN_OUTSIDE, "python3", "-c", SERVER]
    server = rig.popen(argv, user="root", stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        yield
    finally:
        server.kill()
        server.communicate()
        change(rig, ADDRESSES + ROUTES)
        for address in (f"{FAR}/32", f"{FAR6}/128"):
            rig.root(["ip", "-n", "outside", "address", "delete", address, "dev", "lo"])


@pytest.fixture
def links(rig: Machine) -> Iterator[None]:
    """Put addresses and routes back after a test."""
    yield
    rig.root(["ip", "link", "delete", "vpn0"], check=False)
    change(rig, ADDRESSES + ROUTES)


@pytest.fixture(scope="module")
def container(rig: Machine, alpine: str) -> Iterator[str]:
    """Hold one container through all changes; it publishes a port."""
    answer = "while :; do echo inside | nc -l -p 80; done"
    rig.run(["rp", "run", "-d", "--name", "long", "-p", "8099:80", alpine, "sh", "-c", answer])
    yield "long"
    rp(rig, "rm", "-f", "long")


pytestmark = pytest.mark.usefixtures("links")


def change(rig: Machine, script: str) -> None:
    """Change the host's links."""
    rig.root(["sh", "-ec", script])


def seen(rig: Machine, container: str, address: str) -> str:
    """Return which address of ours a server sees; "" when it cannot be reached."""
    argv = ["timeout", "20", "nc", "-w", "3", address, "7777"]
    return str(rp(rig, "exec", container, *argv).stdout).strip()


def sees(rig: Machine, container: str, address: str, ours: str) -> None:
    """Wait until a server sees a connection from an address of ours."""
    until(lambda: seen(rig, container, address) == ours, f"{address} does not see {ours}")


def reached(rig: Machine, container: str) -> None:
    """Wait until every server is reached again, as after the kernel has settled."""
    for address in (OUTSIDE, FAR, OUTSIDE6, FAR6):
        until(partial(seen, rig, container, address), f"{address} is out of reach")


@pytest.mark.row("N2", "routes go and come: reached again")
def test_routes_go_and_come(rig: Machine, container: str) -> None:
    change(rig, "ip route delete default; ip -6 route delete default")
    sees(rig, container, OUTSIDE, "10.99.0.2")
    assert seen(rig, container, FAR) == ""
    change(rig, ROUTES)
    reached(rig, container)


@pytest.mark.row("N2", "DHCP gives another address: it counts at once")
def test_another_address(rig: Machine, container: str) -> None:
    """Another place, another lease: connections leave with the new address, ports are open."""
    change(
        rig, ADDRESSES.replace("10.99.0.2", "10.99.0.77").replace("fd99::2", "fd99::77") + ROUTES
    )
    reached(rig, container)
    sees(rig, container, FAR, "10.99.0.77")
    sees(rig, container, FAR6, "fd99::77")
    client = [*IN_OUTSIDE, "python3", "-c", CLIENT, "10.99.0.77", "8099"]
    # Between two programs that answer one connection each, nobody listens.
    until(lambda: rig.root(client, check=False).stdout.strip() == "inside", "the port is not open")


@pytest.mark.row("N2", "link down and up: reached again")
def test_link_down_and_up(rig: Machine, container: str) -> None:
    change(rig, "ip link set eth0 down")
    assert seen(rig, container, OUTSIDE) == ""
    change(rig, ADDRESSES + ROUTES)
    reached(rig, container)


@pytest.mark.row("N2", "a VPN's routes and resolvers count while it is up")
def test_vpn(rig: Machine, container: str) -> None:
    """New routes count at once, and so do the VPN's resolvers, until it goes."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving(rig, OUTSIDE, "192.0.2.53", outside=True))
        until(lambda: name(rig, container) == "192.0.2.53", "the resolver is not asked")
        change(rig, VPN_UP)
        sees(rig, container, FAR, "10.98.0.2")
        stack.enter_context(serving(rig, "10.98.0.1", "192.0.2.98", outside=True))
        with resolvers(rig, "nameserver 10.98.0.1"):
            until(lambda: name(rig, container) == "192.0.2.98", "the VPN's resolver is not asked")
        change(rig, VPN_DOWN)
        until(lambda: name(rig, container) == "192.0.2.53", "the old resolver is not asked")
        sees(rig, container, FAR, "10.99.0.2")


@pytest.mark.row("N1", "127.0.0.53 and ::1 are asked through the helper")
@pytest.mark.parametrize("address", ["127.0.0.53", "::1"])
def test_n1_resolvers_on_the_host_itself(rig: Machine, container: str, address: str) -> None:
    """A local resolver is started and stopped; pasta forwards to it."""
    with serving(rig, address, "192.0.2.1"), resolvers(rig, f"nameserver {address}"):
        until(lambda: name(rig, container) == "192.0.2.1", f"{address} is not asked")
    until(lambda: OUTSIDE in resolv_conf(rig, container), "resolv.conf is an old one")


@pytest.mark.row("N1", "empty: 127.0.0.1 is asked, as resolv.conf(5) says")
def test_n1_empty_resolv_conf(rig: Machine, container: str) -> None:
    """resolv.conf(5): it means 127.0.0.1."""
    with serving(rig, "127.0.0.1", "192.0.2.127"), resolvers(rig, ""):
        until(lambda: name(rig, container) == "192.0.2.127", "127.0.0.1 is not asked")
    until(lambda: OUTSIDE in resolv_conf(rig, container), "resolv.conf is an old one")


def test_own_resolv_conf_stays(rig: Machine, alpine: str) -> None:
    """What the payload wrote itself, or --dns, is not overwritten."""
    script = "echo nameserver 192.0.2.7 >/etc/resolv.conf; sleep 1000"
    rig.run(["rp", "run", "-d", "--name", "writer", alpine, "sh", "-c", script])
    rig.run(["rp", "run", "-d", "--name", "chooser", "--dns", "192.0.2.8", alpine, "sleep", "1000"])
    rig.run(["rp", "run", "-d", "--name", "other", alpine, "sleep", "1000"])
    try:
        until(lambda: "192.0.2.7" in resolv_conf(rig, "writer"), "it writes nothing")
        with resolvers(rig, "nameserver 192.0.2.9"):
            until(lambda: "192.0.2.9" in resolv_conf(rig, "other"), "nobody is told")
            assert "192.0.2.7" in resolv_conf(rig, "writer")
            assert "192.0.2.8" in resolv_conf(rig, "chooser")
    finally:
        rp(rig, "rm", "-f", "writer", "chooser", "other")


@pytest.mark.row("N1", "no route: connected when the host is")
def test_started_without_any_route(rig: Machine, alpine: str) -> None:
    """It is connected when the host is."""
    change(rig, "ip link set eth0 down")
    rig.run(["rp", "run", "-d", "--name", "early", alpine, "sleep", "1000"])
    try:
        assert seen(rig, "early", OUTSIDE) == ""
        change(rig, ADDRESSES + ROUTES)
        reached(rig, "early")
    finally:
        rp(rig, "rm", "-f", "early")


@pytest.mark.row("N2", "everything stopped meanwhile: reached again")
def test_suspend(rig: Machine, container: str) -> None:
    """Everything stands still while the link goes and comes."""
    # The supervisor, pasta and the payload.
    units = [f"rp-{container}.service", f"rp-{container}.scope"]
    rig.run(["systemctl", "--user", "kill", "-s", "STOP", *units])
    try:
        change(rig, "ip link set eth0 down")
        change(rig, ADDRESSES + ROUTES)
    finally:
        rig.run(["systemctl", "--user", "kill", "-s", "CONT", *units])
    reached(rig, container)


@pytest.mark.row("N2", "members reach each other without the host's link")
def test_members_of_networks(rig: Machine, alpine: str) -> None:
    """Names and the way to each other need no link of the host's."""
    rig.run(["rp", "network", "create", "--subnet", "10.92.1.0/24", "lasting"])
    # Some BusyBoxes know no other way to ping.
    run = ["rp", "run", "-d", "--cap-add=NET_RAW", "--network", "lasting", alpine, "sleep", "1000"]
    for member in ("one", "two"):
        rig.run([*run[:3], "--name", member, *run[3:]])
    try:
        change(rig, "ip link set eth0 down")
        rig.run(["rp", "exec", "one", "ping", "-c", "1", "-w", "30", "two"])
        change(rig, ADDRESSES + ROUTES)
        until(lambda: seen(rig, "one", FAR), "the way out is closed")
        rig.run(["rp", "exec", "two", "ping", "-c", "1", "-w", "30", "one"])
    finally:
        rp(rig, "rm", "-f", "one", "two")
        rp(rig, "network", "rm", "-f", "lasting")


def name(rig: Machine, container: str) -> str:
    """Return what a name resolves to inside; "" when nobody answers."""
    done = rp(rig, "exec", container, "timeout", "20", "getent", "ahostsv4", "name.example")
    return str(done.stdout).partition(" ")[0]


def resolv_conf(rig: Machine, container: str) -> str:
    """Return a container's resolv.conf."""
    return str(rp(rig, "exec", container, "cat", "/etc/resolv.conf").stdout)
