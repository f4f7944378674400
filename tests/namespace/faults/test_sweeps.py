"""The fault contract S1-S6 after a kill -9, or a failing system call, at many system calls.

A few points each in every commit, those at which most is half-made.  RP_NIGHTLY=1 tries a random
sample, for minutes, of all calls of each command; with RP_NIGHTLY_MINUTES=0 all (hours).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from namespace.faults import driving
from rig.effort import nightly, sampled, tell

if TYPE_CHECKING:
    from rig.machine import Machine

LIMIT_S = 6 * 3600 if nightly() else 400
pytestmark = [pytest.mark.usefixtures("alpine"), pytest.mark.limit(LIMIT_S)]

KILL = "signal=KILL"
_RARE = (
    "write", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat",
    "symlink", "symlinkat", "link", "linkat", "fsync", "fdatasync", "mount", "move_mount",
    "umount2", "pivot_root", "clone", "clone3", "vfork", "execve", "connect", "bind", "sendmsg",
    "sendto", "recvmsg", "flock", "setns", "pidfd_open", "kill", "pidfd_send_signal", "ftruncate",
    "chmod", "poll",
)  # fmt: skip
# Every n-th of which is tried; the interpreter opens hundreds of files.
EVERYWHERE = dict.fromkeys(_RARE, 1) | {"openat": 20, "openat2": 2}
FULL = {"write": 1, "mkdir": 1, "symlink": 1, "rename": 1, "fsync": 1, "openat": 40}
BROKEN = {"fsync": 1, "rename": 1, "write": 2, "unlink": 2}
READ_ONLY = {"mkdir": 1, "rename": 1, "symlink": 1, "unlink": 2}
FEW_FILES = {"openat": 10, "socket": 1, "pipe2": 1, "pidfd_open": 1, "epoll_create1": 1}
NO_MEMORY = {"openat": 40, "mount": 1, "clone3": 1, "setns": 1, "poll": 2, "sendmsg": 1}
FEW_PROCESSES = {"clone": 1, "clone3": 1, "vfork": 1, "fork": 1}

NONE = ("--network", "none")
SLEEPS = ["rp", "run", "-d", "--name", "x", *NONE, "alpine", "sleep", "600"]
PORTS = ["-v", "data:/data", "-p", "127.0.0.1:18080:80"]
SEVEN = ["alpine", "sh", "-c", "exit 7"]
COMMANDS: dict[str, dict[str, Any]] = {
    "run -d": {
        "command": ["rp", "run", "-d", "--name", "x", *PORTS, "alpine", "sleep", "600"],
        "points": [("rename", KILL, 2), ("sendmsg", KILL, 3)],
        "codes": [0, 125],
    },
    "run": {
        "command": ["rp", "run", "--name", "x", *PORTS, *SEVEN],
        "points": [("mount", KILL, 5), ("rename", KILL, 3), ("clone3", KILL, 1)],
        "codes": [7, 125],
    },
    "run --rm": {
        "command": ["rp", "run", "--rm", "--name", "x", *PORTS, *SEVEN],
        "points": [("rename", KILL, 1), ("unlinkat", KILL, 4)],
        "codes": [7, 125],
    },
    "create": {
        "command": ["rp", "create", "--name", "x", "alpine", "sleep", "600"],
        "points": [("symlink", KILL, 1), ("rename", KILL, 1)],
        "codes": [0, 125],
    },
    "start": {
        "before": [["rp", "create", "--name", "x", *NONE, "alpine", "sleep", "600"]],
        "command": ["rp", "start", "x"],
        "points": [("sendto", KILL, 4)],
        "codes": [0, 125],
    },
    "exec": {
        "before": [SLEEPS],
        "command": ["rp", "exec", "x", "sh", "-c", "exit 7"],
        "points": [("sendmsg", KILL, 1)],
        "codes": [7, 125, 137],
    },
    "exec, the supervisor": {
        "before": [SLEEPS],
        "command": ["rp", "exec", "x", "sh", "-c", "exit 7"],
        "supervisor": "x",
        "points": [("clone3", KILL, 1), ("sendmsg", KILL, 1)],
        "codes": [7, 125, 137],
    },
    "stop": {
        "before": [SLEEPS],
        "command": ["rp", "stop", "-t", "1", "x"],
        "points": [("sendmsg", KILL, 1)],
        "codes": [0, 125],
    },
    "stop, the supervisor": {
        "before": [SLEEPS],
        "command": ["rp", "stop", "-t", "1", "x"],
        "supervisor": "x",
        "points": [("rename", KILL, 1)],
        "codes": [0, 125],
    },
    "kill": {
        "before": [SLEEPS],
        "command": ["rp", "kill", "x"],
        "points": [("sendmsg", KILL, 1)],
        "codes": [0, 125],
    },
    "rm -f": {
        "before": [SLEEPS],
        "command": ["rp", "rm", "-f", "x"],
        "points": [("rename", KILL, 1)],
        "codes": [0, 125],
    },
    "rm": {
        "before": [["rp", "create", "--name", "x", "-v", "/data", "alpine", "sleep", "600"]],
        "command": ["rp", "rm", "-v", "x"],
        "points": [("unlink", KILL, 1), ("unlinkat", KILL, 2)],
        "codes": [0, 125],
    },
    "commit": {
        "before": [SLEEPS],
        "command": ["rp", "commit", "-q", "x", "localhost/swept"],
        "points": [("rename", KILL, 1)],
        "codes": [0, 125],
    },
    "cp": {
        "before": [SLEEPS],
        "command": ["rp", "cp", "x:/bin", "/tmp/swept"],
        "after": [["rm", "-rf", "/tmp/swept"]],
        "points": [("openat", KILL, 300)],
        "codes": [0, 125],
    },
}  # fmt: skip

FEW = ("run -d", "run", "exec, the supervisor", "stop, the supervisor", "rm -f")


def _sweep(rig: Machine, name: str, steps: dict[str, dict[str, int]], **more: Any) -> None:
    """Go through the points of a command, or at night through all; fail with what went wrong."""
    if not rig.has_root:
        pytest.skip("needs root: strace would take the rights of newuidmap away")
    job = {
        "before": [],
        "after": [],
        "supervisor": "",
        "again": 10 if nightly() else 2,
        **sampled(3),
        **COMMANDS[name],
        **more,
    }
    if nightly():
        job["points"] = []
    found = driving.drive(rig, "injector", {**job, "steps": steps}, LIMIT_S)
    counts = {key: found[key] for key in ("points", "tried", "fired")}
    tell(f"{', '.join(steps)}: {name}", seed=job["seed"], **counts)
    assert not found["failures"], "\n".join(found["failures"])
    assert found["fired"] >= 1


@pytest.mark.row("P1", "the contract holds after a kill at each system call of each command")
@pytest.mark.row("P3", "no container, or one that can be started; the name is free or its own")
@pytest.mark.row("P8", "the container is untouched")
@pytest.mark.row("P9", "the next stop or removal finishes the job")
@pytest.mark.row("P10", "gone, or the next removal completes it")
@pytest.mark.row("P11", "no image is tagged, nothing stays frozen or half-made")
@pytest.mark.row("P5", "the container ends; its end is lost, not 0")
@pytest.mark.parametrize("name", COMMANDS if nightly() else FEW)
def test_p_killed_at_a_system_call(rig: Machine, name: str) -> None:
    _sweep(rig, name, {KILL: EVERYWHERE})


ERRORS = [
    pytest.param("ENOSPC", FULL, "run", ("write", 5), id="R1",
                 marks=pytest.mark.row("R1", "125 and one line, nothing half-made stays")),
    pytest.param("EDQUOT", FULL, "create", ("mkdir", 2), id="R2-quota",
                 marks=pytest.mark.row("R2", "125 and one line, nothing half-made stays")),
    pytest.param("EIO", BROKEN, "create", ("fsync", 1), id="R2-io",
                 marks=pytest.mark.row("R2", "a failing fsync is a failure")),
    pytest.param("EROFS", READ_ONLY, "create", ("mkdir", 1), id="R2-read-only",
                 marks=pytest.mark.row("R2", "125 and one line, nothing half-made stays")),
    pytest.param("EMFILE", FEW_FILES, "run", ("pipe2", 1), id="R4",
                 marks=pytest.mark.row("R4", "125 and one line, nothing half-made stays")),
    pytest.param("EAGAIN", FEW_PROCESSES, "run", ("clone3", 1), id="R5",
                 marks=pytest.mark.row("R5", "125 and one line, nothing half-made stays")),
]  # fmt: skip


@pytest.mark.parametrize(("error", "steps", "name", "point"), ERRORS)
def test_r_a_system_call_that_fails(
    rig: Machine,
    error: str,
    steps: dict[str, int],
    name: str,
    point: tuple[str, int],
) -> None:
    what = f"error={error}"
    points = [(point[0], what, point[1])]
    # What of the payload fails may be told by its shell.
    codes = [*COMMANDS[name]["codes"], 1, 2, 126, 127]
    _sweep(rig, name, {what: steps}, points=points, codes=codes)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["run -d", "start", "exec", "stop", "rm -f", "rm", "commit", "cp"])
def test_r_any_system_call_fails(rig: Machine, name: str) -> None:
    """All of R1 to R5 at any call of what is not in ERRORS."""
    steps = {
        "error=ENOSPC": FULL, "error=EIO": BROKEN, "error=EROFS": READ_ONLY,
        "error=EMFILE": FEW_FILES, "error=EAGAIN": FEW_PROCESSES, "error=ENOMEM": NO_MEMORY,
    }  # fmt: skip
    _sweep(rig, name, steps, codes=[*COMMANDS[name]["codes"], 1, 2, 126, 127])
