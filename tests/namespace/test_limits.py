"""Limits of `rp run` where no controller is delegated, and user managers that are not there.

The namespace rig has no cgroup controllers: limits are refused, or set and shown by systemctl.
Where the machine has them (a laptop) those tests say so by skipping; the VM rig enforces them.
"""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rig.machine import Machine

MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def used_before(rig: Machine, alpine: str) -> None:
    """Run one container: the first ever starts the user bus and makes the runtime directory."""
    rig.run(["rp", "run", "--rm", "--network", "none", alpine, "true"])


@pytest.fixture
def bare(rig: Machine) -> Machine:
    """Return the machine, if its user manager has no controllers."""
    manager = f"/sys/fs/cgroup/user.slice/user-{rig.uid}.slice/user@{rig.uid}.service"
    if rig.run(["cat", f"{manager}/cgroup.controllers"]).stdout.split():
        pytest.skip("this machine delegates controllers: here limits work")
    return rig


def shown(rig: Machine, unit: str, *names: str) -> dict[str, str]:
    """Return what systemctl shows of a unit, once it is active."""
    limit_s = time.monotonic() + 120
    argv = ["systemctl", "--user", "show", unit, *(f"--property={name}" for name in names)]
    while rig.run(["systemctl", "--user", "is-active", unit], check=False).returncode != 0:
        assert time.monotonic() < limit_s, f"{unit} did not become active"
        time.sleep(0.05)
    return dict(line.split("=", 1) for line in rig.run(argv).stdout.splitlines())


@pytest.mark.row("U7", "125")
@pytest.mark.row("I9", "a limit whose controller is not delegated: exit 125")
@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--memory", "100m"], "MemoryMax (--memory)"),
        (["--cpus", "0.5"], "CPUQuotaPerSecUSec (--cpus)"),
        (["--cpu-shares", "512"], "CPUWeight (--cpu-shares)"),
        (["--pids-limit", "64"], "TasksMax (--pids-limit)"),
        (["--property", "MemoryHigh=50%"], "MemoryHighScale"),
        (["--property", "IOWeight=50"], "IOWeight"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_limit_without_controller_is_refused(
    bare: Machine, alpine: str, options: list[str], named: str
) -> None:
    done = bare.run(["rp", "run", "--rm", *options, alpine, "true"], check=False)
    assert done.returncode == 125
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"rp: {named} cannot be enforced")
    assert "--ignore-missing-limits" in lines[1]


@pytest.mark.usefixtures("leaves_nothing")
def test_ignored_limits_are_set_all_the_same(bare: Machine, alpine: str) -> None:
    options = [
        *("--memory", "100m", "--memory-swap", "150m", "--memory-reservation", "50m"),
        *("--cpus", "0.5", "--cpu-shares", "1024", "--pids-limit", "64"),
        *("--property", "IOWeight=50", "--property", "RuntimeMaxSec=1h"),
    ]
    running = bare.popen(
        [
            *("rp", "run", "--rm", "--name", "limited", "--ignore-missing-limits"),
            *(*options, alpine, "sh", "-c", "echo up; exec sleep 1000"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        # Killed before its program is there, it would have failed to start.
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        found = shown(
            bare,
            "rp-limited.scope",
            *("MemoryMax", "MemorySwapMax", "MemoryLow", "CPUQuotaPerSecUSec", "CPUWeight"),
            *("TasksMax", "IOWeight", "RuntimeMaxUSec"),
        )
    finally:
        bare.run(["systemctl", "--user", "kill", "--signal=KILL", "rp-limited.scope"])
        running.communicate(timeout=120)
    assert running.returncode == 137
    assert found == {
        "MemoryMax": str(100 * MIB),
        "MemorySwapMax": str(50 * MIB),
        "MemoryLow": str(50 * MIB),
        "CPUQuotaPerSecUSec": "500ms",
        "CPUWeight": "100",
        "TasksMax": "64",
        "IOWeight": "50",
        "RuntimeMaxUSec": "1h",
    }


@pytest.mark.usefixtures("leaves_nothing")
def test_cpus_are_held_by_affinity_with_one_line(bare: Machine, alpine: str) -> None:
    done = bare.run(["rp", "run", "--rm", "--cpuset-cpus", "0", alpine, "nproc"])
    assert done.stdout == "1\n"
    (line,) = done.stderr.splitlines()
    assert "held by affinity" in line
    assert "user@.service.d" in line


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--property", "MemryMax=1G"], "did you mean MemoryMax"),
        (["--property", "MemoryMax=lots"], "property MemoryMax=lots: must be like 512M"),
        (["--property", "CollectMode=never"], "CollectMode"),
        (["--property", "After=no good name.service x"], ""),
        (["--cpuset-cpus", "4000"], "CPU 4000 is not on this machine"),
        (["--memory", "100m", "--memory-swap", "50m"], "both together"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_nonsense_is_refused_before_the_payload_runs(
    rig: Machine, alpine: str, options: list[str], text: str
) -> None:
    done = rig.run(["rp", "run", "--rm", *options, alpine, "echo", "ran"], check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.row("U4", "125 with the cure")
@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize(
    ("environment", "text", "cure"),
    [
        ({"XDG_RUNTIME_DIR": "/run/user/4000"}, "/run/user/4000 does not exist", "enable-linger"),
        ({"XDG_RUNTIME_DIR": "/root"}, "/root belongs to uid 0", "machinectl shell"),
    ],
)
def test_missing_session_is_named_with_its_cure(
    rig: Machine, alpine: str, environment: dict[str, str], text: str, cure: str
) -> None:
    done = rig.run(["rp", "run", "--rm", alpine, "true"], check=False, env=environment)
    assert done.returncode == 125
    first, second = done.stderr.splitlines()
    assert text in first
    assert cure in second


@pytest.mark.usefixtures("leaves_nothing")
def test_wrong_bus_address_in_the_environment_does_no_harm(rig: Machine, alpine: str) -> None:
    wrong = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"}
    assert rig.run(["rp", "run", "--rm", alpine, "echo", "ran"], env=wrong).stdout == "ran\n"


@pytest.mark.row("X5", "works")
@pytest.mark.usefixtures("leaves_nothing")
def test_cron_without_runtime_directory_variable_works(rig: Machine, alpine: str) -> None:
    argv = ["env", "--unset=XDG_RUNTIME_DIR", "--unset=DBUS_SESSION_BUS_ADDRESS"]
    assert rig.run([*argv, "rp", "run", "--rm", alpine, "echo", "ran"]).stdout == "ran\n"


@pytest.mark.usefixtures("leaves_nothing")
def test_user_without_a_manager_is_told_how_to_get_one(rig: Machine) -> None:
    if not rig.has_root:
        pytest.skip("needs a second user")
    if rig.run(["test", "-d", "/run/user/1001"], check=False, user="bob").returncode == 0:
        pytest.skip("bob has a user manager here")
    done = rig.run(["rp", "run", "--rm", "--rootfs", "/", "true"], check=False, user="bob")
    assert done.returncode == 125
    assert "enable-linger" in done.stderr
