"""Facts for rp info on machines where everything is broken: words, never an exception."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, NoReturn

import pytest

from rootlesspy.engine import idmap, limits
from rootlesspy.engine.doctor import health
from rootlesspy.linux import userns
from rootlesspy.paths import Paths
from rootlesspy.systemd import cgroup

if TYPE_CHECKING:
    from pathlib import Path


def refuse(*_arguments: object) -> NoReturn:
    """Fail like a machine that forbids it."""
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Paths:
    """Take away programs, user namespaces, cgroups and the runtime directory."""
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.setattr(userns, "call_in_userns", refuse)
    monkeypatch.setattr(userns, "find_helper", refuse)
    monkeypatch.setattr(cgroup, "mount_point", lambda: None)
    return Paths(data=os.fspath(tmp_path / "data"), runtime=None, config=os.fspath(tmp_path))


def test_info_tells_what_is_broken(broken: Paths) -> None:
    host = health.info(broken)["host"]
    assert host["userNamespaces"].startswith("forbidden: Operation not permitted")
    assert host["overlay"] == host["userNamespaces"]
    assert host["idMappings"]["newuidmap"] is None
    assert host["idMappings"]["problem"] == "newgidmap Operation not permitted"
    assert host["systemd"]["version"] is None
    assert host["systemd"]["cure"]
    assert host["cgroups"] == {
        "version": "v1",
        "controllers": [],
        "missing": ["cpu", "cpuset", "io", "memory", "pids"],
    }
    assert set(host["programs"].values()) == {None}


def test_info_of_a_broken_store(broken: Paths, tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    store = health.info(broken)["store"]
    assert store["containerStore"] == {"number": None}
    assert store["runRoot"] is None


def test_info_is_json_and_knows_the_machine(tmp_path: Path) -> None:
    found = health.info(Paths(data=os.fspath(tmp_path), runtime=None, config=os.fspath(tmp_path)))
    assert json.loads(json.dumps(found)) == found
    assert found["host"]["cpus"] == len(limits.host().cpus)
    assert found["host"]["memTotal"] > found["host"]["memFree"] > 0
    assert found["store"]["containerStore"] == {"number": 0}


def test_switches_that_forbid_user_namespaces_are_named(
    broken: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    del broken
    monkeypatch.setattr(health, "_read", lambda path: "0\n" if path.endswith("clone") else "7\n")
    assert health.user_namespaces().endswith("kernel.unprivileged_userns_clone=0")


def test_missing_subordinate_ids_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    single = userns.IdMaps((userns.IdMapping(0, 1000, 1),), (userns.IdMapping(0, 1000, 1),))
    monkeypatch.setattr(idmap, "default_maps", lambda: single)
    monkeypatch.setattr(userns, "find_helper", lambda name: f"/usr/bin/{name}")
    found = health.id_mappings()
    assert found["uidmap"] == ["0 1000 1"]
    assert "/etc/subuid" in found["problem"]
