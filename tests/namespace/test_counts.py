"""What one `rp run` does, counted under strace: processes, programs, messages, files, syncs.

Counts instead of times: they are the same on a busy machine, and a regression is seen the day it is
made.  Whoever changes one on purpose changes it here and says why in the commit.

The tracer attaches as root, as a set-user-ID program (newuidmap) has no rights under a tracer of
the user's own (execve(2)).
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from rig.machine import Machine

_CALLS = "clone,clone3,fork,vfork,execve,open,openat,fsync,fdatasync,sync,syncfs,sendmsg,connect"
_WAITING = """\
echo $$
kill -STOP $$
exec "$@"
"""
# Reads the files of strace -ff: one per process, so that no line is torn in two.
_COLLECT = """\
import json, os, sys
directory = sys.argv[1]
print(json.dumps({name.partition(".")[2]: open(os.path.join(directory, name)).read().splitlines()
                  for name in os.listdir(directory)}))
"""
_CREATED = re.compile(r"(?:clone3?|v?fork)\(.*= (?:\{.*\}, \d+\) = )?(\d+)$")
_EXECUTED = re.compile(r'execve\("([^"]+)".*= 0$')
_OPENED = re.compile(r'open(?:at)?\((?:\w+, )?"([^"]+)".*= \d+$')
_SYNCED = re.compile(r"(fsync|fdatasync|sync|syncfs)\(")
_MEMBER = re.compile(r"\\3\\1s\\0\\?\d*.\\0\\0\\0(\w+)\\0")
_ID = re.compile(r"[0-9a-f]{64}")


class Trace(NamedTuple):
    """What one command and its children did."""

    command: str
    """Process id of rp itself."""
    lines: dict[str, list[str]]
    """System calls by process id."""

    def found(self, pattern: re.Pattern[str]) -> list[str]:
        """Return the first group of every match, of all processes."""
        matches = (pattern.search(line) for lines in self.lines.values() for line in lines)
        return [match[1] for match in matches if match]

    def opened(self, pid: str) -> list[str]:
        """Return the files that a process opened, container ids and numbers replaced."""
        matches = (_OPENED.search(line) for line in self.lines[pid])
        return [
            re.sub(r"\.\d+\.tmp$", ".tmp", _ID.sub("ID", match[1])) for match in matches if match
        ]

    def supervisor(self) -> str:
        """Return the process id of rp's only child."""
        matches = (_CREATED.search(line) for line in self.lines[self.command])
        (pid,) = [match[1] for match in matches if match]
        return pid


@pytest.fixture(scope="module")
def attached(rig: Machine, alpine: str) -> Trace:
    """Trace `rp run --rm` without a network helper, with warm caches."""
    rig.run(["rp", "run", "--rm", "--network", "none", alpine, "true"])
    return trace(rig, ["rp", "run", "--rm", "--network", "none", alpine, "true"])


def trace(rig: Machine, argv: list[str]) -> Trace:
    """Run a command under strace."""
    if not rig.has_root:
        pytest.skip("only root can trace set-user-ID programs")
    directory = rig.root(["mktemp", "-d"]).stdout.strip()
    waiting = rig.popen(
        ["sh", "-c", _WAITING, "sh", *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    with waiting:
        assert waiting.stdout is not None
        pid = waiting.stdout.readline().decode().strip()
        # fmt: off
        tracer = rig.popen(
            ["strace", "-ff", "-s", "4096", "-e", f"trace={_CALLS}", "-e", "signal=none",
             "-o", f"{directory}/trace", "-p", pid],
            user="root", stderr=subprocess.PIPE,
        )
        # fmt: on
        with tracer:
            assert tracer.stderr is not None
            assert b"attached" in tracer.stderr.readline()
            rig.root(["kill", "-CONT", pid])
            waiting.communicate(timeout=60)
            tracer.communicate(timeout=60)
    assert waiting.returncode == 0
    collected = rig.root(["python3", "-I", "-c", _COLLECT, directory]).stdout
    rig.root(["rm", "-r", directory])
    return Trace(command=pid, lines=json.loads(collected))


def test_four_processes_and_no_program_but_the_needed(attached: Trace) -> None:
    # The supervisor, the container's init, newuidmap, newgidmap.
    assert len(attached.found(_CREATED)) == 4
    assert len(attached.lines) == 5
    programs = sorted(path.rpartition("/")[2] for path in attached.found(_EXECUTED))
    assert programs == ["newgidmap", "newuidmap", "rp", "true"]


def test_three_messages_to_the_bus(attached: Trace) -> None:
    (connection,) = [
        line
        for lines in attached.lines.values()
        for line in lines
        if line.startswith("connect(") and "/bus" in line
    ]
    assert connection.endswith("= 0")
    assert attached.found(_MEMBER) == ["Hello", "AddMatch", "StartTransientUnit"]


def test_nothing_waits_for_the_disk(attached: Trace) -> None:
    assert attached.found(_SYNCED) == []


def test_a_kept_container_survives_a_power_loss(rig: Machine, alpine: str) -> None:
    name = "counted"
    kept = trace(rig, ["rp", "run", "--name", name, "--network", "none", alpine, "true"])
    rig.run(["rp", "rm", name])
    # The record and how it ended, each with its name in the directory.
    assert kept.found(_SYNCED) == ["fsync"] * 4


def test_nothing_is_imported_after_the_fork(attached: Trace) -> None:
    late = {
        path
        for pid in attached.lines
        if pid != attached.command
        for path in attached.opened(pid)
        if path.endswith((".py", ".pyc")) or "lib-dynload" in path
    }
    assert late == set()


def test_every_file_of_the_store_is_opened_once(attached: Trace) -> None:
    opened: Counter[str] = Counter()
    for pid in (attached.command, attached.supervisor()):
        for path in attached.opened(pid):
            opened.update(
                re.findall(r"/share/rootlesspy/((?:[\w-]+/)*(?:\w+\.json|default-maps).*)", path)
            )
    assert opened == {
        "images/index.json": 1,
        "layers/default-maps": 1,
        "cache/overlay.json": 1,
        "containers/ID/record.json.tmp": 1,
        "containers/ID/config.json": 1,
        "containers/ID/state.json.tmp": 1,
    }
