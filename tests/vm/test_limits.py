"""Limits that the kernel enforces: memory, processes, CPU time, CPUs, and the clean stop.

The machine delegates to users what Debian does: cpu, memory, pids.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from vm.holding import APP_SLICE, RUN_LIMIT_S, cgroup_file, pull, rp_run, running

if TYPE_CHECKING:
    from rig.vm import VirtualMachine

MIB = 1 << 20
# Each element of the array is 10 MiB of its own, written to.
EATER = 'BEGIN { while (1) { n += 10; a[n] = sprintf("%10485760s", ""); print n; fflush() } }'


@pytest.fixture(autouse=True, scope="module")
def alpine(vm: VirtualMachine) -> None:
    """Pull alpine into the machine."""
    pull(vm)


def cpu_usage(machine: VirtualMachine, name: str) -> tuple[float, float]:
    """Return the CPU time that a container has used, and when: seconds, by the machine's clock."""
    stat = f"{APP_SLICE}/rp-{name}.scope/cpu.stat"
    lines = machine.run(["cat", stat, "/proc/uptime"]).stdout.splitlines()
    used_us = int(dict(line.split() for line in lines)["usage_usec"])
    return used_us / 1e6, float(lines[-1].split()[0])


def test_eating_past_the_memory_limit_ends_with_137_and_says_why(vm: VirtualMachine) -> None:
    done = rp_run(vm, "--memory", "100m", "alpine", "awk", EATER)
    assert done.returncode == 137
    eaten = [int(line) for line in done.stdout.splitlines()]
    assert 50 <= eaten[-1] < 110
    assert "out of memory" in done.stderr
    assert str(100 * MIB) in done.stderr
    # rp itself said so: its supervisor lived.
    assert "status lost" not in done.stderr


@pytest.mark.row("R6", "137, out of memory")
def test_oom_is_told_every_time(vm: VirtualMachine) -> None:
    """systemd removes the cgroup at once: the count must have been read before."""
    for _ in range(5):
        done = rp_run(vm, "--memory", "20m", "alpine", "awk", EATER)
        assert (done.returncode, "out of memory" in done.stderr) == (137, True), done.stderr


# Each dd wants a buffer of 64 MiB.
CHILDREN = """
for n in 1 2 3 4; do dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; echo $?; done
"""


@pytest.mark.row("R6", "the container goes on")
@pytest.mark.row("OOM events", "no line and no event of rp's for a kill, one when it ended by one")
def test_oom_of_children_leaves_the_container_alive(vm: VirtualMachine) -> None:
    since = vm.run(["date", "+%s"]).stdout.strip()
    done = rp_run(vm, "--memory", "20m", "--name", "parent", "alpine", "sh", "-c", CHILDREN)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["137"] * 4
    argv = ["journalctl", "--user", "-o", "json", f"--since=@{since}", "SYSLOG_IDENTIFIER=rp"]
    # Nobody who writes to the journal waits for it.
    vm.root(["journalctl", "--sync"])
    lines = [json.loads(line) for line in vm.run(argv).stdout.splitlines()]
    mine = [line.get("RP_EVENT", "no event") for line in lines if line.get("RP_NAME") == "parent"]
    assert mine == ["create", "start", "died", "remove"]


@pytest.mark.row("R8", "held by pids.max")
def test_fork_bomb_is_held_and_the_machine_answers(vm: VirtualMachine) -> None:
    bomb = "bomb() { bomb | bomb & }; bomb; sleep 600"
    with running(vm, "bomb", "--pids-limit", "64", "alpine", "sh", "-c", bomb):
        limit_s = time.monotonic() + RUN_LIMIT_S
        while int(cgroup_file(vm, "bomb", "pids.events").split()[1]) == 0:
            assert time.monotonic() < limit_s, "it is not held"
            time.sleep(0.2)
        # Each answer has a limit of its own.
        for _ in range(3):
            assert int(cgroup_file(vm, "bomb", "pids.current")) <= 64
            time.sleep(1)
        assert cgroup_file(vm, "bomb", "pids.max") == "64"


def test_half_a_cpu_is_half_a_cpu(vm: VirtualMachine) -> None:
    with running(vm, "half", "--cpus", "0.5", "alpine", "sh", "-c", "while :; do :; done"):
        time.sleep(2)
        first_s, began_s = cpu_usage(vm, "half")
        time.sleep(15)
        used_s, now_s = cpu_usage(vm, "half")
    # Less where the machine that emulates this one has no time for it.
    assert 0.1 < (used_s - first_s) / (now_s - began_s) < 0.65


def test_default_number_of_processes_is_limited(vm: VirtualMachine) -> None:
    with running(vm, "usual", "alpine", "sleep", "600"):
        assert cgroup_file(vm, "usual", "pids.max") == "2048"


def test_cpus_are_held_by_affinity_without_the_drop_in(vm: VirtualMachine) -> None:
    done = rp_run(
        vm, "--cpuset-cpus", "1", "alpine", "grep", "Cpus_allowed_list", "/proc/self/status"
    )
    assert done.stdout.split() == ["Cpus_allowed_list:", "1"]
    assert "held by affinity" in done.stderr


def test_disk_limits_need_the_drop_in(vm: VirtualMachine) -> None:
    done = rp_run(vm, "--property", "IOReadBandwidthMax=/var/tmp 1M", "alpine", "true")
    assert done.returncode == 125
    assert "the io controller is not delegated" in done.stderr
    assert "user@.service.d" in done.stderr


def test_a_limit_is_changed_live_by_systemctl(vm: VirtualMachine) -> None:
    with running(vm, "live", "--memory", "100m", "alpine", "sleep", "600"):
        assert cgroup_file(vm, "live", "memory.max") == str(100 * MIB)
        argv = ["systemctl", "--user", "set-property", "--runtime", "rp-live.scope"]
        vm.run([*argv, "MemoryMax=200M"])
        assert cgroup_file(vm, "live", "memory.max") == str(200 * MIB)


def test_limits_survive_reloading_and_reexecuting_the_manager(vm: VirtualMachine) -> None:
    options = ["--memory", "100m", "--cpus", "0.125", "--pids-limit", "70"]
    with running(vm, "stays", *options, "alpine", "sleep", "600"):
        files = ("memory.max", "cpu.max", "pids.max")
        before = [cgroup_file(vm, "stays", file) for file in files]
        for verb in ("daemon-reload", "daemon-reexec", "daemon-reload"):
            vm.run(["systemctl", "--user", verb], timeout=RUN_LIMIT_S)
        assert [cgroup_file(vm, "stays", file) for file in files] == before
        assert before == [str(100 * MIB), "13000 100000", "70"]


def test_systemctl_stop_signals_the_first_process_alone(vm: VirtualMachine) -> None:
    script = """
        (trap 'echo child was signalled' TERM; while :; do sleep 0.2; done) &
        trap 'echo first was signalled; exit 3' TERM
        echo ready
        while :; do sleep 0.2; done
    """
    with running(vm, "clean", "alpine", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        vm.run(["systemctl", "--user", "stop", "rp-clean.scope"], timeout=RUN_LIMIT_S)
        assert process.communicate(timeout=RUN_LIMIT_S)[0] == "first was signalled\n"
        assert process.returncode == 3


def test_systemctl_stop_kills_after_the_stop_timeout(vm: VirtualMachine) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.2; done"
    with running(vm, "deaf", "--stop-timeout", "4", "alpine", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        vm.run(["systemctl", "--user", "stop", "rp-deaf.scope"], timeout=RUN_LIMIT_S)
        assert process.wait(RUN_LIMIT_S) == 137
        assert time.monotonic() - began > 3.5
