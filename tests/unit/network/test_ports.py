"""What -p means, and what a port in use is called."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.errors import Conflict, Error, Unsupported, UsageError
from rootlesspy.network import ports
from rootlesspy.network.ports import PortMapping, check_free, merge, parse_publish


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [("", 0, 80, "tcp")]),
        (":80", [("", 0, 80, "tcp")]),
        ("8080:80", [("", 8080, 80, "tcp")]),
        ("8080:80/UDP", [("", 8080, 80, "udp")]),
        ("53:53/tcp,udp", [("", 53, 53, "tcp"), ("", 53, 53, "udp")]),
        ("127.0.0.1:8080:80", [("127.0.0.1", 8080, 80, "tcp")]),
        ("127.0.0.1::80", [("127.0.0.1", 0, 80, "tcp")]),
        ("[::1]:8080:80", [("::1", 8080, 80, "tcp")]),
        ("[0:0::1]::80/udp", [("::1", 0, 80, "udp")]),
        ("8000-8001:80-81", [("", 8000, 80, "tcp"), ("", 8001, 81, "tcp")]),
        ("80-81", [("", 0, 80, "tcp"), ("", 0, 81, "tcp")]),
        ("65535:65535", [("", 65535, 65535, "tcp")]),
    ],
)
def test_parse_publish(text: str, expected: list[tuple[str, int, int, str]]) -> None:
    assert parse_publish(text) == tuple(PortMapping(*each) for each in expected)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "::", "/tcp", "80/", "80/sctp", "80/tcp/udp", "0", "0:80", "65536", "080:80",
        "+80", " 80", "8_0", "\uff18\uff10", "0x50", "-1", "80-", "-80", "81-80", "8000-8001:80",
        "8000:80-81", "a:80", "1.2.3.4:80", "127.1:80:80", "010.0.0.1:80:80", "1.2.3.4.5:1:1",
        "::1:80:80", "[::1]80", "[::1]:80", "[::1:80:80", "[1.2.3.4]:80:80", "[]:80:80",
        "[fe80::1%eth0]:80:80", "1:2:3:4", "80\n:80", "80:80\0",
    ],
)  # fmt: skip
def test_parse_publish_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_publish(text)


@given(st.text(alphabet="0123456789:-./[]tcpud, \n\0٣", max_size=24))
def test_parse_publish_never_fails_otherwise(text: str) -> None:
    """Whatever it accepts is printed so that it reads back as the same."""
    try:
        mappings = parse_publish(text)
    except UsageError:
        return
    for mapping in mappings:
        assert parse_publish(str(mapping)) == (mapping,)
        assert 1 <= mapping.container_port <= 65535
        assert 0 <= mapping.host_port <= 65535


def test_an_address_without_a_host_port_names_the_cure() -> None:
    with pytest.raises(UsageError) as caught:
        parse_publish("1.2.3.4:80")
    assert caught.value.hint is not None
    assert "1.2.3.4::80" in caught.value.hint


def test_merge_drops_what_is_said_twice() -> None:
    once = parse_publish("8080:80") + parse_publish("80")
    assert merge(once + once) == once


def test_merge_refuses_one_host_port_for_two() -> None:
    with pytest.raises(UsageError, match="8080/tcp is published twice: to 80 and to 81"):
        merge(parse_publish("8080:80") + parse_publish("8080:81"))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("published", ["", "127.0.0.1:"])
def test_a_port_in_use_names_its_holder(protocol: str, address: str, published: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as holder:
        # UDP sockets that share an address would take each other's datagrams unseen.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((address, 0))
        if protocol == "tcp":
            holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(Conflict) as caught:
            check_free(parse_publish(f"{published}{port}:80/{protocol}"))
    with open("/proc/self/comm") as file:
        name = file.read().strip()
    expected = f"port {port}/{protocol} is in use by {name} (pid {os.getpid()})"
    assert caught.value.message == expected


def test_an_ipv6_listener_is_seen() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(Conflict):
            check_free(parse_publish(f"[::1]:{port}:80"))
        check_free(parse_publish(f"127.0.0.1:{port}:80"))


def test_connections_of_the_past_do_not_count() -> None:
    """A server that just ended leaves connections in TIME_WAIT behind."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _address = server.accept()
            accepted.close()
            client.recv(1)
    check_free(parse_publish(f"127.0.0.1:{port}:80"))


def test_random_ports_are_free_on_both_families() -> None:
    (mapping,) = check_free(parse_publish("80"))
    assert mapping.host_port >= 1024
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with socket.socket(family) as sock:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, mapping.host_port))


def test_a_foreign_address_is_refused() -> None:
    with pytest.raises(UsageError, match=r"203\.0\.113\.9 is not one of this machine"):
        check_free(parse_publish("203.0.113.9:8080:80"))


def test_a_privileged_port_names_the_sysctl() -> None:
    error = ports._explain(PermissionError(13, "denied"), parse_publish("80:80")[0])
    assert isinstance(error, Unsupported)
    assert error.message.startswith("port 80/tcp is privileged")
    assert error.hint == "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80"


def test_a_thousand_ports_are_checked_and_keep_their_order() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    first = min(port, 64000)
    try:
        checked = check_free(parse_publish(f"127.0.0.1:{first}-{first + 999}:1-1000"))
    except Error:
        # One of them is taken on this machine: that it was noticed is the other half.
        return
    assert [mapping.container_port for mapping in checked] == list(range(1, 1001))
