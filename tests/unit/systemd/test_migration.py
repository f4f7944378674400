"""Where the wait for a migration is tried; the rest is tried on real cgroups (tests/namespace)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.systemd import cgroup, migration

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("own", "writable", "tried"),
    [
        ("user@7.service/app.slice/a.scope", True, "user@7.service/app.slice/a.scope"),
        # It would be moved out of it.
        ("user@7.service/app.slice/a.scope", False, None),
        ("session-1.scope", True, "session-1.scope"),
        ("session-1.scope", False, "user@7.service"),
        ("user@7.service-like.scope", False, "user@7.service"),
    ],
)
def test_nowhere_where_it_would_be_moved(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: str,
    writable: bool,
    tried: str | None,
) -> None:
    moves: list[str] = []
    monkeypatch.setattr(cgroup, "control_group", lambda _pid: f"/{own}")
    monkeypatch.setattr(cgroup, "directory", lambda path: f"{tmp_path}{path}")
    monkeypatch.setattr(cgroup, "manager_directory", lambda _uid: f"{tmp_path}/user@7.service")
    monkeypatch.setattr(cgroup, "move", lambda _pid, directory: moves.append(directory))
    monkeypatch.setattr(os, "access", lambda _path, _mode: writable)
    migration._wait()
    assert moves == ([] if tried is None else [f"{tmp_path}/{tried}"])


def test_without_a_process_more_systemd_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", refused)
    migration.prepare()
    migration.finish()
