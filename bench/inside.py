"""The groups of work inside a container: system calls, processor, disk, loopback TCP."""

from __future__ import annotations

from pathlib import Path

from bench import prepare
from bench.timing import timed
from bench.work import HOME, Bench, Group, Section, contestant, pair

_PROBE = f"{HOME}/inside_probe.py"
_PYTHON = "python3 -I -S"
# The machine's own Python, in its own C library.
_MOUNTS = (
    f"-v /usr:/usr:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro -v {_PROBE}:/inside_probe.py:ro"
)
_WORK = {
    "syscalls": "1,000,000 system calls",
    "cpu": "5,000,000 turns of a loop",
    "disk": "writing 256 MB",
    "fsync": "200 writes with fsync",
    "tcp": "1 GB over loopback TCP",
}


def _group(kind: str, title: str) -> Group:
    inside = pair(f"{{p}} exec bench-inside {_PYTHON} /inside_probe.py {kind}", reports=True)
    outside = contestant(
        "machine", f"{_PYTHON} {_PROBE} {kind} {HOME}", name="no container", reports=True
    )
    return Group(f"inside-{kind}", title, (*inside, outside), rounds=15, limit_s=20)


_GROUPS = tuple(_group(kind, title) for kind, title in _WORK.items())


def _prepared(bench: Bench) -> None:
    probe = Path(__file__).with_name("inside_probe.py").read_text(encoding="utf-8")
    prepare.write(bench.machine, _PROBE, probe)
    line = f"{{detach}} {_MOUNTS} --name bench-inside alpine sleep 1000000"
    prepare.both(bench.machine, line)


def _end(bench: Bench) -> None:
    prepare.both(bench.machine, "{p} rm -f -t 0 bench-inside")


INSIDE = Section("inside", "Work inside a container", _GROUPS, timed, _prepared, _end)
