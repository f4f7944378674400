"""CPUs and disks, where the drop-in of units/ delegates their controllers to users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from vm.holding import cgroup_file, pull, rp_run, running

if TYPE_CHECKING:
    from rig.vm import VirtualMachine


@pytest.fixture(autouse=True, scope="module")
def alpine(vm_delegated: VirtualMachine) -> None:
    """Pull alpine into the machine."""
    pull(vm_delegated)


def test_cpus_are_held_by_cpuset_with_the_drop_in(vm_delegated: VirtualMachine) -> None:
    done = rp_run(vm_delegated, "--cpuset-cpus", "1", "alpine", "nproc")
    assert (done.stdout, done.stderr) == ("1\n", "")
    with running(vm_delegated, "held", "--cpuset-cpus", "1", "alpine", "sleep", "600"):
        assert cgroup_file(vm_delegated, "held", "cpuset.cpus.effective") == "1"


def test_disk_limits_hold_with_the_drop_in(vm_delegated: VirtualMachine) -> None:
    limit = "IOReadBandwidthMax=/var/tmp 1M"
    with running(vm_delegated, "slow", "--property", limit, "alpine", "sleep", "600"):
        assert "rbps=1000000" in cgroup_file(vm_delegated, "slow", "io.max")
