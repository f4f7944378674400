"""The cgroup tree, where it needs no cgroup: the rest is tried on real ones (tests/namespace)."""

from __future__ import annotations

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
