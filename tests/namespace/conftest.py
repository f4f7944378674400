"""Fixtures of the tests that run containers on a machine with a user manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine


@pytest.fixture(scope="session")
def alpine(rig: Machine) -> str:
    """Return the name of an image that is already pulled."""
    rig.run(["rp", "pull", "--quiet", "alpine"], timeout=120)
    return "alpine"


@pytest.fixture
def leaves_nothing(rig: Machine) -> Iterator[None]:
    """Fail the test when the machine differs afterwards, apart from the user's files."""
    before = rig.snapshot()
    yield
    rig.assert_same(before, ignore=("home",))
