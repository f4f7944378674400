"""What stats, inspect, ps and why tell where the kernel counts: memory, CPU, throttling, disk."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from vm.holding import RUN_LIMIT_S, pull

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Completed
    from rig.vm import VirtualMachine

MIB = 1 << 20
# Holds 30 MiB, writes 2 MiB to the disk, and then wants more CPU than it may have.
SCRIPT = (
    'awk \'BEGIN { a = sprintf("%31457280s", ""); dd = "dd if=/dev/zero of=/file bs=1M count=2 '
    "conv=fsync 2>/dev/null\"; system(dd); while (1) { n++ } }'"
)
# Each element of the array is 10 MiB of its own, written to.
EATER = 'BEGIN { while (1) { n += 10; a[n] = sprintf("%10485760s", "") } }'


def rp(machine: VirtualMachine, *words: str) -> Completed:
    """Run rp to its end, whatever that is."""
    return machine.run(["rp", *words], check=False, timeout=RUN_LIMIT_S)


@pytest.fixture(scope="module")
def held(vm_delegated: VirtualMachine) -> Iterator[VirtualMachine]:
    """Hold a container that uses much of all that it may."""
    pull(vm_delegated)
    options = ["--memory", "100m", "--cpus", "0.2", "--pids-limit", "50", "--network", "none"]
    done = rp(vm_delegated, "run", "-d", "--name", "held", *options, "alpine", "sh", "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    yield vm_delegated
    rp(vm_delegated, "rm", "-f", "held")


def numbers(machine: VirtualMachine, *words: str) -> dict[str, Any]:
    """Return what stats counts."""
    done = machine.run(
        ["rp", "stats", "--no-stream", "--format", "{{json .}}", *words], timeout=RUN_LIMIT_S
    )
    return dict(json.loads(done.stdout))


def usage(machine: VirtualMachine, name: str) -> dict[str, Any]:
    """Return inspect's Usage."""
    done = machine.run(["rp", "inspect", "-f", "{{json .Usage}}", name], timeout=RUN_LIMIT_S)
    return dict(json.loads(done.stdout))


def test_a_running_container_is_measured(held: VirtualMachine) -> None:
    limit_s = time.monotonic() + RUN_LIMIT_S
    while (
        not usage(held, "held")["CPUThrottledUSec"]
        or (numbers(held, "held")["BlockOutput"] or 0) < 2 * MIB
    ):
        assert time.monotonic() < limit_s, "it is not throttled, or writes nothing"
        time.sleep(1)
    found = numbers(held, "held")
    assert 20 * MIB < found["MemUsage"] < 100 * MIB
    assert found["MemLimit"] == 100 * MIB
    assert 20 < found["MemPerc"] < 100
    assert found["PIDs"] in (1, 2, 3)
    assert found["BlockOutput"] >= 2 * MIB
    # Of one CPU, and averaged since the start.
    assert 0 < found["CPU"] < 60
    row = rp(held, "stats", "--no-stream", "held").stdout
    assert "/ 104.9MB" in row
    told = usage(held, "held")
    assert told["MemoryPeak"] >= told["MemoryCurrent"] > 20 * MIB
    assert (told["OOMKills"], told["PidsPeak"] >= told["PidsCurrent"]) == (0, True)
    assert set(told["Pressure"]) >= {"cpu", "memory", "io"}


def test_limits_are_those_that_hold_now(held: VirtualMachine) -> None:
    def limits() -> tuple[int, ...]:
        form = "{{json .HostConfig}}"
        done = held.run(["rp", "inspect", "-f", form, "held"], timeout=RUN_LIMIT_S)
        host = json.loads(done.stdout)
        return host["Memory"], host["NanoCpus"], host["PidsLimit"]

    assert limits() == (100 * MIB, 200_000_000, 50)
    properties = ["MemoryMax=200M", "CPUQuota=30%", "TasksMax=60"]
    argv = ["systemctl", "--user", "set-property", "--runtime", "rp-held.scope", *properties]
    held.run(argv, timeout=RUN_LIMIT_S)
    assert limits() == (200 * MIB, 300_000_000, 60)


def test_totals_stay_after_the_end(held: VirtualMachine) -> None:
    rp(held, "kill", "held")
    held.run(["rp", "wait", "held"], timeout=RUN_LIMIT_S)
    told = usage(held, "held")
    assert told["MemoryPeak"] > 20 * MIB
    assert told["CPUUsageUSec"] > 0
    assert told["CPUThrottledUSec"] > 0
    assert told["IOWriteBytes"] >= 2 * MIB
    assert told["PidsPeak"] >= 1
    assert told["MemoryCurrent"] is None
    form = "{{.MemoryPeak}}|{{.CPUTime}}|{{.Throttled}}|{{.IOWrite}}|{{.OOMKills}}"
    shown = rp(held, "ps", "-a", "--filter", "name=held", "--format", form).stdout.strip()
    assert "--" not in shown
    assert shown.endswith("|0")


def test_why_tells_of_the_memory_limit(held: VirtualMachine) -> None:
    options = ["--name", "eater", "--memory", "40m", "--network", "none"]
    done = rp(held, "run", *options, "alpine", "awk", EATER)
    try:
        assert done.returncode == 137
        told = json.loads(rp(held, "why", "--format", "json", "eater").stdout)
        assert told["Kind"] == "oom"
        assert told["Memory"]["Limit"] == 40 * MIB
        assert 20 * MIB < told["Memory"]["Peak"] <= 41 * MIB
        assert told["Memory"]["OOMKills"] >= 1
        assert "memory limit" in told["Cause"][0]
        assert "limit 41.9 MB" in rp(held, "why", "eater").stdout
        state = json.loads(rp(held, "inspect", "-f", "{{json .State}}", "eater").stdout)
        assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    finally:
        rp(held, "rm", "-f", "eater")
