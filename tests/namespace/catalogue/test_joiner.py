"""Processes that enter a container, attacked from inside it: SECURITY.md B.

The attackers are tests/data/probe/racer.c, root of the container with CAP_SYS_PTRACE; the victims
are exec sessions, health checks and copies.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from namespace import hostile
from namespace.hostile import ACCOUNTS, Host, harmless
from rig import ociimage
from rig.effort import effort
from rig.ociimage import Entry, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.limit(900)

IMAGE = "localhost/joined"
RUN = ("rp", "run", "--net=none")
# Each says that it ran; none is needed by the image itself.
EVIL = ("ps", "nsenter", "ldd", "tar", "gzip", "xz", "unpigz", "zstd", "nsswitch", "getent", "id")
BAIT = b"#!/bin/busybox sh\n/bin/busybox touch /pwned\n"
INTERPRETER = "/home/alice/own-python/python3"


@pytest.fixture(scope="module")
def host(rig: Machine, _fresh_start: None) -> Iterator[Host]:
    """Return the machine with canaries."""
    yield from hostile.prepare(rig)


@pytest.fixture(scope="module")
def joined(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Load the image of all tests here."""
    build = tmp_path_factory.mktemp("racer")
    entries = [
        *hostile.base(host.machine, build), *ACCOUNTS, hostile.racer(build),
        *(Entry(f"{place}/{name}", data=BAIT, mode=0o755) for name in EVIL
          for place in ("bin", "usr/bin", "sbin", "usr/sbin")),
        symlink("bin/self", "/proc/self/exe"),
        Entry("bin/script", data=b"#!/proc/self/exe\n", mode=0o755),
    ]  # fmt: skip
    image = ociimage.image([ociimage.tar(entries)], {"Cmd": ["/probe"]})
    hostile.load(host.machine, {"joined": image})
    return host


def start(host: Host, name: str, *options: str, run: tuple[str, ...]) -> None:
    """Start an attacker and wait until it is at work."""
    host.machine.run([*RUN, "-d", "--name", name, *options, IMAGE, *run])
    host.machine.run(["sh", "-c", f"until rp logs {name} | grep -q ready; do :; done"])


def ended(host: Host, name: str) -> Any:
    """End an attacker and return what it says."""
    host.machine.run(["rp", "stop", "--time", "30", name])
    said = host.machine.run(["rp", "logs", name]).stdout
    host.machine.run(["rp", "rm", name])
    return json.loads(said.splitlines()[-1])


@pytest.mark.row("CVE-2016-9962", "nothing of it opens until it is the payload")
@pytest.mark.row("CVE-2016-8659", "tracing it fails until it is the payload")
def test_cve_2016_9962_who_joins_is_out_of_reach(joined: Host) -> None:
    tries = effort(50, 500)
    start(joined, "hunter", "--cap-add", "SYS_PTRACE", "--health-cmd", "/bin/cat /probe",
          run=("/racer", "hunt"))  # fmt: skip
    script = """
        for n in $(seq $1); do
            rp exec hunter /bin/cat /etc/group >/dev/null </dev/null
            [ $((n % 10)) != 0 ] || { rp healthcheck run hunter; rp cp /etc/hostname hunter:/h;
                rp exec --user bob hunter /bin/cat /etc/group; rp top hunter; }
        done 2>&1 | grep -c Traceback"""
    done = joined.machine.run(
        ["sh", "-c", script, "sh", str(tries)], check=False, timeout=effort(850, 3600)
    )
    assert done.stdout == "0\n"
    told = ended(joined, "hunter")
    assert told["seen"] > tries // 2
    programs = {line.split()[1] for line in told["worked"]}
    # Who became the payload is the container's own; before, its program is not even named (?13).
    # One that has ended has none (?2), or is gone while it is asked for (?3).
    assert programs <= {"/bin/busybox", "?2", "?3"}, told
    targets = {line.split()[2] for line in told["worked"] if line.startswith("fd ")}
    outside = {each for each in targets if not each.startswith(("pipe:", "/dev/null", "/etc/group",
                                                               "/probe"))}  # fmt: skip
    assert outside == set()


@pytest.mark.row("CVE-2019-5736", "the program of rp is busy or not writable, and stays as it is")
def test_cve_2019_5736_the_runtime_is_not_overwritten(joined: Host) -> None:
    """Interpreter and modules are the user's own, as with pyenv or a virtual environment."""
    machine = joined.machine
    machine.run(["sh", "-ec", f"""
        mkdir -p ~/own-python; cp $(readlink -f /usr/bin/python3) {INTERPRETER}
        cp -r $({INTERPRETER} -c 'import rootlesspy; print(rootlesspy.__path__[0])') ~/own-python
        """])  # fmt: skip
    listed = "cd ~/own-python; find . -type f ! -name '*.pyc' | sort | xargs sha256sum"
    digest = ["sh", "-c", f"{listed}; sha256sum $(readlink -f /usr/bin/python3)"]
    before = machine.run(digest).stdout
    rp = ["env", "PYTHONPATH=/home/alice/own-python", INTERPRETER, "-m", "rootlesspy"]
    machine.run([*rp, "run", "-d", "--net=none", "--name", "writer", IMAGE, "/racer", "overwrite"])
    machine.run(["sh", "-c", "until rp logs writer | grep -q ready; do :; done"])
    commands = [
        [*rp, "exec", "writer", *run]
        for run in (
            ["/bin/self", "-c", "1"], ["/proc/self/exe"], ["/bin/script"], ["/bin/cat", "/h"],
            ["/racer", "hunt", "1"], ["/proc/1/exe"],
        )
    ]  # fmt: skip
    for each in joined.attempt(commands * effort(1, 50)):
        assert each.changed == ()
    told = ended(joined, "writer")
    assert told["attempts"] > 100
    # Its own files it may write as it likes.
    assert [line for line in told["worked"] if "python" in line or "rootlesspy" in line] == []
    assert machine.run(digest).stdout == before
    machine.run(["rm", "-rf", "/home/alice/own-python"])


FIELDS = ("uids", "gids", "groups", "rlimits", "cgroup", "umask", "oom_score_adj", "nice",
          "scheduler", "securebits", "dumpable", "hostname", "uid_map", "root")  # fmt: skip
STATUS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
          "Seccomp_filters", "SigIgn", "SigBlk", "SigCgt")  # fmt: skip


def confinement(report: Any) -> dict[str, Any]:
    """Return what must be the same of every process of a container."""
    mounts = [" ".join(line.split()[3:6]) for line in report["mountinfo"]]
    return {
        **{name: report[name] for name in FIELDS},
        **{name: report["status"][name] for name in STATUS},
        "mounts": sorted(mounts),
        "descriptors": sorted(report["fds"]),
    }


@pytest.mark.row("CVE-2019-10144", "run, exec, health checks and restarts are confined alike")
@pytest.mark.row("leaked fds", "0, 1 and 2 alone in run, exec, health checks and restarts")
def test_cve_2019_10144_every_way_in_is_confined_alike(joined: Host) -> None:
    machine = joined.machine
    machine.run(["sh", "-c", "mkdir -p ~/reports; chmod 777 ~/reports"])
    options = ["--cap-add", "NET_RAW", "--cap-drop", "CHOWN", "--ulimit", "nofile=512:600",
               "--tmpfs", "/scratch", "--health-interval", "disable",
               "--health-cmd", '["/probe", "report", "/reports/health.json"]',
               "-v", "/home/alice/reports:/reports"]  # fmt: skip
    payload = "/probe report /reports/run.json; exec sleep 1000"
    machine.run([*RUN, "-d", "--name", "entered", *options, IMAGE, "sh", "-c", payload])
    wait = "until [ -s ~/reports/run.json ]; do sleep 0.05; done; cat ~/reports/run.json"
    first = confinement(json.loads(machine.run(["sh", "-c", wait]).stdout))
    machine.run(["rp", "exec", "entered", "/probe", "report", "/reports/exec.json"])
    machine.run(["rp", "healthcheck", "run", "entered"])
    machine.run(["sh", "-c", "rm ~/reports/run.json"])
    machine.run(["systemctl", "--user", "restart", "rp-entered.service"])
    again = json.loads(machine.run(["sh", "-c", wait]).stdout)
    found = {"restart": confinement(again)}
    for way in ("exec", "health"):
        told = machine.run(["cat", f"/home/alice/reports/{way}.json"]).stdout
        found[way] = confinement(json.loads(told))
    machine.run(["rp", "rm", "--force", "--time", "0", "entered"])
    machine.run(["rm", "-rf", "/home/alice/reports"])
    assert first["Seccomp"] == "2"
    assert first["descriptors"] == ["0", "1", "2"]
    for way, seen in found.items():
        # The host name is a part of the id, which a restart keeps.
        assert seen == first, way


@pytest.mark.row("CVE-2022-1227", "rp reads the host's /proc and runs no program of the container")
@pytest.mark.row("CVE-2026-41567", "rp decompresses by itself; no program of the container runs")
def test_cve_2022_1227_no_program_of_the_container_is_run(joined: Host) -> None:
    machine = joined.machine
    machine.run([*RUN, "-d", "--name", "evil", IMAGE, "/bin/busybox", "sleep", "1000"])
    before = machine.run(["sh", "-c", "command -v strace"], check=False).returncode
    trace = [] if before else ["strace", "-f", "-qq", "-e", "trace=execve,execveat", "-o", "census"]
    packed = "tar cJf x.tar.xz /etc/hostname 2>/dev/null || tar czf x.tar.xz /etc/hostname"
    machine.run(["sh", "-c", f"cd; {packed}"])
    commands = [
        ["top", "evil"], ["top", "evil", "-ef"], ["top", "evil", "pid", "user", "args"],
        ["stats", "--no-stream", "evil"], ["inspect", "evil"], ["cp", "/etc/hostname", "evil:/"],
        ["cp", "evil:/probe", "/dev/shm/copied"], ["diff", "evil"], ["logs", "evil"],
        ["ps", "--size"], ["port", "evil"], ["export", "-o", "/dev/shm/exported", "evil"],
        ["commit", "-q", "evil", "localhost/evil-too"], ["why", "evil"],
    ]  # fmt: skip
    ran = set()
    for words in commands:
        done = machine.run(["sh", "-c", 'cd; exec "$@"', "sh", *trace, "rp", *words], check=False)
        assert done.returncode in (0, 125), (words, done.stderr)
        if trace:
            lines = machine.run(["sh", "-c", "cat ~/census"]).stdout.splitlines()
            assert lines
            # What one thread's call interrupts stands in two lines, the path in the first.
            begun = [line for line in lines if '"' in line]
            ends = ("= 0", "<unfinished ...>")
            ran |= {line.split('"')[1] for line in begun if line.endswith(ends)}
    machine.run(["sh", "-c", "cd; rp cp - evil:/ <x.tar.xz; rm -f x.tar.xz census"])
    assert not {each for each in ran if each.rpartition("/")[2] in EVIL}, ran
    assert all(each.startswith(("/usr/", "/bin/", "/sbin/")) for each in ran)
    # Whatever ran of it, wherever, would have said so.
    listed = machine.run(["rp", "exec", "evil", "/bin/ls", "/"]).stdout.split()
    assert "probe" in listed
    assert "hostname" in listed
    assert "pwned" not in listed
    assert "pwned" not in machine.run(["ls", "/"]).stdout
    harmless(joined.one("rp", "rm", "--force", "--time", "0", "evil"), (0,))
    machine.run(["sh", "-c", "rm -f /dev/shm/copied /dev/shm/exported"])


# Runs as another user: tries to enter, list, read and run each path; prints what worked.
_INTRUDE = """
import json, os, subprocess, sys
worked = []
for path in json.load(sys.stdin):
    tries = {"list": os.listdir, "stat": os.stat, "enter": os.chdir,
             "open": lambda p: os.close(os.open(p, os.O_RDONLY | os.O_NONBLOCK))}
    for name, function in tries.items():
        try:
            function(path)
        except PermissionError:
            continue
        except (FileNotFoundError, NotADirectoryError):
            continue
        worked.append([name, path])
print(json.dumps(worked))
"""


@pytest.mark.row("CVE-2016-8649", "state, sockets and locks are below directories of the user's")
@pytest.mark.row("CVE-2021-41091", "no other user gets into the store, whatever the umask was")
@pytest.mark.row("CVE-2024-25621", "every directory of rp's is 0700")
def test_cve_2021_41091_other_users_stay_out_of_the_store(joined: Host) -> None:
    machine = joined.machine
    if not machine.has_root:
        pytest.skip("there is no other user to be on this machine")
    open_umask = ["sh", "-c", 'umask 0; exec "$@"', "sh"]
    setuid = Entry("bin/setuid", data=b"x", mode=0o6755)
    hostile.load(machine, {"setuid": ociimage.image([ociimage.tar([setuid])], {})})
    machine.run([*open_umask, *RUN, "-d", "--name", "kept", IMAGE, "sleep", "1000"])
    # The home is made passable, as it is on many machines: rp's own directories must do.
    machine.run(["sh", "-c", "chmod 755 ~ ~/.local ~/.local/share"])
    find = "find ~/.local/share/rootlesspy $XDG_RUNTIME_DIR/rootlesspy -maxdepth 5 2>/dev/null; :"
    listed = machine.run(["sh", "-c", find]).stdout.splitlines()
    setuids = "find ~/.local/share/rootlesspy -perm /6000 2>/dev/null; :"
    listed += machine.run(["sh", "-c", setuids]).stdout.splitlines()
    assert any(path.endswith("bin/setuid") for path in listed)
    said = machine.run(["python3", "-I", "-c", _INTRUDE], input=json.dumps(listed), user="bob")
    top = machine.run(["sh", "-c", "echo ~/.local/share/rootlesspy"]).stdout.strip()
    # The name of the store itself may be seen in a home that others may look into.
    assert [each for each in json.loads(said.stdout) if each != ["stat", top]] == []
    modes = "cd ~/.local/share/rootlesspy; stat -c %a . containers images layers tmp names volumes"
    assert set(machine.run(["sh", "-c", f"{modes} 2>/dev/null; :"]).stdout.split()) == {"700"}
    machine.run(["rp", "rm", "--force", "--time", "0", "kept"])
    machine.run(["sh", "-c", "chmod 700 ~"])
