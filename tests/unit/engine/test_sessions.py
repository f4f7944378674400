"""Exec sessions with a real poll loop and real processes; the hand-shake's other side is played."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from rootlesspy.engine.supervision import loop
from rootlesspy.engine.supervision.exec_request import Wish
from rootlesspy.engine.supervision.sessions import Sessions
from rootlesspy.errors import CommandNotFound, Error
from rootlesspy.runtime import join, sync

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_FOUND = sync.Failed("exec", 2, "", "No such file or directory")


class Played:
    """One session, and its side of the container."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, program: str = "sleep 1000") -> None:
        self.told: list[object] = []
        self.joiner = subprocess.Popen(["sleep", "1000"])
        self.sibling = subprocess.Popen(["sh", "-c", f"exec {program}"])
        ours, self.channel = sync.channel_pair()
        self.slot = mmap.mmap(-1, 4)
        self.turns = loop.Loop()
        joining = join.Joining(
            self.joiner.pid, os.pidfd_open(self.joiner.pid), ours, True, self.slot
        )
        monkeypatch.setattr(join, "launch", lambda *_: joining)
        self.sessions = Sessions(_Job(), self.turns, _Running())  # type: ignore[arg-type]  # parts
        self.session = self.sessions.begin(
            Wish(args=("nosuch",)),
            (0, 1, 2),
            started=lambda _session, _fd: self.told.append("started"),
            failed=self.told.append,
            ended=self.told.append,
        )
        self.channel.expect(sync.PLACED)

    def born(self) -> None:
        """Do what the kernel does when the new process exists."""
        self.slot[:] = self.sibling.pid.to_bytes(4, sys.byteorder)

    def joined(self) -> None:
        """Say what the process that joined says last."""
        pidfd = os.pidfd_open(self.sibling.pid)
        self.channel.send(join.JOINED, passed_fd=pidfd)
        os.close(pidfd)

    def turn(self, count: int) -> None:
        """Let the supervisor see what was said."""
        for _ in range(count):
            self.turns.after("no waiting", 0, lambda: None)
            self.turns.turn()

    def is_reaped(self) -> bool:
        """Say whether the new process is gone, zombie and all."""
        return not os.path.lexists(f"/proc/{self.sibling.pid}")


class _Job:
    spec: ClassVar[Any] = {"process": {"cwd": "/", "args": ["x"]}, "linux": {"namespaces": []}}

    class plan:
        user, group_add, set_groups, filter = "", (), True, None

    class record:
        unit = ""


class _Running:
    cgroup_fd, connection = -1, None

    class init:
        pid, pidfd, ruleset_fd = 0, -1, -1


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    made = Played(monkeypatch)
    yield made
    _clean(made)


def _clean(made: Played) -> None:
    made.channel.close()
    for process in (made.joiner, made.sibling):
        # Reaped by the session: then there is nothing to wait for.
        process.kill()
        process.wait()


def end_of(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and wait until it is a zombie; reaping is the session's business."""
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_it_starts_and_ends(played: Played) -> None:
    played.born()
    played.joined()
    end_of(played.joiner)
    played.channel.close()
    played.turn(3)
    assert played.told == ["started"]
    assert played.session.pid == played.sibling.pid
    assert not os.path.lexists(f"/proc/{played.joiner.pid}")
    end_of(played.sibling)
    played.turn(1)
    assert played.told == ["started", 128 + 9]
    assert played.is_reaped()


@pytest.mark.parametrize("first", ["FAILED", "JOINED"])
def test_a_failure_is_told_and_the_process_reaped(played: Played, first: str) -> None:
    """In either order: the new process may be faster than the one that says that it exists."""
    played.born()
    if first == "JOINED":
        played.joined()
    played.channel.send_failure(NOT_FOUND)
    played.turn(2)
    if first == "FAILED":
        played.joined()
    end_of(played.joiner)
    end_of(played.sibling)
    played.channel.close()
    played.turn(3)
    assert [type(each) for each in played.told] == [CommandNotFound]
    assert played.is_reaped()


def test_a_joiner_that_dies_before_it_says_so_leaves_nobody(played: Played) -> None:
    """The kernel has written down who was born; nobody but the supervisor can reap it."""
    played.born()
    end_of(played.joiner)
    played.channel.close()
    played.turn(2)
    assert [type(each).__name__ for each in played.told] == ["RuntimeFailure"]
    assert played.is_reaped()


def test_a_lost_pidfd_leaves_nobody(played: Played) -> None:
    """As when the supervisor has no descriptor free."""
    played.born()
    played.channel.send(join.JOINED)
    played.channel.close()
    played.turn(2)
    assert len(played.told) == 1
    assert played.is_reaped()


@pytest.mark.parametrize("said", ["nothing", "FAILED", "JOINED", "all"])
def test_the_container_s_end_while_it_begins(played: Played, said: str) -> None:
    played.born()
    if said in ("JOINED", "all"):
        played.joined()
    if said == "FAILED":
        played.channel.send_failure(NOT_FOUND)
    if said == "all":
        played.channel.close()
    end_of(played.sibling)
    played.sessions.end()
    assert played.is_reaped()
    if said == "all":
        assert played.told == ["started", 128 + 9]
    else:
        assert len(played.told) == 1
        assert type(played.told[0]) is (CommandNotFound if said == "FAILED" else Error)
