"""Soak rp in a rig of its own: random commands, random kill -9, then the fault contract."""

from __future__ import annotations

import argparse
import os
import sys
import time

from namespace.faults import driving
from rig import install, instance, machine, recipe

_MARGIN_S = 1800


def main() -> int:
    """Soak; exit with 1 when something of the contract did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="for how long (60)")
    parser.add_argument("--workers", type=int, default=4, help="how many at once (4)")
    parser.add_argument("--round", type=float, default=60, help="seconds between looks (60)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="choice of commands")
    parser.add_argument("--suite", choices=recipe.SUITES, default=recipe.SUITES[0])
    chosen = parser.parse_args()
    name = f"soak-{os.getpid()}"
    seconds = chosen.minutes * 60
    running = instance.up(name, chosen.suite, print, owner_pid=os.getpid())
    try:
        install.sync(running)
        job = {
            "seconds": seconds,
            "workers": chosen.workers,
            "round": min(chosen.round, seconds),
            "seed": chosen.seed,
        }
        there = machine.Machine(machine.RigDoor(running))
        found = driving.drive(there, "soaker", job, 2 * seconds + _MARGIN_S, told=sys.stderr)
    finally:
        instance.down(name)
    print("{rounds} rounds, {commands} commands, {killed} killed, seed {seed}".format(**found))
    for failure in found["failures"]:
        print(failure)
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
