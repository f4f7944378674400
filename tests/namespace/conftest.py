"""Fixtures of the tests that run containers on a machine with a user manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from namespace import probe_box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine


# rp's own data, and podman's, which is in the rig for comparison. What still ends may write.
_EMPTY = """
for home in /home/*; do
    until rm -rf "$home"/.local/share/rootlesspy "$home"/.local/share/containers; do
        sleep 0.1
    done
done
"""
# Where a module had a user manager for bob: it ends, and its mounts and sockets go, seconds later.
_ALONE = """
loginctl disable-linger bob
while [ -e "/run/user/$(id -u bob)" ]; do sleep 0.1; done
"""


@pytest.fixture(scope="module", autouse=True)
def _fresh_start(rig: Machine) -> None:
    """Let no module find what another one left: containers, images, volumes, of rp and podman.

    Only in a rig: on a laptop they would be the user's own.
    """
    if not rig.has_root:
        return
    rig.run(["rp", "rm", "--all", "--force"], check=False)
    rig.run(["sh", "-c", "podman rm --all --force --time 0; podman rmi --all --force"], check=False)
    rig.root(["sh", "-c", _ALONE])
    rig.root(["sh", "-c", _EMPTY])


@pytest.fixture(scope="session")
def needs_registry(rig: Machine) -> None:
    """Skip, before anything is prepared, where there is no registry to push to."""
    if not rig.has_root:
        pytest.skip("needs the registry of the rig")


@pytest.fixture(scope="module")
def alpine(rig: Machine, _fresh_start: None) -> str:
    """Return the name of an image that is already pulled."""
    rig.run(["rp", "pull", "--quiet", "alpine"], timeout=120)
    return "alpine"


@pytest.fixture(scope="module")
def box(rig: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[probe_box.Box]:
    """Return the static probe in a root file system of its own; skip where it cannot be built."""
    yield from probe_box.install(rig, tmp_path_factory.mktemp("probe"))


@pytest.fixture
def leaves_nothing(rig: Machine) -> Iterator[None]:
    """Fail the test when the machine differs afterwards, apart from the user's files."""
    before = rig.snapshot()
    yield
    rig.assert_same(before, ignore=("home",))
