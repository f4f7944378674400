"""When a container is ready: what --sdnotify takes, and how ports and lines are seen."""

from __future__ import annotations

import os
import socket

import pytest

from rootlesspy.engine.supervision import readiness
from rootlesspy.engine.supervision.readiness import Watch
from rootlesspy.errors import UsageError


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("runner", "runner"),
        ("conmon", "runner"),
        ("ignore", "runner"),
        ("container", "container"),
        ("healthy", "healthy"),
        ("port:8080", "port:8080"),
        ("log:ready to accept", "log:ready to accept"),
        ("log:a:b", "log:a:b"),
    ],
)
def test_modes(text: str, kept: str) -> None:
    assert readiness.parse(text, "--sdnotify") == kept


@pytest.mark.parametrize(
    "text",
    ["", "Runner", "port", "port:", "port:0", "port:65536", "port:-1", "port:1_0", "log:", "log:(",
     "port:８０", "x:1"],
)  # fmt: skip
def test_others_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--sdnotify"):
        readiness.parse(text, "--sdnotify")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_is_seen_once_it_is_listened_on(family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as server:
        try:
            server.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        except OSError as error:
            pytest.skip(f"no such address: {error}")
        port = server.getsockname()[1]
        watch = Watch(f"port:{port}", os.getpid())
        first_ms = watch.timeout_ms()
        assert not watch.poll()
        assert watch.timeout_ms() > first_ms > 0
        for _ in range(20):
            watch.poll()
        assert watch.timeout_ms() == 500
        server.listen()
        assert watch.poll()
        assert not watch.poll()
        assert watch.timeout_ms() == -1


def test_a_client_of_the_port_does_not_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with socket.create_connection(address) as client, server.accept()[0]:
            server.close()
            assert not readiness.is_listening(os.getpid(), address[1])
            assert not readiness.is_listening(os.getpid(), client.getsockname()[1])


def test_a_process_that_ended_listens_on_nothing() -> None:
    assert not readiness.is_listening(2**22 + 1, 80)


def test_a_line_is_found_once() -> None:
    watch = Watch(r"log:ready .* \d+$", 1)
    assert watch.timeout_ms() == -1
    assert not watch.poll()
    assert not watch.line(b"starting\xff")
    assert watch.line(b"\xffserver ready on 80")
    assert not watch.line(b"server ready on 80")


def test_a_port_does_not_listen_to_lines() -> None:
    assert not Watch("port:1", 1).line(b"port:1")
