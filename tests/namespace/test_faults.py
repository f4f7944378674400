"""What is left when processes are killed and commands are cancelled at any moment: nothing.

Rows P, X, U, C and T of SECURITY.md's fault contract that apply to `rp run`.
"""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest
from namespace import living

if TYPE_CHECKING:
    import subprocess

    from rig.machine import Machine

pytestmark = pytest.mark.namespace

# It is recorded before it executes its program.  What has just ended is looked for again.
STATE = """
import glob, json, os
for path in glob.glob(os.path.expanduser("~/.local/share/rootlesspy/containers/*/state.json")):
    try:
        with open(path) as state, open(os.path.dirname(path) + "/record.json") as record:
            found = {**json.load(state), "name": json.load(record)["name"]}
        with open(f"/proc/{found['pid']}/comm") as comm:
            if comm.read().strip() == "sleep":
                print(json.dumps(found))
    except (FileNotFoundError, ProcessLookupError):
        continue
"""


def _start(rig: Machine, image: str, name: str, *options: str) -> subprocess.Popen[bytes]:
    return rig.popen(["rp", "run", "--name", name, *options, image, "sleep", "600"])


def _state(rig: Machine, name: str) -> dict[str, int]:
    """Return the processes of a container that sleeps."""
    limit = time.monotonic() + living.LIMIT_S
    while time.monotonic() < limit:
        for line in rig.run(["python3", "-I", "-c", STATE]).stdout.splitlines():
            found = json.loads(line)
            if found["name"] == name:
                return dict(found)
    raise AssertionError(f"{name} does not come up")


@pytest.mark.row("P5", "the client ends with 125, the end is lost")
@pytest.mark.row("P6", "137, recorded")
@pytest.mark.row("P7", "the container goes on")
@pytest.mark.parametrize("remove", [True, False])
@pytest.mark.parametrize("victim", ["supervisor_pid", "pid", "helper_pid"])
def test_p5_p6_p7_kill_9_of_each_process(
    rig: Machine, alpine: str, leaves_nothing: None, victim: str, remove: bool
) -> None:
    running = _start(rig, alpine, "victim", *(["--rm"] if remove else []))
    state = _state(rig, "victim")
    rig.run(["kill", "-9", str(state[victim])])
    if victim == "helper_pid":
        # The network is lost, the container is not; the loss is told when it ends.
        time.sleep(0.5)
        assert "Up" in rig.run(["rp", "ps", "--filter", "name=victim"]).stdout
        running.send_signal(signal.SIGTERM)
    code = running.wait(60)
    expected = {"supervisor_pid": 125, "pid": 137, "helper_pid": 143}[victim]
    assert code in (expected, expected - 256)
    listed = rig.run(["rp", "ps", "-a", "--filter", "name=victim"]).stdout
    assert ("victim" in listed) != remove
    if not remove:
        shown = -1 if victim == "supervisor_pid" else expected
        assert f"Exited ({shown})" in listed
        rig.run(["rp", "rm", "victim"])


@pytest.mark.row("P4", "the container goes on")
def test_p4_kill_9_of_the_cli_leaves_the_container_running(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    running = _start(rig, alpine, "orphan", "--rm")
    state = _state(rig, "orphan")
    rig.run(["pkill", "-9", "-o", "-f", "rp run --name orphan"])
    running.wait(60)
    assert "Up" in rig.run(["rp", "ps", "--filter", "name=orphan"]).stdout
    rig.run(["kill", "-9", str(state["pid"])])


@pytest.mark.row("P5", "the next command cleans up")
def test_p5_both_killed_and_the_next_command_cleans_up(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    running = _start(rig, alpine, "both", "--rm")
    state = _state(rig, "both")
    supervisor = state["supervisor_pid"]
    script = f"pkill -9 -o -f 'rp run --name both'; kill -9 {supervisor}"
    # It holds the container until it is gone.
    script += f"; while [ -e /proc/{supervisor} ]; do sleep 0.1; done"
    rig.run(["sh", "-c", script])
    running.wait(60)
    assert "both" not in rig.run(["rp", "ps", "-a"]).stdout


def test_p5_a_payload_that_outlives_its_supervisor_ends_before_the_restart(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    # Whose ids change has no parent-death signal any more (prctl(2)).
    script = "exec su nobody -s /bin/sh -c 'exec sleep 600'"
    rig.run(["rp", "run", "-d", "--name", "heir", "--restart", "always", "--network=none", alpine,
             "sh", "-c", script])  # fmt: skip
    wait = "until rp top heir -eo comm,user | grep -q 'sleep.*nobody'; do sleep 0.1; done"
    rig.run(["sh", "-c", wait])
    first = _state(rig, "heir")
    rig.run(["kill", "-9", str(first["supervisor_pid"])])
    again = "until [ $(systemctl --user show -p NRestarts --value $1) -gt 0 ] &&"
    again += " systemctl --user -q is-active $1; do sleep 0.1; done"
    rig.run(["sh", "-c", again, "sh", "rp-heir.service"])
    counted = ["systemctl", "--user", "show", "-p", "NRestarts", "--value", "rp-heir.service"]
    assert rig.run(counted).stdout == "1\n"
    assert _state(rig, "heir")["pid"] != first["pid"]
    assert rig.run(["sh", "-c", "ps -o pid= -p $1; :", "sh", str(first["pid"])]).stdout == ""
    rig.run(["rp", "rm", "-f", "-t", "0", "heir"])


# Popen returns once the program was executed: the signal is for rp, not for a shell before it.
CANCEL = """
import os, subprocess, sys, tempfile, time
delay, number, *argv = sys.argv[1:]
with tempfile.TemporaryFile() as file:
    def said():
        return os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")

    process = subprocess.Popen(argv, stderr=file)
    time.sleep(float(delay))
    process.send_signal(int(number))
    for _ in range(60):
        try:
            code = process.wait(1)
            break
        except subprocess.TimeoutExpired:
            # CPython itself loses a KeyboardInterrupt at some places of its start, and says so.
            if "Exception ignored in" in said() or "Failed checking if argv" in said():
                process.send_signal(int(number))
    else:
        process.kill()
        code = "it goes on"
    sys.stderr.write(said())
    sys.stderr.flush()
sys.exit(code)
"""


@pytest.mark.row("X1", "130 or 143 and nothing left")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_x1_cancelled_at_any_moment(
    rig: Machine, alpine: str, leaves_nothing: None, number: int
) -> None:
    for step in range(24):
        wrapped = ["python3", "-I", "-c", CANCEL, str(0.02 * step), str(int(number))]
        done = rig.run([*wrapped, "rp", "run", "--rm", alpine, "sleep", "600"], check=False)
        # The last two: the interpreter was not up yet, and none of our code has run.
        early = {256 - number, 1} if "rp:" not in done.stderr else set()
        assert done.returncode in {128 + number, *early}, (step, done.returncode, done.stderr)
        assert "it goes on" not in done.stderr
        if "Traceback" in done.stderr:
            assert "rootlesspy/engine/" not in done.stderr, done.stderr


@pytest.mark.row("P3", "the name is free again")
def test_p3_kill_9_at_any_moment_and_the_next_command_cleans_up(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    for step in range(24):
        running = rig.popen(["rp", "run", "--rm", "--name", "p3", alpine, "sleep", "0.2"])
        time.sleep(0.02 * step)
        rig.run(["pkill", "-9", "-f", "rp run --rm --name p3"], check=False)
        running.wait(60)
    living.until(lambda: not rig.run(["rp", "ps", "-aq"]).stdout, "a container is left")
    # The name is free again.
    rig.run(["rp", "run", "--rm", "--name", "p3", alpine, "true"])


@pytest.mark.row("C1", "one wins, the others: 125, in use")
def test_c1_one_of_many_gets_the_name(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    argv = ["rp", "run", "--rm", "--name", "race", alpine, "sleep", "600"]
    started = [rig.popen(argv, stderr=-1, text=True) for _ in range(10)]
    living.until(lambda: sum(each.poll() is not None for each in started) >= 9, "more got it")
    # One that is removed while it begins ends like the others.
    living.until(lambda: living.state(rig, "race") == "running", "the one that got it does not run")
    assert sum(each.poll() is None for each in started) == 1
    rig.run(["rp", "rm", "-f", "race"])
    ended = [(each.communicate(timeout=60)[1], each.returncode) for each in started]
    losers = [words for words, code in ended if code in (125, 125 - 256)]
    assert len(losers) == 9, ended
    assert all("in use" in words for words in losers)


@pytest.mark.row("U6", "as rp stop")
def test_u6_systemctl_stop_is_a_clean_stop(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    script = 'trap "echo bye; exit 4" USR1; sleep 600 & echo ready; wait'
    argv = ["rp", "run", "--rm", "--name", "stop", "--stop-signal", "USR1", alpine]
    with rig.popen([*argv, "sh", "-c", script], stdout=-1, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        rig.run(["systemctl", "--user", "stop", "rp-stop.scope"])
        assert running.stdout.read() == "bye\n"
        assert running.wait(60) == 4


@pytest.mark.row("X2", "killed when the time is up")
def test_x2_the_timeout_is_honoured(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    script = 'trap "" TERM; echo ready; while :; do sleep 0.05; done'
    argv = ["rp", "run", "--rm", "--name", "deaf", "--stop-timeout", "2", alpine]
    with rig.popen([*argv, "sh", "-c", script], stdout=-1, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        # After so long systemd does it, whatever rp does.
        assert living.show(rig, "rp-deaf.scope", "TimeoutStopUSec") == {"TimeoutStopUSec": "2s"}
        started = time.monotonic()
        rig.run(["systemctl", "--user", "stop", "rp-deaf.scope"])
        assert running.wait(60) in (137, 137 - 256)
        assert time.monotonic() - started > 1.5


@pytest.mark.row("U1", "pid and cgroup stay")
def test_u1_daemon_reload_while_running(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    running = _start(rig, alpine, "reload", "--rm")
    state = _state(rig, "reload")
    for _ in range(5):
        rig.run(["systemctl", "--user", "daemon-reload"])
    shown = rig.run(["systemctl", "--user", "show", "-P", "ControlGroup", "rp-reload.scope"]).stdout
    cgroup = rig.run(["cat", f"/proc/{state['pid']}/cgroup"]).stdout
    assert f"{shown.strip()}/payload" in cgroup
    rig.run(["systemctl", "--user", "stop", "rp-reload.scope"])
    assert running.wait(60) in (143, 143 - 256)


@pytest.mark.row("D1", "others are listed; rm -f removes it")
def test_d1_a_damaged_container_harms_no_other(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "run", "--name", "good", alpine, "true"])
    rig.run(["rp", "run", "--name", "bad", alpine, "true"])
    script = "cd ~/.local/share/rootlesspy; : > containers/$(readlink names/bad)/record.json"
    rig.run(["sh", "-c", script])
    listed = rig.run(["rp", "ps", "-a"]).stdout
    assert "good" in listed
    broken = rig.run(["sh", "-c", "readlink ~/.local/share/rootlesspy/names/bad"]).stdout[:12]
    assert rig.run(["rp", "rm", broken], check=False).returncode != 0
    rig.run(["rp", "rm", "-f", broken])
    rig.run(["rp", "rm", "good"])
    rig.run(["rp", "run", "--rm", "--name", "bad", alpine, "true"])
