"""--ipc, --pid, --uts, --cgroupns: the host's namespaces, and what of the host stays closed."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from namespace.living import until

if TYPE_CHECKING:
    from rig.machine import Machine

_KINDS = ("ipc", "pid", "uts", "cgroup")
_ALL = ("--ipc=host", "--pid=host", "--uts=host", "--cgroupns=host")
_LINKS = "for kind in ipc pid uts cgroup; do readlink /proc/self/ns/$kind; done"
_INSIDE = f"""
    {_LINKS}
    echo name $(hostname) $(cat /etc/hostname)
    echo mark >/dev/shm/rp-host-mark && echo shm written
    hostname other 2>/dev/null || echo name kept
    (echo other >/proc/sys/kernel/hostname) 2>/dev/null || echo sysctl kept
    cat /proc/$1/environ 2>/dev/null || echo environ closed
    ls /proc/$1/root/ 2>/dev/null || echo root closed
    mkdir /sys/fs/cgroup/mine 2>/dev/null || echo cgroup closed
    # An empty file stands before it, where the machine has one.
    echo interrupts $(wc -c </proc/interrupts)
    grep -c payload /proc/self/cgroup
"""


@pytest.fixture(scope="module")
def said(rig: Machine, alpine: str) -> list[str]:
    """Return what a container in all of the host's namespaces sees, of a process of the user's."""
    with rig.popen(["sh", "-c", "echo $$; exec sleep 1000"], stdout=-1, text=True) as other:
        assert other.stdout is not None
        pid = other.stdout.readline().strip()
        argv = ["rp", "run", "--rm", *_ALL, alpine, "sh", "-c", _INSIDE, "sh", pid]
        done = rig.run(argv)
        other.terminate()
    return str(done.stdout).splitlines()


def test_the_hosts_namespaces(rig: Machine, said: list[str]) -> None:
    host = rig.run(["sh", "-c", _LINKS]).stdout.splitlines()
    assert said[: len(_KINDS)] == host
    name = rig.run(["uname", "-n"]).stdout.strip()
    assert f"name {name} {name}" in said
    assert said[-1] == "1"


def test_shared_memory_is_the_hosts(rig: Machine, said: list[str]) -> None:
    assert "shm written" in said
    path = "/dev/shm/rp-host-mark"
    assert rig.run(["cat", path]).stdout == "mark\n"
    rig.run(["rm", path])


@pytest.mark.parametrize(
    "line",
    [
        "name kept",
        "sysctl kept",
        "environ closed",
        "root closed",
        "cgroup closed",
        "interrupts 0",
    ],
)
def test_what_stays_closed(said: list[str], line: str) -> None:
    assert line in said


def test_private_ones_are_not_the_hosts(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    del leaves_nothing
    host = rig.run(["sh", "-c", _LINKS]).stdout.splitlines()
    private = ("--ipc=none", "--pid=private", "--uts=private", "--cgroupns=private")
    script = f"{_LINKS}; ls /dev/shm 2>/dev/null || echo none"
    done = rig.run(["rp", "run", "--rm", *private, alpine, "sh", "-c", script])
    *own, shm = done.stdout.splitlines()
    assert len(own) == len(host)
    assert not set(own) & set(host)
    assert shm == "none"


def assert_gone(rig: Machine, pattern: str) -> None:
    """Wait for what is killed to be dead: systemd is asked to, and not waited for."""
    argv = ["pgrep", "-f", pattern]
    until(lambda: rig.run(argv, check=False).stdout == "", "it goes on")


def test_nothing_outlives_its_first_process(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    """No PID namespace ends with it: the scope's processes are killed."""
    del leaves_nothing
    script = "sleep 98761 & exit 3"
    argv = ["rp", "run", "--rm", "--pid=host", alpine, "sh", "-c", script]
    assert rig.run(argv, check=False).returncode == 3
    assert_gone(rig, "^sleep 98761")


def test_nothing_outlives_a_killed_supervisor(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    del leaves_nothing
    script = "sleep 98762 & echo begun; exec sleep 98763"
    argv = ["rp", "run", "--rm", "--name", "lost", "--pid=host", alpine, "sh", "-c", script]
    with rig.popen(argv, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "begun\n"
        shown = rig.run(["rp", "inspect", "lost", "--format", "{{.State.ConmonPid}}"])
        rig.run(["kill", "-KILL", shown.stdout.strip()])
        assert client.wait(timeout=60) == 125
    assert_gone(rig, "^sleep 9876")


def test_exec_where_there_is_no_pid_namespace(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    del leaves_nothing
    argv = ["rp", "run", "-d", "--rm", "--name", "open", *_ALL, alpine, "sleep", "1000"]
    rig.run(argv)
    host = rig.run(["sh", "-c", _LINKS]).stdout
    assert rig.run(["rp", "exec", "open", "sh", "-c", _LINKS]).stdout == host
    form = "{{.HostConfig.PidMode}} {{.HostConfig.IpcMode}} {{.HostConfig.CgroupMode}}"
    assert rig.run(["rp", "inspect", "open", "--format", form]).stdout == "host host host\n"
    refused = rig.run(["rp", "run", "--rm", "--pid=container:open", alpine, "true"], check=False)
    assert refused.returncode == 125
    assert "container open has the host's\nhint: --pid=host\n" in refused.stderr
    rig.run(["rp", "rm", "-f", "-t", "0", "open"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--pid=host --cgroups=disabled", "--pid=host and --cgroups=disabled exclude each other"),
        ("--uts=host --hostname x", "--hostname and --uts=host exclude each other"),
        ("--ipc=host --sysctl kernel.shmmax=1", "does not belong to a namespace"),
        ("--pid=none", "--pid 'none': expected"),
        ("--cgroupns=mine", "--cgroupns"),
    ],
)
def test_what_does_not_go_together(rig: Machine, alpine: str, words: str, message: str) -> None:
    done = rig.run(["rp", "run", "--rm", *words.split(), alpine, "true"], check=False)
    assert done.returncode == 125
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("hint:")]) == 1


def test_shared_memory_that_is_private_is_nobody_elses(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    del leaves_nothing
    rig.run(["rp", "run", "-d", "--rm", "--name", "own", "--ipc=private", alpine, "sleep", "1000"])
    done = rig.run(["rp", "run", "--rm", "--ipc=container:own", alpine, "true"], check=False)
    assert done.returncode == 125
    assert "container own was made with --ipc=private" in done.stderr
    rig.run(["rp", "rm", "-f", "-t", "0", "own"])
