"""The journal's native protocol, against a socket of the test's own, and the export format."""

from __future__ import annotations

import fcntl
import os
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootlesspy.systemd import journal
from rootlesspy.systemd.journal import Journal
from rootlesspy.systemd.journal_reader import Parser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIELDS = st.dictionaries(st.text("ABC_", min_size=1, max_size=4), st.binary(max_size=200))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Return where the socket is, by a path that fits into an address."""
    fd = os.open(tmp_path, os.O_PATH)
    yield f"/proc/self/fd/{fd}/socket"
    os.close(fd)


@pytest.fixture
def daemon(address: str) -> Iterator[socket.socket]:
    """Return the socket that the records arrive at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address)
        end.setblocking(False)
        yield end


@pytest.fixture
def connection(address: str) -> Iterator[Journal]:
    made = Journal(address)
    yield made
    made.close()


def receive(daemon: socket.socket) -> bytes:
    """Return the next record as journald reads it, from the datagram or from the memfd in it."""
    data, fds, _, _ = socket.recv_fds(daemon, 1 << 20, 1)
    if not fds:
        return data
    with open(fds[0], "rb") as file:
        file.seek(0)
        return file.read()


@settings(deadline=None)
@given(fields=FIELDS, cuts=st.lists(st.integers(1, 60), min_size=1), records=st.integers(1, 3))
def test_the_parser_reads_what_the_encoder_wrote_however_it_is_cut(
    fields: dict[str, bytes], cuts: list[int], records: int
) -> None:
    encoded = b"".join(journal.field(name, value) for name, value in fields.items())
    stream = (encoded + b"\n") * records
    parser = Parser()
    found = []
    while stream:
        cut = cuts[len(stream) % len(cuts)]
        found += list(parser.feed(stream[:cut]))
        stream = stream[cut:]
    assert found == [fields] * records * bool(fields)


def test_a_value_with_a_line_end_cannot_begin_a_field() -> None:
    text = journal.fields({"CONTAINER_NAME": "x\nPRIORITY=0\nMESSAGE=forged"})
    record = next(Parser().feed(text + b"\n"))
    assert record == {"CONTAINER_NAME": b"x\nPRIORITY=0\nMESSAGE=forged"}


@pytest.mark.parametrize("size", [0, 10, 47_000, 60_000, 1 << 20])
def test_a_message_of_any_size_arrives_whole(
    daemon: socket.socket, connection: Journal, size: int
) -> None:
    message = os.urandom(size)
    assert connection.send(b"PRIORITY=6\n", memoryview(message))
    assert list(Parser().feed(receive(daemon) + b"\n")) == [{"PRIORITY": b"6", "MESSAGE": message}]


def test_a_large_message_is_sealed_exactly_as_journald_252_wants_it(
    daemon: socket.socket, connection: Journal
) -> None:
    """Otherwise it drops what an ordinary user sends."""
    assert connection.send(b"", bytes(60_000))
    _, (fd,), _, _ = socket.recv_fds(daemon, 10, 1)
    wanted = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == wanted
    os.close(fd)


def test_where_the_kernel_adds_a_seal_it_is_a_file_of_dev_shm(
    daemon: socket.socket, connection: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    exec_seal = 0x20

    def sealing(name: str, flags: int) -> int:
        fd = create(name, flags)
        os.fchmod(fd, 0o600)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, exec_seal)
        return fd

    create = os.memfd_create
    monkeypatch.setattr(os, "memfd_create", sealing)
    assert connection.send(b"", bytes(60_000))
    _, (fd,), _, _ = socket.recv_fds(daemon, 10, 1)
    assert os.readlink(f"/proc/self/fd/{fd}").startswith("/dev/shm/")
    assert os.fstat(fd).st_size > 60_000
    os.close(fd)


def test_a_full_queue_is_said_and_what_was_refused_can_be_sent_again(
    daemon: socket.socket, connection: Journal
) -> None:
    sent = 0
    while connection.send(b"", b"%d" % sent):
        sent += 1
        assert sent < 100_000
    assert connection.queued_bytes() > 0
    assert receive(daemon) == b"MESSAGE\n" + (1).to_bytes(8, "little") + b"0\n"
    connection.wait(5)
    assert connection.send(b"", b"again")


def test_large_messages_that_nobody_has_received_are_few(
    daemon: socket.socket, connection: Journal
) -> None:
    sent = 0
    while connection.send(b"", bytes(1 << 20)):
        sent += 1
        assert sent < 50
    assert 1 <= sent <= 16
    del daemon


def test_a_journal_that_restarts_is_found_again(address: str) -> None:
    connection = Journal(address)
    assert not connection.send(b"", b"nobody is there")
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
            daemon.bind(address)
            assert connection.send(b"", b"here")
            assert receive(daemon).endswith(b"here\n")
        os.unlink(address)
    assert not connection.send(b"", b"gone again")
    connection.wait(0)
    connection.close()
