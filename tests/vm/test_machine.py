"""The virtual machine itself: what it claims to be, as fast to leave as to enter."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rig import location, recipe
from rig import vm as vm_rig

if TYPE_CHECKING:
    from rig.vm import VirtualMachine

CONTROLLERS = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers"


def test_user_manager_has_what_debian_delegates(vm: VirtualMachine) -> None:
    assert vm.run(["cat", CONTROLLERS]).stdout.split() == ["cpu", "memory", "pids"]
    assert vm.run(["systemctl", "--user", "is-system-running"]).stdout == "running\n"
    assert vm.root(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""


def test_drop_in_delegates_all(vm_delegated: VirtualMachine) -> None:
    controllers = vm_delegated.run(["cat", CONTROLLERS]).stdout.split()
    assert sorted(controllers) == ["cpu", "cpuset", "io", "memory", "pids"]
    assert vm_delegated.run(["systemctl", "--user", "is-system-running"]).stdout == "running\n"


def test_commands_run_in_a_login_session(vm: VirtualMachine) -> None:
    assert "/session-" in vm.run(["cat", "/proc/self/cgroup"]).stdout


def test_exit_codes_signals_and_errors_pass_through(vm: VirtualMachine) -> None:
    assert vm.run(["sh", "-c", "exit 42"], check=False).returncode == 42
    assert vm.run(["sh", "-c", "kill -TERM $$"], check=False).returncode == -signal.SIGTERM
    assert vm.run(["/nonexistent"], check=False).returncode == 127
    with vm.popen(["sh", "-c", "echo up; exec sleep 1000"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.terminate()
        assert process.wait(timeout=30) == -signal.SIGTERM


def test_pipes_are_byte_exact(vm: VirtualMachine) -> None:
    data = bytes(range(256)) * 10_000
    assert vm.run(["cat"], input=data).stdout == data


def test_terminal(vm: VirtualMachine) -> None:
    with vm.pty(["sh"]) as terminal:
        terminal.send("stty size\r")
        terminal.expect("24 80")
        terminal.resize(30, 100)
        # The size may arrive after what is typed.
        terminal.send("while [ \"$(stty size)\" != '30 100' ]; do sleep 0.1; done; echo si''ze\r")
        terminal.expect("size\r")
        terminal.send("exit 9\r")
        assert terminal.wait() == 9


def test_project_is_installed(vm: VirtualMachine) -> None:
    code = "import rootlesspy; print(rootlesspy.__file__, rootlesspy.__cached__)"
    path, cached = vm.run(["python3", "-I", "-c", code]).stdout.split()
    assert path == "/usr/lib/python3/dist-packages/rootlesspy/__init__.py"
    vm.run(["test", "-e", cached])


def command(path: Path) -> bytes:
    """Read a command line, of a process that may have ended since it was listed."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_killed_owner_takes_its_machine_along() -> None:
    script = (
        "import signal\nfrom rig import vm\n"
        f"with vm.started({recipe.SUITES[0]!r}, 'default', str) as running:\n"
        "    print(running.directory, flush=True)\n    signal.pause()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.fspath(location.REPOSITORY / "tests")}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    ) as owner:
        assert owner.stdout is not None
        directory = owner.stdout.readline().strip()
        machines = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline")
                    if f"{directory}/disk.qcow2".encode() in command(path)]  # fmt: skip
        assert len(machines) == 1
        pidfd = os.pidfd_open(int(machines[0].name))
        owner.kill()
    assert select.select([pidfd], [], [], 120)[0]
    os.close(pidfd)
    vm_rig.run_directory().rmdir()
    assert not Path(directory).exists()
