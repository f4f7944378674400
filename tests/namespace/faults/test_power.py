"""Power loss at many moments: the store is whole, and what was told to be done is done.

Only the store's file system loses its power here, which takes a tenth of a second; a whole machine
does in tests/vm/test_faults.py.
"""

from __future__ import annotations

import base64
import gzip
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from namespace.faults import driving
from rig.effort import nightly

if TYPE_CHECKING:
    from pathlib import Path

    from rig.machine import Machine

LIMIT_S = 4 * 3600 if nightly() else 400
pytestmark = pytest.mark.limit(LIMIT_S)

DISK_BYTES = 96 << 20
NONE = ("--network", "none")
PULL = ["rp", "pull", "-q", "alpine"]
TRY = (["rp", "run", "--rm", *NONE, "alpine", "true"], 0)
STEPS = {"fsync": 1, "syncfs": 1, "rename": 1, "symlink": 1, "mkdir": 2, "unlink": 3, "write": 10}
STATE = ["rp", "ps", "-a", "--format", "{{.Names}} {{.State}} {{.ExitCode}}"]


def attempt(*command: str, **more: Any) -> dict[str, Any]:
    """Return what is tried: see powercut.main()."""
    return {
        "command": ["rp", *command],
        "before": [],
        "points": [],
        "steps": STEPS,
        "codes": [0],
        "told": [],
        "again": [TRY],
    } | more


PULLS = attempt(
    *PULL[1:],
    points=[("syncfs", 1), ("rename", 2), ("fsync", 3), ("", 0), ("", 0)],
    told=[(["rp", "images", "--format", "{{.Repository}}"], "docker.io/library/alpine")],
    again=[(PULL, 0), TRY],
)
CONTAINERS = {
    "run": attempt(
        "run", "--name", "x", *NONE, "alpine", "sh", "-c", "exit 7",
        points=[("", 0), ("", 0), ("fsync", 2)],
        codes=[7],
        told=[(STATE, "x exited 7")],
        again=[(["rp", "rm", "-f", "-i", "x"], 0), TRY],
    ),
    "run -d": attempt(
        "run", "-d", "--name", "x", *NONE, "alpine", "sleep", "600",
        points=[("", 0), ("", 0), ("rename", 2)],
        # What was not told to have ended: whether it is known to have begun is the disk's chance.
        told=[(STATE, "x (exited -1|created 0)"), (["rp", "start", "x"], "x")],
    ),
    "run -d --rm": attempt(
        "run", "-d", "--rm", "--name", "x", "-v", "/data", *NONE, "alpine", "sleep", "600",
        points=[("", 0), ("", 0)],
        told=[(STATE, ""), (["rp", "volume", "prune", "-f"], ".*")],
        again=[(["rp", "run", "--rm", "--name", "x", *NONE, "alpine", "true"], 0)],
    ),
    "create": attempt(
        "create", "--name", "x", "-v", "data:/data", *NONE, "alpine", "true",
        points=[("", 0), ("rename", 1)],
        told=[(STATE, "x created 0"), (["rp", "start", "-a", "x"], "")],
    ),
    "commit": attempt(
        "commit", "-q", "x", "localhost/kept",
        before=[
            ["rp", "create", "--name", "x", *NONE, "alpine", "true"],
            ["rp", "cp", "/etc/hostname", "x:/made"],
        ],
        points=[("", 0), ("", 0), ("rename", 1)],
        told=[(["rp", "run", "--rm", *NONE, "localhost/kept", "ls", "/made"], "/made")],
    ),
    "rm": attempt(
        "rm", "x",
        before=[["rp", "create", "--name", "x", *NONE, "alpine", "true"]],
        points=[("", 0), ("unlink", 1)],
        again=[(["rp", "rm", "-f", "-i", "x"], 0), TRY],
    ),
    "rmi": attempt(
        "rmi", "alpine",
        points=[("", 0), ("rename", 1)],
        again=[(PULL, 0), TRY],
    ),
    "secret": attempt(
        "secret", "create", "words", "/etc/hostname",
        points=[("", 0), ("rename", 1)],
        told=[(["rp", "secret", "ls", "--format", "{{.Name}}"], "words")],
    ),
    "volume": attempt(
        "volume", "create", "data",
        points=[("", 0)],
        told=[(["rp", "volume", "ls", "-q"], "data")],
    ),
}  # fmt: skip
FEW = ("run", "run -d", "commit")


@pytest.fixture(scope="module")
def disk(rig: Machine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an empty ext4, as the rig is sent it."""
    if not rig.has_root:
        pytest.skip("needs root to mount")
    program = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        pytest.skip("mke2fs is not installed")
    path: Path = tmp_path_factory.mktemp("power") / "disk"
    with path.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run([program, "-q", "-t", "ext4", "-m", "0", path], check=True)
    return base64.b64encode(gzip.compress(path.read_bytes(), 1)).decode()


def lose_power(
    rig: Machine, disk: str, prepare: list[list[str]], tries: list[dict[str, Any]]
) -> None:
    """Go through the points, or at night through all; fail with what went wrong."""
    if nightly():
        tries = [each | {"points": []} for each in tries]
    job = {"disk": disk, "prepare": prepare, "tries": tries}
    found = driving.drive(rig, "powercut", job, LIMIT_S)
    assert not found["failures"], "\n".join(found["failures"])
    assert found["reached"] >= len(tries)


@pytest.mark.row("T5", "never half an image; one that was told is whole; the next pull works")
@pytest.mark.row("P2", "half a layer is never one, without power too")
def test_t5_power_is_lost_during_a_pull(rig: Machine, disk: str, leaves_nothing: None) -> None:
    lose_power(rig, disk, [], [PULLS])


@pytest.mark.row("T5", "ends, containers and images that were told are there, whole")
@pytest.mark.row("P11", "commit without power: no tag, or a whole image")
@pytest.mark.parametrize("names", [CONTAINERS if nightly() else FEW], ids=["all"])
def test_t5_power_is_lost_during_commands_of_containers(
    rig: Machine, disk: str, leaves_nothing: None, names: tuple[str, ...]
) -> None:
    lose_power(rig, disk, [PULL], [CONTAINERS[name] for name in names])
