"""How a container ended: what its supervisor saw becomes the exit record."""

from __future__ import annotations

import os
import time

from rootlesspy.engine import record
from rootlesspy.errors import Error
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.systemd import scope

if TYPE_CHECKING:
    from rootlesspy.engine.supervision.job import Job
    from rootlesspy.engine.supervision.start import Running
    from rootlesspy.systemd import cgroup

_KILLED = 128 + signal.SIGKILL


class Seen(NamedTuple):
    """What the supervisor saw of an end."""

    wait_status: int
    """As waitpid(2) has it."""
    emulated: int
    """The signal for which SIGKILL stood (payload_signal.send), or 0."""
    reason: str
    error: str
    usage: cgroup.Usage | None


def of(task: Job, running: Running, seen: Seen) -> record.ExitRecord:
    """Return the record of an end; the bus is asked while it still answers."""
    exit_code, number = _status(seen)
    usage = _final_usage(task, running, seen.usage)
    oom_killed = is_oom_kill(usage, exit_code, seen.reason)
    error = seen.error
    if oom_killed and not error:
        limit = task.spec["linux"].get("resources", {}).get("memory", {}).get("limit")
        error = "out of memory" + (f": the limit is {limit} bytes" if limit else "")
    return record.ExitRecord(
        exit_code=exit_code,
        finished_s=time.time(),
        started_s=running.started_s,
        oom_killed=oom_killed,
        error=error,
        memory_peak_bytes=usage.memory_peak_bytes if usage else None,
        cpu_usage_us=usage.cpu_usage_us if usage else None,
        reason=_final_reason(task, running, seen.reason, number),
        signal=number,
        usage={
            name: value
            for name, value in (usage._asdict() if usage else {}).items()
            if value is not None
        },
    )


def with_warnings(task: Job, ended: record.ExitRecord) -> record.ExitRecord:
    """Add what poststop hooks have said to an end that has nothing else to say."""
    if task.hooks is None or ended.error:
        return ended
    return ended._replace(error="; ".join(task.hooks.warnings))


def is_oom_kill(usage: cgroup.Usage | None, exit_code: int, reason: str) -> bool:
    """Say whether the container ended because memory ran out.

    Not when the kernel killed a process of it that it went on without: their number is in the
    usage.  An init or a shell passes the 137 of its child on.
    """
    return bool(usage and usage.oom_kills) and exit_code == _KILLED and not reason


def _status(seen: Seen) -> tuple[int, int]:
    """Return the exit code and the signal it died of, or 0."""
    code = os.waitstatus_to_exitcode(seen.wait_status)
    if code == -signal.SIGKILL and seen.emulated:
        code = -seen.emulated
    return (code if code >= 0 else 128 - code), max(0, -code)


def _final_usage(task: Job, running: Running, usage: cgroup.Usage | None) -> cgroup.Usage | None:
    """Return what the payload used; systemd's totals where its cgroup was gone too soon."""
    connection, meter = running.connection, running.meter
    if usage is None or connection is None or meter is None or not meter.is_late:
        return usage
    if task.record.remove:
        # Nobody will ever read it.
        return usage
    try:
        shown = scope.show(connection, task.record.unit)
    except Error:
        return usage
    if shown is None:
        return usage
    cpu_usage_us = None if shown.cpu_usage_ns is None else shown.cpu_usage_ns // 1000
    return usage._replace(
        cpu_usage_us=max(filter(None, (cpu_usage_us, usage.cpu_usage_us)), default=None),
        memory_peak_bytes=max(
            filter(None, (shown.memory_peak_bytes, usage.memory_peak_bytes)), default=None
        ),
    )


def _final_reason(task: Job, running: Running, reason: str, number: int) -> str:
    """Say who ended it: SIGKILL after a stop that asked for another signal is its timeout."""
    killed = number == signal.SIGKILL != task.record.stop_signal
    if reason in ("stop", "systemctl") and killed:
        return "timeout"
    if reason == "systemctl" and _manager_is_stopping(running):
        return "shutdown"
    return reason


def _manager_is_stopping(running: Running) -> bool:
    connection = running.connection
    try:
        return connection is not None and connection.manager_property("SystemState") == "stopping"
    except Error:
        # A manager that does not answer any more is on its way out.
        return True
