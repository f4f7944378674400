"""The image store survives kill -9 and a full disk at every system call of a pull, load, rmi.

Each commit tries a few points, those at which most is half-made.  RP_NIGHTLY=1 tries a random
sample, for minutes, of every call of a small image with all kinds of entries and of every 60th of
Alpine's; with RP_NIGHTLY_MINUTES=0 all (hours).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from namespace import imagepush
from rig import ociimage
from rig.effort import nightly, sampled, tell
from rig.ociimage import Entry, directory, hard_link, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.namespace

WHOLE = nightly()
LIMIT_S = 6 * 3600
SWEEP = Path(__file__).with_name("sweep.py").read_text(encoding="utf-8")
SMALL = "docker.io/sweep/small"
SAVED = "/home/alice/sweep.tar"
KILL, FULL = "signal=KILL", "error=ENOSPC"
_RARE = (
    "write", "pwrite64", "ftruncate", "flock", "mkdirat", "mkdir", "fchown", "fchmod", "utimensat",
    "symlinkat", "linkat", "mknodat", "fsetxattr", "rename", "unlink", "unlinkat", "syncfs",
    "fsync", "clone", "clone3", "pipe2", "wait4",
)  # fmt: skip
# Every n-th of which is tried; the interpreter opens hundreds of files.
KILLED_AT = dict.fromkeys(_RARE, 1) | {"openat": 20}
FULL_AT = dict.fromkeys(("write", "pwrite64", "mkdir", "mkdirat", "symlinkat", "linkat", "mknodat",
                         "fsetxattr", "rename", "syncfs", "fsync"), 1)  # fmt: skip
EVERYWHERE_60TH = dict.fromkeys(KILLED_AT, 60)


def _sweep(rig: Machine, **wanted: object) -> dict[str, Any]:
    """Go through the points, or through all of kill and fail; return how many there were."""
    sweep = {"before": [], "points": [], "kill": {}, "fail": {}, "may_be_done": False}
    sweep |= {**sampled(2), **wanted}
    limit_s = LIMIT_S if WHOLE else 900
    done = rig.root(["python3", "-I", "-c", SWEEP], input=json.dumps(sweep), timeout=limit_s)
    found: dict[str, Any] = json.loads(done.stdout)
    counts = {key: found[key] for key in ("points", "tried", "fired")}
    tell(f"store: {sweep['command']}", seed=sweep["seed"], **counts)
    assert found["failures"] == []
    return found


@pytest.fixture(scope="module")
def small(rig: Machine) -> Iterator[str]:
    """Return the name of a small image in the registry that has entries of every kind."""
    if not rig.has_root:
        pytest.skip("needs root: strace would take the rights of newuidmap away")
    base = ociimage.tar(
        [
            directory("etc"),
            Entry("etc/passwd", data=b"root:x:0:0::/:/bin/sh\n", uid=0, gid=0),
            Entry("etc/shadow", data=b"x" * 5000, mode=0o640, gid=42),
            directory("srv", mode=0o2775, gid=7),
            Entry("srv/large", data=bytes(range(256)) * 4000, uid=33),
            symlink("srv/link", "large"),
            hard_link("srv/second", "srv/large"),
            Entry("srv/pipe", kind=ociimage.FIFO, mode=0o600),
        ]
    )
    above = ociimage.tar(
        [
            directory("srv"),
            Entry("srv/.wh.link"),
            directory("opt"),
            Entry("opt/.wh..wh..opq"),
            Entry("opt/attributed", data=b"1", pax={"SCHILY.xattr.user.colour": "red"}),
        ]
    )
    imagepush.push(rig, "sweep/small", {"latest": ociimage.image([base, above], {"Cmd": ["sh"]})})
    yield SMALL
    rig.run(["rm", "-f", SAVED])


@pytest.mark.row("P1", "nothing half-made is listed, the next pull succeeds")
@pytest.mark.row("P2", "layers are whole or not there")
@pytest.mark.limit(LIMIT_S if WHOLE else 1000)
def test_P1_a_pull_killed_at_any_call_leaves_a_store_that_works(
    rig: Machine, small: str, leaves_nothing: None
) -> None:
    points = [("rename", KILL, 1), ("syncfs", KILL, 1), ("linkat", KILL, 1)]
    found = _sweep(
        rig,
        command=["rp", "pull", "--quiet", small],
        **({"kill": KILLED_AT} if WHOLE else {"points": points}),
    )
    assert found["fired"] >= len(points)


@pytest.mark.row("R1", "one line, 125, nothing half-made")
@pytest.mark.limit(LIMIT_S if WHOLE else 1000)
def test_D1_a_disk_full_at_any_call_of_a_pull_is_one_line(
    rig: Machine, small: str, leaves_nothing: None
) -> None:
    points = [("write", FULL, 3), ("mkdir", FULL, 1), ("syncfs", FULL, 1)]
    found = _sweep(
        rig,
        command=["rp", "pull", "--quiet", small],
        **({"fail": FULL_AT} if WHOLE else {"points": points}),
    )
    assert found["fired"] >= len(points)


@pytest.mark.row("P1", "the store works")
@pytest.mark.limit(LIMIT_S if WHOLE else 1000)
def test_P1_a_load_killed_or_without_space_leaves_a_store_that_works(
    rig: Machine, small: str, leaves_nothing: None
) -> None:
    rig.run(["rp", "pull", "--quiet", small])
    rig.run(["rp", "save", "--output", SAVED, small])
    points = [("rename", KILL, 2), ("write", FULL, 3)]
    found = _sweep(
        rig,
        command=["rp", "load", "--quiet", "--input", SAVED],
        **({"kill": KILLED_AT, "fail": FULL_AT} if WHOLE else {"points": points}),
    )
    assert found["fired"] >= len(points)


@pytest.mark.row("P1", "the store works")
@pytest.mark.limit(LIMIT_S if WHOLE else 1000)
def test_P1_a_removal_killed_at_any_call_leaves_a_store_that_works(
    rig: Machine, small: str, leaves_nothing: None
) -> None:
    points = [("rename", KILL, 1), ("unlinkat", KILL, 1)]
    found = _sweep(
        rig,
        before=[["rp", "pull", "--quiet", small]],
        command=["rp", "rmi", small],
        may_be_done=True,
        **({"kill": KILLED_AT} if WHOLE else {"points": points}),
    )
    assert found["fired"] >= len(points)


@pytest.mark.row("P1", "the store works")
@pytest.mark.limit(LIMIT_S if WHOLE else 1000)
def test_P1_a_pull_of_alpine_killed_at_many_calls(
    rig: Machine, small: str, leaves_nothing: None
) -> None:
    found = _sweep(
        rig,
        command=["rp", "pull", "--quiet", "alpine"],
        **({"kill": EVERYWHERE_60TH} if WHOLE else {"points": [("utimensat", KILL, 60)]}),
    )
    assert found["fired"] >= 1
