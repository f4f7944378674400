"""Limits of rp-oci where the kernel enforces them, beside crun's for the same config.json.

oci_driver.py makes, changes and ends a container with each runtime; here is what it must have seen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rig.vm import VirtualMachine

DRIVER = Path(__file__).with_name("oci_driver.py").read_text(encoding="utf-8")
SCOPE = ("systemd-run", "--user", "--scope", "--quiet", "-p", "Delegate=yes")
MIB = 1 << 20
MADE = {
    "memory.max": str(100 * MIB),
    "memory.swap.max": str(50 * MIB),
    "memory.low": str(50 * MIB),
    "memory.min": str(4 * MIB),
    "cpu.max": "50000 100000",
    "cpuset.cpus": "1",
    "cpuset.mems": "0",
    "pids.max": "77",
}


def driven(machine: VirtualMachine, mode: str) -> dict[str, Any]:
    """Run the driver with crun and rp-oci; return what it saw."""
    words = [*(SCOPE if mode == "files" else ()), "python3", "-", mode, "crun", "rp-oci"]
    seen: dict[str, Any] = json.loads(machine.run(words, input=DRIVER, timeout=2000).stdout)
    return seen


@pytest.fixture(scope="module")
def seen(vm_delegated: VirtualMachine) -> dict[str, dict[str, Any]]:
    """Return what was seen with --systemd-cgroup and without."""
    return {mode: driven(vm_delegated, mode) for mode in ("systemd", "files")}


def comparable(limits: dict[str, str]) -> dict[str, str]:
    """Leave out the weight of CPU shares: crun has rp-oci's formula from version 1.23 on."""
    return {name: text for name, text in limits.items() if name != "cpu.weight"}


@pytest.mark.parametrize("mode", ["systemd", "files"])
@pytest.mark.parametrize("moment", ["made", "file"])
def test_limits_are_those_of_crun(seen: dict[str, dict[str, Any]], mode: str, moment: str) -> None:
    ours, theirs = seen[mode]["rp-oci"][moment], seen[mode]["crun"][moment]
    assert comparable(ours) == comparable(theirs)
    assert {"io.max", "io.weight", "cpu.weight"} <= ours.keys()


@pytest.mark.parametrize("mode", ["systemd", "files"])
def test_limits_are_what_was_asked(seen: dict[str, dict[str, Any]], mode: str) -> None:
    made, changed = seen[mode]["rp-oci"]["made"], seen[mode]["rp-oci"]["file"]
    assert {name: made.get(name) for name in MADE} == MADE
    assert "rbps=1048576" in made["io.max"]
    assert "wiops=500" in made["io.max"]
    # update -r: what it names is changed, the rest stays.
    assert {name: changed.get(name) for name in MADE} == {**MADE, "cpuset.cpus": "0"}
    assert changed["io.weight"] != made["io.weight"]
    assert int(changed["cpu.weight"]) > int(made["cpu.weight"])
    assert not seen[mode]["rp-oci"]["left"]


def test_flags_of_update(seen: dict[str, dict[str, Any]]) -> None:
    flags = seen["systemd"]["rp-oci"]["flags"]
    wanted = {
        "memory.max": str(120 * MIB),
        "memory.swap.max": str(10 * MIB),
        "pids.max": "55",
        "cpu.max": "25000 100000",
    }
    assert {name: flags.get(name) for name in wanted} == wanted


def test_stats_and_processes(seen: dict[str, dict[str, Any]]) -> None:
    stats, ps = (seen["systemd"]["rp-oci"][key] for key in ("stats", "ps"))
    assert 0 < stats["memory"]["usage"]["usage"] <= stats["memory"]["usage"]["limit"]
    assert stats["cpu"]["usage"]["total"] > 0
    assert stats["pids"]["current"] >= 1
    assert ps[0]
    assert ps[1] >= 1


def test_a_paused_container_does_not_run(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["systemd"]["rp-oci"]["paused"] == ["paused", 0]


def test_events_tell_of_a_kill_for_want_of_memory(seen: dict[str, dict[str, Any]]) -> None:
    assert seen["systemd"]["rp-oci"]["events"] == ["stats", "oom", 0]


def test_a_controller_that_no_user_has_is_refused(seen: dict[str, dict[str, Any]]) -> None:
    code, said = seen["files"]["refused"]
    assert (code, "the hugetlb controller is not delegated" in said) == (1, True), said
