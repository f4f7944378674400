"""What the slice of a pod holds its members to together, and what of a pod a reboot brings back.

The machine delegates to users what Debian does: cpu, memory, pids.  The tests are in the order of
one pod's life: it is emulated, and starts are dear.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from vm.holding import RUN_LIMIT_S, pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.machine import Completed
    from rig.vm import VirtualMachine

MIB = 1 << 20
POD, SLICE = "held", "rp-pod-held.slice"
LIMITS = ("--memory", "100m", "--memory-swap", "100m", "--cpus", "0.5", "--pids-limit", "40")
# Each element of the array is 10 MiB of its own, written to.
EATER = 'BEGIN { while (1) { n += 10; a[n] = sprintf("%10485760s", ""); print n; fflush() } }'
HELD_MIB = 50


def rp(machine: VirtualMachine, *words: str, check: bool = True) -> Completed:
    """Run rp as the user."""
    return machine.run(["rp", *words], check=check, timeout=RUN_LIMIT_S)


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    limit_s = time.monotonic() + RUN_LIMIT_S
    while not holds():
        assert time.monotonic() < limit_s, what
        time.sleep(0.5)


def shared_memory(machine: VirtualMachine) -> int:
    """Return the shared memory that the whole machine uses, in bytes."""
    text = machine.run(["cat", "/proc/meminfo"]).stdout
    found = next(line for line in text.splitlines() if line.startswith("Shmem:"))
    return int(found.split()[1]) * 1024


def state(machine: VirtualMachine, name: str) -> str:
    """Return the state of a container."""
    return str(rp(machine, "inspect", name, "--format", "{{.State.Status}}").stdout).strip()


def shown(machine: VirtualMachine, unit: str, *properties: str) -> dict[str, str]:
    """Return what systemd says of a unit."""
    argv = ["systemctl", "--user", "show", "--property", ",".join(properties), unit]
    return dict(line.split("=", 1) for line in machine.run(argv).stdout.splitlines())


def in_slice(machine: VirtualMachine, file: str) -> str:
    """Read a file of the slice's cgroup."""
    group = shown(machine, SLICE, "ControlGroup")["ControlGroup"]
    return str(machine.run(["cat", f"/sys/fs/cgroup{group}/{file}"]).stdout).strip()


def counted(machine: VirtualMachine, file: str) -> dict[str, int]:
    """Read a file of numbers with names."""
    return {
        key: int(number) for key, number in map(str.split, in_slice(machine, file).splitlines())
    }


def cpu_usage(machine: VirtualMachine) -> tuple[float, float]:
    """Return the CPU time that the slice has used, and when: seconds, by the machine's clock."""
    group = shown(machine, SLICE, "ControlGroup")["ControlGroup"]
    argv = ["cat", f"/sys/fs/cgroup{group}/cpu.stat", "/proc/uptime"]
    lines = machine.run(argv).stdout.splitlines()
    used_us = int(dict(line.split() for line in lines)["usage_usec"])
    return used_us / 1e6, float(lines[-1].split()[0])


@pytest.fixture(scope="module", autouse=True)
def before(vm: VirtualMachine) -> Iterator[int]:
    """Have a pod with limits and two members; return the shared memory that was used before."""
    pull(vm)
    used = shared_memory(vm)
    rp(vm, "pod", "create", "--name", POD, "--network", "none", *LIMITS)
    hold = f"dd if=/dev/zero of=/dev/shm/a bs=1M count={HELD_MIB}; exec sleep 10000"
    rp(vm, "run", "-d", "--pod", POD, "--name", "one", "alpine", "sh", "-c", hold)
    rp(vm, "run", "-d", "--pod", POD, "--name", "two", "alpine", "sleep", "10000")
    until(lambda: "records out" in rp(vm, "logs", "one").stderr, "nothing is written")
    yield used
    rp(vm, "pod", "rm", "-f", "-t", "0", POD, check=False)


def test_the_limits_are_properties_of_the_slice(vm: VirtualMachine) -> None:
    properties = ("MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec", "TasksMax")
    assert shown(vm, SLICE, *properties) == {
        "MemoryMax": str(100 * MIB),
        "MemorySwapMax": "0",
        "CPUQuotaPerSecUSec": "500ms",
        "TasksMax": "40",
    }
    assert in_slice(vm, "memory.max") == str(100 * MIB)
    assert in_slice(vm, "pids.max") == "40"
    assert in_slice(vm, "cpu.max") == "50000 100000"
    assert shown(vm, "rp-one.scope", "Slice") == {"Slice": SLICE}


@pytest.mark.row("CVE-2024-3056", "charged to the pod's slice, limited for all members together")
def test_cve_2024_3056_shared_memory_is_charged_to_the_pod(vm: VirtualMachine, before: int) -> None:
    assert shared_memory(vm) > before + (HELD_MIB - 5) * MIB
    assert int(in_slice(vm, "memory.current")) > HELD_MIB * MIB
    # 64 MiB of it for all of them, as for a container of its own.
    more = "dd if=/dev/zero of=/dev/shm/b bs=1M count=50; rm /dev/shm/b"
    assert "No space left" in rp(vm, "exec", "two", "sh", "-c", more).stderr


def test_members_that_go_over_the_memory_together(vm: VirtualMachine) -> None:
    """Each of them alone would not; the one that wants more is ended, and that is told."""
    rp(vm, "run", "-d", "--pod", POD, "--name", "eats", "alpine", "awk", EATER)
    until(lambda: state(vm, "eats") == "exited", "it eats on")
    (eats,) = json.loads(rp(vm, "inspect", "eats").stdout)
    assert (eats["State"]["OOMKilled"], eats["State"]["ExitCode"]) == (True, 137)
    eaten = [int(line) for line in rp(vm, "logs", "eats").stdout.splitlines()]
    assert eaten[-1] < 100 - HELD_MIB + 5
    assert counted(vm, "memory.events")["oom_kill"] >= 1
    assert [state(vm, name) for name in ("one", "two")] == ["running"] * 2


def test_half_a_cpu_is_for_all_of_them(vm: VirtualMachine) -> None:
    for name in ("one", "two"):
        rp(vm, "exec", "-d", name, "sh", "-c", "exec timeout 600 sh -c 'while :; do :; done'")
    first_s, began_s = cpu_usage(vm)
    time.sleep(10)
    used_s, now_s = cpu_usage(vm)
    for name in ("one", "two"):
        rp(vm, "exec", name, "pkill", "timeout")
    # Less where the machine that emulates this one has no time for it.
    assert 0.1 < (used_s - first_s) / (now_s - began_s) < 0.7
    assert counted(vm, "cpu.stat")["nr_throttled"] > 0


def test_members_share_the_number_of_processes(vm: VirtualMachine) -> None:
    many = "for n in $(seq 30); do sleep 10000 </dev/null >/dev/null 2>&1 & done"
    assert rp(vm, "exec", "one", "sh", "-c", many).returncode == 0
    assert "fork" in rp(vm, "exec", "two", "sh", "-c", many, check=False).stderr
    assert int(in_slice(vm, "pids.current")) <= 40
    assert counted(vm, "pids.events")["max"] > 0
    rp(vm, "exec", "one", "pkill", "-x", "sleep", check=False)


def test_cpus_of_a_pod_need_the_controller(vm: VirtualMachine) -> None:
    done = rp(vm, "pod", "create", "--cpuset-cpus", "0", check=False)
    assert done.returncode == 125
    assert "needs the cpuset controller" in done.stderr


@pytest.mark.row("CVE-2024-3056", "freed when the pod stops")
def test_cve_2024_3056_shared_memory_is_freed(vm: VirtualMachine, before: int) -> None:
    rp(vm, "pod", "stop", "--time", "0", POD)
    assert shared_memory(vm) < before + 20 * MIB


@pytest.mark.nightly
def test_what_is_enabled_of_a_pod_is_back_after_a_reboot(vm: VirtualMachine) -> None:
    rp(vm, "enable", "two")
    vm.reboot()
    until(lambda: state(vm, "two") == "running", "it is not started")
    (found,) = json.loads(rp(vm, "pod", "inspect", POD).stdout)
    states = {each["Name"]: each["State"] for each in found["Containers"]}
    assert (states["one"], states["two"]) == ("exited", "running")
    assert shown(vm, SLICE, "MemoryMax") == {"MemoryMax": str(100 * MIB)}
