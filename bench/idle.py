"""The groups of a detached container that does nothing: memory, wake-ups, processor time.

Counted are all processes that appear with a container, but not its payload: the supervisor or
conmon, and the network's helpers.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.work import Bench, Contestant, Group, Measured, Section, pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

_ROUNDS = 3
_WATCHED_S = 10.0
_SETTLED_S = 2.0
_SETTLE_LIMIT_S = 30.0
# A supervisor loads what it may need five seconds after its start: once, so not while it is idle.
_AT_REST_S = 6.0
_SLEEP = "alpine sleep 1000000"
_PROBE = Path(__file__).with_name("idle_probe.py").read_text(encoding="utf-8")
# What is counted: the words before the network's name, the unit, the field of the probe.
_KINDS = {
    "memory": ("memory of an idle container", "MB", "memory"),
    "switches": ("its context switches in 10 s", "times", "switches"),
    "cpu": ("its processor time in 10 s", "ms", "cpu"),
}
_NETWORKS = ("pasta", "none")


def _pair(network: str) -> tuple[Contestant, Contestant]:
    name = f"bench-idle-{network}"
    return pair(
        f"{{detach}} --name {name} --network={network} {_SLEEP}", after=f"{{p}} rm -f -t 0 {name}"
    )


_GROUPS = tuple(
    Group(
        key=f"idle-{kind}" + (f"-{network}" if network != "pasta" else ""),
        title=f"{title}, `--network {network}`",
        contestants=_pair(network),
        rounds=_ROUNDS,
        limit_s=0,
        unit=unit,
        goal=1.0 if (kind, network) == ("memory", "pasta") else None,
    )
    for kind, (title, unit, _) in _KINDS.items()
    for network in _NETWORKS
)


def _measured(bench: Bench, groups: tuple[Group, ...]) -> Iterator[tuple[Group, Measured]]:
    """Start one of each, watch them all at once, end them; for as many rounds as are asked for."""
    contestants = sorted({each for group in groups for each in group.contestants})
    rounds = [_round(bench.machine, contestants) for _ in range(groups[0].rounds)]
    failed = {each: why for _, whys in rounds for each, why in whys.items()}
    for group in groups:
        field = _KINDS[group.key.split("-")[1]][2]
        values = {
            each.name: [costs[_key(each)][field] for costs, _ in rounds]
            for each in group.contestants
            if each not in failed
        }
        whys = {each.name: failed[each] for each in group.contestants if each in failed}
        yield group, Measured(values, whys, {}, {})


def _round(
    machine: Machine, contestants: list[Contestant]
) -> tuple[dict[str, dict[str, Any]], dict[Contestant, str]]:
    """Return what each costs by its key, and why those failed that did."""
    failed: dict[Contestant, str] = {}
    pids: dict[str, list[int]] = {}
    try:
        for each in random.sample(contestants, len(contestants)):
            before = set(_pids(machine))
            done = machine.run(list(each.argv), check=False)
            if done.returncode == 0:
                pids[_key(each)] = sorted(_settled(machine) - before)
            else:
                failed[each] = str(done.stderr).strip()
        time.sleep(_AT_REST_S)
        watch = ["python3", "-I", "-c", _PROBE, "watch", str(_WATCHED_S)]
        costs = json.loads(machine.root(watch, input=json.dumps(pids)).stdout)
    finally:
        for each in contestants:
            for argv in each.after:
                machine.run(list(argv), check=False)
    return costs, failed


def _key(contestant: Contestant) -> str:
    return " ".join(contestant.argv)


def _settled(machine: Machine) -> set[int]:
    """Return the processes that are still there once none has come or gone for a while."""
    found, since_s = set(_pids(machine)), time.monotonic()
    limit_s = since_s + _SETTLE_LIMIT_S
    while time.monotonic() < min(since_s + _SETTLED_S, limit_s):
        now = set(_pids(machine))
        if now != found:
            found, since_s = now, time.monotonic()
    return found


def _pids(machine: Machine) -> list[int]:
    done = machine.root(["python3", "-I", "-c", _PROBE, "list"])
    return [int(pid) for pid in json.loads(done.stdout)]


IDLE = Section(
    "idle",
    "An idle detached container",
    _GROUPS,
    _measured,
    note=(
        "Proportional set size, context switches and processor time of all processes beside the "
        "payload: the supervisor or conmon, and pasta, which wakes up by itself."
    ),
)
