"""Measure rp beside its peers in one run: bench/run [--rounds N] [--only GROUP] [--keep]."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from rig import install, instance, location, machine, recipe

from bench import figures, plot, prepare, work

_DIRECTORY = Path(__file__).parent
_LIMIT_S = 600
_VERSIONS = {
    "podman": "podman --version | cut -d' ' -f3",
    "crun": "crun --version | sed -n '1s/.* //p'",
    "python": "python3 --version | cut -d' ' -f2",
    "systemd": "systemctl --version | sed -n '1s/systemd \\([0-9]*\\).*/\\1/p'",
}


def main() -> int:
    """Run the benchmark; return the exit code."""
    arguments = _parser().parse_args()
    began_s = time.monotonic()
    try:
        rig = instance.up(
            arguments.name, recipe.SUITES[0], _say, 0 if arguments.keep else os.getpid()
        )
    except location.RigError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    try:
        install.sync(rig)
        _measure(rig, arguments)
    finally:
        if not arguments.keep:
            instance.down(arguments.name)
    _say(f"done in {time.monotonic() - began_s:.0f} s")
    return 0


def _measure(rig: instance.Instance, arguments: argparse.Namespace) -> None:
    rp_machine = machine.Machine(machine.RigDoor(rig))
    load_before = _load()
    only, rounds = arguments.only, arguments.rounds
    outcomes: list[figures.Outcome] = []

    def run(group: work.Group) -> None:
        if only and group.key not in only:
            return
        _say(f"{group.title}: {', '.join(each.name for each in group.contestants)}")
        done = rp_machine.run(
            ["python3", "-I", "-S", work.TIMER],
            input=json.dumps(_as_json(group)),
            timeout=_LIMIT_S,
        )
        outcomes.append(figures.outcome(group, json.loads(done.stdout)))
        print(_lines(outcomes[-1]))

    _say("preparing: images, one stopped container of each, crun's bundle")
    prepare.images(rp_machine)
    prepare.bundle(rp_machine)
    run(work.start(rounds, limit_s=75))
    run(work.listing(1, rounds, limit_s=10))
    facts = figures.machine_facts((load_before, load_before), _versions(rp_machine))
    if not only or "ps-100" in only:
        _say("preparing: 99 more stopped containers of each")
        prepare.stopped(rp_machine, 1, 100)
        run(work.listing(100, rounds, limit_s=10))
    if not only or {"pull", "pull-small", "save", "load"} & set(only):
        _say("preparing: an image with one large layer")
        big = prepare.big_image(rig, rp_machine)
        facts["big_image"] = f"({big.bytes / 1e6:.0f} MB, {big.files:,} files)"
        few = max(3, rounds // 6)
        run(work.pulling("docker.io/library/alpine", "pull-small", rounds, limit_s=45))
        run(work.pulling(work.BIG_IMAGE, "pull", few, limit_s=90))
        prepare.pull_big(rp_machine)
        for group in work.archives(few, limit_s=60):
            run(group)
    facts["load_average_after"] = _load()
    _write(arguments, facts, outcomes)


def _write(
    arguments: argparse.Namespace, facts: dict[str, object], outcomes: list[figures.Outcome]
) -> None:
    date = time.strftime("%Y-%m-%d")
    text = figures.table(date, facts, outcomes)
    print(f"\n{text}\n")
    if arguments.only or arguments.dry:
        return
    results = _DIRECTORY / "results"
    results.mkdir(exist_ok=True)
    content = json.dumps(figures.as_json(date, facts, outcomes), indent=1)
    (results / f"{date}.json").write_text(content + "\n", encoding="utf-8")
    for outcome in outcomes:
        (results / f"{outcome.key}.svg").write_text(plot.svg(outcome), encoding="utf-8")
    for name in ("README.md", "docs/performance.md"):
        if not figures.insert(_DIRECTORY.parent / name, text):
            _say(f"{name} has no {figures.BEGIN} section: the table is not in it")


def _lines(outcome: figures.Outcome) -> str:
    return "\n".join(
        f"  {figure.name:24} {figure.median_ms:9.1f} ms   middle half {figure.lower_ms:.1f} to "
        f"{figure.upper_ms:.1f}, best {figure.best_ms:.1f}, {figure.rounds} rounds"
        for figure in outcome.figures
    )


def _as_json(group: work.Group) -> dict[str, object]:
    return {**group._asdict(), "contestants": [each._asdict() for each in group.contestants]}


def _versions(rp_machine: machine.Machine) -> dict[str, str]:
    return {
        name: str(rp_machine.run(["sh", "-c", command]).stdout).strip()
        for name, command in _VERSIONS.items()
    }


def _load() -> str:
    return Path("/proc/loadavg").read_text(encoding="ascii").split()[0]


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/run", description="Measure rp beside its peers, in a rig of its own."
    )
    parser.add_argument("--rounds", type=int, default=30, help="rounds at most (default 30)")
    parser.add_argument(
        "--only",
        action="append",
        metavar="GROUP",
        help="only start, ps-1, ps-100, pull-small, pull, save or load; writes no results",
    )
    parser.add_argument("--dry", action="store_true", help="write no results")
    parser.add_argument("--keep", action="store_true", help="leave the rig running")
    parser.add_argument("--name", default="bench", help="which rig (default bench)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
