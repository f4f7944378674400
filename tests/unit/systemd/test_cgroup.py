"""The cgroup tree, where it needs no cgroup: the rest is tried on real ones (tests/namespace)."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.errors import RuntimeFailure
from rootlesspy.systemd import cgroup

if TYPE_CHECKING:
    from pathlib import Path


def test_a_scope_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """As /proc/PID/cgroup names that of a process which has died: cgroups(7)."""
    gone = tmp_path / "rp-x.scope (deleted)"
    with pytest.raises(RuntimeFailure, match="No such file"):
        cgroup.enter_payload(os.fspath(gone), os.getpid())
    assert not gone.exists()


def test_an_oom_kill_that_the_cgroup_did_not_outlive_is_told_by_the_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the slice has counted since the last look at the cgroup is the container's."""
    scope = tmp_path / "rp-x.scope"
    scope.mkdir()
    own, above = scope / "memory.events", tmp_path / "memory.events"
    own.write_text("max 7\noom 0\noom_kill 0\n")
    above.write_text("oom_kill 5\n")
    meter = cgroup.Meter(os.fspath(scope))
    above.write_text("oom_kill 6\n")
    assert meter.read().oom_kills == 0
    own.write_text("oom_kill 1\n")
    above.write_text("oom_kill 7\n")
    assert meter.read().oom_kills == 1
    gone = os.stat(own).st_ino
    pread = os.pread

    def removed(fd: int, count: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == gone:
            raise OSError(errno.ENODEV, "No such device")
        return pread(fd, count, offset)

    monkeypatch.setattr(os, "pread", removed)
    assert meter.read().oom_kills == 1
    assert meter.is_late
    above.write_text("oom_kill 8\n")
    assert meter.read().oom_kills == 2
    meter.close()
