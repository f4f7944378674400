"""Random commands by several workers with random kill -9, in rounds; the contract after each.

Sent into the rig by its text (faults/driving.py) and run there as root.  What went wrong is printed
with its round's seed, which repeats the choice of commands, not the moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

from namespace.faults import contract

_NAMES = [f"n{number}" for number in range(6)]
_VOLUMES, _NETWORKS, _SECRETS = ("v0", "v1"), ("net0", "net1"), ("s0", "s1")
_PODS = ("p0", "p1")
_SLEEP = ("alpine", "sleep", "600")
_SEVEN = ("alpine", "sh", "-c", "echo said; exit 7")
_REPORT = "/run/soak.report"
_LIMIT_S = 180.0
_PAUSES_S = (0.05, 1.5)
# Programs of rp by the word that follows it, and what else may be killed.
_VICTIMS = (b"/usr/bin/rp\0", b"pasta\0", b"sleep\x00600\0")


def main(job: dict[str, Any]) -> None:
    """Soak for job["seconds"] with job["workers"] in rounds of job["round"] seconds."""
    held = contract.Contract()
    held.run(["rp", "pull", "--quiet", "alpine"])
    limit_s = time.monotonic() + job["seconds"]
    seed, rounds, commands, killed, failures = job["seed"], 0, 0, 0, []
    descriptors = _descriptors(held.uid)
    while time.monotonic() < limit_s:
        done, kills = _round(held, f"{seed}.{rounds}", job["workers"], job["round"])
        commands, killed, rounds = commands + len(done), killed + kills, rounds + 1
        wrong = [f"S5: {each['argv']}: {line}" for each in done for line in each["wrong"]]
        wrong += held.problems() + _emptied(held)
        failures += [f"round {seed}.{rounds - 1}: {each}" for each in wrong]
        told = [f"{rounds} rounds, {commands} commands, {killed} killed", *wrong]
        print("\n".join(told), file=sys.stderr, flush=True)
    grown = _descriptors(held.uid) - descriptors
    if grown > 20:
        failures.append(f"S4: {grown} more descriptors in what outlives all containers")
    os.unlink(_REPORT)
    totals = {"rounds": rounds, "commands": commands, "killed": killed, "seed": seed}
    json.dump({**totals, "failures": failures}, sys.stdout)


def _round(
    held: contract.Contract, seed: str, workers: int, seconds: float
) -> tuple[list[dict[str, Any]], int]:
    """Let the workers work; return what they did, and how many processes were killed."""
    limit_s = time.monotonic() + seconds
    with open(_REPORT, "w", encoding="utf-8"):
        pass
    pids = []
    for number in range(workers):
        pid = os.fork()
        if pid == 0:
            _worker(held, random.Random(f"{seed}.{number}"), limit_s)
        pids.append(pid)
    choice, killed = random.Random(seed), 0
    while time.monotonic() < limit_s:
        time.sleep(choice.uniform(*_PAUSES_S))
        killed += _kill_one(held.uid, choice)
    for pid in pids:
        os.waitpid(pid, 0)
    with open(_REPORT, encoding="utf-8") as file:
        return [json.loads(line) for line in file], killed


def _worker(held: contract.Contract, choice: random.Random, limit_s: float) -> None:
    """Run random commands until the time is over, and leave the process."""
    try:
        while time.monotonic() < limit_s:
            argv = _command(choice)
            try:
                wrong = contract.wrong_words(held.run(["rp", *argv], _LIMIT_S), tuple(range(256)))
            except subprocess.TimeoutExpired:
                wrong = ["S1: it does not end"]
            line = json.dumps({"argv": " ".join(argv), "wrong": wrong}) + "\n"
            fd = os.open(_REPORT, os.O_WRONLY | os.O_APPEND)
            os.write(fd, line.encode())
            os.close(fd)
    finally:
        os._exit(0)


def _command(choice: random.Random) -> list[str]:
    """Return a random command: starts are as frequent as ends."""
    name, other = choice.choice(_NAMES), choice.choice(_NAMES)
    volume, network = choice.choice(_VOLUMES), choice.choice(_NETWORKS)
    secret, pod = choice.choice(_SECRETS), choice.choice(_PODS)
    place = choice.choice(("none", "none", "pasta", network))
    mount = choice.choice(([], ["-v", f"{volume}:/data"], ["-v", "/anonymous"]))
    start = ["--name", name, "--network", place, *mount]
    restart = choice.choice(([], [], ["--restart", "on-failure:2"], ["--restart", "always"]))
    return choice.choice(
        (
            ["run", "-d", *start, *restart, *_SLEEP],
            ["run", "-d", *start, *_SLEEP],
            ["run", "-d", "--rm", *start, *_SLEEP],
            ["run", "--rm", *start, *_SEVEN],
            ["run", *start, *_SEVEN],
            ["run", "-d", "--name", name, "--pod", pod, *_SLEEP],
            ["create", *start, *_SLEEP],
            ["start", name],
            ["start", name, other],
            ["restart", "-t", "0", name],
            ["stop", "-t", choice.choice("01"), name],
            ["stop", "-t", "0", "-a"],
            ["kill", name],
            ["rm", name],
            ["rm", "-f", name],
            ["rm", "-f", "-v", name, other],
            ["exec", name, "sh", "-c", "exit 7"],
            ["exec", "-d", name, "sleep", "600"],
            ["pause", name],
            ["unpause", name],
            ["ps", "-a"],
            ["logs", name],
            ["inspect", name],
            ["top", name],
            ["stats", "--no-stream"],
            ["rename", name, other],
            ["update", "--restart", "no", name],
            ["cp", "/etc/hostname", f"{name}:/tmp/"],
            ["cp", f"{name}:/etc/hostname", "/dev/null"],
            ["commit", "-q", name, f"localhost/soak:{name}"],
            ["diff", name],
            ["images"],
            ["pull", "-q", "alpine"],
            ["rmi", f"localhost/soak:{name}"],
            ["volume", "create", volume],
            ["volume", "rm", volume],
            ["volume", "prune", "-f"],
            ["network", "create", network],
            ["network", "rm", "-f", network],
            ["network", "connect", network, name],
            ["network", "disconnect", network, name],
            ["secret", "create", secret, "/etc/hostname"],
            ["secret", "rm", secret],
            ["pod", "create", "--name", pod],
            ["pod", "stop", "-t", "0", pod],
            ["pod", "rm", "-f", pod],
            ["container", "prune", "-f"],
            ["system", "prune", "-f"],
            ["fsck"],
        )
    )


def _kill_one(uid: int, choice: random.Random) -> int:
    """Kill a random process of rp, of a helper or of a container; return how many."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read()
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                owner = file.read().partition("\nUid:\t")[2].split()[0]
        except (OSError, IndexError):
            continue
        if owner == str(uid) and any(each in command for each in _VICTIMS):
            found.append(int(pid))
    if not found:
        return 0
    try:
        os.kill(choice.choice(sorted(found)), signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def _emptied(held: contract.Contract) -> list[str]:
    """Remove all that a round has made; return what is wrong with that, or left."""
    found = []
    for argv in (["pod", "rm", "-f", "-a"], ["rm", "-f", "-a"], ["network", "prune", "-f"]):
        try:
            done = held.run(["rp", *argv])
        except subprocess.TimeoutExpired:
            found.append(f"S1: rp {' '.join(argv)} does not end")
            continue
        if done.returncode:
            found.append(f"S4: rp {' '.join(argv)}: {done.returncode} {done.stdout}{done.stderr}")
    for secret in _SECRETS:
        held.run(["rp", "secret", "rm", secret])
    for name in _NAMES:
        held.run(["rp", "rmi", f"localhost/soak:{name}"])
    return found + held.clear()


def _descriptors(uid: int) -> int:
    """Count the descriptors of the processes that outlive all containers: the manager, the bus."""
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                count += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
    return count
