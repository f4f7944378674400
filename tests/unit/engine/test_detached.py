"""What who starts a container through systemd hears of its supervisor, played by the test."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from rootlesspy.engine import record
from rootlesspy.engine.supervision import control, detached, executed
from rootlesspy.errors import CommandNotFound, RuntimeFailure
from rootlesspy.paths import Paths
from rootlesspy.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOUND = record._unknown("ab" * 32)._replace(name="web")


class Manager:
    """systemd: a bus that says nothing, and one job."""

    def __init__(self, result: str | None = None) -> None:
        self.result = result
        self._ours, self._theirs = socket.socketpair()

    def fileno(self) -> int:
        return self._ours.fileno()

    def poll_events(self) -> int:
        return 1

    def timeout_ms(self) -> int:
        return 0 if self.result else -1

    def process(self) -> None:
        """Nothing comes over the bus."""

    def job_result(self, _job: str) -> str | None:
        return self.result

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = control.socket_pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_started_after_notices(
    ends: tuple[socket.socket, socket.socket], capsys: pytest.CaptureFixture[str]
) -> None:
    control.tell(ends[1], "notice", text="something to know")
    reader, writer = os.pipe()
    control.send(ends[1], "started", (reader,), {"pid": 5})
    os.close(reader)
    detached._await_started(ends[0], Reporter())
    assert "something to know" in capsys.readouterr().err
    # What came with it is closed: nobody is left to read.
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)


@pytest.mark.parametrize("keep", [0, 1])
def test_a_failed_start_has_the_supervisor_s_words(
    ends: tuple[socket.socket, socket.socket], keep: int
) -> None:
    words: dict[str, Any] = {"exit_code": 127, "message": "command 'x' is not found", "hint": "no"}
    control.tell(ends[1], "failed", keep=keep, **words)
    with pytest.raises(detached.StartError, match="'x' is not found") as caught:
        detached._await_started(ends[0], Reporter())
    assert caught.value.keep is bool(keep)
    cause = caught.value.cause
    assert (cause.exit_code, cause.hint) == (CommandNotFound.exit_code, "no")


def test_a_supervisor_that_dies_before_it_says_anything(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ends[1].close()
    with pytest.raises(detached.StartError, match="was killed") as caught:
        detached._await_started(ends[0], Reporter())
    assert caught.value.keep


def test_the_supervisor_calls_back(tmp_path: Path) -> None:
    paths = Paths(data="/nonexistent", runtime=os.fspath(tmp_path), config="/x")
    listener = control.listen(paths, FOUND.id, control.STARTER)
    caller = control.connect(paths, FOUND.id, control.STARTER)
    assert caller is not None
    manager = Manager()
    end = executed._accept(manager, listener, "/job/1", FOUND)  # type: ignore[arg-type]  # played
    control.tell(caller, "started")
    assert control.receive(end) is not None
    for each in (end, caller, listener, manager):
        each.close()


def test_a_service_that_ends_before_it_calls(tmp_path: Path) -> None:
    paths = Paths(data="/nonexistent", runtime=os.fspath(tmp_path), config="/x")
    listener = control.listen(paths, FOUND.id, control.STARTER)
    manager = Manager(result="failed")
    with pytest.raises(RuntimeFailure, match=r"rp-web\.service ended .* job failed") as caught:
        executed._accept(manager, listener, "/job/1", FOUND)  # type: ignore[arg-type]  # played
    assert caught.value.hint == "journalctl --user -n 20 -u rp-web.service"
    listener.close()
    manager.close()


def test_the_lock_is_given_back_when_there_is_no_manager(tmp_path: Path) -> None:
    paths = Paths(data="/nonexistent", runtime=os.fspath(tmp_path), config="/x")
    lock_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(detached.StartError) as caught:
        detached.begin(paths, FOUND, lock_fd, Reporter())
    assert not caught.value.keep
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lock_fd)
