"""The life of detached containers where the kernel enforces limits: freezing, stopping, OOM."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from vm.holding import RUN_LIMIT_S, cgroup_file, pull

if TYPE_CHECKING:
    from collections.abc import Callable

    from rig.vm import VirtualMachine

EATER = 'BEGIN { while (1) { n += 10; a[n] = sprintf("%10485760s", ""); print n; fflush() } }'
BUSY = "while :; do :; done"


@pytest.fixture(autouse=True, scope="module")
def alpine(vm: VirtualMachine) -> None:
    """Pull alpine into the machine."""
    pull(vm)


def rp(machine: VirtualMachine, *words: str) -> str:
    return str(machine.run(["rp", *words], timeout=RUN_LIMIT_S).stdout).strip()


def started(machine: VirtualMachine, name: str, *words: str) -> None:
    rp(machine, "run", "-d", "--network=none", "--name", name, *words)


def ended(machine: VirtualMachine, name: str) -> dict[str, Any]:
    """Return what is on record about a container's end."""
    identity = rp(machine, "inspect", "--format", "{{.Id}}", name)
    path = f".local/share/rootlesspy/containers/{identity}/exit.json"
    return dict(json.loads(machine.run(["sh", "-c", f"cat ~/{path}"]).stdout))


def cpu(machine: VirtualMachine, name: str) -> dict[str, int]:
    lines = cgroup_file(machine, name, "cpu.stat").splitlines()
    return {key: int(number) for key, number in map(str.split, lines)}


def used_us(machine: VirtualMachine, name: str) -> int:
    return cpu(machine, name)["usage_usec"]


def until(condition: Callable[[], bool], what: str) -> None:
    limit_s = time.monotonic() + RUN_LIMIT_S
    while not condition():
        assert time.monotonic() < limit_s, what
        time.sleep(0.5)


def test_a_paused_container_uses_no_cpu(vm: VirtualMachine) -> None:
    started(vm, "busy", "alpine", "sh", "-c", BUSY)
    rp(vm, "pause", "busy")
    assert "frozen 1" in cgroup_file(vm, "busy", "cgroup.events").splitlines()
    before = used_us(vm, "busy")
    time.sleep(2)
    assert used_us(vm, "busy") == before
    rp(vm, "unpause", "busy")
    until(lambda: used_us(vm, "busy") > before, "it does not go on")
    rp(vm, "rm", "-f", "busy")


def test_a_detached_container_that_eats_too_much(vm: VirtualMachine) -> None:
    started(vm, "eater", "--memory=50m", "alpine", "awk", EATER)
    assert rp(vm, "wait", "eater") == "137"
    assert rp(vm, "inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "eater") == (
        "true 137"
    )
    end = ended(vm, "eater")
    assert end["oom_killed"]
    assert "out of memory" in end["error"]
    # What a dying process takes is charged beyond the limit.
    assert 45 << 20 < end["usage"]["memory_peak_bytes"] <= 51 << 20
    assert end["usage"]["oom_kills"] >= 1
    assert "memory" in rp(vm, "why", "eater").lower()
    rp(vm, "rm", "eater")


def test_a_restart_policy_after_out_of_memory(vm: VirtualMachine) -> None:
    started(vm, "again", "--memory=30m", "--restart=on-failure:1", "alpine", "awk", EATER)
    argv = ["systemctl", "--user", "is-failed", "rp-again.service"]
    until(lambda: vm.run(argv, check=False).returncode == 0, "it is started again and again")
    # Each run begins with its first 10 MiB.
    assert rp(vm, "logs", "again").splitlines().count("10") == 2
    rp(vm, "rm", "again")


def test_stop_of_a_limited_one_keeps_its_figures(vm: VirtualMachine) -> None:
    limits = ("--memory=64m", "--cpus=0.5", "--pids-limit=20")
    script = f"trap 'exit 4' TERM; echo ready; {BUSY}"
    started(vm, "held", *limits, "alpine", "sh", "-c", script)
    until(lambda: rp(vm, "logs", "held") == "ready", "it does not begin")
    until(lambda: cpu(vm, "held")["throttled_usec"] > 0 and used_us(vm, "held") > 100_000, "idle")
    rp(vm, "stop", "held")
    end = ended(vm, "held")
    assert (end["exit_code"], end["reason"]) == (4, "stop")
    assert end["usage"]["cpu_usage_us"] > 100_000
    assert end["usage"]["cpu_throttled_us"] > 0
    rp(vm, "rm", "held")


def test_exec_counts_against_the_limits(vm: VirtualMachine) -> None:
    started(vm, "shared", "--memory=50m", "--pids-limit=20", "alpine", "sleep", "600")
    done = vm.run(["rp", "exec", "shared", "awk", EATER], check=False, timeout=RUN_LIMIT_S)
    assert done.returncode == 137
    assert rp(vm, "inspect", "--format", "{{.State.Status}}", "shared") == "running"
    script = "for n in $(seq 40); do sleep 1000 </dev/null >/dev/null 2>&1 & done"
    argv = ["rp", "exec", "shared", "sh", "-c", script]
    many = vm.run(argv, check=False, timeout=RUN_LIMIT_S)
    assert "fork" in many.stderr
    rp(vm, "rm", "-f", "shared")
