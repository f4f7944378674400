"""The runner of health checks with a real poll loop, and sessions that the test plays."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from rootlesspy.engine import record
from rootlesspy.engine.inputs import health_values
from rootlesspy.engine.output import events
from rootlesspy.engine.supervision import health_runner, healthcheck, loop
from rootlesspy.engine.supervision.health_runner import HealthRunner
from rootlesspy.errors import CommandNotFound, RuntimeFailure
from rootlesspy.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Sessions:
    """Stands in for engine.supervision.sessions: remembers what was begun."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []

    def begin(self, wish: Any, stdio: tuple[int, int, int], **callbacks: Any) -> Any:
        output = os.dup(stdio[1])
        self.begun.append({"args": wish.args, "output": output, **callbacks})
        return Session()

    def end(self, code: int, said: bytes = b"") -> None:
        """End the check that was begun last."""
        last = self.begun[-1]
        os.write(last["output"], said)
        os.close(last["output"])
        last["ended"](code)


class Session:
    """A process that cannot be killed by mistake."""

    pid = 0

    class joining:
        pidfd = -1


class Bench:
    """A runner and everything around it."""

    def __init__(self, directory: Path, payload: int, **options: Any) -> None:
        self.directory = directory
        self.actions: list[str] = []
        self.statuses: list[str] = []
        self.replies: list[tuple[int, str]] = []
        self.turns = loop.Loop()
        self.sessions = Sessions()
        request = health_values.HealthRequest(
            test=("CMD", "check"), interval_ns=0, retries=1, **options
        )
        found = record._unknown("ab" * 32)._replace(
            health=health_values.resolve(request, None, None)
        )

        class Init:
            pidfd = payload

        class Running:
            init = Init()
            cgroup_fd = -1

        self.runner = HealthRunner(
            os.fspath(directory),
            found,
            self.turns,
            self.sessions,  # type: ignore[arg-type]  # plays its part
            Running(),  # type: ignore[arg-type]  # plays its part
            act=self.actions.append,
            changed=self.statuses.append,
        )
        self.runner.begin()

    def ask(self) -> None:
        self.runner.request(lambda code, status: self.replies.append((code, status)))
        self.turns.turn()

    def give_time(self) -> None:
        """Turn until a check that was killed has been judged, or not, for the container's end."""
        past: list[bool] = []
        # Set after the runner's own timer, which therefore comes first.
        self.turns.after("given", health_runner._GRACE_S, lambda: past.append(True))
        while not past:
            self.turns.turn()

    @property
    def health(self) -> healthcheck.Health:
        paths = Paths(data=os.fspath(self.directory.parent.parent), runtime=None, config="")
        found = healthcheck.read(paths, self.directory.name)
        assert found is not None
        return found


@pytest.fixture
def payload(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return the pidfd of a process that stands for the payload."""
    monkeypatch.setattr(events, "emit", lambda *_arguments, **_fields: None)
    process = subprocess.Popen(["sleep", "1000"])
    pidfd = os.pidfd_open(process.pid)
    yield pidfd
    process.kill()
    process.wait()
    os.close(pidfd)


@pytest.fixture
def bench(tmp_path: Path, payload: int) -> Bench:
    directory = tmp_path / "containers" / "hc"
    directory.mkdir(parents=True)
    return Bench(directory, payload, on_failure="stop")


def test_a_result_is_told_to_whoever_asked_written_and_acted_on(bench: Bench) -> None:
    assert bench.health == healthcheck.Health()
    bench.ask()
    assert bench.sessions.begun[0]["args"] == ("check",)
    bench.sessions.end(0, b"fine\n")
    assert bench.replies == [(0, "healthy")]
    assert (bench.health.status, bench.health.log[0].output) == ("healthy", "fine")
    bench.ask()
    bench.sessions.end(1)
    assert bench.replies[1:] == [(1, "unhealthy")]
    assert bench.statuses == ["healthy", "unhealthy"]
    assert bench.actions == ["stop"]


def test_two_who_ask_at_once_share_a_check(bench: Bench) -> None:
    bench.ask()
    bench.runner.request(lambda code, status: bench.replies.append((code, status)))
    bench.sessions.end(0)
    assert bench.replies == [(0, "healthy")] * 2
    assert len(bench.sessions.begun) == 1


def test_a_check_that_the_end_of_its_container_kills_is_none(bench: Bench, payload: int) -> None:
    bench.ask()
    # The kernel kills what is in the PID namespace before its first process is seen to end.
    bench.sessions.end(128 + signal.SIGKILL)
    signal.pidfd_send_signal(payload, signal.SIGKILL)
    os.waitid(os.P_PIDFD, payload, os.WEXITED | os.WNOWAIT)
    bench.give_time()
    assert bench.health == healthcheck.Health()
    assert (bench.replies, bench.actions) == ([], [])


def test_a_check_that_was_killed_alone_has_failed(bench: Bench) -> None:
    bench.ask()
    bench.sessions.end(128 + signal.SIGKILL)
    assert bench.replies == []
    bench.give_time()
    assert bench.replies == [(137, "unhealthy")]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandNotFound("command 'check' is not found in the image", step="exec"), 127),
        (RuntimeFailure("cannot join", step="join"), 125),
    ],
)
def test_a_check_that_cannot_be_run_has_failed(
    bench: Bench, error: RuntimeFailure, code: int
) -> None:
    bench.ask()
    bench.sessions.begun[0]["failed"](error)
    assert bench.replies == [(code, "unhealthy")]
    assert bench.health.log[0].output == error.message


def test_a_check_that_cannot_even_begin_has_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_callbacks: object) -> None:
        raise RuntimeFailure("cannot fork: Resource temporarily unavailable", step="fork")

    monkeypatch.setattr(bench.sessions, "begin", refuse)
    bench.ask()
    assert bench.replies == [(125, "unhealthy")]


def test_after_the_end_nothing_is_judged(bench: Bench) -> None:
    bench.ask()
    bench.runner.end()
    bench.sessions.end(1)
    assert bench.health == healthcheck.Health()
    assert bench.actions == []


def test_a_paused_container_is_not_judged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.runner, "_is_frozen", lambda: True)
    bench.ask()
    assert bench.sessions.begun == []
    assert bench.replies == [(-1, "starting")]
    assert bench.health == healthcheck.Health()


def test_a_full_disk_ends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(healthcheck, "write", refuse)
    bench.ask()
    bench.sessions.end(0)
    assert bench.replies == [(0, "healthy")]


def test_output_beyond_the_limit_is_read_and_dropped(tmp_path: Path, payload: int) -> None:
    directory = tmp_path / "containers" / "hc"
    directory.mkdir(parents=True)
    bench = Bench(directory, payload, max_log_size=10)
    bench.ask()
    writer = bench.sessions.begun[0]["output"]
    for _ in range(30):
        os.write(writer, b"x" * 60_000)
        bench.turns.turn()
    bench.sessions.end(0)
    assert bench.health.log[0].output == "x" * 10
