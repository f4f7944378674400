"""What a container of `rp oci` uses and runs: events and ps.

Shapes are runc's: numbers that a controller would tell are 0 where it is not delegated.
"""

from __future__ import annotations

import os
import select
import subprocess
import time

from rootlesspy.engine.oci_runtime import lifecycle
from rootlesspy.errors import NotFound, RuntimeFailure, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.systemd import values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rootlesspy.engine.oci_runtime.state import Container, Place


def event(place: Place, container_id: str) -> dict[str, object]:
    """Return one event of type stats.  Raises NotFound."""
    directory, container = place.load(container_id)
    if container.status(directory) == "stopped":
        raise NotFound("container not running")
    return {"type": "stats", "id": container.id, "data": usage(container)}


def follow(place: Place, container_id: str, interval: str) -> Iterator[dict[str, object]]:
    """Yield the stats every interval, and an event oom for each kill, until the container ends.

    Raises NotFound, UsageError.
    """
    try:
        pause_s = values.span_us(interval) / 1_000_000
    except ValueError as error:
        raise UsageError(f"--interval {interval}: {error}") from error
    if pause_s <= 0:
        raise UsageError("--interval must be more than 0")
    yield event(place, container_id)
    directory, container = place.load(container_id)
    pidfd, events_fd = lifecycle.open_init(container), _open_events(container)
    kills = _kills(events_fd)
    next_s = time.monotonic() + pause_s
    try:
        while container.status(directory) != "stopped":
            _wait(pidfd, events_fd, next_s - time.monotonic())
            now = _kills(events_fd)
            for _ in range(now - kills):
                yield {"type": "oom", "id": container_id}
            kills = max(kills, now)
            if now < 0 <= events_fd:
                # The cgroup is gone: its file would wake us without end.
                os.close(events_fd)
                events_fd = -1
            if time.monotonic() >= next_s and container.status(directory) != "stopped":
                yield {"type": "stats", "id": container.id, "data": usage(container)}
                next_s = time.monotonic() + pause_s
    finally:
        for fd in (pidfd, events_fd):
            if fd >= 0:
                os.close(fd)


def _open_events(container: Container) -> int:
    """Open memory.events, which tells of kills at once; -1 where there is none."""
    if not container.cgroup_path:
        return -1
    try:
        return os.open(f"{container.limited_path()}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _kills(fd: int) -> int:
    """Return how many processes the kernel has killed for want of memory; -1: nobody knows."""
    try:
        rows = (line.split() for line in os.pread(fd, 4096, 0).splitlines())
    except OSError:
        return -1
    return next((int(count) for key, count in rows if key == b"oom_kill"), 0)


def _wait(pidfd: int, events_fd: int, time_s: float) -> None:
    """Wait until a container ends, its memory.events changes, or for a time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if events_fd >= 0:
        poll.register(events_fd, select.POLLPRI)
    # poll(2) takes less than 25 days.
    poll.poll(min(24 * 3600.0, max(0.0, time_s)) * 1000)


def usage(container: Container) -> dict[str, object]:
    """Return what a container's cgroup has used, in runc's shape; times in nanoseconds."""
    cpu = _keyed(container, "cpu.stat")
    memory = _keyed(container, "memory.stat")
    return {
        "cpu": {
            "usage": {
                "total": cpu.get("usage_usec", 0) * 1000,
                "kernel": cpu.get("system_usec", 0) * 1000,
                "user": cpu.get("user_usec", 0) * 1000,
            },
            "throttling": {
                "periods": cpu.get("nr_periods", 0),
                "throttledPeriods": cpu.get("nr_throttled", 0),
                "throttledTime": cpu.get("throttled_usec", 0) * 1000,
            },
        },
        "memory": {
            "cache": memory.get("file", 0),
            "usage": {
                "usage": _number(container, "memory.current"),
                "limit": _number(container, "memory.max"),
                "max": _number(container, "memory.peak"),
            },
            "swap": {
                "usage": _number(container, "memory.swap.current"),
                "limit": _number(container, "memory.swap.max"),
            },
            "raw": memory,
        },
        "pids": {
            "current": _number(container, "pids.current") or len(lifecycle.processes(container)),
            "limit": _number(container, "pids.max"),
        },
        "blkio": {},
        "hugetlb": {},
    }


def _text(container: Container, name: str) -> str:
    if not container.cgroup_path:
        return ""
    try:
        with open(f"{container.limited_path()}/{name}", encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _number(container: Container, name: str) -> int:
    word = _text(container, name).strip()
    # runc's word for "no limit" is the largest number.
    return int(word) if word.isdigit() else 2**64 - 1 if word == "max" else 0


def _keyed(container: Container, name: str) -> dict[str, int]:
    rows = (line.split() for line in _text(container, name).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def process_table(pids: Sequence[int], options: Sequence[str]) -> str:
    """Return the host's ps(1) cut down to some processes.  Raises RuntimeFailure."""
    try:
        done = subprocess.run(
            ["ps", *(options or ("-ef",))],
            capture_output=True,
            check=False,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        raise RuntimeFailure(f"ps: {error.strerror}", step="ps") from error
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode or not lines:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise RuntimeFailure(f"ps: {words}", step="ps")
    header = lines[0].split()
    if "PID" not in header:
        raise UsageError("ps prints no PID column with these options")
    column = header.index("PID")
    wanted = {str(pid) for pid in pids}
    kept = [line for line in lines[1:] if len(f := line.split()) > column and f[column] in wanted]
    return "\n".join([lines[0], *kept]) + "\n"
