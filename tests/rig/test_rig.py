"""The rig itself: it is what it claims to be, and leaves nothing behind whatever is killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rig import furnish, images, instance, location, recipe, rootfs
from rig.machine import Machine, RigDoor

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.namespace, pytest.mark.root_only]

COMMAND = Path(__file__).with_name("rig")


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name for a rig of this test, which is removed whatever happens."""
    name = f"self-{os.getpid()}"
    yield name
    instance.down(name)


def traces(name: str) -> list[str]:
    """Return what exists of a rig on this machine: mounts, cgroups, files, processes."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line]
    found += [os.fspath(path) for path in location.cgroup2().glob(f"*{name}*")]
    found += [os.fspath(path) for path in location.instances().glob(f"{name}*")]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes()
        except OSError:
            continue
        if f"instances/{name}".encode() in command:
            found.append(f"{process}: {command!r}")
    return found


def assert_cleaned(name: str) -> None:
    """Fail when anything of a rig stays; a shell that was about to start it may end on its own."""
    limit_s = time.monotonic() + 60
    while left := [trace for trace in traces(name) if not trace.endswith(".lock")]:
        assert time.monotonic() < limit_s, left
        time.sleep(0.05)


def start(name: str, owner_pid: int = 0) -> instance.Instance:
    return instance.up(name, recipe.SUITES[0], print, owner_pid=owner_pid)


def test_user_has_a_login_with_user_manager(rig: Machine) -> None:
    # Tests before this one may have left units that failed, as they should.
    rig.run(["systemctl", "--user", "reset-failed"])
    state = rig.run(["systemctl", "--user", "is-system-running", "--wait"]).stdout
    assert state == "running\n"
    assert rig.run(["sh", "-c", "echo $XDG_RUNTIME_DIR"]).stdout == f"/run/user/{rig.uid}\n"
    assert "/session-" in rig.run(["cat", "/proc/self/cgroup"]).stdout.splitlines()[-1]


def test_system_has_no_failed_unit(name: str) -> None:
    # In a rig where no other test has let any fail.
    machine = Machine(RigDoor(start(name)))
    machine.root(["systemctl", "is-system-running", "--wait"], check=False)
    assert machine.root(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""


def test_bob_has_neither_manager_nor_subordinate_ids(rig: Machine) -> None:
    failed = rig.run(["systemctl", "--user", "status"], user="bob", check=False)
    assert failed.returncode != 0
    assert "bob" not in rig.root(["cat", "/etc/subuid"]).stdout


def test_exit_codes_and_signals_pass_through(rig: Machine) -> None:
    assert rig.run(["sh", "-c", "exit 42"], check=False).returncode == 42
    assert rig.run(["sh", "-c", "kill -TERM $$"], check=False).returncode == -signal.SIGTERM
    assert rig.run(["/nonexistent"], check=False).returncode == 127
    assert rig.run(["/etc/passwd"], check=False).returncode == 126


def test_signal_to_the_local_process_reaches_the_command(rig: Machine) -> None:
    script = "trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    process = rig.popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.read() == "caught\n"
    assert process.returncode == 3


def test_signal_right_after_the_start_is_the_commands_own(rig: Machine) -> None:
    for _ in range(5):
        process = rig.popen(["sleep", "1000"], stderr=subprocess.PIPE, text=True)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == -signal.SIGINT


def test_pipes_are_byte_exact(rig: Machine) -> None:
    data = bytes(range(256)) * 40_000
    assert rig.run(["cat"], input=data).stdout == data


def test_terminal_has_size_and_job_control(rig: Machine) -> None:
    with rig.pty(["bash", "--norc"]) as terminal:
        terminal.send("stty size; tty\r")
        terminal.expect(r"24 80.*/dev/pts/\d+")
        terminal.resize(30, 100)
        terminal.send("while [ \"$(stty size)\" != '30 100' ]; do sleep 0.1; done; echo si''ze\r")
        terminal.expect("size\r")
        # No shell: for a moment after its fork dash, and the program it has not become yet, would
        # only take note of an interrupt.
        terminal.send("python3 -c 'import time; print(1 + 1, \"started\"); time.sleep(100)'\r")
        terminal.expect("2 started")
        terminal.send("\x03")
        terminal.expect(r"\$ ")
        terminal.send("echo code $?\r")
        terminal.expect("code 130")
        terminal.send("exit 9\r")
        assert terminal.wait() == 9


def test_outside_host_answers(rig: Machine) -> None:
    ping = "import socket; s = socket.create_server(('10.99.0.1', 8123)); print('up', flush=True)"
    argv = ["ip", "netns", "exec", "outside", "python3", "-c", ping + "; s.accept()"]
    server = rig.popen(argv, user="root", stdout=subprocess.PIPE, text=True)
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        client = "import socket; print(socket.create_connection(('10.99.0.1', 8123)).getsockname())"
        assert "10.99.0.2" in rig.run(["python3", "-c", client]).stdout


def test_registry_serves_alpine_as_docker_io(rig: Machine) -> None:
    argv = [
        "skopeo",
        "inspect",
        "--no-tags",
        "--config",
        "docker://docker.io/library/alpine:latest",
    ]
    assert '"/bin/sh"' in rig.run(argv).stdout


def test_snapshot_sees_each_kind_of_leak(rig: Machine) -> None:
    before = rig.snapshot()
    rig.assert_same(before)
    leak = (
        "touch ~/f /tmp/f $XDG_RUNTIME_DIR/f;"
        "systemd-run --user --quiet --unit=leak python3 -c '"
        'import socket, time; s = socket.create_server(("127.0.0.1", 8124)); time.sleep(1000)\''
    )
    rig.run(["bash", "-c", leak])
    after = rig.snapshot()
    try:
        kinds = ("processes", "units", "cgroups", "runtime", "temporary", "home")
        assert [kind for kind in kinds if before[kind] == after[kind]] == []
        with pytest.raises(AssertionError, match=r"leak\.service"):
            rig.assert_same(before, ignore=("home",), settle_limit_s=1)
    finally:
        rig.run(["bash", "-c", "systemctl --user stop leak; rm ~/f /tmp/f $XDG_RUNTIME_DIR/f"])
    rig.assert_same(before)


def test_kernel_settings_of_the_machine_are_untouched(name: str) -> None:
    paths = ["kernel/core_pattern", "kernel/pid_max", "kernel/printk", "kernel/hostname",
             "fs/protected_symlinks", "net/ipv4/ping_group_range",
             "user/max_user_namespaces"]  # fmt: skip
    before = [Path("/proc/sys", path).read_text() for path in paths]
    start(name)
    assert [Path("/proc/sys", path).read_text() for path in paths] == before


def test_down_leaves_nothing(name: str) -> None:
    running = start(name)
    machine = Machine(RigDoor(running))
    machine.run(["systemd-run", "--user", "--quiet", "sleep", "1000"])
    process = machine.popen(["sleep", "1000"])
    assert traces(name) != []
    instance.down(name)
    assert process.wait(timeout=60) != 0
    assert traces(name) == []


@pytest.mark.parametrize("victim", ["starter", "init", "mid-boot"])
def test_next_use_cleans_up_after_kill(name: str, victim: str) -> None:
    if victim == "mid-boot":
        process = subprocess.Popen([COMMAND, "up", "--name", name], stderr=subprocess.DEVNULL)
        limit_s = time.monotonic() + 120
        while not list(location.cgroup2().glob(f"*{name}*")) and time.monotonic() < limit_s:
            time.sleep(0.005)
        process.kill()
        process.wait()
    else:
        running = start(name)
        init = os.pidfd_open(running.init_pid)
        os.kill(running.starter_pid if victim == "starter" else running.init_pid, signal.SIGKILL)
        assert select.select([init], [], [], 120)[0], "the rig outlived it"
        os.close(init)
    assert traces(name) != []
    instance.sweep()
    assert_cleaned(name)


def test_rig_of_a_dead_owner_is_removed_by_the_next_use(name: str) -> None:
    owner = subprocess.Popen(["sleep", "1000"])
    start(name, owner_pid=owner.pid)
    instance.sweep()
    assert [rig.name for rig in instance.running() if rig.name == name] == [name]
    owner.kill()
    owner.wait()
    instance.sweep()
    assert_cleaned(name)


def test_images_without_the_shared_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "SHARED", Path("/nonexistent"))
    said: list[str] = []
    machine = Machine(RigDoor(instance.up(name, recipe.SUITES[0], said.append)))
    assert "busybox-static" in said[-1]
    argv = ["skopeo", "inspect", "--no-tags", "docker://docker.io/library/"]
    found = {json.loads(machine.run([*argv[:-1], argv[-1] + image]).stdout)["Digest"]
             for image in ("alpine", "busybox")}  # fmt: skip
    assert len(found) == 2


def test_broken_boot_says_why_and_leaves_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rootfs, "ensure", lambda _suite, _say: tmp_path)
    for path in ("etc/skel", "usr/bin"):
        (tmp_path / path).mkdir(parents=True)
    monkeypatch.setattr(furnish, "furnish", lambda *_: "")
    with pytest.raises(location.RigError, match="died while booting"):
        start(name)
    assert_cleaned(name)
