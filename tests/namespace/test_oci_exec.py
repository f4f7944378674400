"""rp-oci exec in one container that runs for all tests, and what the host sees of its processes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from namespace import bundles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

HOME = bundles.HOME
ID = "oci-held"
# A process with a console: its size is read from the master that the socket gets.
CONSOLE = r"""
import fcntl, json, os, socket, struct, subprocess, sys, termios
path, *argv = sys.argv[1:]
if os.path.exists(path):
    os.unlink(path)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(1)
done = subprocess.run(argv, stdin=subprocess.DEVNULL)
connection, _ = listener.accept()
name, (master, *_), _, _ = socket.recv_fds(connection, 100, 1)
size = struct.unpack("4H", fcntl.ioctl(master, termios.TIOCGWINSZ, b"\0" * 8))[:2]
text = b""
while True:
    try:
        chunk = os.read(master, 4096)
    except OSError:
        break
    if not chunk:
        break
    text += chunk
print(json.dumps([done.returncode, name.decode(), size, text.decode()]))
"""
# ioprio_get(2) has a number of its own on each machine.
PRIORITY = r"""
import ctypes, os, sys
number = {"x86_64": 252, "aarch64": 31, "riscv64": 31}[os.uname().machine]
print(ctypes.CDLL(None).syscall(number, 1, int(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def made(rig: Machine, alpine: str) -> bundles.Bundles:
    """Return the maker of bundles; its root file system is unpacked."""
    del alpine
    return bundles.Bundles(rig)


@pytest.fixture(scope="module")
def held(made: bundles.Bundles) -> Iterator[bundles.Bundles]:
    """Have a container that sleeps."""
    spec = made.spec("sleep", "1000")
    spec["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    spec["process"]["env"].append("OF=first")
    spec["linux"]["personality"] = {"domain": "LINUX32"}
    directory = made.write(spec, "held")
    made.rig.run(["rp-oci", "delete", "--force", ID])
    script = f"rp-oci run -d --bundle {directory} --pid-file {HOME}/held.pid {ID} >/dev/null 2>&1"
    made.rig.run(["sh", "-c", script])
    yield made
    made.rig.run(["rp-oci", "delete", "--force", ID])


def execute(held: bundles.Bundles, process: dict[str, Any], *flags: str, check: bool = True) -> Any:
    whole = {"user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin:/usr/bin"]} | process
    held.rig.run(["sh", "-c", f"cat > {HOME}/exec.json"], input=json.dumps(whole))
    argv = ["rp-oci", "exec", "--process", f"{HOME}/exec.json", *flags, ID]
    return held.rig.run(argv, check=check, input="")


def test_io_priority(held: bundles.Bundles) -> None:
    pid = held.rig.run(["cat", f"{HOME}/held.pid"]).stdout
    # Class 2 is best effort.
    assert held.rig.run(["python3", "-c", PRIORITY, pid]).stdout == f"{2 << 13 | 6}\n"


def test_exec_has_the_environment_and_the_personality(held: bundles.Bundles) -> None:
    line = "echo $OF $LATER; uname -m"
    done = held.rig.run(["rp-oci", "exec", "-e", "LATER=second", ID, "sh", "-c", line], input="")
    assert done.stdout == "first second\ni686\n"


def test_exec_cpu_affinity(held: bundles.Bundles) -> None:
    """initial is for the way into the cgroup, final for the process (config.md)."""
    shown = ["grep", "^Cpus_allowed_list", "/proc/self/status"]
    for affinity, expected in (
        ({"final": "0"}, "0"),
        ({"initial": "0"}, "0"),
        ({"initial": "0", "final": "0"}, "0"),
    ):
        done = execute(held, {"args": shown, "execCPUAffinity": affinity})
        assert done.stdout.split()[1] == expected
    done = execute(held, {"args": ["true"], "execCPUAffinity": {"final": "x"}}, check=False)
    assert done.returncode == 255
    assert "execCPUAffinity.final" in done.stderr


@pytest.mark.parametrize("detach", [("-d",), ()], ids=["detached", "attached"])
def test_exec_with_a_terminal(held: bundles.Bundles, detach: tuple[str, ...]) -> None:
    process = {
        "user": {"uid": 0, "gid": 0},
        "args": ["sh", "-c", "tty; stty size"],
        "cwd": "/",
        "env": ["PATH=/bin:/usr/bin"],
        "terminal": True,
        "consoleSize": {"height": 33, "width": 77},
    }
    held.rig.run(["sh", "-c", f"cat > {HOME}/exec.json"], input=json.dumps(process))
    argv = ["rp-oci", "exec", "--process", f"{HOME}/exec.json", *detach]
    if not detach:
        done = held.rig.run(["script", "-qec", " ".join([*argv, ID]), "/dev/null"], input="")
        assert "/dev/pts/" in done.stdout
        return
    path = f"{HOME}/exec-console"
    line = [*argv, "--console-socket", path, "--pid-file", f"{HOME}/exec.pid", ID]
    done = held.rig.run(["python3", "-c", CONSOLE, path, *line], timeout=60)
    code, name, size, text = json.loads(done.stdout.splitlines()[-1])
    assert (code, name, size) == (0, "/dev/ptmx", [33, 77])
    assert text.split() == ["/dev/pts/0", "33", "77"]
    assert int(held.rig.run(["cat", f"{HOME}/exec.pid"]).stdout) > 1


def test_exec_passes_sockets_on(held: bundles.Bundles) -> None:
    line = (
        f"echo three >{HOME}/f3; exec 3<{HOME}/f3; LISTEN_FDS=1 rp-oci exec {ID}"
        " sh -c 'cat <&3; test $LISTEN_PID = $$ && echo mine $LISTEN_FDS'"
    )
    assert held.rig.run(["sh", "-c", line], input="").stdout == "three\nmine 1\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--apparmor", "nosuch"), "AppArmor"),
        (("--process-label", "a:b:c:d"), "SELinux"),
        (("--cgroup", "x"), "cgroup"),
    ],
)
def test_exec_refuses_what_would_not_hold(
    held: bundles.Bundles, flags: tuple[str, ...], words: str
) -> None:
    for file in ("/sys/module/apparmor/parameters/enabled", "/sys/fs/selinux/enforce"):
        if not held.rig.run(["test", "-e", file], check=False).returncode:
            pytest.skip("this kernel has a security module of these")
    done = held.rig.run(["rp-oci", "exec", *flags, ID, "true"], check=False, input="")
    assert done.returncode == 255
    assert words in done.stderr


def test_exec_adds_capabilities_and_privileges(held: bundles.Bundles) -> None:
    argv = ["exec", "--cap", "CAP_SYS_CHROOT", "--no-new-privs", "--cwd", "/etc", ID, "sh", "-c"]
    line = "grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status; pwd"
    words = held.rig.run(["rp-oci", *argv, line], input="").stdout.split()
    assert int(words[1], 16) & 1 << 18
    assert words[2:] == ["NoNewPrivs:", "1", "/etc"]


def test_all_namespaces_joined_by_path(held: bundles.Bundles) -> None:
    """The mount namespace too: the container is chrooted there, nothing is mounted afresh."""
    pid = held.rig.run(["cat", f"{HOME}/held.pid"]).stdout
    names = {"mount": "mnt", "network": "net"}
    kinds = ("user", "mount", "pid", "network", "ipc", "uts", "cgroup", "time")
    spec = held.spec("sh", "-c", "ls -d /etc/passwd; cat /proc/1/comm; cat /proc/mounts | wc -l")
    spec["linux"]["namespaces"] = [
        {"type": kind, "path": f"/proc/{pid}/ns/{names.get(kind, kind)}"} for kind in kinds
    ]
    del spec["linux"]["uidMappings"], spec["linux"]["gidMappings"], spec["hostname"]
    spec["root"] = {"path": "/"}
    spec["mounts"], spec["linux"]["maskedPaths"], spec["linux"]["readonlyPaths"] = [], [], []
    directory = held.write(spec, "joining")
    done = held.rig.run(["rp-oci", "run", "--bundle", directory, "oci-joined"], input="")
    assert done.stdout.splitlines()[:2] == ["/etc/passwd", "sleep"]
