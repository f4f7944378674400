"""A detached start that is disturbed while rp writes on, and its service begins.

rp is held at its first rename(2), that of record.json: the service is asked for by then, and the
container is not whole.
"""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.usefixtures("warm", "leaves_nothing")

LIMIT_S = 120
TRACE = "/run/starting.trace"
STOP = ["-qqq", "-o", TRACE, "-e", "trace=rename,renameat,renameat2",
        "-e", "inject=rename,renameat,renameat2:signal=STOP:when=1"]  # fmt: skip
# rp has stopped (it is in a tracing stop at other moments too), and the supervisor waits.  One that
# systemd has executed has called its starter: the listening socket has a name, and so has each end
# that nobody has accepted yet.  A fork of rp is its child, and computes nothing any more; the main
# process of its service has been executed.
WAIT_FOR_BOTH = """\
import subprocess, sys, time
service, trace, way = f"rp-{sys.argv[1]}.service", *sys.argv[2:]

def client():
    try:
        with open(trace) as file:
            if "--- stopped by SIGSTOP ---" not in file.read():
                return ""
    except FileNotFoundError:
        return ""
    # The newest would be strace's child until that executes rp.
    return child(said("pgrep", "--oldest", "--exact", "strace"))

def child(pid):
    # The newest: rp has had one before its supervisor, for a moment (systemd/migration.py).
    return said("pgrep", "--newest", "--parent", pid) if pid else ""

def said(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout.strip()

def executed():
    with open("/proc/net/unix") as file:
        if sum(line.endswith("/starter\\n") for line in file) < 2:
            return ""
    return main_pid()

def forked():
    pid = child(client())
    return pid if pid and main_pid() and waits(pid) else ""

def waits(pid):
    before = state(pid)
    time.sleep(0.2)
    return before == state(pid) and before[0] == "S"

def state(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return fields[0], fields[11], fields[12]

def main_pid():
    pid = said("systemctl", "--user", "show", "--value", "--property", "MainPID", service)
    return pid if pid != "0" else ""

limit_s = time.monotonic() + 100
while time.monotonic() < limit_s:
    found = client(), {"forked": forked, "executed": executed}[way]()
    if all(found):
        print(*found)
        sys.exit(0)
    time.sleep(0.02)
sys.exit(1)
"""
# Until the user manager has forgotten the service; how often it was started again.
WAIT_FOR_END = """\
service="rp-$1.service"
for i in $(seq 600); do
    systemctl --user --quiet is-active "$service" || case $(
        systemctl --user show --value --property LoadState "$service") in
        not-found) exit 0;; esac
    sleep 0.1
done
systemctl --user status "$service"; exit 1
"""


@pytest.fixture(scope="module")
def warm(rig: Machine, alpine: str) -> None:
    """Fill the caches, whose files are renamed too."""
    rig.run(["rp", "run", "--rm", "--network", "none", alpine, "true"])


class Held:
    """A `rp run -d` that is stopped in the middle, and the supervisor that waits for it."""

    def __init__(
        self, machine: Machine, name: str, process: subprocess.Popen[str], way: str
    ) -> None:
        self.machine = machine
        self.name = name
        self.process = process
        found = machine.run(["python3", "-c", WAIT_FOR_BOTH, name, TRACE, way], timeout=LIMIT_S)
        self.client, self.supervisor = found.stdout.split()

    def signal(self, name: str, pid: str) -> None:
        self.machine.root(["kill", "-s", name, pid])

    def result(self) -> tuple[int, str]:
        """Let it go on; return its exit code and what it says."""
        self.signal("CONT", self.client)
        _, told = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, told

    def await_end(self) -> None:
        """Wait until systemd knows no such service any more."""
        self.machine.run(["sh", "-c", WAIT_FOR_END, "sh", self.name], timeout=LIMIT_S)


@contextlib.contextmanager
def held(rig: Machine, way: str, name: str, *options: str) -> Iterator[Held]:
    """Start a container as a service and hold rp before it is whole."""
    if not rig.has_root:
        pytest.skip("needs root: strace would take the rights of newuidmap away")
    argv = ["rp", "run", "-d", "--name", name, *options, "alpine", "sleep", "600"]
    environment = ["HOME=/home/alice", "USER=alice", f"XDG_RUNTIME_DIR=/run/user/{rig.uid}"]
    rig.root(["rm", "-f", TRACE])
    process = rig.popen(
        ["env", *environment, "strace", "-u", "alice", *STOP, *argv],
        user="root", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    with process:
        try:
            start = Held(rig, name, process, way)
            try:
                yield start
            finally:
                if process.poll() is None:
                    start.signal("KILL", start.client)
        finally:
            process.kill()
            rig.root(["rm", "-f", TRACE])


@pytest.fixture(params=["forked", "executed"])
def way(request: pytest.FixtureRequest, rig: Machine) -> Iterator[str]:
    """Say who makes the supervisor: rp, or systemd, where there are drop-ins for it to obey."""
    directory = ".config/systemd/user/rp-.service.d"
    if request.param == "executed":
        rig.run(["mkdir", "-p", directory])
    yield request.param
    rig.run(["rm", "-rf", directory])


RESTART = pytest.mark.parametrize("restart", ["no", "always"])


@pytest.mark.row("P3", "no container, or one that can be started; the name is free or its own")
@RESTART
def test_p3_rp_is_killed_before_the_container_is_whole(
    rig: Machine, way: str, restart: str
) -> None:
    with held(rig, way, "halfmade", "--restart", restart) as start:
        start.signal("KILL", start.client)
        start.process.wait(timeout=LIMIT_S)
        # Nobody has run another rp: the supervisor cleans up.
        start.await_end()
        assert rig.run(["sh", "-c", "ls ~/.local/share/rootlesspy/containers"]).stdout == ""


@RESTART
def test_p3_the_supervisor_is_killed_before_the_container_is_whole(
    rig: Machine, way: str, restart: str
) -> None:
    with held(rig, way, "nobody", "--restart", restart) as start:
        start.signal("KILL", start.supervisor)
        code, told = start.result()
        start.await_end()
    assert code == 125
    words = {
        "forked": "the container's supervisor was killed",
        "executed": "rp-nobody.service ended before the container began",
    }
    assert words[way] in told


def test_cancelled_before_the_container_is_whole(rig: Machine, way: str) -> None:
    with held(rig, way, "cancelled", "--restart", "always") as start:
        start.signal("INT", start.client)
        code, told = start.result()
        start.await_end()
    assert code == 130
    assert "cancelled by SIGINT" in told


@pytest.mark.usefixtures("way")
def test_a_container_that_cannot_be_made_has_its_service_called_off(rig: Machine) -> None:
    argv = ["rp", "run", "-d", "--name", "unmade", "--restart", "always",
            "--cidfile", "/etc/passwd", "alpine", "sleep", "600"]  # fmt: skip
    done = rig.run(argv, check=False)
    assert done.returncode == 125
    assert "--cidfile /etc/passwd exists" in done.stderr
    rig.run(["sh", "-c", WAIT_FOR_END, "sh", "unmade"])


@pytest.mark.parametrize("way", ["executed"], indirect=True)
@pytest.mark.usefixtures("way")
def test_killed_right_after_a_container_was_given_up(rig: Machine) -> None:
    program = f"""
import os, signal
from rootlesspy.__main__ import main
from rootlesspy.engine import bundle, record
make = bundle.create
def create(*given):
    try:
        return make(*given)
    except OSError:
        os.kill(os.getpid(), signal.SIGKILL)
def fail(*_given, **_named):
    raise OSError(28, "No space left on device")
bundle.create, record.write = create, fail
main({["run", "-d", "--network=none", "--name", "givenup", "alpine", "sleep", "600"]!r})
"""
    done = rig.run(["python3", "-c", program], check=False, timeout=LIMIT_S)
    assert done.returncode in (-9, 137), done.stderr
    rig.run(["sh", "-c", WAIT_FOR_END, "sh", "givenup"])
    # No `rp` comes after it that would sweep.
    runtime = f"/run/user/{rig.uid}/rootlesspy"
    assert rig.run(["find", runtime, "-name", "starter"]).stdout == ""
