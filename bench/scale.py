"""Many containers: 200 started at once, and commands beside 1,000 stopped and 300 running ones.

PYTHONPATH=tests python3 -m bench.scale [--quick] [--program P] boots a rig of its own, starts
and grows the containers of rp and podman there, and writes JSON, drawings and the table of
docs/performance.md.  Less than 12 minutes on a quiet machine of two cores.

First each program starts 200 as fast as it can and removes them, by turns.  The stopped containers
of rp are copies of one that ran, with ids and names of their own; podman's are made by `podman
create`.  Then the running ones grow in steps, and commands are timed on the way; podman is compared
at fewer sizes, for its stopping and listing of so many takes minutes.  rp's are timed by turns with
the same ones in a store of one running and one stopped container: machines change their speed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rig import install, instance, location, machine, recipe

from bench import figures, scale_report
from bench.measuring import load, say

if TYPE_CHECKING:
    from rig.machine import Machine

_PROBE = Path(__file__).with_name("scale_probe.py").read_text(encoding="utf-8")
_RESULTS = Path(__file__).parent / "results"
_LIMIT_S = 900
_PARALLEL = 4
# Two processors, and something to do while one of them waits for the disk.
_AT_ONCE = 8
_ROUNDS, _COMMANDS_S = 11, 45.0
# podman may not make a key for each container: a user may have 200 (kernel.keys.maxkeys).
_PODMAN_CONF = "[containers]\nkeyring=false\n[engine]\nevents_logger='none'\n"
_CONF = "/home/alice/scale-containers.conf"
# Where rp has another store, which does not grow.
_ALONE = "/home/alice/alone"
_PROGRAMS = {
    "rp": (("rp",), ()),
    "podman": (
        ("env", f"CONTAINERS_CONF_OVERRIDE={_CONF}", "podman", "--events-backend=none"),
        ("--pids-limit=0",),
    ),
}


class Sizes(NamedTuple):
    """How many containers there are when something is measured."""

    stopped: tuple[int, ...]
    running: dict[str, tuple[int, ...]]
    """Where the commands are measured; the last one is where it ends."""
    step: int
    """After so many starts memory and processor time are read."""
    burst: int
    """So many are started as fast as can be."""
    bursts: int
    """How often, by turns."""


FULL = Sizes((1, 100, 1000), {"rp": (100, 200, 300), "podman": (200,)}, 25, 200, 2)
QUICK = Sizes((1, 20), {"rp": (5, 10), "podman": (5,)}, 5, 10, 1)


def main() -> int:
    """Run the benchmark; return the exit code."""
    arguments = _arguments()
    programs = tuple(arguments.program or _PROGRAMS)
    sizes = QUICK if arguments.quick else FULL
    began_s, before = time.monotonic(), load()
    owner_pid = 0 if arguments.keep else os.getpid()
    try:
        rig = instance.up(arguments.name, recipe.SUITES[0], say, owner_pid)
    except location.RigError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    try:
        install.sync(rig)
        there = machine.Machine(machine.RigDoor(rig))
        found = _measured(there, sizes, programs)
        versions = {"podman": str(there.run(["podman", "--version"]).stdout).split()[-1]}
    finally:
        if not arguments.keep:
            instance.down(arguments.name)
    report = {
        "version": 1,
        "date": time.strftime("%Y-%m-%d"),
        "machine": figures.machine_facts((before, load()), versions),
        "minutes": round((time.monotonic() - began_s) / 60, 1),
        **found,
    }
    _write(report, dry=arguments.dry or arguments.quick or bool(arguments.program))
    return 0


def _measured(there: Machine, sizes: Sizes, programs: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"commands": [], "starts": {}, "memory": {}, "failed": {}}
    found |= {"burst": sizes.burst, "bursts": {}}
    _prepare(there, programs)
    for number in range(sizes.bursts):
        # By turns, each first once.
        for program in programs if number % 2 == 0 else reversed(programs):
            say(f"{program}: {sizes.burst} started at once")
            one = _burst(there, program, sizes.burst)
            print(scale_report.burst_line(program, one), flush=True)
            found["bursts"].setdefault(program, []).append(one)
    stopped = 1
    for wanted in sizes.stopped:
        say(f"{wanted} stopped containers of each")
        _stopped(there, programs, stopped + 1, wanted)
        stopped = max(stopped, wanted)
        for program in programs:
            found["commands"].append(_commands(there, program, stopped, 1))
    for program in programs:
        _grow(there, program, sizes.running[program], sizes.step, found)
        if program != "podman":
            _remove_running(there, program)
    return found


def _prepare(there: Machine, programs: tuple[str, ...]) -> None:
    there.run(["sh", "-c", 'cat >"$1"', "sh", _CONF], input=_PODMAN_CONF)
    for program in programs:
        run = _line(program, "run", "--network=none")
        there.run(_line(program, "pull", "--quiet", "alpine"), timeout=120)
        there.run([*run, "--name", "stopped", "alpine", "true"], timeout=60)
        says = "echo started; exec sleep 1000000"
        there.run([*run, "-d", "--name", "one", "alpine", "sh", "-c", says], timeout=60)
    if "rp" in programs:
        alone = {"XDG_DATA_HOME": _ALONE}
        run = _line("rp", "run", "--network=none")
        there.run(_line("rp", "pull", "--quiet", "alpine"), env=alone, timeout=120)
        there.run([*run, "--name", "stopped", "alpine", "true"], env=alone, timeout=60)
        # Units are named after containers: two of one name would meet.
        last = [*run, "-d", "--name", "lone", "alpine", "sh", "-c", says]
        there.run(last, env=alone, timeout=60)


def _burst(there: Machine, program: str, count: int) -> dict[str, Any]:
    """Start so many containers as fast as can be, and remove them."""
    argv = [*_line(program, "run"), "-d", "--name", "burst-{i}", "alpine", "sleep", "1000000"]
    before = _as_root(there, "processor")
    grown = _ask(there, "grow", argv=argv, first=1, last=count, parallel=_AT_ONCE)
    after = _as_root(there, "processor")
    memory = _as_root(there, "memory")
    _remove_running(there, program)
    return {
        "took_s": grown["took_s"],
        "started": len(grown["starts"]),
        "failed": grown["failed"],
        "start_cpu_ms": {name: (after[name] - before[name]) * 1e3 / count for name in after},
        "processes_mb": memory["pss_mb"],
    }


def _remove_running(there: Machine, program: str) -> None:
    """Remove all that run, but for the one that commands are timed with."""
    listed = " ".join([*_PROGRAMS[program][0], "ps", "--format", "'{{.Names}}'"])
    remove = " ".join([*_PROGRAMS[program][0], "rm", "-f", "-t", "0"])
    script = f"{listed} | grep -vx one | xargs -r -P {_PARALLEL} -n 20 {remove} >/dev/null"
    there.run(["sh", "-c", script], timeout=_LIMIT_S)


def _stopped(there: Machine, programs: tuple[str, ...], first: int, last: int) -> None:
    """Have that many stopped containers of each, but for the first one."""
    if "rp" in programs:
        _ask(there, "seed", name="stopped", first=first, last=last)
    if "podman" not in programs:
        return
    create = _line("podman", "create", "--network=none", "--log-driver=none")
    argv = [*create, "--name", "stopped-{i}", "alpine", "true"]
    _ask(there, "grow", argv=argv, first=first, last=last, parallel=_PARALLEL)


def _commands(there: Machine, program: str, stopped: int, running: int) -> dict[str, Any]:
    """Measure all commands of a program beside so many containers."""
    none, new, other = "--network=none", "new-{i}", "other-{i}"
    sleep = ("alpine", "sleep", "1000000")
    lines = {
        "ps": _line(program, "ps"),
        "ps -a": _line(program, "ps", "-a"),
        "inspect": _line(program, "inspect", "{one}"),
        "exec": _line(program, "exec", "{one}", "true"),
        "logs": _line(program, "logs", "{one}"),
        "stats": _line(program, "stats", "--no-stream", "{one}"),
        "images": _line(program, "images"),
        "create": [*_line(program, "create", none), "--name", new, *sleep],
        "start": _line(program, "start", new),
        "stop": _line(program, "stop", "-t", "0", new),
        "rm": _line(program, "rm", new),
        "run": [*_line(program, "run", none), "--rm", "alpine", "true"],
        "run -d": [*_line(program, "run", none), "-d", "--name", other, *sleep],
        "rm -f": _line(program, "rm", "-f", "-t", "0", other),
    }
    if program == "rp":
        lines |= {
            "ps -a --format json": ["rp", "ps", "-a", "--format", "json"],
            "stats, of all": ["rp", "stats", "--no-stream"],
            "system df": ["rp", "system", "df"],
            "volume ls": ["rp", "volume", "ls"],
            "network ls": ["rp", "network", "ls"],
            "pod ps": ["rp", "pod", "ps"],
        }
    alone = _ALONE if program == "rp" else ""
    found = _ask(there, "commands", lines=lines, rounds=_ROUNDS, limit_s=_COMMANDS_S, alone=alone)
    print(scale_report.lines(program, stopped, running, found["times"]), flush=True)
    return {"program": program, "stopped": stopped, "running": running, **found}


def _grow(
    there: Machine, program: str, counts: tuple[int, ...], step: int, found: dict[str, Any]
) -> None:
    """Start containers up to the last of counts, and look at them on the way."""
    say(f"{program}: {counts[-1]} running containers")
    stopped = found["commands"][-1]["stopped"]
    argv = [*_line(program, "run"), "-d", "--name", "many-{i}", "alpine", "sleep", "1000000"]
    starts, read = found["starts"].setdefault(program, []), []
    running, took_s = 1, 0.0
    read.append({"running": running, **_as_root(there, "memory")})
    while running < counts[-1]:
        last = min(running - running % step + step, counts[-1])
        before = _as_root(there, "processor")
        grown = _ask(there, "grow", argv=argv, first=running + 1, last=last, parallel=_PARALLEL)
        after = _as_root(there, "processor")
        starts += [[took_s + at, wall, cpu] for at, wall, cpu in grown["starts"]]
        took_s += grown["took_s"]
        found["failed"].setdefault(program, []).extend(grown["failed"])
        each_ms = {name: (after[name] - before[name]) * 1e3 / (last - running) for name in after}
        running = last
        memory = _as_root(there, "memory")
        read.append({"running": running, "start_cpu_ms": each_ms, **memory})
        say(f"{program}: {running} running after {took_s:.1f} s of starting")
        if running in counts:
            found["commands"].append(_commands(there, program, stopped, running))
    found["memory"][program] = read


def _as_root(there: Machine, do: str) -> dict[str, Any]:
    """Have the probe read what only root may."""
    done = there.root(["python3", "-I", "-c", _PROBE], input=json.dumps({"do": do}))
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _ask(there: Machine, do: str, **order: object) -> dict[str, Any]:
    """Have the probe do something as alice."""
    done = there.run(
        ["python3", "-I", "-c", _PROBE], input=json.dumps({"do": do, **order}), timeout=_LIMIT_S
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _line(program: str, command: str, *words: str) -> list[str]:
    argv, making = _PROGRAMS[program]
    return [*argv, command, *(making if command in ("run", "create") else ()), *words]


def _write(report: dict[str, Any], *, dry: bool) -> None:
    text = scale_report.table(report)
    print(f"\n{text}\n")
    if dry:
        return
    _RESULTS.mkdir(exist_ok=True)
    content = json.dumps(report, separators=(",", ":"))
    (_RESULTS / f"scale-{report['date']}.json").write_text(content + "\n", encoding="utf-8")
    for name, drawing in scale_report.drawings(report).items():
        (_RESULTS / f"scale-{name}.svg").write_text(drawing, encoding="utf-8")
    document = Path(__file__).parent.parent / "docs/performance.md"
    if not figures.insert(document, text, scale_report.MARKERS):
        say(f"docs/performance.md has no {scale_report.MARKERS[0]} section")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m bench.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few containers, writes no results")
    parser.add_argument(
        "--program", action="append", choices=_PROGRAMS, help="only this one, writes no results"
    )
    parser.add_argument("--dry", action="store_true", help="write no results")
    parser.add_argument("--keep", action="store_true", help="leave the rig running")
    parser.add_argument("--name", default="bench-scale", help="which rig (default bench-scale)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
