"""Between the payload's streams, its log and its clients: who is waited for, what is lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine.supervision import listener

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1024 * 1024


class Attached:
    """A listener and the client's ends of its sockets."""

    def __init__(self, *, patient: bool) -> None:
        self.listener = listener.Listener(stdin=False, patient=patient)
        self.output, self.errors = self.listener.open("stdout"), self.listener.open("stderr")

    def close(self) -> None:
        self.listener.close()
        for fd in (self.output, self.errors):
            if fd >= 0:
                os.close(fd)


@pytest.fixture(params=[True, False], ids=["patient", "impatient"])
def client(request: pytest.FixtureRequest) -> Iterator[Attached]:
    made = Attached(patient=request.param)
    yield made
    made.close()


def test_streams_are_kept_apart(client: Attached) -> None:
    assert client.listener.push("stdout", b"out")
    assert client.listener.push("stderr", b"err")
    assert os.read(client.output, 99) == b"out"
    assert os.read(client.errors, 99) == b"err"


def test_what_a_slow_reader_has_not_read_is_kept_and_it_counts_as_full(client: Attached) -> None:
    for _ in range(3 * LIMIT // 65536):
        assert client.listener.push("stdout", b"x" * 65536)
    assert client.listener.is_full()


def test_everything_arrives_in_order(client: Attached) -> None:
    sent = bytes(range(256)) * 2000
    client.listener.push("stdout", sent)
    received = b""
    while len(received) < len(sent):
        received += os.read(client.output, 65536)
        client.listener.write()
    assert received == sent
    assert not client.listener.is_full()


def test_one_that_is_gone_is_noticed(client: Attached) -> None:
    assert not client.listener.is_gone()
    os.close(client.output)
    client.output = -1
    assert client.listener.is_gone()
    assert not client.listener.push("stdout", b"x")
    # The last words do not wait for it.
    client.listener.flush(60)


def test_a_client_that_reads_nothing_holds_the_end_up_only_so_long(client: Attached) -> None:
    client.listener.push("stdout", b"x" * (LIMIT // 2))
    client.listener.flush(0.01)
    assert any(client.listener.waiting.values())
