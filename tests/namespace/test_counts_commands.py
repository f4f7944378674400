"""What the commands of every day do, counted under strace; `rp run` has test_counts.py.

Counts instead of times: they are the same on a busy machine, and a regression is seen the day it is
made.  Whoever changes one on purpose writes into the table the line that the failing test shows,
and says in the commit why it is more.

Counted is what the command itself and its children do, but for the supervisor of a container, which
goes on, and what that does for a command.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from namespace.imagepush import push
from namespace.tracing import CREATED, EXECUTED, GONE, MEMBER, SYNCED, Trace, trace
from rig import ociimage

if TYPE_CHECKING:
    from rig.machine import Machine


class Counts(NamedTuple):
    """One line of the table; all processes of the command together."""

    modules: int
    """Of rootlesspy's own that are imported."""
    libraries: str
    """Of those that take long to import."""
    files: int
    """Opened below the store and the runtime directory."""
    processes: int
    """Made by the command and its children."""
    programs: str
    """Executed beside rp."""
    messages: int
    """Sent to the bus."""
    syncs: int
    """Waits for the disk."""


# fmt: off
#                 modules libraries        files processes programs               messages syncs
TABLE = {
    "run -d":  Counts(80,    "",              10,   2,        "",                    0,       3),
    "exec":    Counts(38,    "",              5,    0,        "",                    0,       0),
    "ps":      Counts(37,    "",              7,    0,        "",                    0,       0),
    "inspect": Counts(50,    "",              11,   0,        "",                    0,       0),
    "logs":    Counts(39,    "",              11,   1,        "journalctl",          0,       0),
    "cp":      Counts(57,    "",              9,    3,        "",                    0,       0),
    "stop":    Counts(38,    "",              6,    0,        "",                    0,       0),
    "start":   Counts(56,    "",              7,    2,        "",                    0,       0),
    "rm -f":   Counts(60,    "",              8,    0,        "",                    0,       0),
    "pull":    Counts(80,    "tomli urllib3", 32,   6,        "newgidmap newuidmap", 0,       9),
    "save":    Counts(57,    "",              6,    1,        "",                    0,       0),
    "load":    Counts(74,    "",              32,   5,        "newgidmap newuidmap", 0,       9),
}
# fmt: on

_RESET_FAILED = 2
"""A question and its answer."""
_MAKE_SUPERVISORS = ("run -d", "start")
_DETACHED = "rp run -d --name counted --network none"
# Every command is a child of one shell, so that one tracer does for all of them.
_SCRIPT = f"""\
set -e
image=$1 home=$2 tiny=$3
{_DETACHED} "$image" sh -c 'echo said; exec sleep 1000' >"$home/out"
rp exec counted true
rp ps >"$home/out"
rp inspect counted >"$home/out"
rp logs counted >"$home/out"
rp cp /etc/hostname counted:/copied
rp stop -t 0 counted >"$home/out"
{GONE}
rp start counted >"$home/out"
rp rm -f counted >"$home/out"
XDG_DATA_HOME=$home/pulled rp pull -q "$tiny" >"$home/out"
XDG_DATA_HOME=$home/pulled rp save -q -o "$home/saved.tar" "$tiny"
XDG_DATA_HOME=$home/loaded rp load -q -i "$home/saved.tar" >"$home/out"
:
"""
# What is made once for an image, an id map and a store; and a container that says all it will.
_WARM_UP = f"""\
set -e
image=$1 home=$2
{_DETACHED} "$image" sh -c 'echo said; exec sleep 1000' >"$home/out"
rp stop -t 0 counted >"$home/out"
rp logs counted >"$home/out"
rp cp /etc/hostname counted:/copied
rp inspect counted >"$home/out"
rp rm -f counted >"$home/out"
"""
_MODULE = re.compile(r"/rootlesspy/(?:\w+/)*(?:__pycache__/)?(\w+)(?:\.cpython-\d+)?\.pyc?$")
_LIBRARY = re.compile(
    r"/(?:dist|site)-packages/(cryptography|pyroute2|pystemd|rich|tomli|typer|urllib3|yaml)/"
)
_OWN_FILE = re.compile(r"/(?:share|pulled|loaded|run/user/\d+)/rootlesspy/")


@pytest.fixture(scope="module")
def counted(rig: Machine, alpine: str) -> dict[str, Counts]:
    """Return what each command did, in a store that is in use, with all caches warm."""
    layer = ociimage.tar([ociimage.Entry(name="file", data=b"content")])
    tiny = push(rig, "bench/counted", {"latest": ociimage.image([layer])})
    home = rig.run(["mktemp", "-d"]).stdout.strip()
    try:
        rig.run(["sh", "-c", _WARM_UP, "sh", alpine, home])
        whole = trace(rig, ["sh", "-c", _SCRIPT, "sh", alpine, home, tiny])
    finally:
        rig.run(["rp", "rm", "-f", "counted"], check=False)
        rig.run(["rp", "unshare", "rm", "-r", home])
    return {
        name: _counts(whole.alone(pid) if name in _MAKE_SUPERVISORS else whole.of(pid))
        for name, pid in zip(TABLE, whole.children(whole.command), strict=True)
    }


@pytest.mark.parametrize("command", TABLE)
def test_counts(counted: dict[str, Counts], command: str) -> None:
    found = counted[command]
    # systemd has perhaps not forgotten the service yet, which has ended well: then it is asked to.
    if command == "rm -f" and found.messages == _RESET_FAILED:
        found = found._replace(messages=0)
    assert _line(command, found) == _line(command, TABLE[command])


def _line(command: str, counts: Counts) -> str:
    """Return a line of the table."""
    return f'"{command}": Counts({", ".join(map(json.dumps, counts))}),'


def _counts(command: Trace) -> Counts:
    programs = sorted(path.rpartition("/")[2] for path in command.found(EXECUTED))
    programs.remove("rp")
    opened = [path for pid in command.lines for path in command.opened(pid)]
    libraries = {match[1] for path in opened if (match := _LIBRARY.search(path))}
    return Counts(
        modules=sum(_MODULE.search(path) is not None for path in opened),
        libraries=" ".join(sorted(libraries)),
        files=sum(_OWN_FILE.search(path) is not None for path in opened),
        processes=len(command.found(CREATED)),
        programs=" ".join(programs),
        messages=len(command.found(MEMBER)),
        syncs=len(command.found(SYNCED)),
    )
