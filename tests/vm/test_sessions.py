"""Containers and the user's sessions: logout with and without linger, reboot, a restarted manager.

And limits that change while the container runs, which need controllers.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from rig import recipe, wire
from vm.holding import RUN_LIMIT_S, cgroup_file, pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.machine import Completed
    from rig.vm import VirtualMachine

pytestmark = pytest.mark.limit(3000)

LOGIN = "rig-ready.service"
MIB = 1 << 20
# Says that it was asked to end, where it can be read afterwards.
POLITE = "trap 'echo asked >/asked; exit 0' TERM; echo ready; while :; do sleep 0.1; done"


@pytest.fixture(autouse=True, scope="module")
def alpine(vm: VirtualMachine) -> None:
    """Pull alpine into the machine."""
    pull(vm)


@pytest.fixture(autouse=True)
def nothing_left(vm: VirtualMachine) -> Iterator[None]:
    """Remove all containers afterwards."""
    yield
    rp(vm, "rm", "-f", "-a")


def rp(machine: VirtualMachine, *words: str, check: bool = True) -> Completed:
    return machine.run(["rp", *words], check=check, timeout=RUN_LIMIT_S)


def start(machine: VirtualMachine, name: str, *words: str) -> None:
    rp(machine, "run", "-d", "--name", name, "--network", "none", *words)


def inspect(machine: VirtualMachine, name: str, template: str) -> str:
    return str(rp(machine, "inspect", "--format", template, name).stdout).strip()


def reason(machine: VirtualMachine, name: str) -> str:
    """Return who ended a container, from its exit record."""
    found = inspect(machine, name, "{{.Id}}")
    path = f".local/share/rootlesspy/containers/{found}/exit.json"
    return str(json.loads(machine.run(["cat", path]).stdout)["reason"])


def running(machine: VirtualMachine, argv: str) -> int:
    """Count the processes with this command line."""
    done = machine.root(["pgrep", "-x", "-c", "-f", argv], check=False)
    return int(done.stdout)


def runs_once(machine: VirtualMachine, argv: str) -> None:
    """Wait until there is exactly one process with this command line.

    What is recorded as running becomes its command a moment later.
    """
    until(lambda: running(machine, argv) == 1, f"one {argv}")


def log_out(machine: VirtualMachine) -> None:
    """End alice's session, and her manager too unless she lingers."""
    machine.root(["truncate", "--size=0", wire.SESSION])
    machine.root(["systemctl", "stop", LOGIN])


def log_in(machine: VirtualMachine) -> None:
    """Begin a session, which starts the user manager when there is none."""
    machine.root(["systemctl", "reset-failed"])
    machine.root(["systemctl", "start", LOGIN], timeout=RUN_LIMIT_S)
    until(lambda: bool(machine.root(["cat", wire.SESSION]).stdout.strip()), "alice is logged in")


def until(condition: Callable[[], bool], what: str) -> None:
    limit_s = time.monotonic() + RUN_LIMIT_S
    while not condition():
        assert time.monotonic() < limit_s, f"not yet: {what}"
        time.sleep(0.5)


def manager_is_gone(machine: VirtualMachine) -> bool:
    """Say whether the user manager has ended, with all that it had to stop."""
    argv = ["systemctl", "is-active", "user@1000.service"]
    return str(machine.root(argv, check=False).stdout) in ("inactive\n", "failed\n")


def wait_until_up(machine: VirtualMachine, name: str) -> None:
    until(lambda: inspect(machine, name, "{{.State.Status}}") == "running", f"{name} runs")


def test_limits_change_while_it_runs(vm: VirtualMachine) -> None:
    start(vm, "box", "--memory", "100m", "alpine", "sleep", "1000")
    rp(vm, "update", "--memory", "50m", "--pids-limit", "30", "--cpus", "0.5", "box")
    assert cgroup_file(vm, "box", "memory.max") == str(50 * MIB)
    assert cgroup_file(vm, "box", "pids.max") == "30"
    assert cgroup_file(vm, "box", "cpu.max") == "50000 100000"
    # They survive a reload of the manager, and are those of the next start.
    vm.run(["systemctl", "--user", "daemon-reload"])
    assert cgroup_file(vm, "box", "memory.max") == str(50 * MIB)
    rp(vm, "restart", "-t", "0", "box")
    assert cgroup_file(vm, "box", "memory.max") == str(50 * MIB)
    assert cgroup_file(vm, "box", "pids.max") == "30"
    rp(vm, "update", "--memory", "0", "--cpus", "0", "--pids-limit", "-1", "box")
    assert cgroup_file(vm, "box", "memory.max") == "max"
    assert cgroup_file(vm, "box", "pids.max") == "max"
    assert cgroup_file(vm, "box", "cpu.max") == "max 100000"
    done = rp(vm, "update", "--memory", "60m", "--blkio-weight", "50", "box", check=False)
    assert (done.returncode, "io controller" in done.stderr) == (125, True)
    assert cgroup_file(vm, "box", "memory.max") == "max"


def test_cpus_without_their_controller_are_held_by_affinity(vm: VirtualMachine) -> None:
    start(vm, "box", "alpine", "sh", "-c", "sleep 1000 & sleep 1000")
    rp(vm, "update", "--cpuset-cpus", "0", "box")
    allowed = rp(vm, "exec", "box", "grep", "-h", "Cpus_allowed_list", "/proc/1/status").stdout
    assert allowed.split() == ["Cpus_allowed_list:", "0"]


@pytest.mark.row("U3", "stopped politely without linger, and that was said")
def test_logout_with_linger_and_without(vm: VirtualMachine) -> None:
    start(vm, "polite", "alpine", "sh", "-c", POLITE)
    until(lambda: rp(vm, "logs", "polite").stdout == "ready\n", "it is polite")
    pid = inspect(vm, "polite", "{{.State.Pid}}")
    log_out(vm)
    log_in(vm)
    assert inspect(vm, "polite", "{{.State.Pid}}") == pid
    vm.root(["loginctl", "disable-linger", recipe.ALICE.name])
    words = ("run", "-d", "--network", "none", "alpine", "sleep", "1002")
    assert "enable-linger" in rp(vm, *words).stderr
    assert rp(vm, *words).stderr == ""
    rp(vm, "create", "--name", "starts", "--network", "none", "alpine", "sleep", "1003")
    rp(vm, "enable", "starts")
    log_out(vm)
    until(lambda: manager_is_gone(vm), "the user manager ends")
    assert running(vm, "sleep 1002") == 0
    log_in(vm)
    vm.root(["loginctl", "enable-linger", recipe.ALICE.name])
    wait_until_up(vm, "starts")
    runs_once(vm, "sleep 1003")
    assert inspect(vm, "polite", "{{.State.Status}} {{.State.ExitCode}}") == "exited 0"
    assert reason(vm, "polite") == "shutdown"


@pytest.mark.row("U2", "enabled ones are back once")
def test_enabled_containers_are_back_once_with_a_killed_manager(vm: VirtualMachine) -> None:
    start(vm, "kept", "--restart", "always", "alpine", "sleep", "1004")
    rp(vm, "enable", "kept")
    start(vm, "other", "alpine", "sleep", "1005")
    vm.root(["systemctl", "kill", "--signal=KILL", "user@1000.service"])
    log_out(vm)
    until(lambda: manager_is_gone(vm), "the user manager ends")
    log_in(vm)
    wait_until_up(vm, "kept")
    runs_once(vm, "sleep 1004")
    assert running(vm, "sleep 1005") == 0
    assert inspect(vm, "other", "{{.State.Status}}") == "exited"


@pytest.mark.row("T1", "enabled ones are back once, others were asked to end")
def test_enabled_containers_are_back_once_after_a_reboot(vm: VirtualMachine) -> None:
    start(vm, "kept", "--restart", "always", "alpine", "sleep", "1006")
    rp(vm, "enable", "kept")
    start(vm, "polite", "--restart", "always", "alpine", "sh", "-c", POLITE)
    until(lambda: rp(vm, "logs", "polite").stdout == "ready\n", "it is polite")
    vm.reboot()
    wait_until_up(vm, "kept")
    runs_once(vm, "sleep 1006")
    # Not enabled: a restart policy is of the unit, and that was transient.
    assert inspect(vm, "polite", "{{.State.Status}} {{.State.ExitCode}}") == "exited 0"
    assert reason(vm, "polite") == "shutdown"
    rp(vm, "stop", "-t", "0", "kept")
    assert inspect(vm, "kept", "{{.State.Status}}") == "exited"
