"""rp-oci, as an engine drives it: create and start apart, state, signals, exec, hooks, refusals."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from namespace import bundles

if TYPE_CHECKING:
    from collections.abc import Callable

    from rig.machine import Machine

HOME = bundles.HOME
ID = "oci-test"


@pytest.fixture(scope="module")
def made(rig: Machine, alpine: str) -> bundles.Bundles:
    """Return the maker of bundles; its root file system is unpacked."""
    del alpine
    return bundles.Bundles(rig)


@pytest.fixture(autouse=True)
def _cleaned(made: bundles.Bundles) -> Any:
    yield
    made.rig.run(["rp-oci", "delete", "--force", ID])


def oci(rig: Machine, *words: str, check: bool = True) -> Any:
    return rig.run(["rp-oci", *words], check=check, input="")


def state(rig: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(oci(rig, "state", ID).stdout)
    return found


def wait_for(what: Callable[[], bool]) -> None:
    limit_s = time.monotonic() + 60
    while not what():
        assert time.monotonic() < limit_s
        time.sleep(0.05)


def test_life_of_a_container(made: bundles.Bundles) -> None:
    """create leaves an init that waits, whose maker is gone; start, kill, delete follow."""
    rig = made.rig
    directory = made.write(made.spec("sleep", "1000"))
    pid_file = f"{HOME}/pid"
    script = f"rp-oci create --bundle {directory} --pid-file {pid_file} {ID} >{HOME}/out 2>&1"
    rig.run(["sh", "-c", script])
    created = state(rig)
    assert created["status"] == "created"
    assert created["bundle"] == directory
    assert rig.run(["cat", pid_file]).stdout == str(created["pid"])
    # The program has not been executed: PID 1 is still rp's.
    assert "python" in rig.run(["readlink", f"/proc/{created['pid']}/exe"]).stdout
    assert oci(rig, "create", "--bundle", directory, ID, check=False).returncode == 1
    oci(rig, "start", ID)
    assert state(rig)["status"] == "running"
    assert "busybox" in rig.run(["readlink", f"/proc/{created['pid']}/exe"]).stdout
    assert oci(rig, "start", ID, check=False).returncode == 1
    listed = json.loads(oci(rig, "list", "--format", "json").stdout)
    assert [(each["id"], each["status"]) for each in listed] == [(ID, "running")]
    assert json.loads(oci(rig, "ps", "--format", "json", ID).stdout) == [created["pid"]]
    refused = oci(rig, "delete", ID, check=False)
    assert refused.returncode == 1
    assert "not stopped: running" in refused.stderr
    oci(rig, "kill", ID, "KILL")
    wait_for(lambda: state(rig)["status"] == "stopped")
    assert "container not running" in oci(rig, "kill", ID, check=False).stderr
    oci(rig, "delete", ID)
    for command in ("delete", "state", "start"):
        gone = oci(rig, command, ID, check=False)
        assert gone.returncode == 1
        assert "does not exist" in gone.stderr
    oci(rig, "delete", "--force", ID)


def test_log_file_has_json_lines(made: bundles.Bundles) -> None:
    log = f"{HOME}/log"
    oci(made.rig, "--log", log, "--log-format", "json", "state", "nobody", check=False)
    line = json.loads(made.rig.run(["cat", log]).stdout.splitlines()[-1])
    assert line["level"] == "error"
    assert "does not exist" in line["msg"]
    assert "time" in line


def test_run_returns_the_exit_code_and_removes(made: bundles.Bundles) -> None:
    done = made.run(made.spec("sh", "-c", "echo out; exit 7"), check=False)
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert oci(made.rig, "state", ID, check=False).returncode == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [("nosuch", "executable file not found in $PATH"), ("/etc/passwd", "permission denied")],
)
def test_command_that_cannot_run_fails_at_create(
    made: bundles.Bundles, command: str, words: str
) -> None:
    directory = made.write(made.spec(command))
    failed = oci(made.rig, "create", "--bundle", directory, ID, check=False)
    assert failed.returncode == 1
    assert words in failed.stderr
    assert oci(made.rig, "list", "-q").stdout == ""


def test_exec(made: bundles.Bundles) -> None:
    rig = made.rig
    directory = made.write(made.spec("sleep", "1000"))
    rig.run(["sh", "-c", f"rp-oci run -d --bundle {directory} {ID} >/dev/null 2>&1"])
    done = oci(rig, "exec", "--env", "A=b", "--cwd", "/etc", ID, "sh", "-c", "echo $A; pwd; exit 5",
               check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (5, "b\n/etc\n")
    process = {
        "user": {"uid": 0, "gid": 0},
        "args": ["grep", "-E", "^Cap(Prm|Bnd|Amb)", "/proc/self/status"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "capabilities": {name: ["CAP_KILL"] for name in ("bounding", "effective", "permitted")},
    }
    file = f"{HOME}/process.json"
    rig.run(["sh", "-c", f"cat > {file}"], input=json.dumps(process))
    sets = oci(rig, "exec", "--process", file, ID).stdout.split()[1::2]
    assert sets == [f"{1 << 5:016x}", f"{1 << 5:016x}", f"{0:016x}"]
    missing = oci(rig, "exec", ID, "nosuch", check=False)
    assert missing.returncode == 255
    pid_file = f"{HOME}/exec.pid"
    script = f"rp-oci exec -d --pid-file {pid_file} {ID} sleep 999 >/dev/null 2>&1"
    rig.run(["sh", "-c", script])
    pid = rig.run(["cat", pid_file]).stdout
    pids = json.loads(oci(rig, "ps", "--format", "json", ID).stdout)
    assert int(pid) in pids


_CONSOLE = """
import array, os, socket, subprocess, sys
path = sys.argv[1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(1)
done = subprocess.run(["rp-oci", *sys.argv[2:]], stdin=subprocess.DEVNULL)
assert done.returncode == 0, done
connection, _ = listener.accept()
_, fds, _, _ = socket.recv_fds(connection, 100, 1)
subprocess.run(["rp-oci", "start", "oci-test"], check=True)
os.write(fds[0], b"echo $((40+2))\\nexit\\n")
text = b""
while True:
    try:
        text += os.read(fds[0], 4096)
    except OSError:
        break
print(text.decode())
"""


def test_console_socket_gets_the_master(made: bundles.Bundles) -> None:
    spec = made.spec("sh")
    spec["process"]["terminal"] = True
    directory = made.write(spec)
    path = f"{HOME}/console"
    argv = ["create", "--bundle", directory, "--console-socket", path, ID]
    made.rig.run(["rm", "-f", path])
    done = made.rig.run(["python3", "-c", _CONSOLE, path, *argv], timeout=60)
    assert "\n42" in done.stdout.replace("\r", "")


HOOK = """#!/bin/sh
state=$(cat)
status=${state##*'"status": "'}
own=$(env | grep -vE '^(PWD|SHLVL|_|OLDPWD)=' | sort | tr '\\n' ' ')
echo "$1 ${status%%'"'*} $own $(readlink /proc/self/ns/mnt)" >> HOMEDIR/hooks.log
exit ${2:-0}
"""
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hooked(made: bundles.Bundles, failing: str = "") -> dict[str, Any]:
    spec = made.spec("sh", "-c", f"echo payload >> {HOME}/hooks.log")
    text = HOOK.replace("HOMEDIR", HOME)
    script = f"rm -f {HOME}/hooks.log; cat > {HOME}/hook && chmod +x {HOME}/hook"
    made.rig.run(["sh", "-c", script], input=text)
    spec["hooks"] = {
        kind: [
            {
                "path": f"{HOME}/hook",
                "args": ["hook", kind, "3" if kind == failing else "0"],
                "env": ["PATH=/bin:/usr/bin", "ONLY=this"],
            }
        ]
        for kind in KINDS
    }
    # Where startContainer finds it, after the pivot.
    spec["mounts"].append(
        {"destination": HOME, "type": "bind", "source": HOME, "options": ["bind", "rw"]}
    )
    spec["process"]["env"].append("LD_PRELOAD=/evil.so")
    return spec


def test_hooks_run_in_order_with_a_clean_environment(made: bundles.Bundles) -> None:
    spec = hooked(made)
    made.run(spec)
    lines = made.rig.run(["cat", f"{HOME}/hooks.log"]).stdout.splitlines()
    rows = [line.split() for line in lines if line != "payload"]
    assert [row[0] for row in rows] == list(KINDS)
    statuses = dict(row[:2] for row in rows)
    assert statuses == {
        "prestart": "creating",
        "createRuntime": "creating",
        "createContainer": "creating",
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }
    assert all(row[2:4] == ["ONLY=this", "PATH=/bin:/usr/bin"] and len(row) == 5 for row in rows)
    place = {row[0]: row[4] for row in rows}
    assert place["prestart"] == place["createRuntime"] == place["poststop"]
    assert place["createContainer"] == place["startContainer"] != place["prestart"]


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("failing", KINDS[:5])
def test_hook_that_fails_tears_down(made: bundles.Bundles, failing: str) -> None:
    done = made.run(hooked(made, failing), check=False)
    assert done.returncode == 1
    assert "exit status 3" in done.stderr
    assert oci(made.rig, "list", "-q").stdout == ""
    last = made.rig.run(["cat", f"{HOME}/hooks.log"]).stdout
    if failing != "poststart":
        assert "payload" not in last


def test_hook_is_killed_after_its_timeout(made: bundles.Bundles) -> None:
    spec = made.spec("true")
    hook = {"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}
    spec["hooks"] = {"createRuntime": [hook]}
    done = made.run(spec, check=False)
    assert done.returncode == 1
    assert "did not end within 1 s" in done.stderr


# What a spec is changed by, and what the refusal names.
REFUSED: tuple[tuple[Callable[[Any], None], str], ...] = (
    (lambda s: s["linux"].update(intelRdt={"closID": "x"}), "intelRdt"),
    (lambda s: s["linux"].update(mountLabel="x"), "mountLabel"),
    (lambda s: s["linux"].update(resources={"memory": {"limit": 1 << 26}}), "memory.max"),
    (lambda s: s["linux"].update(resources={"memory": {"swappiness": 1}}), "swappiness"),
    (lambda s: s["linux"].update(resources={"unified": {"../x": "1"}}), "unified"),
    (lambda s: s["linux"].update(cgroupsPath="/a/../../b"), "cgroupsPath"),
    (lambda s: s["process"].update(apparmorProfile="nosuch"), "pparmor"),
    (lambda s: s["process"].update(oomScoreAdj=-900), "OOM score"),
    (lambda s: s["process"]["user"].update(additionalGids=[5]), "setgroups"),
    (lambda s: s["process"]["user"].update(uid=77), "user 77"),
    (lambda s: s["mounts"].append(
        {"destination": "/x", "source": "/etc", "options": ["bind", "frob"]}), "frob"),
    (lambda s: s["annotations"].update({"org.systemd.property.Frob": "1"}), "Frob"),
    (lambda s: s["annotations"].update({"org.systemd.property.Slice": "'x.slice'"}), "Slice"),
    (lambda s: s["linux"]["namespaces"].append(
        {"type": "network", "path": "/proc/self/ns/uts"}), "network namespace"),
    (lambda s: s["linux"].update(devices=[
        {"path": "/dev/x", "type": "c", "major": 240, "minor": 9}]), "/dev/x"),
)  # fmt: skip


@pytest.mark.usefixtures("leaves_nothing")
def test_what_cannot_be_given_is_refused(made: bundles.Bundles) -> None:
    for change, words in REFUSED:
        spec = made.spec("true")
        spec["annotations"] = {}
        change(spec)
        done = made.run(spec, check=False)
        assert (words, done.returncode) == (words, 1)
        assert words in done.stderr
    assert oci(made.rig, "list", "-q").stdout == ""


def test_process_attributes(made: bundles.Bundles) -> None:
    spec = made.spec(
        "sh",
        "-c",
        "cat /proc/self/oom_score_adj; uname -m; umask; ulimit -c; cat /proc/sys/kernel/domainname;"
        " awk '{print $19, $41}' /proc/self/stat; cat /proc/uptime",
    )
    spec["process"].update(
        oomScoreAdj=500,
        rlimits=[{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0},
        scheduler={"policy": "SCHED_BATCH", "nice": 5},
    )
    spec["process"]["user"]["umask"] = 0o27
    spec["domainname"] = "example"
    spec["linux"]["personality"] = {"domain": "LINUX32"}
    spec["linux"]["namespaces"].append({"type": "time"})
    spec["linux"]["timeOffsets"] = {"boottime": {"secs": 10_000_000}}
    lines = made.run(spec).stdout.splitlines()
    assert lines[:5] == ["500", "i686", "0027", "0", "example"]
    assert lines[5] == "5 3"
    assert float(lines[6].split()[0]) > 10_000_000


def test_mounts(made: bundles.Bundles) -> None:
    spec = made.spec(
        "sh",
        "-c",
        "ls /etc/alpine-release; touch /etc/new && echo written;"
        " grep -E ' /(etc|slave|ro) ' /proc/self/mountinfo | cut -d' ' -f5-7; touch /ro/x",
    )
    spec["mounts"] += [
        {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]},
        {
            "destination": "/ro",
            "type": "bind",
            "source": "../rootfs/etc",
            "options": ["rbind", "rro"],
        },
        {"destination": "/slave", "type": "tmpfs", "source": "tmpfs", "options": ["rshared"]},
    ]
    done = made.run(spec, check=False)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["/etc/alpine-release", "written"]
    assert any(line.startswith("/ro ro") for line in lines)
    assert any("shared:" in line for line in lines if line.startswith("/slave"))
    assert "Read-only file system" in done.stderr


def test_namespaces_by_path(made: bundles.Bundles) -> None:
    """Everything but the file system of another container, the user namespace first of all."""
    rig = made.rig
    first = made.spec("sleep", "1000")
    first["linux"]["namespaces"].append({"type": "network"})
    directory = made.write(first, "first")
    rig.run(["sh", "-c", f"rp-oci run -d --bundle {directory} {ID} >/dev/null 2>&1"])
    pid = state(rig)["pid"]
    spec = made.spec(
        "sh", "-c", "for n in user net ipc uts pid; do readlink /proc/self/ns/$n; done"
    )
    names = {"user": "user", "network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"}
    spec["linux"]["namespaces"] = [
        {"type": "mount"},
        *({"type": kind, "path": f"/proc/{pid}/ns/{name}"} for kind, name in names.items()),
    ]
    del spec["linux"]["uidMappings"], spec["linux"]["gidMappings"], spec["hostname"]
    directory = made.write(spec)
    joined = rig.run(["rp-oci", "run", "--bundle", directory, "oci-second"], input="")
    links = "; ".join(f"readlink /proc/{pid}/ns/{name}" for name in names.values())
    assert joined.stdout == rig.run(["sh", "-c", links]).stdout


def test_pause_in_a_scope(made: bundles.Bundles) -> None:
    """With --systemd-cgroup the container has a scope, and what annotations say of it."""
    rig = made.rig
    spec = made.spec("sleep", "1000")
    spec["linux"]["cgroupsPath"] = "user.slice:rp-oci:scoped"
    spec["annotations"] = {"org.systemd.property.TimeoutStopUSec": "uint64 3000000"}
    directory = made.write(spec)
    argv = f"rp-oci --systemd-cgroup run -d --bundle {directory} {ID} >/dev/null 2>&1"
    rig.run(["sh", "-c", argv])
    unit = "rp-oci-scoped.scope"
    shown = rig.run(["systemctl", "--user", "show", unit, "-p", "TimeoutStopUSec,ActiveState"])
    assert sorted(shown.stdout.split()) == ["ActiveState=active", "TimeoutStopUSec=3s"]
    oci(rig, "pause", ID)
    assert state(rig)["status"] == "paused"
    assert oci(rig, "exec", ID, "true", check=False).returncode == 255
    oci(rig, "resume", ID)
    assert state(rig)["status"] == "running"
    oci(rig, "exec", ID, "true")
    stats = json.loads(oci(rig, "events", "--stats", ID).stdout)
    assert stats["data"]["pids"]["current"] == 1
    oci(rig, "delete", "--force", ID)
    active = ["systemctl", "--user", "is-active", unit]
    wait_for(lambda: rig.run(active, check=False).stdout == "inactive\n")
