"""Faults that need a machine of its own: no power, a clock that jumps, a supervisor out of memory.

The tests are in the order of one story: the machine is emulated, and starts are dear.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest
from vm.holding import RUN_LIMIT_S, pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.machine import Completed
    from rig.vm import VirtualMachine

# Two boots of an emulated machine, and what it is waited for: six minutes.
pytestmark = [pytest.mark.limit(1500), pytest.mark.nightly]

YEARS_S = 10 * 365 * 24 * 3600
TICKS = "trap '' TERM; while :; do echo tick; sleep 1; done"
# Metadata is on the disk then, and of files that nobody synced nothing else: the worst moment.
NAMES = "import os; fd = os.open('/written', os.O_CREAT | os.O_WRONLY); os.fsync(fd)"
SETTLE_S = 5


@pytest.fixture(scope="module", autouse=True)
def nothing_left(vm: VirtualMachine) -> Iterator[None]:
    """Remove all containers afterwards."""
    pull(vm)
    yield
    rp(vm, "rm", "-f", "-a")
    rp(vm, "rmi", "-f", "busybox", check=False)


def rp(machine: VirtualMachine, *words: str, check: bool = True) -> Completed:
    return machine.run(["rp", *words], check=check, timeout=RUN_LIMIT_S)


def start(machine: VirtualMachine, name: str, *options: str, command: tuple[str, ...]) -> None:
    rp(machine, "run", "-d", "--name", name, "--network", "none", *options, "alpine", *command)


def inspect(machine: VirtualMachine, name: str, template: str) -> str:
    return str(rp(machine, "inspect", "--format", template, name).stdout).strip()


def listed(machine: VirtualMachine) -> list[str]:
    form = "{{.Names}} {{.State}} {{.ExitCode}}"
    return sorted(rp(machine, "ps", "-a", "--format", form).stdout.splitlines())


def running(machine: VirtualMachine, argv: str) -> int:
    """Count the processes with this command line."""
    return int(machine.root(["pgrep", "-x", "-c", "-f", argv], check=False).stdout)


def until(condition: Callable[[], object], what: str) -> None:
    limit_s = time.monotonic() + RUN_LIMIT_S
    while not condition():
        assert time.monotonic() < limit_s, f"not yet: {what}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def without_power(vm: VirtualMachine, nothing_left: None) -> list[str]:
    """Let the machine lose its power while much goes on; return what there is after its boot."""
    none = ("--network", "none", "alpine")
    assert rp(vm, "run", "--name", "over", *none, "sh", "-c", "exit 7", check=False).returncode == 7
    rp(vm, "create", "--name", "made", *none, "sleep", "1002")
    start(vm, "kept", "--restart", "always", command=("sleep", "1004"))
    rp(vm, "enable", "kept")
    start(vm, "passing", "--rm", command=("sleep", "1003"))
    start(vm, "runs", command=("sleep", "1001"))
    pulling = vm.popen(["rp", "pull", "-q", "busybox"])
    committing = vm.popen(["rp", "commit", "-q", "over", "localhost/half"])
    vm.root(["python3", "-c", NAMES])
    vm.reboot(power_loss=True)
    for process in (pulling, committing):
        process.kill()
        process.wait()
    until(lambda: "kept running 0" in listed(vm), "it is started again")
    return listed(vm)


@pytest.mark.row("T1", "after a power loss: nothing is trusted from the boot before")
@pytest.mark.row("T5", "containers are known, as they were told to be; those with --rm are gone")
def test_t1_t5_containers_after_a_power_loss(vm: VirtualMachine, without_power: list[str]) -> None:
    assert without_power == [
        "kept running 0", "made created 0", "over exited 7", "runs exited -1",
    ]  # fmt: skip
    assert "lost" in inspect(vm, "runs", "{{.State.Error}}")
    assert [running(vm, f"sleep {number}") for number in (1001, 1002, 1003, 1004)] == [0, 0, 0, 1]
    for name in ("made", "runs"):
        rp(vm, "start", name)
    assert [line for line in listed(vm) if "running" in line] == [
        "kept running 0", "made running 0", "runs running 0",
    ]  # fmt: skip
    rp(vm, "rm", "-f", "-t", "0", "made", "runs", "over")


@pytest.mark.row("T5", "no image is half there; the next pull and commit work")
@pytest.mark.row("P11", "a commit that lost its power: no tag, or a whole image")
def test_t5_images_after_a_power_loss(vm: VirtualMachine, without_power: list[str]) -> None:
    assert without_power
    done = rp(vm, "fsck", check=False)
    unneeded = ("orphan ", "half-made ", "rp: the image store is not sound")
    assert [x for x in (done.stdout + done.stderr).splitlines() if not x.startswith(unneeded)] == []
    rp(vm, "fsck", "--repair", check=False)
    assert rp(vm, "fsck").stdout == ""
    images = rp(vm, "images", "--format", "{{.Repository}}").stdout.split()
    assert "docker.io/library/alpine" in images
    for image in images:
        rp(vm, "run", "--rm", "--network", "none", image, "true")
    rp(vm, "pull", "-q", "busybox")
    rp(vm, "run", "--rm", "--network", "none", "busybox", "true")
    rp(vm, "rmi", "localhost/half", check=False)


@pytest.mark.row("R7", "killed for lack of memory: payload ended, a restart policy acts once")
def test_r7_the_supervisor_is_out_of_memory(vm: VirtualMachine) -> None:
    start(vm, "starved", "--restart", "always", command=("sleep", "1005"))
    start(vm, "single", command=("sleep", "1006"))
    pids = {name: inspect(vm, name, "{{.State.ConmonPid}}") for name in ("starved", "single")}
    payloads = [inspect(vm, name, "{{.State.Pid}}") for name in ("starved", "single")]
    # The kernel would rather kill the payload, which is what its user controls.
    scores = [
        int(vm.root(["cat", f"/proc/{pid}/oom_score_adj"]).stdout)
        for pid in (pids["single"], payloads[1])
    ]
    assert scores[0] <= scores[1]
    for name in pids:
        # Less than it has: what cannot be taken back is killed.
        unit = f"rp-{name}.service"
        find = ["systemctl", "--user", "show", "-P", "ControlGroup", unit]
        group = vm.run(find).stdout.strip()
        vm.root(["sh", "-c", f"echo 0 >/sys/fs/cgroup{group}/memory.max"], check=False)
        until(partial(ended, vm, pids[name]), "the supervisor lives")
    until(lambda: "single exited -1" in listed(vm), "its end is known")
    assert "lost" in inspect(vm, "single", "{{.State.Error}}")
    until(lambda: "starved running 0" in listed(vm), "it is started again")
    assert inspect(vm, "starved", "{{.State.ConmonPid}}") != pids["starved"]
    assert (running(vm, "sleep 1005"), running(vm, "sleep 1006")) == (1, 0)
    rp(vm, "rm", "-f", "-t", "0", "starved", "single")


def ended(machine: VirtualMachine, pid: str) -> bool:
    return machine.root(["test", "-e", f"/proc/{pid}"], check=False).returncode != 0


def health(machine: VirtualMachine) -> tuple[str, int, int]:
    """Return the state of the health check, its failures and how many there were."""
    (found,) = json.loads(rp(machine, "inspect", "steady").stdout)
    told = found["State"]["Health"]
    return told["Status"], told["FailingStreak"], hash(json.dumps(told["Log"]))


def cpu_ticks(machine: VirtualMachine, pids: list[str]) -> int:
    """Return the processor time that processes have used, in hundredths of a second."""
    lines = machine.root(["cat", *(f"/proc/{pid}/stat" for pid in pids)]).stdout.splitlines()
    fields = [line.rpartition(")")[2].split() for line in lines]
    return sum(int(each[11]) + int(each[12]) for each in fields)


@pytest.fixture(scope="module")
def steady(vm: VirtualMachine, nothing_left: None) -> Iterator[dict[str, str]]:
    """Hold containers with timers, and somebody who follows; put the clock right afterwards."""
    checks = ("--health-cmd", "true", "--health-interval", "3s", "--health-timeout", "60s")
    start(vm, "steady", *checks, command=("sh", "-c", TICKS))
    start(vm, "again", "--restart", "always", command=("sh", "-c", "sleep 1007; exit 3"))
    follow = "rp events >events 2>&1 & rp logs -f steady >followed 2>&1 & echo $!"
    vm.run(["sh", "-c", f"cd /tmp; setsid sh -c '{follow}' >/dev/null 2>&1"])
    until(lambda: "tick" in vm.run(["cat", "/tmp/followed"]).stdout, "somebody follows")
    now_s, began = int(vm.root(["date", "+%s"]).stdout), time.monotonic()
    yield {name: inspect(vm, name, "{{.State.Pid}} {{.State.ConmonPid}}")
           for name in ("steady", "again")}  # fmt: skip
    vm.root(["date", "-s", f"@{now_s + int(time.monotonic() - began)}"])
    vm.root(["pkill", "-f", "rp (events|logs)"], check=False)
    rp(vm, "rm", "-f", "-t", "0", "steady", "again")


@pytest.mark.row("T4", "ten years on or back: nothing ends, hangs or spins, all timers go on")
@pytest.mark.parametrize("jump_s", [YEARS_S, -2 * YEARS_S], ids=["on", "back"])
def test_t4_the_clock_jumps(vm: VirtualMachine, steady: dict[str, str], jump_s: int) -> None:
    checked = health(vm)[2]
    now_s = int(vm.root(["date", "+%s"]).stdout)
    vm.root(["date", "-s", f"@{now_s + jump_s}"])
    vm.root(["sh", "-c", "truncate -s 0 /tmp/followed /tmp/events"])
    # Nothing spins, also not those who follow.
    followers = vm.root(["pgrep", "-f", "rp (events|logs)"]).stdout.split()
    pids = [steady["again"].split()[1], *followers]
    before = cpu_ticks(vm, pids)
    time.sleep(SETTLE_S)
    assert cpu_ticks(vm, pids) - before < SETTLE_S * 100 / 3
    # Health checks go on, and so does who follows.
    until(lambda: health(vm)[2] != checked, "its health is checked again")
    assert health(vm)[:2] == ("healthy", 0)
    until(lambda: "tick" in vm.run(["cat", "/tmp/followed"]).stdout, "what follows is shown")
    assert "tick" in rp(vm, "logs", "--since", "2m", "steady").stdout
    # No age is negative, and nothing has ended.
    told = rp(vm, "ps", "--format", "{{.Names}} {{.Status}}").stdout
    assert "steady Up " in told
    assert "-" not in told
    assert inspect(vm, "steady", "{{.State.Pid}} {{.State.ConmonPid}}") == steady["steady"]
    # Restarts, starts, the stop's timeout and events.
    was = inspect(vm, "again", "{{.State.Pid}}")
    rp(vm, "exec", "again", "pkill", "sleep", check=False)
    until(lambda: inspect(vm, "again", "{{.State.Pid}}") not in (was, "0"), "it is started again")
    steady["again"] = inspect(vm, "again", "{{.State.Pid}} {{.State.ConmonPid}}")
    rp(vm, "run", "--name", "brief", "--network", "none", "alpine", "true")
    assert "Exited (0)" in rp(vm, "ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout
    rp(vm, "rm", "brief")
    until(lambda: "name=brief" in vm.run(["cat", "/tmp/events"]).stdout, "events are shown")


@pytest.mark.row("T4", "a prune until= of long ago takes nothing that is new by the clock set back")
def test_t4_a_clock_that_was_set_back_prunes_nothing(
    vm: VirtualMachine, steady: dict[str, str]
) -> None:
    assert steady
    rp(vm, "create", "--name", "made", "--network", "none", "alpine", "true")
    now_s = int(vm.root(["date", "+%s"]).stdout)
    vm.root(["date", "-s", f"@{now_s - YEARS_S}"])
    rp(vm, "container", "prune", "-f", "--filter", "until=1h")
    rp(vm, "image", "prune", "-f", "-a", "--filter", "until=1h")
    assert "made" in rp(vm, "ps", "-a", "--format", "{{.Names}}").stdout
    assert rp(vm, "images", "-q", "alpine").stdout
    rp(vm, "stop", "-t", "1", "steady")
    assert inspect(vm, "steady", "{{.State.ExitCode}}") == "137"
    rp(vm, "rm", "made")
