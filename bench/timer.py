"""Time commands side by side: runs inside the rig as alice, reads a Group as JSON from stdin.

Stands alone (standard library only).  The contestants take turns in a new random order each
round, so that a busy machine is busy for all of them.  Before each command the machine is left to
settle: what a command leaves running in the background is not charged to the next one.  Who fails
may try again; who fails again is out, and what it said is told.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from typing import Any, NamedTuple

_COMMAND_LIMIT_S = 180.0
_SETTLE_LIMIT_S = 2.0
_SETTLE_PAUSE_S = 0.005
# Containers that stay keep processes: then it is enough that none came or went for so long.
_UNCHANGED_S = 0.15
# What a failure had to do with what came before is over by then.
_PAUSE_S = 0.5
_SAID_BYTES = 1500


class Failed(Exception):
    """A command that did not end with 0."""


class Taken(NamedTuple):
    """What one command took: wall time, user and system time; and what it printed."""

    wall_ms: float
    cpu_ms: float
    out: bytes


def main() -> int:
    """Time one group; print values, failures and processor times per contestant as JSON."""
    group: dict[str, Any] = json.load(sys.stdin)
    contestants: list[dict[str, Any]] = list(group["contestants"])
    values: dict[str, list[float]] = {each["name"]: [] for each in contestants}
    cpu_ms: dict[str, list[float]] = {each["name"]: [] for each in contestants}
    failed: dict[str, str] = {}
    repeated: dict[str, str] = {}
    quiet_count = _processes()
    # Always the same orders: the noise differs from run to run anyway.
    order = random.Random(0)
    began_s = time.monotonic()
    for done in range(-1 if group["warm_up"] else 0, group["rounds"]):
        if done >= group["least_rounds"] and time.monotonic() - began_s > group["limit_s"]:
            break
        order.shuffle(contestants)
        for contestant in list(contestants):
            name = contestant["name"]
            try:
                value, used_ms = _round(contestant, quiet_count, repeated)
            except Failed as error:
                failed[name] = str(error)
                contestants.remove(contestant)
                del values[name], cpu_ms[name]
                continue
            if done >= 0:
                values[name].append(value)
                cpu_ms[name].append(used_ms)
        if done < 0:
            began_s = time.monotonic()
    found = {"values": values, "failed": failed, "cpu_ms": cpu_ms, "repeated": repeated}
    json.dump(found, sys.stdout)
    return 0


def _round(
    contestant: dict[str, Any], quiet_count: int, repeated: dict[str, str]
) -> tuple[float, float]:
    """Have a contestant's turn, a second time when the first one failed; note that it did."""
    try:
        return _turn(contestant, quiet_count)
    except Failed as error:
        repeated[contestant["name"]] = str(error)
    time.sleep(_PAUSE_S)
    return _turn(contestant, quiet_count)


def _turn(contestant: dict[str, Any], quiet_count: int) -> tuple[float, float]:
    """Run a contestant's command between its preparations; return its value and its CPU time."""
    try:
        for argv in contestant["before"]:
            _run(argv, terminal=False)
        _settle(quiet_count)
        taken = _run(contestant["argv"], terminal=contestant["terminal"])
    finally:
        for argv in contestant["after"]:
            _run(argv, terminal=False)
    if not contestant["reports"]:
        return taken.wall_ms, taken.cpu_ms
    try:
        return float(taken.out.split()[-1]), taken.cpu_ms
    except (IndexError, ValueError):
        raise Failed(f"{' '.join(contestant['argv'])}: no number in {taken.out[-200:]!r}") from None


def _run(argv: list[str], *, terminal: bool) -> Taken:
    """Run a command to its end, 180 s at most."""
    out_fd = os.memfd_create("stdout", os.MFD_CLOEXEC)
    err_fd = os.memfd_create("stderr", os.MFD_CLOEXEC)
    try:
        began_ns = time.monotonic_ns()
        pid, master_fd = _on_terminal(argv) if terminal else (_spawn(argv, out_fd, err_fd), -1)
        status, used = _wait(pid, master_fd)
        wall_ms = (time.monotonic_ns() - began_ns) / 1e6
        said = _tail(err_fd) or _tail(out_fd)
        if status != 0:
            what = "no end in 180 s" if status is None else f"exit {status}"
            raise Failed(f"{' '.join(argv)}: {what}: {said}"[:_SAID_BYTES])
        out = os.pread(out_fd, 1 << 16, 0)
        return Taken(wall_ms, (used.ru_utime + used.ru_stime) * 1e3, out)
    finally:
        os.close(out_fd)
        os.close(err_fd)


def _spawn(argv: list[str], out_fd: int, err_fd: int) -> int:
    # Not /dev/null: what it said is told when it fails, and some report their value there.
    try:
        return os.posix_spawnp(
            argv[0],
            argv,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, out_fd, 1),
                (os.POSIX_SPAWN_DUP2, err_fd, 2),
            ],
            setpgroup=0,
        )
    except OSError as error:
        raise Failed(f"{argv[0]}: {error.strerror}") from None


def _on_terminal(argv: list[str]) -> tuple[int, int]:
    pid, master_fd = os.forkpty()
    if pid == 0:
        try:
            os.execvp(argv[0], argv)
        finally:
            os._exit(127)
    return pid, master_fd


def _wait(pid: int, master_fd: int) -> tuple[int | None, Any]:
    """Read the terminal, if there is one, and wait for the end; None: it had to be killed."""
    killed = False
    pidfd = os.pidfd_open(pid)
    limit_s = time.monotonic() + _COMMAND_LIMIT_S
    watched = [pidfd, master_fd] if master_fd >= 0 else [pidfd]
    try:
        while pidfd in watched or master_fd in watched:
            ready = select.select(watched, [], [], max(0.0, limit_s - time.monotonic()))[0]
            if not ready:
                os.killpg(pid, signal.SIGKILL)
                killed = True
                break
            if master_fd in ready and not _drained(master_fd):
                watched.remove(master_fd)
            elif pidfd in ready and master_fd not in ready:
                break
        _, status, used = os.wait4(pid, 0)
        return None if killed else os.waitstatus_to_exitcode(status), used
    finally:
        os.close(pidfd)
        if master_fd >= 0:
            os.close(master_fd)


def _drained(master_fd: int) -> bool:
    """Read what is there; say whether somebody still has the terminal."""
    try:
        return bool(os.read(master_fd, 1 << 16))
    except OSError:
        return False


def _tail(fd: int) -> str:
    size = os.fstat(fd).st_size
    text = os.pread(fd, _SAID_BYTES, max(0, size - _SAID_BYTES)).decode(errors="replace")
    return " ".join(text.split())


def _settle(quiet_count: int) -> None:
    """Wait until no more processes run than at first, or none comes or goes; 2 s at most."""
    began_s = since_s = time.monotonic()
    count = _processes()
    while count > quiet_count:
        time.sleep(_SETTLE_PAUSE_S)
        now_s, now = time.monotonic(), _processes()
        if now != count:
            count, since_s = now, now_s
        if now_s - since_s > _UNCHANGED_S or now_s - began_s > _SETTLE_LIMIT_S:
            return


def _processes() -> int:
    return sum(name.isdigit() for name in os.listdir("/proc"))


if __name__ == "__main__":
    sys.exit(main())
