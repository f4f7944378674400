"""What a container of `rp oci` uses and runs: events and ps.

Shapes are runc's: numbers that a controller would tell are 0 where it is not delegated.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from rootlesspy.engine.oci_runtime import lifecycle
from rootlesspy.errors import NotFound, RuntimeFailure, UsageError
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
    _, container = place.load(container_id)
    kills = _keyed(container, "memory.events").get("oom_kill", 0)
    while True:
        yield event(place, container_id)
        time.sleep(pause_s)
        now = _keyed(container, "memory.events").get("oom_kill", kills)
        for _ in range(now - kills):
            yield {"type": "oom", "id": container_id}
        kills = now
        directory, _ = place.load(container_id)
        if container.status(directory) == "stopped":
            return


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
        with open(f"{container.cgroup_path}/{name}", encoding="ascii") as file:
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
