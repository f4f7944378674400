"""What only a kernel of its own can be told to forbid: user namespaces (row U8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from vm.holding import pull

if TYPE_CHECKING:
    from rig.vm import VirtualMachine

RUN = ["rp", "run", "--rm", "--network", "none", "alpine", "true"]


@pytest.fixture(autouse=True, scope="module")
def alpine(vm: VirtualMachine) -> None:
    """Pull alpine into the machine, and run it once."""
    pull(vm)
    vm.run(RUN, timeout=120)


@pytest.mark.parametrize(
    ("key", "forbidden", "allowed"),
    [
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
    ],
)
def test_u8_forbidden_user_namespaces_name_the_sysctl(
    vm: VirtualMachine, key: str, forbidden: str, allowed: str
) -> None:
    vm.root(["sysctl", "-qw", f"{key}={forbidden}"])
    try:
        done = vm.run(RUN, check=False, timeout=120)
    finally:
        vm.root(["sysctl", "-qw", f"{key}={allowed}"])
    assert done.returncode == 125, done.stderr
    assert "user namespaces are forbidden" in done.stderr
    assert f"sysctl -w {key}=" in done.stderr
    vm.run(RUN, timeout=120)
