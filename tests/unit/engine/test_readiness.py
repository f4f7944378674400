"""When a container is ready: what --sdnotify takes, and how ports and lines are seen."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine.supervision import readiness
from rootlesspy.engine.supervision.readiness import Watch
from rootlesspy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@contextmanager
def port_of_nobody() -> Iterator[dict[socket.AddressFamily, socket.socket]]:
    """Yield a socket of each family, bound to a port that no other has at any address."""
    if not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6 here")
    while True:
        with socket.socket() as four, socket.socket(socket.AF_INET6) as six:
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            six.bind(("::", 0))
            try:
                four.bind(("", six.getsockname()[1]))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            yield {socket.AF_INET: four, socket.AF_INET6: six}
            return


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_is_seen_once_it_is_listened_on(family: socket.AddressFamily) -> None:
    with port_of_nobody() as bound:
        server = bound[family]
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
    with port_of_nobody() as ours, port_of_nobody() as theirs:
        server, client = ours[socket.AF_INET], theirs[socket.AF_INET]
        server.listen()
        port = server.getsockname()[1]
        assert readiness.is_listening(os.getpid(), port)
        client.connect(("127.0.0.1", port))
        with server.accept()[0]:
            server.close()
            assert not readiness.is_listening(os.getpid(), port)
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
