"""Measure rp beside its peers in one run: bench/run [--only GROUP] [--quick] [--dry] [--keep]."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig import install, instance, machine, recipe
from rig import vm as vm_rig

from bench import (
    commands,
    figures,
    files,
    idle,
    images,
    inside,
    limits,
    output,
    plot,
    prepare,
    runtimes,
    starting,
    tables,
)
from bench.measuring import FAILURES, Run, say
from bench.work import Bench

if TYPE_CHECKING:
    from rig.machine import Machine

# What is measured first finds the emptiest stores.  Images before what removes thousands of files:
# ext4 without a journal looks long for an inode where many were freed within five minutes.
SECTIONS = (
    starting.RUN,
    starting.ALIVE,
    commands.COMMANDS,
    images.IMAGES,
    files.FILES,
    output.OUTPUT,
    idle.IDLE,
    inside.INSIDE,
    runtimes.RUNTIMES,
    starting.LISTS,
)
ALL = (*SECTIONS, limits.VM)
# The rows of README.md; docs/performance.md has all.
SHORT = (
    "run", "run-none", "run-d", "exec", "ps-100", "command-images", "pull", "cp-in-small",
    "logs", "idle-memory",
)  # fmt: skip
_DIRECTORY = Path(__file__).parent
_MOST_ROUNDS, _QUICK_ROUNDS = 100, 2
_VERSIONS = {
    "podman": "podman --version | cut -d' ' -f3",
    "crun": "crun --version | sed -n '1s/.* //p'",
    "runc": "runc --version | sed -n '1s/.* //p'",
    "python": "python3 --version | cut -d' ' -f2",
    "systemd": "systemctl --version | sed -n '1s/systemd \\([0-9]*\\).*/\\1/p'",
}


def main() -> int:
    """Run the benchmark; return the exit code: 1 when anything could not be measured."""
    arguments = _arguments()
    began_s = time.monotonic()
    run = Run(arguments.only, _QUICK_ROUNDS if arguments.quick else arguments.rounds)
    versions: dict[str, str] = {}
    try:
        if any(run.wanted(section) for section in SECTIONS):
            versions = _in_namespaces(run, arguments)
    except FAILURES as error:
        run.fail_rest(SECTIONS, str(error))
    try:
        if run.wanted(limits.VM):
            _in_vm(run)
    except FAILURES as error:
        run.fail_rest((limits.VM,), str(error))
    facts = run.facts(versions)
    facts["minutes"] = round((time.monotonic() - began_s) / 60, 1)
    failed = tables.failures(run.outcomes)
    _write(run, facts, dry=arguments.dry or arguments.quick or bool(arguments.only))
    for line in failed:
        say(line)
    say(f"done in {time.monotonic() - began_s:.0f} s")
    return 1 if failed else 0


def _in_namespaces(run: Run, arguments: argparse.Namespace) -> dict[str, str]:
    """Measure what needs no limits in the namespace rig; return its programs' versions."""
    owner_pid = 0 if arguments.keep else os.getpid()
    rig = instance.up(arguments.name, recipe.SUITES[0], say, owner_pid)
    try:
        install.sync(rig)
        bench = Bench(machine.Machine(machine.RigDoor(rig)), rig)
        say("preparing: images, one stopped container of each, crun's bundle")
        versions = _versions(bench.machine)
        prepare.images(bench.machine)
        for section in SECTIONS:
            run.measure(section, bench)
        return versions
    finally:
        if not arguments.keep:
            instance.down(arguments.name)


def _in_vm(run: Run) -> None:
    """Measure what needs limits in a virtual machine."""
    with vm_rig.started(recipe.SUITES[0], "default", say) as running:
        run.measure(limits.VM, Bench(vm_rig.VirtualMachine(running)))


def _write(run: Run, facts: dict[str, Any], *, dry: bool) -> None:
    """Print the tables; unless dry, write them into the documents, and figures and plots."""
    date = time.strftime("%Y-%m-%d")
    words = tables.caption(date, facts)
    whole = "\n".join([*tables.full(ALL, run.outcomes), words])
    print(f"\n{whole}\n")
    if dry or not any(outcome.figures for outcome in run.outcomes):
        return
    results = _DIRECTORY / "results"
    results.mkdir(exist_ok=True)
    content = json.dumps(figures.as_json(date, facts, run.outcomes), indent=1)
    (results / f"{date}.json").write_text(content + "\n", encoding="utf-8")
    for outcome in run.outcomes:
        (results / f"{outcome.key}.svg").write_text(plot.svg(outcome), encoding="utf-8")
    short = "\n".join([*tables.short(run.outcomes, SHORT), "", words])
    for name, text in (("README.md", short), ("docs/performance.md", whole)):
        if not figures.insert(_DIRECTORY.parent / name, text):
            say(f"{name} has no {figures.BEGIN} section: the table is not in it")


def _versions(rig: Machine) -> dict[str, str]:
    return {
        name: str(rig.run(["sh", "-c", command]).stdout).strip()
        for name, command in _VERSIONS.items()
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Measure rp beside its peers, in a rig and a virtual machine of its own. "
        "Takes less than 20 minutes; figures, plots and the tables of the documents are written "
        "anew when all groups were measured in full.",
    )
    names = sorted(
        {group.key for section in ALL for group in section.groups} | {s.key for s in ALL}
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="GROUP",
        choices=names,
        help=f"only these groups or sections, and write nothing: {', '.join(names)}",
    )
    parser.add_argument(
        "--rounds", type=int, default=_MOST_ROUNDS, help="rounds of each group at most"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two rounds of each group, and write nothing"
    )
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--keep", action="store_true", help="leave the rig running")
    parser.add_argument("--name", default="bench", help="which rig (default bench)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
