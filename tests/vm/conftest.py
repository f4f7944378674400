"""Fixtures of the tests that need cgroup controllers, or a machine that can be rebooted.

A machine is started from a saved state within seconds, and passed on from module to module: each
leaves it as it was.  One that a test has failed on, or that a module says to change for good
(CHANGES_MACHINE = True), is not used again.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from rig import location, recipe
from rig import vm as vm_rig

if TYPE_CHECKING:
    from collections.abc import Iterator


# Before others leave traces: what a new machine is like, and what is wrong with it.
_FIRST = ("test_machine.py", "test_doctor.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the modules that want a new machine first."""
    items.sort(key=lambda item: (*_FIRST, item.path.name).index(item.path.name))


class Machines:
    """The machines that run now, by the state that they were started from."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[ExitStack, vm_rig.VirtualMachine]] = {}

    def get(self, state: str) -> vm_rig.VirtualMachine:
        """Return a running machine, or start one."""
        if state not in self._running:
            suite = os.environ.get("RP_RIG_SUITE", recipe.SUITES[0])
            with ExitStack() as stack:
                running = stack.enter_context(vm_rig.started(suite, state, print))
                self._running[state] = stack.pop_all(), vm_rig.VirtualMachine(running)
        return self._running[state][1]

    def drop(self, state: str) -> None:
        """Stop a machine: nobody uses it again."""
        if state in self._running:
            self._running.pop(state)[0].close()


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """Return the machines of this run."""
    if os.geteuid() != 0:
        pytest.skip("the virtual machine is built as root")
    try:
        vm_rig.ensure(os.environ.get("RP_RIG_SUITE", recipe.SUITES[0]), print)
    except location.RigError as error:
        pytest.skip(str(error))
    found = Machines()
    yield found
    for state in vm_rig.STATES:
        found.drop(state)


@pytest.fixture(scope="module")
def vm(request: pytest.FixtureRequest, machines: Machines) -> Iterator[vm_rig.VirtualMachine]:
    """Return a machine that delegates to users what Debian does: cpu, memory, pids."""
    yield from _lent(request, machines, "default")


@pytest.fixture(scope="module")
def vm_delegated(
    request: pytest.FixtureRequest, machines: Machines
) -> Iterator[vm_rig.VirtualMachine]:
    """Return a machine with the project's drop-in, which delegates cpuset and io too."""
    yield from _lent(request, machines, "delegated")


def _lent(
    request: pytest.FixtureRequest, machines: Machines, state: str
) -> Iterator[vm_rig.VirtualMachine]:
    failed = request.session.testsfailed
    yield machines.get(state)
    if request.session.testsfailed > failed or getattr(request.module, "CHANGES_MACHINE", False):
        machines.drop(state)
