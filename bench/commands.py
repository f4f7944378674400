"""The groups of everyday commands: what is asked many times a day, and done at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import prepare
from bench.timing import timed
from bench.work import Group, Section, pair

if TYPE_CHECKING:
    from bench.work import Bench

_LINES = {
    "images": "images",
    "image-inspect": "image inspect alpine",
    "volume-ls": "volume ls",
    "network-ls": "network ls",
    "port": "port bench-up",
    "top": "top bench-up",
    # Which sleep ignores.
    "kill": "kill --signal WINCH bench-up",
    "diff": "diff bench-0",
    "inspect": "inspect bench-up",
    "version": "version",
    "help": "--help",
    "run-help": "run --help",
}
_NAMES = {
    "port bench-up": "port NAME",
    "top bench-up": "top NAME",
    "kill --signal WINCH bench-up": "kill --signal WINCH NAME",
    "diff bench-0": "diff NAME",
    "inspect bench-up": "inspect NAME",
}
_GROUPS = tuple(
    Group(
        f"command-{key}",
        f"`{_NAMES.get(line, line)}`",
        pair("{p} " + line),
        rounds=20,
        limit_s=8,
    )
    for key, line in _LINES.items()
)


def _prepare(bench: Bench) -> None:
    prepare.both(bench.machine, "{detach} --name bench-up -p 80 alpine sleep 1000000")
    prepare.both(bench.machine, "{p} volume create bench")
    prepare.both(bench.machine, "{p} network create bench")


def _finish(bench: Bench) -> None:
    prepare.both(bench.machine, "{p} rm -f -t 0 bench-up")
    prepare.both(bench.machine, "{p} volume rm bench")
    prepare.both(bench.machine, "{p} network rm bench")


COMMANDS = Section("commands", "Everyday commands", _GROUPS, timed, _prepare, _finish)
