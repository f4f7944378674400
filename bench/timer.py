"""Time commands side by side: runs inside the rig as alice, reads a Group as JSON from stdin.

Stands alone (standard library only).  The contestants take turns in a new random order each
round, so that a busy machine is busy for all of them.  Before each command the machine is left to
settle: what a command leaves running in the background is not charged to the next one.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import Any

_SETTLE_LIMIT_S = 2.0
_SETTLE_PAUSE_S = 0.005
_STDERR_BYTES = 2000


def main() -> int:
    """Time one group; print a list of milliseconds per contestant as JSON."""
    group: dict[str, Any] = json.load(sys.stdin)
    contestants: list[dict[str, Any]] = group["contestants"]
    stderr_fd = os.memfd_create("stderr", os.MFD_CLOEXEC)
    quiet_count = _processes()
    if group["warm_up"]:
        for contestant in contestants:
            _run(contestant, stderr_fd, quiet_count)
    times_ms: dict[str, list[float]] = {each["name"]: [] for each in contestants}
    # Always the same orders: the noise differs from run to run anyway.
    order = random.Random(0)
    began_s = time.monotonic()
    for done in range(group["rounds"]):
        if done >= group["least_rounds"] and time.monotonic() - began_s > group["limit_s"]:
            break
        order.shuffle(contestants)
        for contestant in contestants:
            times_ms[contestant["name"]].append(_run(contestant, stderr_fd, quiet_count))
    json.dump(times_ms, sys.stdout)
    return 0


def _run(contestant: dict[str, Any], stderr_fd: int, quiet_count: int) -> float:
    """Run a contestant's preparations untimed and its command timed; return milliseconds."""
    for argv in contestant["before"]:
        _spawn(argv, stderr_fd)
    _settle(quiet_count)
    began_ns = time.monotonic_ns()
    _spawn(contestant["argv"], stderr_fd)
    return (time.monotonic_ns() - began_ns) / 1e6


def _spawn(argv: list[str], stderr_fd: int) -> None:
    os.ftruncate(stderr_fd, 0)
    os.lseek(stderr_fd, 0, os.SEEK_SET)
    pid = os.posix_spawnp(
        argv[0],
        argv,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, stderr_fd, 2),
        ],
    )
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        said = os.pread(stderr_fd, _STDERR_BYTES, 0).decode(errors="replace")
        raise SystemExit(f"{' '.join(argv)}: exit {status}\n{said}")


def _settle(quiet_count: int) -> None:
    """Wait until no more processes run than before the first command, 2 s at most."""
    limit_s = time.monotonic() + _SETTLE_LIMIT_S
    while _processes() > quiet_count and time.monotonic() < limit_s:
        time.sleep(_SETTLE_PAUSE_S)


def _processes() -> int:
    return sum(name.isdigit() for name in os.listdir("/proc"))


if __name__ == "__main__":
    sys.exit(main())
