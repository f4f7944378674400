"""A running rig: start it, find it, end it, leave nothing behind.

The cgroup of an instance holds every process of it, so what is found in it is what must die;
its mounts live in its mount namespace and go with the last process; the rest is one directory.
So cleaning up is always the same, whoever was killed in whatever moment.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import select
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from rig import furnish, location, recipe, rootfs
from rig.enter import Entry
from rig.location import RigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BOOT_LIMIT_S = 300.0
_KILL_LIMIT_S = 120.0


class Instance(NamedTuple):
    """A running rig, as its state file describes it."""

    name: str
    suite: str
    starter_pid: int
    starter_start: int
    init_pid: int
    session: str
    owner_pid: int
    owner_start: int
    tree: str = ""

    @property
    def directory(self) -> Path:
        """Return the directory that holds all that this instance writes."""
        return location.instances() / self.name

    @property
    def root(self) -> Path:
        """Return the rig's root directory, reached from outside."""
        return location.proc(self.init_pid) / "root"


def up(name: str, suite: str, say: Callable[[str], None], owner_pid: int = 0) -> Instance:
    """Return the running instance of this name, starting it when it is not running.

    With an owner the instance counts as abandoned once that process is dead: the next use of
    any rig removes it.
    """
    if os.geteuid() != 0:
        raise RigError("a rig needs root (cure: sudo)")
    sweep()
    with rootfs.locked(_lock(name)):
        running = _load(name)
        if running is not None and _alive(running):
            if running.suite != suite:
                raise RigError(f"rig {name} is {running.suite} (cure: rig down --name {name})")
            return running
        _clean(name)
        tree = rootfs.ensure(suite, say)
        started_s = time.monotonic()
        furnish_note = furnish.prepare(tree, location.instances() / name)
        instance = _boot(name, suite, tree, owner_pid)
        elapsed_s = time.monotonic() - started_s
        say(f"rig {name} ({suite}) booted in {elapsed_s:.1f} s, {furnish_note}")
        return instance


def down(name: str) -> None:
    """End an instance and remove all of it; nothing happens when there is none."""
    with rootfs.locked(_lock(name)):
        _clean(name)
        _lock(name).unlink()


def sweep() -> None:
    """Remove what dead or abandoned instances left."""
    for directory in location.instances().iterdir():
        if not directory.is_dir():
            continue
        running = _load(directory.name)
        # Without a state file it is being started by someone, or was left by a killed starter:
        # the lock tells.
        if running is None or not _alive(running) or _abandoned(running):
            with rootfs.locked(_lock(directory.name)):
                running = _load(directory.name)
                if running is None or not _alive(running) or _abandoned(running):
                    _clean(directory.name)


def running() -> list[Instance]:
    """Return the running instances, in order of name."""
    found = [_load(path.name) for path in sorted(location.instances().iterdir()) if path.is_dir()]
    return [instance for instance in found if instance is not None and _alive(instance)]


def entry(instance: Instance, argv: list[str], *, user: str = "alice") -> Entry:
    """Describe how to enter the instance: as alice in her login session, bob or root outside."""
    cgroup = _cgroup(instance.name)
    uid = {"root": 0} | {person.name: person.uid for person in recipe.USERS}
    inner = cgroup / "machine" / "system.slice" / "rig-entered"
    variables = environment(user)
    if user == recipe.ALICE.name:
        variables["XDG_SESSION_ID"] = instance.session
        slice_path = cgroup / "machine" / "user.slice" / f"user-{recipe.ALICE.uid}.slice"
        inner = slice_path / f"session-{instance.session}.scope"
    return Entry(
        init_pid=instance.init_pid,
        outer_cgroup=os.fspath(cgroup / "entered"),
        inner_cgroup=os.fspath(inner),
        uid=uid[user],
        directory=variables["HOME"],
        environment=variables,
        argv=argv,
    )


def environment(user: str) -> dict[str, str]:
    """Return what a login of the user sets; bob and root get no user manager."""
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/bash",
        "HOME": "/root" if user == "root" else f"/home/{user}",
    }
    if "TERM" in os.environ:
        variables["TERM"] = os.environ["TERM"]
    if user == "root":
        variables["PATH"] = "/usr/local/sbin:/usr/sbin:/sbin:" + variables["PATH"]
    if user == recipe.ALICE.name:
        runtime = f"/run/user/{recipe.ALICE.uid}"
        variables["XDG_RUNTIME_DIR"] = runtime
        variables["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={runtime}/bus"
    return variables


def _boot(name: str, suite: str, tree: Path, owner_pid: int) -> Instance:
    directory = location.instances() / name
    cgroup = _cgroup(name)
    for path in (cgroup, cgroup / "machine", cgroup / "entered"):
        path.mkdir()
    _enable_controllers(cgroup)
    ready_fd = os.open(directory / "ready", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        starter_pid = _start(tree, directory, cgroup / "machine")
        session = _wait_ready(ready_fd, starter_pid, directory)
        _wait_listening(_only_child(starter_pid), recipe.REGISTRY_PORT)
    except BaseException:
        _clean(name)
        raise
    finally:
        os.close(ready_fd)
    # Outside the rig's pid namespace: systemd must not meet it in its own tree.
    (cgroup / "entered" / "cgroup.procs").write_text(str(starter_pid), encoding="ascii")
    instance = Instance(
        name=name,
        suite=suite,
        starter_pid=starter_pid,
        starter_start=_start_time(starter_pid),
        init_pid=_only_child(starter_pid),
        session=session,
        owner_pid=owner_pid,
        owner_start=_start_time(owner_pid) if owner_pid else 0,
        tree=os.fspath(tree),
    )
    half = directory / "state.json.half"
    half.write_text(json.dumps(instance), encoding="utf-8")
    half.rename(directory / "state.json")
    return instance


def _start(tree: Path, directory: Path, cgroup: Path) -> int:
    """Start the rig as nobody's child and return the pid of the process that holds it."""
    # fmt: off
    unshare = ["unshare", "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--net",
               "--fork", "--kill-child",
               "sh", os.fspath(location.REPOSITORY / "tests" / "rig" / "boot.sh"),
               os.fspath(tree), os.fspath(directory)]
    # fmt: on
    script = 'echo 0 >"$1" || exit; log=$2; shift 2; "$@" >"$log" 2>&1 & echo $!'
    procs, log = cgroup / "cgroup.procs", directory / "boot.log"
    started = subprocess.run(
        ["sh", "-c", script, "sh", os.fspath(procs), os.fspath(log), *unshare],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=True,
    )
    return int(started.stdout)


def _wait_ready(ready_fd: int, starter_pid: int, directory: Path) -> str:
    pidfd = os.pidfd_open(starter_pid)
    try:
        readable = select.select([ready_fd, pidfd], [], [], _BOOT_LIMIT_S)[0]
    finally:
        os.close(pidfd)
    if ready_fd in readable:
        return os.read(ready_fd, 100).decode("ascii").strip()
    log = (directory / "boot.log").read_text(encoding="utf-8", errors="replace")[-2000:]
    what = "died" if readable else f"did not reach its user manager in {_BOOT_LIMIT_S:.0f} s"
    raise RigError(f"the rig {what} while booting:\n{log}")


def _wait_listening(pid: int, port: int) -> None:
    """Wait until somebody listens on a TCP port in the network namespace of a process.

    systemd has started the registry, but does not know when it is ready.
    """
    limit_s = time.monotonic() + _BOOT_LIMIT_S
    wanted = f":{port:04X}"
    while True:
        lines = [
            line.split()
            for name in ("tcp", "tcp6")
            for line in (location.proc(pid) / "net" / name).read_text("ascii").splitlines()
        ]
        if any(fields[1].endswith(wanted) and fields[3] == "0A" for fields in lines):
            return
        if time.monotonic() > limit_s:
            raise RigError(f"nobody listens on port {port} of the rig after {_BOOT_LIMIT_S:.0f} s")
        time.sleep(0.02)


def _enable_controllers(cgroup: Path) -> None:
    available = (cgroup / "cgroup.controllers").read_text(encoding="ascii").split()
    text = " ".join(f"+{controller}" for controller in available)
    if text:
        (cgroup / "cgroup.subtree_control").write_text(text, encoding="ascii")


def _clean(name: str) -> None:
    limit_s = time.monotonic() + _KILL_LIMIT_S
    while True:
        try:
            _remove_traces(name)
        except OSError as error:
            # A command that was about to enter the rig, or one that booted it, came after the kill.
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > limit_s:
                raise
        else:
            return


def _remove_traces(name: str) -> None:
    cgroup = _cgroup(name)
    if cgroup.is_dir():
        _kill_cgroup(cgroup)
        for path, _directories, _files in os.walk(cgroup, topdown=False):
            os.rmdir(path)
    directory = location.instances() / name
    if directory.is_dir():
        shutil.rmtree(directory)


def _kill_cgroup(cgroup: Path) -> None:
    limit_s = time.monotonic() + _KILL_LIMIT_S
    (cgroup / "cgroup.kill").write_text("1", encoding="ascii")
    with (cgroup / "cgroup.events").open("rb") as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while b"populated 1" in os.pread(events.fileno(), 4096, 0):
            remaining_ms = (limit_s - time.monotonic()) * 1000
            if remaining_ms <= 0:
                raise RigError(f"processes of {cgroup} did not die in {_KILL_LIMIT_S:.0f} s")
            poll.poll(remaining_ms)


def _cgroup(name: str) -> Path:
    # Two caches may each have an instance of this name.
    key = hashlib.sha256(os.fspath(location.instances()).encode()).hexdigest()[:6]
    return location.cgroup2() / f"rootlesspy-rig-{key}-{name}"


def _lock(name: str) -> Path:
    return location.instances() / f"{name}.lock"


def _load(name: str) -> Instance | None:
    try:
        text = (location.instances() / name / "state.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return Instance(*json.loads(text))


def _alive(instance: Instance) -> bool:
    return (
        _start_time(instance.starter_pid) == instance.starter_start
        and _start_time(instance.init_pid) != 0
    )


def _abandoned(instance: Instance) -> bool:
    return instance.owner_pid != 0 and _start_time(instance.owner_pid) != instance.owner_start


def _start_time(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot, 0 for a dead one."""
    try:
        text = (location.proc(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


def _only_child(pid: int) -> int:
    return int((location.proc(pid) / "task" / str(pid) / "children").read_text(encoding="ascii"))
