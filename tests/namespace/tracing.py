"""Commands under strace: which processes they make, and what each of them calls.

The tracer attaches as root, as a set-user-ID program (newuidmap) has no rights under a tracer of
the user's own (execve(2)).
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from rig.machine import Machine

_CALLS = "clone,clone3,fork,vfork,execve,open,openat,fsync,fdatasync,sync,syncfs,sendmsg,connect"
_WAITING = """\
echo $$
read go
exec "$@" </dev/null
"""
_TRACING = 'echo $$ >"$1"; shift; exec "$@"'
# Waits, without a process, until systemd too has seen the end of a container called counted: who
# starts it before that asks for its service again.
GONE = 'while [ -e "$XDG_RUNTIME_DIR/systemd/transient/rp-counted.service" ]; do :; done'
# Reads the files of strace -ff: one per process, so that no line is torn in two.
_COLLECT = """\
import json, os, sys
directory = sys.argv[1]
print(json.dumps({name.partition(".")[2]: open(os.path.join(directory, name)).read().splitlines()
                  for name in os.listdir(directory)}))
"""
CREATED = re.compile(r"(?:clone3?|v?fork)\(.*= (?:\{.*\}, \d+\) = )?(\d+)$")
EXECUTED = re.compile(r'execve\("([^"]+)".*= 0$')
SYNCED = re.compile(r"(fsync|fdatasync|sync|syncfs)\(")
MEMBER = re.compile(r"\\3\\1s\\0\\?\d*.\\0\\0\\0(\w+)\\0")
_OPENED = re.compile(r'open(?:at)?\((?:\w+, )?"([^"]+)".*= \d+$')
_ID = re.compile(r"[0-9a-f]{64}")


class Trace(NamedTuple):
    """What one command and its children did."""

    command: str
    """Process id of the command itself."""
    lines: dict[str, list[str]]
    """System calls by process id."""

    def found(self, pattern: re.Pattern[str]) -> list[str]:
        """Return the first group of every match, of all processes."""
        matches = (pattern.search(line) for lines in self.lines.values() for line in lines)
        return [match[1] for match in matches if match]

    def opened(self, pid: str) -> list[str]:
        """Return the files that a process opened, container ids and numbers replaced."""
        return opened_by(self.lines[pid])

    def supervisor(self) -> str:
        """Return the process id of rp's child that supervises; the other one waits for a while."""
        _, pid = self.children(self.command)
        return pid

    def children(self, pid: str) -> list[str]:
        """Return the processes that a process made, in their order."""
        matches = (CREATED.search(line) for line in self.lines[pid])
        return [match[1] for match in matches if match]

    def alone(self, pid: str) -> Trace:
        """Return what one process did, without those that it made."""
        return Trace(command=pid, lines={pid: self.lines[pid]})

    def of(self, pid: str) -> Trace:
        """Return what one process did, with its children, theirs, and so on."""
        lines, pending = {}, [pid]
        while pending:
            each = pending.pop()
            lines[each] = self.lines[each]
            pending += self.children(each)
        return Trace(command=pid, lines=lines)


def opened_by(lines: list[str]) -> list[str]:
    """Return the files that system calls opened, container ids and numbers replaced."""
    matches = (_OPENED.search(line) for line in lines)
    return [re.sub(r"\.\d+\.tmp$", ".tmp", _ID.sub("ID", match[1])) for match in matches if match]


def trace(rig: Machine, argv: list[str], *, outlived: bool = False) -> Trace:
    """Run a command under strace, until all its processes have ended.

    outlived: until it has, for the supervisor of a container goes on.
    """
    if not rig.has_root:
        pytest.skip("only root can trace set-user-ID programs")
    directory = rig.root(["mktemp", "-d"]).stdout.strip()
    waiting = rig.popen(
        ["sh", "-c", _WAITING, "sh", *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with waiting:
        assert waiting.stdout is not None
        pid = waiting.stdout.readline().decode().strip()
        # fmt: off
        tracer = rig.popen(
            ["sh", "-c", _TRACING, "sh", f"{directory}.pid",
             "strace", "-ff", "-s", "4096", "-e", f"trace={_CALLS}", "-e", "signal=none",
             "-o", f"{directory}/trace", "-p", pid],
            user="root", stderr=subprocess.PIPE,
        )
        # fmt: on
        with tracer:
            assert tracer.stderr is not None
            assert b"attached" in tracer.stderr.readline()
            waiting.communicate(b"go\n", timeout=300)
            if outlived:
                rig.root(["sh", "-c", 'kill -INT "$(cat "$1")"', "sh", f"{directory}.pid"])
            tracer.communicate(timeout=300)
    assert waiting.returncode == 0
    collected = rig.root(["python3", "-I", "-c", _COLLECT, directory]).stdout
    rig.root(["rm", "-r", directory, f"{directory}.pid"])
    return Trace(command=pid, lines=json.loads(collected))
