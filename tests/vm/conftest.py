"""Fixtures of the tests that need cgroup controllers, or a machine that can be rebooted.

Every module gets a machine of its own, started from a saved state within seconds.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from rig import location, recipe
from rig import vm as vm_rig

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def vm() -> Iterator[vm_rig.VirtualMachine]:
    """Return a machine that delegates to users what Debian does: cpu, memory, pids."""
    yield from _started("default")


@pytest.fixture(scope="module")
def vm_delegated() -> Iterator[vm_rig.VirtualMachine]:
    """Return a machine with the project's drop-in, which delegates cpuset and io too."""
    yield from _started("delegated")


def _started(state: str) -> Iterator[vm_rig.VirtualMachine]:
    if os.geteuid() != 0:
        pytest.skip("the virtual machine is built as root")
    suite = os.environ.get("RP_RIG_SUITE", recipe.SUITES[0])
    try:
        vm_rig.ensure(suite, print)
    except location.RigError as error:
        pytest.skip(str(error))
    with vm_rig.started(suite, state, print) as running:
        yield vm_rig.VirtualMachine(running)
