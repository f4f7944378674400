"""Kill a command, or let a system call fail, at each system call: runs in the rig as root.

Reads a Sweep as JSON from stdin, prints what went wrong as a JSON list of texts.  Stands alone
(standard library only).  strace counts for each process by itself, so a point (call, n) is the
n-th such call of whichever process of the command gets there first; with failures it is that of
every process.

After each point: nothing of the command runs, images and fsck answer, what fsck finds it cures, the
command then succeeds, the store is sound and nothing is left in tmp/.
"""

from __future__ import annotations

import json
import math
import os
import pwd
import random
import re
import shutil
import subprocess
import sys
import time
from typing import Any

_BASE = "/home/alice/sweep"
_STORE = f"{_BASE}/rootlesspy"
_TRACE = "/run/sweep.trace"
_GONE_LIMIT_S = 120.0
_COMMAND_LIMIT_S = 180
_KILL, _NO_SPACE = "signal=KILL", "error=ENOSPC"
_FAILURE = 125


def main() -> int:
    """Go through all points; print the failures."""
    sweep: dict[str, Any] = json.load(sys.stdin)
    _fresh()
    for argv in sweep["before"]:
        done = _as_alice(argv)
        if done.returncode:
            raise SystemExit(f"{argv}: {done.stderr}")
    _copy(_BASE, f"{_BASE}.template")
    failures, fired, tried = [], 0, 0
    points = sweep["points"] or _points(sweep)
    if sweep["seconds"]:
        random.Random(sweep["seed"]).shuffle(points)
    limit_s = time.monotonic() + (sweep["seconds"] or math.inf)
    for number, (call, what, count) in enumerate(points):
        if time.monotonic() > limit_s:
            break
        tried += 1
        problem, reached = _point(sweep, call, what, count, repairs=number % 2 == 0)
        fired += reached
        if problem:
            failures.append(f"{call} {what} {count}: {problem}")
    for path in (_BASE, f"{_BASE}.template", _TRACE):
        subprocess.run(["rm", "-rf", path], check=True)
    counts = {"points": len(points), "tried": tried, "fired": fired}
    json.dump({**counts, "failures": failures}, sys.stdout)
    return 0


def _points(sweep: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Count the calls of an undisturbed run; return each n-th call of the busiest process."""
    calls = [*sweep["kill"], *sweep["fail"]]
    _copy(f"{_BASE}.template", _BASE)
    directory = f"{_TRACE}.d"
    os.mkdir(directory)
    trace = ["-ff", "-o", f"{directory}/t", "-e", f"trace={','.join(calls)}"]
    done = _traced(sweep["command"], trace)
    if done.returncode:
        raise SystemExit(done.stderr)
    most = dict.fromkeys(calls, 0)
    for name in os.listdir(directory):
        with open(f"{directory}/{name}", errors="replace") as file:
            found = [line.partition("(")[0] for line in file]
        for call in calls:
            most[call] = max(most[call], found.count(call))
    shutil.rmtree(directory)
    return [
        (call, what, count)
        for what, wanted in ((_KILL, sweep["kill"]), (_NO_SPACE, sweep["fail"]))
        for call, step in wanted.items()
        for count in range(1, most[call] + 1, step)
    ]


def _point(
    sweep: dict[str, Any], call: str, what: str, count: int, *, repairs: bool
) -> tuple[str, bool]:
    """Disturb one run; return what is wrong afterwards and whether it was disturbed at all."""
    _copy(f"{_BASE}.template", _BASE)
    inject = ["-f", "-y", "-o", _TRACE, "-e", f"trace={call}",
              "-e", f"inject={call}:{what}:when={count}"]  # fmt: skip
    done = _traced(sweep["command"], inject)
    with open(_TRACE, errors="replace") as file:
        trace = file.read()
    reached = "(INJECTED)" in trace or "killed by SIGKILL" in trace
    if "Traceback" in done.stderr or "internal error" in done.stderr:
        return f"says {done.stderr}", reached
    if what == _NO_SPACE and done.returncode:
        problem = _wrong_words(done, trace)
        if problem or (left := _half_made()):
            return problem or f"leaves {left}", reached
    if running := _still_running():
        return f"still runs: {running}", reached
    return _wrong_afterwards(sweep, repairs=repairs), reached


def _wrong_afterwards(sweep: dict[str, Any], *, repairs: bool) -> str:
    cure = [["rp", "fsck", "--repair"]] if repairs else []
    for argv in (["rp", "images"], ["rp", "fsck"], *cure):
        done = _as_alice(argv)
        wanted = (0, 1) if argv == ["rp", "fsck"] else (0,)
        # What is listed without its content comes back with the next pull only.
        if done.returncode not in wanted or "\nhint:" in done.stderr:
            return f"{' '.join(argv)}: {done.returncode} {done.stdout}{done.stderr}"
    done = _as_alice(sweep["command"])
    if done.returncode and not (sweep["may_be_done"] and done.returncode == 1):
        return f"again: {done.returncode} {done.stderr}"
    # A removal that was killed when the name was gone cannot be asked to go on.
    done = _as_alice(["rp", "fsck", *(["--repair"] if sweep["may_be_done"] else [])])
    if done.returncode:
        return f"in the end: {done.stdout}"
    if left := _half_made():
        return f"left in tmp: {left}"
    running = _still_running()
    return f"in the end runs: {running}" if running else ""


def _wrong_words(done: subprocess.CompletedProcess[str], trace: str) -> str:
    """Say what is wrong with the message of a command that failed for lack of space.

    No kernel fails so for a pipe or socket; where strace did, any words will do, or none if it
    was stderr.
    """
    lines = [line for line in done.stderr.splitlines() if not line.startswith("hint: ")]
    injected = [line for line in _whole(trace) if "(INJECTED)" in line]
    is_real = not any(re.search(r"write\(\d+<[^/]", line) for line in injected)
    says = len(lines) == 1 and "space" in lines[0] if is_real else len(lines) <= 1
    if done.returncode != _FAILURE or not says:
        return f"exit {done.returncode}: {done.stderr!r} {injected}"
    return ""


def _whole(trace: str) -> list[str]:
    """Return a trace's lines, with those together that another process's call has parted."""
    found: list[str] = []
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        pid, _, text = line.partition(" ")
        text = text.lstrip()
        if text.endswith("<unfinished ...>"):
            begun[pid] = text.removesuffix("<unfinished ...>")
            continue
        if text.startswith("<... ") and pid in begun:
            text = begun.pop(pid) + text.partition(" resumed>")[2]
        found.append(f"{pid} {text}")
    return found


def _half_made() -> list[str]:
    tmp = f"{_STORE}/tmp"
    return os.listdir(tmp) if os.path.isdir(tmp) else []


def _still_running() -> list[str]:
    """Return the processes that use the store, once there are none or after a while."""
    limit_s = time.monotonic() + _GONE_LIMIT_S
    while (found := _running()) and time.monotonic() < limit_s:
        time.sleep(0.02)
    return found


def _running() -> list[str]:
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    environment = file.read()
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    command = file.read()
            except OSError:
                continue
            if f"XDG_DATA_HOME={_BASE}".encode() in environment:
                found.append(f"{pid} {command!r}")
    return found


def _traced(argv: list[str], options: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command as alice under root's strace: newuidmap(1) keeps its rights."""
    return _run(["strace", "-u", "alice", "-qqq", *options, *argv])


def _as_alice(argv: list[str]) -> subprocess.CompletedProcess[str]:
    alice = pwd.getpwnam("alice")
    return _run(argv, user=alice.pw_uid, group=alice.pw_gid, extra_groups=[])


def _run(argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        env={
            "PATH": os.environ["PATH"],
            "HOME": "/home/alice",
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": f"/run/user/{pwd.getpwnam('alice').pw_uid}",
            "XDG_DATA_HOME": _BASE,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_COMMAND_LIMIT_S,
        check=False,
        cwd="/",
        **options,
    )


def _fresh() -> None:
    subprocess.run(["rm", "-rf", _BASE, f"{_BASE}.template"], check=True)
    os.mkdir(_BASE, 0o700)
    shutil.chown(_BASE, "alice", "alice")


def _copy(source: str, target: str) -> None:
    subprocess.run(["rm", "-rf", target], check=True)
    subprocess.run(["cp", "-a", source, target], check=True)


if __name__ == "__main__":
    sys.exit(main())
