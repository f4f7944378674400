"""The groups of the virtual machine, where limits hold: run, exec, start and stop with them.

The machine is emulated where there is no virtualisation: its figures are to be compared with each
other alone.
"""

from __future__ import annotations

from bench import prepare
from bench.timing import timed
from bench.work import Bench, Group, Section, pair

_LIMITS = "-m 256m --cpus 1 --pids-limit 100"
_RUN = "{run} " + _LIMITS
_DETACH = "{detach} " + _LIMITS
_OBEYS = "'trap \"exit 0\" TERM; while :; do sleep 1000 & wait; done'"

# fmt: off
_GROUPS = (
    Group("vm-run", "`run --rm alpine true`",
          pair(f"{_RUN} --rm alpine true"), rounds=5, limit_s=40, warm_up=False),
    Group("vm-exec", "`exec NAME true`",
          pair("{p} exec bench-vm true"), rounds=5, limit_s=20, warm_up=False),
    Group("vm-start-stop", "`start` and `stop`",
          pair("{p} start bench-vm && {p} stop bench-vm", before="{p} stop bench-vm", shell=True),
          rounds=5, limit_s=40, warm_up=False),
)
# fmt: on


def _prepared(bench: Bench) -> None:
    # There is no udev that would let users open it.
    bench.machine.root(["chmod", "666", "/dev/net/tun"])
    prepare.timer(bench.machine)
    prepare.both(bench.machine, "{p} pull --quiet alpine", timeout=300)
    line = f"{_DETACH} --name bench-vm alpine sh -c {_OBEYS}"
    prepare.both(bench.machine, line)


VM = Section(
    "vm",
    "With limits, in the virtual machine",
    _GROUPS,
    timed,
    _prepared,
    note=(
        "Each with `-m 256m --cpus 1 --pids-limit 100`, which the namespace rig cannot have. The "
        "machine is emulated where there is no virtualisation, so all of this is slow."
    ),
)
