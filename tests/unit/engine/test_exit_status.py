"""What a supervisor saw of an end, and what goes on record."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from rootlesspy.engine.supervision import exit_status
from rootlesspy.systemd import cgroup


def usage(**values: int) -> cgroup.Usage:
    return cgroup.Usage(**{**dict.fromkeys(cgroup.Usage._fields), **values})


class _Job:
    class record:
        stop_signal, remove, unit = 15, False, ""

    def __init__(self, memory: int = 0) -> None:
        limits = {"memory": {"limit": memory}} if memory else {}
        self.spec: Any = {"linux": {"resources": limits}}


class _Running:
    started_s, meter = 5.0, None

    def __init__(self, system_state: str = "") -> None:
        self.connection = _Bus(system_state) if system_state else None


class _Bus:
    def __init__(self, state: str) -> None:
        self._state = state

    def manager_property(self, _name: str) -> str:
        return self._state


def of(
    status: int, *, job: _Job | None = None, running: _Running | None = None, **seen: Any
) -> Any:
    """Make the record of an end: status is waitpid's, and what else was seen."""
    usual = {"emulated": 0, "reason": "", "error": "", "usage": None}
    return exit_status.of(
        job or _Job(),  # type: ignore[arg-type]  # the parts that are read
        running or _Running(),  # type: ignore[arg-type]
        exit_status.Seen(status, **{**usual, **seen}),
    )


def exited(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("status", "emulated", "code", "number"),
    [
        (exited(0), 0, 0, 0),
        (exited(3), 0, 3, 0),
        (signal.SIGTERM, 0, 143, 15),
        (signal.SIGKILL, 0, 137, 9),
        # SIGKILL stood for another one, and is told as that.
        (signal.SIGKILL, signal.SIGTERM, 143, 15),
        # It ended by itself in spite of it.
        (exited(3), signal.SIGTERM, 3, 0),
    ],
)
def test_code_and_signal(status: int, emulated: int, code: int, number: int) -> None:
    found = of(status, emulated=emulated)
    assert (found.exit_code, found.signal) == (code, number)


@pytest.mark.parametrize(
    ("status", "kills", "reason", "oom_killed"),
    [
        (signal.SIGKILL, 1, "", True),
        # An init or a shell passes on how its child ended.
        (exited(137), 1, "", True),
        # A process was lost, and the container went on without it.
        (exited(0), 1, "", False),
        (exited(3), 2, "", False),
        (signal.SIGTERM, 1, "stop", False),
        # Killed by somebody, later.
        (signal.SIGKILL, 1, "kill", False),
        (signal.SIGKILL, 1, "stop", False),
        (signal.SIGKILL, 0, "", False),
    ],
)
def test_out_of_memory_is_what_ended_it(
    status: int, kills: int, reason: str, oom_killed: bool
) -> None:
    found = of(status, reason=reason, usage=usage(oom_kills=kills), job=_Job(memory=4096))
    assert found.oom_killed is oom_killed
    assert found.error == ("out of memory: the limit is 4096 bytes" if oom_killed else "")
    # How many there were is on record in any case.
    assert found.usage == {"oom_kills": kills}


def test_an_error_that_is_known_is_not_hidden_by_memory() -> None:
    found = of(signal.SIGKILL, usage=usage(oom_kills=1), error="network lost")
    assert (found.oom_killed, found.error) == (True, "network lost")


@pytest.mark.parametrize(
    ("status", "reason", "system", "told"),
    [
        (signal.SIGTERM, "stop", "", "stop"),
        (signal.SIGKILL, "stop", "", "timeout"),
        (signal.SIGKILL, "systemctl", "running", "timeout"),
        (signal.SIGTERM, "systemctl", "running", "systemctl"),
        (signal.SIGTERM, "systemctl", "stopping", "shutdown"),
        (signal.SIGKILL, "kill", "", "kill"),
        (exited(0), "", "", ""),
    ],
)
def test_who_ended_it(status: int, reason: str, system: str, told: str) -> None:
    assert of(status, reason=reason, running=_Running(system)).reason == told
