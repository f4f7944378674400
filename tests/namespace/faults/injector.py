"""Kill a command, or let a system call fail, at many system calls; look at the contract each time.

strace counts for each process by itself, so a point (call, n) is the n-th such call of every
process of the command that gets there; a killed one leaves the others alone, as the kernel's OOM
killer does.  Sent into the rig by its text (faults/driving.py).
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from namespace.faults import contract

_TRACE = "/run/injected.trace"
KILL = "signal=KILL"


def main(job: dict[str, Any]) -> None:
    """Go through all points of a job; print what went wrong and how many points were reached.

    job: before and after (argvs), command, points ((call, what, n), or none for all of) steps
    (what → call → step), codes the command may end with, again (it is tried afterwards at every
    n-th point), supervisor (of what container is disturbed instead of the command, or ""),
    seconds (so many of all points as fit in, chosen by seed; 0 for all).
    """
    held = contract.Contract()
    points = job["points"] or _all_points(held, job)
    if job["seconds"]:
        random.Random(job["seed"]).shuffle(points)
    limit_s = time.monotonic() + (job["seconds"] or math.inf)
    failures, fired, tried = [], 0, 0
    for number, (call, what, count) in enumerate(points):
        if time.monotonic() > limit_s:
            break
        tried += 1
        found, reached = _point(
            held, job, call, what, count, again=number % job["again"] == job["again"] - 1
        )
        fired += reached
        failures += [f"{call} {what} {count}: {each}" for each in found]
        if job.get("verbose"):
            told = (number, len(points), call, what, count, reached, found)
            print(*told, file=sys.stderr, flush=True)
    if os.path.exists(_TRACE):
        os.unlink(_TRACE)
    counts = {"points": len(points), "tried": tried, "fired": fired}
    json.dump({**counts, "failures": failures}, sys.stdout)


def _prepare(held: contract.Contract, job: dict[str, Any]) -> None:
    for argv in job["before"]:
        done = held.run(argv)
        if done.returncode:
            raise SystemExit(f"{argv}: {done.stdout}{done.stderr}")


def _all_points(held: contract.Contract, job: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Count the calls of an undisturbed run; return each n-th call of the busiest process."""
    calls = sorted({call for steps in job["steps"].values() for call in steps})
    _prepare(held, job)
    directory = f"{_TRACE}.d"
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory)
    # Until the payload: what it does itself is not the runner's.
    _traced(held, job, ["-ff", "-o", f"{directory}/t", "-e", f"trace={','.join(calls)}"])
    most = contract.most_calls(directory, calls)
    wrong = _cleared(held, job)
    if wrong:
        raise SystemExit(f"undisturbed: {wrong}")
    return [
        (call, what, count)
        for what, wanted in job["steps"].items()
        for call, step in wanted.items()
        for count in range(1, most[call] + 1, step)
    ]


def _point(
    held: contract.Contract, job: dict[str, Any], call: str, what: str, count: int, *, again: bool
) -> tuple[list[str], bool]:
    """Disturb one run; return what is wrong, and whether it was disturbed at all."""
    _prepare(held, job)
    inject = ["-f", "-o", _TRACE, "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={count}"]
    try:
        done = _traced(held, job, inject)
    except subprocess.TimeoutExpired:
        held.clear()
        return ["S1: it does not end"], True
    with open(_TRACE, errors="replace") as file:
        trace = file.read()
    reached = "(INJECTED)" in trace or "killed by SIGKILL" in trace
    found = contract.wrong_words(done, tuple(job["codes"]))
    found += held.problems(images=again)
    found += _cleared(held, job)
    if again and not found:
        _prepare(held, job)
        done = held.run(job["command"])
        if done.returncode not in job["codes"] or done.returncode == 125:
            found.append(f"again: {done.returncode} {done.stdout}{done.stderr}")
        found += _cleared(held, job)
    return found, reached


def _cleared(held: contract.Contract, job: dict[str, Any]) -> list[str]:
    for argv in job.get("after", ()):
        held.run(argv)
    return held.clear()


def _traced(
    held: contract.Contract, job: dict[str, Any], options: list[str]
) -> subprocess.CompletedProcess[str]:
    """Run the command as the user under root's strace: newuidmap(1) keeps its rights.

    With job["supervisor"], the name of a container, its supervisor is what is traced.
    """
    if job.get("supervisor"):
        return _beside(held, job, options)
    return _until_it_ends(
        held, ["strace", "-D", "-I2", "-u", held.user, "-qqq", *options, *job["command"]]
    )


def _until_it_ends(held: contract.Contract, argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command and all that it makes under strace, but for what lives in units of its own.

    strace is no parent of the command (-D), and would go on as long as a detached container: it is
    interrupted then (-I2).
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        command = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=held.environment, cwd="/"
        )
        limit_s = time.monotonic() + contract.COMMAND_LIMIT_S
        try:
            code = command.wait(contract.COMMAND_LIMIT_S)
            while tracers := _tracers():
                for pid, traced in tracers.items():
                    if traced and all(map(_has_own_unit, traced)):
                        os.kill(pid, signal.SIGINT)
                if time.monotonic() > limit_s:
                    raise subprocess.TimeoutExpired(argv, contract.COMMAND_LIMIT_S)
                time.sleep(0.01)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
            for pid in _tracers():
                os.kill(pid, signal.SIGKILL)
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(argv, code, out.read(), err.read())


def _tracers() -> dict[int, list[int]]:
    """Return each strace and what it traces."""
    found: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/comm", encoding="utf-8", errors="replace") as file:
                if file.read() == "strace\n":
                    found.setdefault(int(name), [])
            with open(f"/proc/{name}/status", encoding="utf-8", errors="replace") as file:
                tracer = int(file.read().partition("TracerPid:")[2].split(None, 1)[0])
        except OSError:
            continue
        if tracer:
            found.setdefault(tracer, []).append(int(name))
    return found


def _has_own_unit(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
            return "/rp-" in file.read()
    except OSError:
        return True


def _beside(
    held: contract.Contract, job: dict[str, Any], options: list[str]
) -> subprocess.CompletedProcess[str]:
    """Run the command while strace is attached to the supervisor of a container."""
    done = held.run(["rp", "inspect", "--format", "{{.State.ConmonPid}}", job["supervisor"]])
    pid = int(done.stdout)
    tracer = subprocess.Popen(["strace", "-qqq", "-p", str(pid), *options])
    try:
        while tracer.poll() is None and not _is_traced(pid):
            time.sleep(0.01)
        return held.run(job["command"])
    finally:
        tracer.terminate()
        tracer.wait()


def _is_traced(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            return "TracerPid:\t0\n" not in file.read()
    except OSError:
        return False
