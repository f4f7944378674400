"""The groups of what is waited for most: run, run -d, exec, start, stop, ps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import prepare
from bench.timing import timed
from bench.work import (
    HOME,
    ROOTFS,
    Bench,
    Group,
    Measured,
    Section,
    contestant,
    pair,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_CRUN = f"crun --systemd-cgroup run --bundle {HOME}/bundle"
_OBEYS = "'trap \"exit 0\" TERM; while :; do sleep 1000 & wait; done'"
_LONG = "alpine sleep 1000000"

_FLOORS = (
    contestant("crun", f"{_CRUN} bench"),
    contestant("bwrap", f"bwrap --unshare-all --ro-bind {ROOTFS} / --proc /proc --dev /dev true"),
    contestant("systemd-run --scope", "systemd-run --user --scope --quiet true"),
    contestant("python3 -I -S", "python3 -I -S -c pass"),
)

# fmt: off
_RUN = (
    Group("run", "`run --rm alpine true`",
          pair("{run} --rm alpine true"), rounds=25, limit_s=30, goal=0.40),
    Group("run-none", "`run --rm --network none alpine true`",
          (*pair("{run} --rm --network=none alpine true"), *_FLOORS), rounds=25, limit_s=40,
          goal=0.33),
    Group("run-host", "`run --rm --network host alpine true`",
          pair("{run} --rm --network=host alpine true"), rounds=20, limit_s=20),
    Group("run-d", "`run -d alpine sleep`, until it returns",
          pair("{detach} --name bench-d " + _LONG, after="{p} rm -f -t 0 bench-d"),
          rounds=20, limit_s=40, goal=0.60),
)
_ALIVE = (
    Group("exec", "`exec NAME true`", pair("{p} exec bench-up true"), rounds=25, limit_s=25,
          goal=0.33),
    Group("start", "`start NAME`",
          pair("{p} start bench-obeys", before="{p} stop bench-obeys"), rounds=15, limit_s=30),
    Group("stop", "`stop NAME`, which obeys",
          pair("{p} stop bench-obeys", before="{p} start bench-obeys"), rounds=15, limit_s=30),
)
# fmt: on
_LISTS = tuple(
    Group(
        f"ps-{count}",
        f"`ps -a`, {count} stopped",
        pair("{p} ps -a"),
        rounds=20,
        limit_s=15,
        goal=0.70,
    )
    for count in (1, 100)
)


def _counted(bench: Bench, groups: tuple[Group, ...]) -> Iterator[tuple[Group, Measured]]:
    for group in groups:
        prepare.stopped(bench.machine, int(group.key.removeprefix("ps-")))
        yield from timed(bench, (group,))


def _with_running(bench: Bench) -> None:
    prepare.both(bench.machine, "{detach} --name bench-up " + _LONG)
    prepare.both(bench.machine, "{detach} --name bench-obeys alpine sh -c " + _OBEYS)


def _end_running(bench: Bench) -> None:
    prepare.both(bench.machine, "{p} rm -f -t 0 bench-up bench-obeys")


RUN = Section("running", "Starting a container", _RUN, timed)
ALIVE = Section("alive", "With a container that exists", _ALIVE, timed, _with_running, _end_running)
LISTS = Section("list", "Listing containers", _LISTS, _counted)
