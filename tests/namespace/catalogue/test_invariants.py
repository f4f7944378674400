"""The invariants of the design as they show at run time: I4, I5, I8 and the census of descriptors.

What is held by reading the sources is in tests/unit/test_invariants.py.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from namespace.living import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from namespace.probe_box import Box
    from rig.machine import Machine

# I4: after the pivot, or the joiner's setns, and before the payload's execve

_SCRIPT = r"""
cd "$(mktemp -d)" || exit
rp run --name traced --network none --health-cmd true --health-interval disable \
    alpine sh -c 'echo up; exec sleep 1000' >out &
until grep -q up out; do sleep 0.1; done
rp exec traced true && rp exec -u 1000 -w /tmp traced sh -c 'exit 0' && rp exec -t traced true
rp exec traced no-such-program; rp exec -w /no-such traced true
rp healthcheck run traced && rp cp traced:/etc/passwd passwd && rp top traced >/dev/null
rp stop -t 0 traced && rp rm traced && wait
"""
_TRACE = """
rm -rf {0} && mkdir -m 777 {0} && cd {0}
strace -u alice -qqq -ff -o {0}/t -e signal=none \\
    -e trace=%file,connect,pivot_root,setns,chroot,clone,clone3,fork,vfork \\
    env -i HOME=/home/alice PATH=/usr/local/bin:/usr/bin:/bin XDG_RUNTIME_DIR=/run/user/{1} \\
    DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{1}/bus sh -c {2} >&2
grep -H '' {0}/t.*
rm -rf {0}
"""
_INSIDE = re.compile(r"(pivot_root\(|chroot\(|setns\([^)]*CLONE_NEWNS)")
_EXECUTED = re.compile(r"execve\(.* = 0$")
# The root's descriptor; accounts and the terminal below it; the payload.
_ALLOWED = re.compile(
    r"""umount2\("\.",\ MNT_DETACH\)
    |chdir\("[^"]*"\) | getcwd\(
    |newfstatat\(\d+,\ "",\ .*AT_EMPTY_PATH
    |openat\(AT_FDCWD,\ "/",\ O_RDONLY\|O_CLOEXEC\|O_PATH\|O_DIRECTORY\)
    |openat2\(\d+,\ "/?(etc/passwd|etc/group|dev/ptmx|dev/pts/ptmx|dev/pts(/\d+)?)",
        .*RESOLVE_IN_ROOT
    |execve\( | clone3\(
    """,
    re.VERBOSE,
)


@pytest.fixture(scope="module")
def traced(rig: Machine, alpine: str) -> dict[str, list[str]]:
    """Return what every process of some commands asked the kernel, by its pid."""
    if not rig.has_root or rig.run(["sh", "-c", "command -v strace"], check=False).returncode:
        pytest.skip("needs strace, and root: strace takes the rights of newuidmap away")
    script = _TRACE.format("/tmp/after-pivot", rig.uid, shlex.quote(_SCRIPT))
    found: dict[str, list[str]] = {}
    for line in rig.root(["sh", "-c", script], timeout=300).stdout.splitlines():
        path, _, call = line.partition(":")
        found.setdefault(path.rpartition(".")[2], []).append(call)
    return found


def windows(traced: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the calls of each process that is inside, up to its execve: pid → calls."""
    found: dict[str, list[str]] = {}
    inherited: set[str] = set()
    # Those whose parents are inside come after these, whatever their numbers, which start anew
    # after the highest.
    pending = list(traced)
    while pending:
        pid = pending.pop()
        found.pop(pid, None)
        inside = pid in inherited
        for call in traced[pid]:
            if inside:
                found.setdefault(pid, []).append(call)
                made = re.search(r"^clone3?\(.* = (\d+)$", call)
                if made and made[1] in traced and made[1] not in inherited:
                    inherited.add(made[1])
                    pending.append(made[1])
                if _EXECUTED.match(call):
                    break
            inside = inside or bool(_INSIDE.match(call))
    return found


@pytest.mark.row("I4", "a fixed short list of calls: run, exec, health check; cp and top: none")
def test_i4_no_file_is_opened_by_name_after_the_pivot(traced: dict[str, list[str]]) -> None:
    inside = windows(traced)
    strange = [c for calls in inside.values() for c in calls if not _ALLOWED.match(c)]
    assert strange == []
    pivoted = [calls for calls in inside.values() if calls[0].startswith("umount2")]
    joined = [calls for calls in inside.values() if calls[0].startswith("openat(")]
    executed = [calls for calls in inside.values() if _EXECUTED.match(calls[-1])]
    # One container; five sessions that are joined for, and the health check.
    assert len(pivoted) == 1
    assert len(joined) == 6
    assert len(executed) == 1 + 4


@pytest.mark.row("I4", "the payload's program is looked up by execve alone")
def test_i4_nothing_of_the_container_runs_outside(traced: dict[str, list[str]]) -> None:
    """Programs that rp executes are the machine's, each by its full path."""
    inside = windows(traced)
    programs = {
        call.split('"')[1]
        for pid, calls in traced.items()
        for call in calls
        if _EXECUTED.match(call) and call not in inside.get(pid, ())
    }
    ours = {p for p in programs if not re.fullmatch(r"/(usr/)?(local/)?bin/[\w.-]+", p)}
    assert ours <= {"/bin/sleep"}, programs


# I5: who shares what with a container


@pytest.fixture(scope="module")
def running(box: Box) -> Iterator[Any]:
    """Return a container with a network, its first process, its supervisor and its helper."""
    machine = box.machine
    payload = ("--rootfs", f"{box.directory}/root", "/probe", "pause")
    health = ("--health-cmd", '["/probe", "report", "/out/health.json"]')
    interval = ("--health-interval", "disable")
    volume = ("--volume", f"{box.directory}/out:/out")
    machine.run(["rp", "run", "-d", "--name", "watched", *health, *interval, *volume, *payload])
    show = ["rp", "inspect", "--format", "{{.State.Pid}} {{.Id}}", "watched"]
    pid, identity = machine.run(show).stdout.split()
    data = "${XDG_DATA_HOME:-$HOME/.local/share}/rootlesspy"
    script = f'cat "{data}/containers/$0/state.json"'
    state = machine.run(["sh", "-c", script, identity]).stdout
    kept = json.loads(state)
    yield {"pid": int(pid), "supervisor": kept["supervisor_pid"], "helper": kept["helper_pid"]}
    machine.run(["rp", "rm", "--force", "--time", "0", "watched"])


def namespaces(machine: Machine, pid: int) -> dict[str, str]:
    script = "for n in user pid mnt cgroup ipc uts net; do echo $n $(readlink /proc/$0/ns/$n); done"
    text = machine.root(["sh", "-c", script, str(pid)]).stdout
    return dict(line.split() for line in text.splitlines())


def is_dumpable(machine: Machine, pid: int) -> bool:
    """Say whether the files of a process in /proc are its user's own (proc(5))."""
    owner = machine.root(["stat", "-c", "%u", f"/proc/{pid}/environ"]).stdout
    return int(owner) != 0


@pytest.mark.row("I5", "the supervisor is in none of the container's namespaces")
def test_i5_supervisor_is_outside(box: Box, running: Any) -> None:
    if not box.machine.has_root:
        pytest.skip("needs root: the helper's namespaces are not the user's to see")
    inside = namespaces(box.machine, running["pid"])
    supervisor = namespaces(box.machine, running["supervisor"])
    assert not set(inside.values()) & set(supervisor.values())


@pytest.mark.row("I5", "the network helper sees no file or process of it, nor can it be traced")
def test_i5_network_helper_is_outside(box: Box, running: Any) -> None:
    if not box.machine.has_root:
        pytest.skip("needs root: the helper's namespaces are not the user's to see")
    inside = namespaces(box.machine, running["pid"])
    helper = namespaces(box.machine, running["helper"])
    for kind in ("pid", "mnt", "cgroup", "ipc", "uts"):
        assert inside[kind] != helper[kind], kind
    if inside["user"] == helper["user"]:
        assert not is_dumpable(box.machine, running["helper"])


@pytest.mark.row("I5", "no process but the container's own can be seen or traced from inside")
def test_i5_nothing_of_rp_is_visible_inside(box: Box, running: Any) -> None:
    seen = json.loads(box.machine.run(["rp", "exec", "watched", "/probe", "environ"]).stdout)
    # Its first process and the session itself.
    assert "1" in seen
    assert len(seen) == 2
    assert "XDG_RUNTIME_DIR" not in json.dumps(seen)


# The census of descriptors: three, whatever the caller has

_STDIO = {
    "pipes": "</dev/zero 2>&1 | cat",
    "files": "</dev/null >{out}/o 2>{out}/e",
    "closed": "<&- >&- 2>&-",
    "more": "5</ 6</etc/passwd 7<>{out}/x 9<&0",
}


@pytest.mark.row("leaked fds", "a session has 0, 1, 2: pipes, files, closed, a terminal")
@pytest.mark.parametrize("kind", _STDIO)
def test_i8_session_has_three_descriptors(box: Box, running: Any, kind: str) -> None:
    out = f"{box.directory}/out"
    argv = ["rp", "exec", "watched", "/probe", "report", "/out/exec.json"]
    box.machine.run(["sh", "-c", f"{shlex.join(argv)} {_STDIO[kind].format(out=out)}"])
    assert census(box, "exec.json") == ["0", "1", "2"]


@pytest.mark.row("leaked fds", "so have container and session with a terminal")
@pytest.mark.parametrize("how", ["run", "exec"])
def test_i8_terminal_has_three_descriptors(box: Box, running: Any, how: str) -> None:
    words = ("report", "/out/tty.json")
    if how == "run":
        argv = box.argv("--tty", "--volume", f"{box.directory}/out:/out", run=words)
    else:
        argv = ["rp", "exec", "--tty", "watched", "/probe", *words]
    with box.machine.pty(argv) as terminal:
        assert terminal.wait() == 0
    assert census(box, "tty.json") == ["0", "1", "2"]


@pytest.mark.row("leaked fds", "so has a health check")
def test_i8_health_check_has_three_descriptors(box: Box, running: Any) -> None:
    box.machine.run(["rp", "healthcheck", "run", "watched"])
    assert census(box, "health.json") == ["0", "1", "2"]


@pytest.mark.row("leaked fds", "so has what is started detached, by the service manager")
def test_i8_detached_has_three_descriptors(box: Box) -> None:
    options = ("--detach", "--volume", f"{box.directory}/out:/out")
    box.machine.run(box.argv(*options, run=("report", "/out/detached.json")))
    path = f"{box.directory}/out/detached.json"
    until(lambda: box.machine.run(["test", "-s", path], check=False).returncode == 0, "no report")
    assert census(box, "detached.json") == ["0", "1", "2"]


def census(box: Box, name: str) -> list[str]:
    return sorted(box.written(name)["fds"])


# I8: nobody else reads the store


@pytest.mark.row("I8", "nothing below the store's and the runtime's top is open to others")
def test_i8_directories_are_the_users_alone(box: Box, running: Any) -> None:
    script = (
        'for top in "${XDG_DATA_HOME:-$HOME/.local/share}/rootlesspy" '
        '"$XDG_RUNTIME_DIR/rootlesspy"; do stat -c "%a %u %n" "$top"; done'
    )
    for line in box.machine.run(["sh", "-c", script]).stdout.splitlines():
        mode, uid, _ = line.split(" ", 2)
        assert (mode, int(uid)) == ("700", box.machine.uid), line


@pytest.mark.row("I8", "a store that others may write to is refused")
@pytest.mark.parametrize("mode", ["770", "777"])
def test_i8_store_that_is_open_to_others_is_refused(box: Box, mode: str) -> None:
    home = f"{box.directory}/open"
    box.machine.run(["sh", "-c", f'mkdir -p "$0/rootlesspy" && chmod {mode} "$0/rootlesspy"', home])
    argv = ["env", f"XDG_DATA_HOME={home}", *box.argv()]
    done = box.machine.run(argv, check=False)
    told = box.machine.run(["stat", "-c", "%a", f"{home}/rootlesspy"]).stdout.strip()
    box.machine.run(["rm", "-rf", home])
    # Either it is refused, or it is closed before anything is put there.
    assert done.returncode == 125 or told == "700"


@pytest.mark.row("I9", "no seccomp library, no container")
def test_i9_without_libseccomp_nothing_starts(box: Box) -> None:
    """The filter is compiled with it; what the cache holds is of the version that made it."""
    lie = f"{box.directory}/lie"
    library = f"{lie}/libseccomp.so.2"
    box.machine.run(["sh", "-c", 'mkdir -p "$0" && echo no library >"$1"', lie, library])
    argv = ["env", f"LD_LIBRARY_PATH={lie}", *box.argv()]
    done = box.machine.run(argv, check=False)
    box.machine.run(["rm", "-rf", lie])
    assert done.returncode == 125
    assert done.stdout == ""
    assert "seccomp" in done.stderr
