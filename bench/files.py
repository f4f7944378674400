"""The groups of cp: one large file, and 10,000 small ones, both ways."""

from __future__ import annotations

from bench import prepare
from bench.timing import timed
from bench.work import HOME, Bench, Group, Section, pair

_FILES = f"{HOME}/files"
_OUT = f"{HOME}/out"
_LARGE_BYTES = 500_000_000
_SMALL_COUNT, _SMALL_BYTES = 10_000, 2_000
# In directories of a hundred; content that is not all the same.
_MAKE = f"""
import os
os.makedirs("{_FILES}/small")
os.mkdir("{_OUT}")
block = os.urandom(1_000_000)
with open("{_FILES}/large", "wb") as file:
    for _ in range({_LARGE_BYTES} // len(block)):
        file.write(block)
for index in range({_SMALL_COUNT}):
    directory = f"{_FILES}/small/{{index // 100}}"
    if index % 100 == 0:
        os.mkdir(directory)
    with open(f"{{directory}}/{{index}}", "wb") as file:
        file.write(block[index : index + {_SMALL_BYTES}])
"""
# A new place each time ($$), for the reason that images.py has; large files leave one inode.
_NEXT = "exec {p} cp"
_REMOVE = f"{{p}} exec bench-cp sh -c 'rm -f /large.*'; rm -f {_OUT}/large.*; sync"

# fmt: off
_GROUPS = (
    Group("cp-in-large", "`cp` of 500 MB into a container",
          pair(f"{_NEXT} {_FILES}/large bench-cp:/large.$$", before=_REMOVE, shell=True),
          rounds=6, limit_s=20, warm_up=False),
    Group("cp-out-large", "`cp` of 500 MB out of it",
          pair(f"{_NEXT} bench-cp:/from/large {_OUT}/large.$$", before=_REMOVE, shell=True),
          rounds=6, limit_s=20, warm_up=False),
    Group("cp-in-small", "`cp` of 10,000 files into a container",
          pair(f"{_NEXT} {_FILES}/small bench-cp:/small.$$", before="sync", shell=True),
          rounds=6, limit_s=20, warm_up=False),
    Group("cp-out-small", "`cp` of 10,000 files out of it",
          pair(f"{_NEXT} bench-cp:/from/small {_OUT}/small.{{name}}.$$", before="sync", shell=True),
          rounds=6, limit_s=20, warm_up=False),
)
# fmt: on


def _prepared(bench: Bench) -> None:
    bench.machine.run(["rm", "-rf", _FILES, _OUT], timeout=120)
    bench.machine.run(["python3", "-I", "-c", _MAKE], timeout=120)
    prepare.both(bench.machine, "{detach} --name bench-cp alpine sleep 1000000")
    prepare.both(bench.machine, f"{{p}} cp {_FILES} bench-cp:/from", timeout=600)


def _end(bench: Bench) -> None:
    prepare.both(bench.machine, "{p} rm -f -t 0 bench-cp")
    bench.machine.run(["rm", "-rf", _FILES, _OUT], timeout=120)


FILES = Section("cp", "Copying files", _GROUPS, timed, _prepared, _end)
