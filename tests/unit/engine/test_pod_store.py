"""Pods on disk, when commands are killed or meet."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine import leftovers
from rootlesspy.engine.pods import store
from rootlesspy.engine.statefile import DamagedError
from rootlesspy.errors import Conflict, NotFound
from rootlesspy.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(data=f"{tmp_path}/data", runtime=None, config=f"{tmp_path}/config")


def pod(name: str = "one") -> store.Pod:
    return store.Pod(
        id=store.new_id(), name=name, created_s=1.0, labels={}, share=["network"], infra=True,
        hostname=name, network={}, ports=[], resolver={}, userns="host-map", resources={},
        shm_size_bytes=1, sysctls={},
    )  # fmt: skip


def test_a_removal_that_is_killed_leaves_no_half_pod(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = paths._replace(runtime=os.fspath(tmp_path / "runtime"))
    made = pod()
    store.create(paths, made)
    store.enlist(paths, made, "c" * 64)
    os.makedirs(f"{paths.container_runtime(made.id)}/root")

    def killed(*_arguments: object, **_options: object) -> None:
        raise SystemExit

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(SystemExit):
        store.remove(paths, made)
    with pytest.raises(NotFound):
        store.find(paths, "one")
    # What the sweep of every command removes, with its runtime directory and nobody else's.
    assert os.listdir(paths.tmp) == [f"removed-{made.id}"]
    os.mkdir(f"{paths.tmp}/removed-..")
    leftovers.sweep(paths)
    assert os.listdir(paths.tmp) == []
    assert os.path.isdir(paths.require_runtime())
    assert not os.path.lexists(paths.container_runtime(made.id))
    store.create(paths, pod())
    assert store.find(paths, "one").id != made.id


def test_who_joins_a_pod_that_is_gone_does_not_bring_it_back(paths: Paths) -> None:
    made = pod()
    store.create(paths, made)
    store.remove(paths, made)
    with pytest.raises(Conflict, match="pod one was removed meanwhile"):
        store.enlist(paths, made, "c" * 64)
    assert os.listdir(paths.pods) == []


@pytest.mark.parametrize("ports", [[[]], [[[]]], [["", 80, 80]]])
def test_a_pod_whose_ports_are_no_ports_is_damaged(paths: Paths, ports: list[list[object]]) -> None:
    store.create(paths, pod()._replace(ports=ports))
    with pytest.raises(DamagedError, match="pod one is damaged"):
        store.find(paths, "one")
    assert store.everything(paths) == []
