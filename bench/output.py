"""The groups of output: 1 GB of lines through run, attach and the log, and a terminal's."""

from __future__ import annotations

from bench import prepare
from bench.timing import timed
from bench.work import HOME, Bench, Group, Section, pair

_LINES = f"{HOME}/lines"
_BYTES, _PART_BYTES, _TERMINAL_BYTES = 1_000_000_000, 100_000_000, 50_000_000
_MAKE = f"""
block = ("x" * 499 + "\\n").encode() * 2_000
with open("{_LINES}", "wb") as file:
    for _ in range({_BYTES} // len(block)):
        file.write(block)
"""
_MOUNT = f"--network=none -v {_LINES}:/lines:ro"
_CAT = "alpine cat /lines"
_WAIT_AND_CAT = "alpine sh -c 'read -r _; exec cat /lines'"
_PART = f"alpine head -c {_PART_BYTES} /lines"
_TERMINAL_CAT = f"alpine head -c {_TERMINAL_BYTES} /lines"
_LOGGED = f"{{log}} {_MOUNT}"
_CHECKED = f"wc -c | {{{{ read -r n; test $n -ge {_BYTES}; }}}}"
_ATTACHED = "{detach} -i --name bench-attach " + f"{_MOUNT} {_WAIT_AND_CAT} >/dev/null"
_REMOVE = "{p} rm -f -t 0 bench-attach >/dev/null"

# fmt: off
_GROUPS = (
    Group("output-pipe", "`run`, 1 GB into a pipe",
          pair(f"{{run}} --rm {_MOUNT} {_CAT} | {_CHECKED}", shell=True),
          rounds=5, limit_s=25, warm_up=False),
    Group("output-attach", "`attach`, 1 GB into a pipe",
          pair(f"echo go | {{p}} attach bench-attach | {_CHECKED}", shell=True,
               before=_ATTACHED, after=_REMOVE),
          rounds=5, limit_s=25, warm_up=False),
    Group("output-terminal", "`run -t`, 50 MB to a terminal",
          pair(f"{{run}} --rm -t {_MOUNT} {_TERMINAL_CAT}", terminal=True),
          rounds=5, limit_s=25, warm_up=False),
    Group("logs-write", "`run -d` and `wait`, 100 MB into the log's file",
          pair(f"{{detach}} {_LOGGED} --name bench-attach {_PART} && {{p}} wait bench-attach",
               after=_REMOVE, shell=True),
          rounds=5, limit_s=25, warm_up=False),
    Group("logs", "`logs` of 1 GB",
          pair(f"{{p}} logs bench-log | {_CHECKED}", shell=True),
          rounds=4, limit_s=30, least_rounds=2, warm_up=False),
    Group("logs-tail", "`logs --tail 10` of 1 GB",
          pair("{p} logs --tail 10 bench-log"), rounds=10, limit_s=10),
)
# fmt: on


def _prepared(bench: Bench) -> None:
    bench.machine.run(["python3", "-I", "-c", _MAKE], timeout=120)
    logged = f"{{detach}} {_LOGGED} --name bench-log {_CAT}; {{p}} wait bench-log"
    prepare.both(bench.machine, logged, timeout=600)
    # 3 GB are to be written to the disk: nobody's fsync shall have to wait for them.
    bench.machine.run(["sync"], timeout=600)


def _end(bench: Bench) -> None:
    prepare.both(bench.machine, "{p} rm -f -t 0 bench-log")
    bench.machine.run(["rm", _LINES])


OUTPUT = Section(
    "output", "Output and logs", _GROUPS, timed, _prepared, _end, note="All lines have 500 bytes."
)
