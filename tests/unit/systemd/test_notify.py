"""The notify socket that a payload speaks to: what gets through, and from whom."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.systemd import cgroup, notify
from rootlesspy.systemd.notify import Notifier, Relay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    made = Relay(f"{tmp_path}/notify")
    yield made
    made.close()


@contextmanager
def short(directory: Path) -> Iterator[str]:
    """Yield a path of a directory that fits into the address of a socket below it."""
    fd = os.open(directory, os.O_PATH)
    yield f"/proc/self/fd/{fd}"
    os.close(fd)


def say(tmp_path: Path, *messages: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, short(tmp_path) as directory:
        for message in messages:
            sender.sendto(message, f"{directory}/notify/notify.sock")


@pytest.mark.parametrize(
    ("message", "passed"),
    [
        (b"READY=1", ["READY=1"]),
        (b"READY=1\nSTATUS=up\n", ["READY=1", "STATUS=up"]),
        (b"READY=0\nREADY=", []),
        (b"STATUS=a\x1b[31mb", ["STATUS=a [31mb"]),
        (b"STATUS=", ["STATUS="]),
        (b"WATCHDOG=1", ["WATCHDOG=1"]),
        (b"WATCHDOG=trigger", ["WATCHDOG=trigger"]),
        (b"WATCHDOG_USEC=1", []),
        (b"EXTEND_TIMEOUT_USEC=5000000", ["EXTEND_TIMEOUT_USEC=5000000"]),
        (b"EXTEND_TIMEOUT_USEC=-5", []),
        (b"EXTEND_TIMEOUT_USEC=5\x00", []),
        (b"RELOADING=1\nMONOTONIC_USEC=7", ["RELOADING=1", "MONOTONIC_USEC=7"]),
        (b"STOPPING=1\nERRNO=2", ["STOPPING=1", "ERRNO=2"]),
        (b"MAINPID=1\nMAINPIDFD=1\nFDSTORE=1\nFDNAME=x\nNOTIFYACCESS=all\nBARRIER=1", []),
        (b"X_MINE=1\n=\nnothing\n\nREADY=1=1", []),
        (b"STATUS=\xff\xfe\nREADY=1", []),
    ],
)
def test_filter(message: bytes, passed: list[str]) -> None:
    assert notify.filtered(message) == passed


@given(st.binary(max_size=200))
def test_filter_survives_everything(message: bytes) -> None:
    for assignment in notify.filtered(message):
        key = assignment.partition("=")[0]
        assert assignment.isprintable()
        assert key in {
            "READY", "STATUS", "WATCHDOG", "EXTEND_TIMEOUT_USEC", "RELOADING", "STOPPING",
            "ERRNO", "MONOTONIC_USEC",
        }  # fmt: skip


def test_a_long_status_is_cut() -> None:
    (status,) = notify.filtered(b"STATUS=" + b"x" * 4000)
    assert len(status) == len("STATUS=") + 512


def test_relay_hears_what_is_said(relay: Relay, tmp_path: Path) -> None:
    assert relay.receive() == []
    say(tmp_path, b"STATUS=one", b"STATUS=two\nREADY=1", b"MAINPID=1")
    assert relay.receive() == ["STATUS=two", "READY=1"]
    assert relay.receive() == []


def test_any_user_of_the_container_may_speak(relay: Relay, tmp_path: Path) -> None:
    assert stat.S_IMODE(os.stat(f"{tmp_path}/notify/notify.sock").st_mode) == 0o666
    assert stat.S_IMODE(os.stat(f"{tmp_path}/notify").st_mode) == 0o755


def test_an_oversized_datagram_is_dropped(relay: Relay, tmp_path: Path) -> None:
    say(tmp_path, b"READY=1\nSTATUS=" + b"x" * 8000, b"READY=1")
    assert relay.receive() == ["READY=1"]


def test_descriptors_are_closed(relay: Relay, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        with short(tmp_path) as directory:
            sender.connect(f"{directory}/notify/notify.sock")
        socket.send_fds(sender, [b"FDSTORE=1\nREADY=1"], [writer] * 200)
    os.close(writer)
    assert relay.receive() == ["READY=1"]
    # End of file: nobody else holds the other end.
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_strangers_are_not_heard(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = "/user.slice/app.slice/rp-x.scope"
    where = {os.getpid(): f"{mine}/payload/sub"}
    monkeypatch.setattr(cgroup, "control_group", lambda pid: where[pid])
    relay.belongs_to(mine)
    say(tmp_path, b"READY=1")
    assert relay.receive() == ["READY=1"]
    where[os.getpid()] = f"{mine}2"
    say(tmp_path, b"READY=1")
    assert relay.receive() == []


def test_one_that_ended_is_believed(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(pid: int) -> str:
        raise FileNotFoundError(pid)

    monkeypatch.setattr(cgroup, "control_group", gone)
    relay.belongs_to("/x")
    say(tmp_path, b"READY=1")
    assert relay.receive() == ["READY=1"]


def test_a_stale_socket_is_replaced_and_the_own_removed(tmp_path: Path) -> None:
    first = Relay(f"{tmp_path}/notify")
    second = Relay(f"{tmp_path}/notify")
    say(tmp_path, b"READY=1")
    assert first.receive() == []
    assert second.receive() == ["READY=1"]
    second.close()
    second.close()
    first.close()
    assert os.listdir(f"{tmp_path}/notify") == []


def test_long_paths_work(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    Relay(str(deep)).close()


@pytest.mark.parametrize("abstract", [True, False])
def test_notifier_sends(tmp_path: Path, abstract: bool) -> None:
    with short(tmp_path) as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = f"@rp-test-{os.getpid()}" if abstract else f"{directory}/socket"
        manager.bind(address.replace("@", "\0") if abstract else address)
        assert Notifier(address).send("READY=1", "STATUS=é")
        assert manager.recv(100) == "READY=1\nSTATUS=é".encode()
        assert Notifier(address).extend_timeout(5)
        assert manager.recv(100) == b"EXTEND_TIMEOUT_USEC=5"


def test_notifier_minds_nothing(tmp_path: Path) -> None:
    assert not Notifier("").send("READY=1")
    assert not Notifier(f"{tmp_path}/none").send("READY=1")
    assert not Notifier(f"{tmp_path}/none").send()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ()),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, ("WATCHDOG_USEC=30000000",)),
        ({"WATCHDOG_USEC": "x\n"}, ()),
    ],
)
def test_watchdog(environment: dict[str, str], expected: tuple[str, ...]) -> None:
    assert notify.watchdog(environment) == expected
