"""Changing containers that exist: the restart policy live, limits where they would hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from namespace.living import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rig.machine import Completed, Machine

pytestmark = pytest.mark.usefixtures("alpine", "leaves_nothing")


def rp(rig: Machine, *words: str, **options: Any) -> Completed:
    return rig.run(["rp", *words], **options)


def show(rig: Machine, unit: str, *names: str) -> dict[str, str]:
    argv = ["systemctl", "--user", "show", unit, *(f"-p{name}" for name in names)]
    return dict(line.split("=", 1) for line in rig.run(argv).stdout.splitlines())


def spec(rig: Machine, container_id: str) -> dict[str, Any]:
    """Return the limits that are kept for the next start."""
    path = f".local/share/rootlesspy/containers/{container_id}/config.json"
    found: dict[str, Any] = json.loads(rig.run(["cat", path]).stdout)["linux"]["resources"]
    return found


@pytest.fixture
def box(rig: Machine) -> Iterator[str]:
    """Run a container as a service and return its id."""
    yield rp(
        rig, "run", "-d", "--name", "box", "--network", "none", "alpine", "sleep", "1000"
    ).stdout.strip()
    rp(rig, "rm", "-f", "box")


def test_restart_policy_of_a_running_container(rig: Machine, box: str) -> None:
    names = ("Restart", "StartLimitBurst", "StartLimitIntervalUSec", "NeedDaemonReload", "MainPID")
    before = show(rig, "rp-box", *names)
    assert before["Restart"] == "no"
    assert rp(rig, "update", "--restart", "on-failure:4", "box").stdout == f"{box}\n"
    assert show(rig, "rp-box", *names) == {
        "Restart": "on-failure",
        "StartLimitBurst": "5",
        "StartLimitIntervalUSec": "infinity",
        "NeedDaemonReload": "no",
        "MainPID": before["MainPID"],
    }
    rp(rig, "update", "--restart", "always", "box")
    assert show(rig, "rp-box", "Restart", "StartLimitIntervalUSec") == {
        "Restart": "always",
        "StartLimitIntervalUSec": "0",
    }
    # What was changed lasts as long as the unit, and the policy for the next one too.
    rp(rig, "stop", "-t", "0", "box")
    find = ["find", f"/run/user/{rig.uid}/systemd/transient", "-name", "rp-box.*"]
    until(lambda: rig.run(find).stdout == "", "files of its units are left")
    rp(rig, "start", "box")
    assert show(rig, "rp-box", "Restart", "DropInPaths") == {
        "Restart": "always",
        "DropInPaths": "",
    }
    rp(rig, "update", "--restart", "no", "box")
    assert show(rig, "rp-box", "Restart")["Restart"] == "no"


def test_a_limit_that_would_not_hold_changes_nothing(rig: Machine, box: str) -> None:
    service = f"/sys/fs/cgroup/user.slice/user-{rig.uid}.slice/user@{rig.uid}.service"
    controllers = rig.run(["cat", f"{service}/cgroup.controllers"]).stdout.split()
    before = spec(rig, box)
    done = rp(rig, "update", "--blkio-weight", "50", "--memory", "64m", "box", check=False)
    if {"io", "memory"} <= set(controllers):
        assert done.returncode == 0
        return
    assert done.returncode == 125
    assert "cannot be enforced" in done.stderr
    assert spec(rig, box) == before


def test_limits_are_kept_for_the_next_start(rig: Machine) -> None:
    made = rp(rig, "create", "--ignore-missing-limits", "--name", "kept", "alpine").stdout.strip()
    rp(rig, "update", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "33", "kept")
    assert spec(rig, made) == {
        "memory": {"limit": 64 << 20},
        "cpu": {"quota": 50000, "period": 100000},
        "pids": {"limit": 33},
    }
    rp(rig, "update", "--memory", "0", "--cpus", "0", "--pids-limit", "-1", "kept")
    assert spec(rig, made) == {"pids": {"limit": -1}}
    rp(rig, "rm", "kept")


def test_refused(rig: Machine, box: str) -> None:
    before = spec(rig, box)
    for words, message in (
        (["box"], "nothing to change"),
        (["--restart", "sometimes", "box"], "--restart"),
        (["--memory", "lots", "box"], "--memory"),
        (["--cpu-shares", "1", "box"], "--cpu-shares"),
        (["--memory-swap", "1m", "--memory", "2m", "box"], "--memory-swap"),
        (["--memory", "1g", "nobody"], "nobody"),
        (["--memory", "1g"], "missing"),
    ):
        done = rp(rig, "update", *words, check=False)
        assert (done.returncode, done.stdout) == (125, ""), words
        assert message in done.stderr
    assert spec(rig, box) == before
