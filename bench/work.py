"""What is compared with what: the records of groups, and each program's best settings.

podman: crun as its runtime, native overlay, no log and no event written (rp writes neither), and no
pids limit, which the namespace rig has no controller for.  It makes a systemd scope, as rp does.
In each group the first contestant is ours, the second one the peer that it is set against; the
others (floors: the kernel's, systemd's and the interpreter's share) are named beside them.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rig.instance import Instance
    from rig.machine import Machine

    Measure = Callable[["Bench", tuple["Group", ...]], Iterable[tuple["Group", "Measured"]]]

HOME = "/home/alice/bench"
TIMER = f"{HOME}/timer.py"
IMAGE = "alpine"
# The rig's registry is the mirror of docker.io.
BIG_IMAGE = "docker.io/bench/debian:latest"
ROOTFS = f"{HOME}/bundle/rootfs"
# What {p}, {run}, {detach} and {log} (a file that is not rotated) stand for in command lines.
PROGRAMS = {
    "rp": {
        "p": "rp",
        "run": "rp run",
        "detach": "rp run -d --log-driver=none",
        "log": "--log-driver=json-file --log-opt max-size=-1",
    },
    "podman": {
        "p": "podman --events-backend=none",
        "run": "podman --events-backend=none run --pids-limit=0 --log-driver=none",
        "detach": "podman --events-backend=none run --pids-limit=0 --log-driver=none -d",
        "log": "--log-driver=k8s-file",
    },
}


class Contestant(NamedTuple):
    """One command; what is in `before` and `after` is run each time, untimed."""

    name: str
    argv: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    terminal: bool = False
    """It gets a terminal whose other end is read as fast as it writes."""
    reports: bool = False
    """Its value is what it prints on its last line, not its time."""


class Group(NamedTuple):
    """Commands that do the same work, or a part of it."""

    key: str
    title: str
    contestants: tuple[Contestant, ...]
    rounds: int
    limit_s: float
    """After this time no further round is begun, once there were least_rounds."""
    unit: str = "ms"
    least_rounds: int = 3
    warm_up: bool = True
    """Begin with a round that does not count."""
    goal: float | None = None
    """What ours ÷ the peer's is meant to be at most."""


class Measured(NamedTuple):
    """What a group gave: a value per round (the same round for all), or why there is none."""

    values: dict[str, list[float]]
    failed: dict[str, str]
    cpu_ms: dict[str, list[float]]
    """User and system time of the command and of what it waited for, where that was measured."""
    repeated: dict[str, str]
    """Who failed once and had another try, and what it had said."""


class Bench(NamedTuple):
    """Where it is measured."""

    machine: Machine
    rig: Instance | None = None
    """None: it is the virtual machine."""


def nothing(bench: Bench) -> None:
    """Prepare nothing."""
    del bench


class Section(NamedTuple):
    """Groups that share what they need, and a table."""

    key: str
    title: str
    groups: tuple[Group, ...]
    measure: Measure
    """Gives each group as soon as it is measured."""
    prepare: Callable[[Bench], None] = nothing
    finish: Callable[[Bench], None] = nothing
    note: str = ""
    """A sentence below the table."""


def pair(
    line: str,
    *,
    before: str = "",
    after: str = "",
    shell: bool = False,
    terminal: bool = False,
    reports: bool = False,
) -> tuple[Contestant, Contestant]:
    """Return rp and podman with the same command line; those around it are a shell's anyway."""
    return (
        contestant("rp", line, before, after, shell=shell, terminal=terminal, reports=reports),
        contestant("podman", line, before, after, shell=shell, terminal=terminal, reports=reports),
    )


def contestant(
    program: str,
    line: str,
    before: str = "",
    after: str = "",
    *,
    name: str = "",
    shell: bool = False,
    terminal: bool = False,
    reports: bool = False,
) -> Contestant:
    """Return a program with its command line; {p}, {run}, {detach}, {log}, {name} are filled in."""
    words = {"name": program, **PROGRAMS.get(program, {})}

    def in_shell(text: str) -> tuple[tuple[str, ...], ...]:
        return (("sh", "-c", text.format(**words)),) if text else ()

    return Contestant(
        name=name or program,
        argv=in_shell(line)[0] if shell else tuple(shlex.split(line.format(**words))),
        before=in_shell(before),
        after=in_shell(after),
        terminal=terminal,
        reports=reports,
    )
