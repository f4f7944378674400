"""A container whose confinement cannot be made does not start, whichever call of it fails.

Some points in every commit; RP_NIGHTLY=1 tries a random sample of all, for minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from namespace.faults import driving
from rig.effort import nightly, sampled, tell

if TYPE_CHECKING:
    from rig.machine import Machine

LIMIT_S = 3600 if nightly() else 400
pytestmark = [pytest.mark.usefixtures("alpine"), pytest.mark.limit(LIMIT_S)]

# What confines; none of them is called by what looks.
CALLS = (
    "prctl", "seccomp", "capset", "setresuid", "setresgid", "setgroups", "sethostname", "unshare",
    "setns", "mount_setattr", "move_mount", "fsconfig", "fsmount", "fsopen", "open_tree", "mount",
    "umount2", "pivot_root", "close_range", "mkdirat", "openat2", "fchmod", "setuid", "setgid",
)  # fmt: skip
ERRORS = ("EPERM", "EINVAL", "ENOMEM")
POINTS = [("prctl", "EINVAL", 5), ("seccomp", "EINVAL", 1), ("mount_setattr", "EPERM", 3)]


def test_confined_as_asked_or_not_at_all(rig: Machine) -> None:
    if not rig.has_root:
        pytest.skip("needs root: strace would take the rights of newuidmap away")
    points = [] if nightly() else POINTS
    job = {"calls": CALLS, "errors": ERRORS, "points": points, **sampled(5)}
    found = driving.drive(rig, "confined", job, LIMIT_S)
    counts = {key: found[key] for key in ("points", "tried", "fired")}
    tell("confinement", seed=job["seed"], **counts)
    assert not found["failures"], "\n".join(found["failures"])
    assert found["fired"] >= 1
