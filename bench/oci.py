"""Measure create + start + delete of one bundle: rp-oci beside crun and runc.

PYTHONPATH=tests python3 -m bench.oci [--rounds N] [--name RIG]: medians in milliseconds, each round
one of every runtime in turn, so that the load of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from namespace import bundles
from rig import install, instance, location, machine, recipe

_STEPS = ("create", "start", "delete")
_MEASURE = r"""
import json, subprocess, statistics, sys, time
home, rounds = json.load(sys.stdin)
steps = ("create", "start", "delete")
times = {}
def timed(argv):
    began = time.perf_counter()
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1000
for index in range(rounds + 1):
    for runtime in ("crun", "runc", "rp-oci"):
        taken = [
            timed([runtime, "create", "--bundle", home + "/bundle", "bench"]),
            timed([runtime, "start", "bench"]),
            timed([runtime, "delete", "--force", "bench"]),
        ]
        if index:
            times.setdefault(runtime, []).append(taken)
    times.setdefault("python3 -I -c pass", []).append([timed(["python3", "-I", "-c", "pass"])])
print(json.dumps({
    name: [statistics.median(column) for column in zip(*rows)] for name, rows in times.items()
}))
"""


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--name", default="bench-oci")
    arguments = parser.parse_args()
    try:
        rig = instance.up(arguments.name, recipe.SUITES[0], _say, os.getpid())
    except location.RigError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    try:
        install.sync(rig)
        found = _measure(machine.Machine(machine.RigDoor(rig)), arguments.rounds)
    finally:
        instance.down(arguments.name)
    print("| | " + " | ".join(_STEPS) + " | all |")
    print("| --- |" + " ---: |" * (len(_STEPS) + 1))
    for name, medians in found.items():
        cells = [f"{each:.0f}" for each in medians] + [""] * (len(_STEPS) - len(medians))
        print(f"| {name} | {' | '.join(cells)} | {sum(medians):.0f} |")
    return 0


def _measure(rig: machine.Machine, rounds: int) -> dict[str, list[float]]:
    rig.run(["rp", "pull", "--quiet", "alpine"], timeout=120)
    made = bundles.Bundles(rig)
    made.write(made.spec("sleep", "1000"))
    asked = json.dumps([bundles.HOME, rounds])
    done = rig.run(["python3", "-I", "-c", _MEASURE], input=asked, timeout=600)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
