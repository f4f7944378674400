"""Run one more process in a container that runs: the payload of `rp exec` and of health checks.

    supervisor                          child (clone3, born in the payload's cgroup)
      PLACED                  ──▶         joins the namespaces, looks up the user, opens the pty
                              ◀──       JOINED (+ the pidfd of the sibling)
                              ◀──       with a terminal TERMINAL (+ the pty's master)
                                          the child's sibling, in the PID namespace: execve
                              ◀──       end of file: exec succeeded
                              ◀──       FAILED, at any time: the sibling's may overtake JOINED

setns(2) moves only children into a PID namespace, so the process that joins makes a second one, by
CLONE_PARENT a child of the supervisor too, and ends.  Nothing is imported after the namespaces are
joined, and files of the container are opened below its root alone (SECURITY.md I4, I5).
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from rootlesspy.light_modules import ctypes, signal
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, NoReturn
from rootlesspy.linux import process
from rootlesspy.runtime import payload, sync, terminal, user

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

    from rootlesspy.oci.runtime_spec import LinuxIDMapping, Process

JOINED = b"JOINED"
TERMINAL = b"TERMINAL"
_PID_BYTES = 4
_FLAGS = {
    "user": process.CLONE_NEWUSER,
    "mount": process.CLONE_NEWNS,
    "pid": process.CLONE_NEWPID,
    "network": process.CLONE_NEWNET,
    "uts": process.CLONE_NEWUTS,
    "ipc": process.CLONE_NEWIPC,
    "cgroup": process.CLONE_NEWCGROUP,
}


class Plan(NamedTuple):
    """All that the child needs, in memory before the fork."""

    process: Process
    user: str
    group_add: tuple[str, ...]
    namespaces: tuple[str, ...]
    """Those that the container has of its own, by their names in the spec."""
    uid_mappings: list[LinuxIDMapping]
    gid_mappings: list[LinuxIDMapping]
    set_groups: bool
    filter: bytes | None
    stdio: tuple[int, int, int]
    """What becomes 0, 1 and 2, unless the process has a terminal."""
    ruleset_fd: int = -1
    """The container's Landlock rules, with --landlock."""


class Joining(NamedTuple):
    """A process on its way into the container."""

    pid: int
    pidfd: int
    channel: sync.Channel
    born_in_cgroup: bool
    slot: mmap.mmap
    """Shared memory to which the kernel writes the sibling's pid."""

    def sibling(self) -> int:
        """Return the pid of the process that is to run in the container, 0 before it exists."""
        return int.from_bytes(self.slot[:_PID_BYTES], sys.byteorder)


def launch(plan: Plan, container_pidfd: int, cgroup_fd: int) -> Joining:
    """Fork the process that joins; it waits for PLACED.

    cgroup_fd: the cgroup to be born in, or -1.  Where the kernel refuses that (the caller is in
    another part of the tree) it is born beside the caller.  Raises OSError.
    """
    import mmap

    ours, theirs = sync.channel_pair()
    try:
        slot = mmap.mmap(-1, _PID_BYTES)
        pid, pidfd, born = _fork(cgroup_fd)
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        ours.close()
        _join(plan, container_pidfd, theirs, slot)
    theirs.close()
    return Joining(pid, pidfd, ours, born, slot)


def _fork(cgroup_fd: int) -> tuple[int, int, bool]:
    if cgroup_fd >= 0:
        try:
            return (*process.clone3(0, cgroup_fd=cgroup_fd), True)
        except OSError as error:
            # EBUSY: the payload has divided its cgroup further (systemd does).
            if error.errno not in (errno.EACCES, errno.EBUSY, errno.EOPNOTSUPP, errno.ENOENT):
                raise
    return (*process.clone3(0), False)


def _join(plan: Plan, container_pidfd: int, channel: sync.Channel, slot: mmap.mmap) -> NoReturn:
    """Become a member of the container's namespaces, or report why not; never returns."""
    step = _Step()
    try:
        _enter(plan, container_pidfd, channel, step, ctypes.c_int.from_buffer(slot))
    except sync.FailedError:
        # The supervisor is gone or gave up: there is nobody to tell.
        pass
    except OSError as error:
        name = error.filename
        path = os.fsdecode(name) if isinstance(name, (str, bytes)) else ""
        channel.send_failure(
            sync.Failed(step.name, error.errno or errno.EIO, path, error.strerror or "")
        )
    except BaseException as error:  # noqa: BLE001 - the child's last line
        channel.send_failure(sync.Failed(step.name, 0, "", f"{type(error).__name__}: {error}"))
    finally:
        os._exit(125)


def _enter(
    plan: Plan, container_pidfd: int, channel: sync.Channel, step: _Step, tid: ctypes.c_int
) -> NoReturn:
    process.set_parent_death_signal(signal.SIGKILL)
    step("wait to be placed in the container's cgroup")
    channel.expect(sync.PLACED)
    os.umask(0o022)
    if not plan.process.get("terminal"):
        _take_stdio(plan.stdio)
    confine = _confine(plan)
    _share_pipes(plan)
    # From here on nobody may trace this process or open its files in /proc.
    process.set_dumpable(False)
    step("join the container's namespaces")
    flags = 0
    for name in plan.namespaces:
        flags |= _FLAGS.get(name, 0)
    process.setns(container_pidfd, flags)
    payload.set_ids(0, 0, () if plan.set_groups else None)
    step("make a session keyring")
    payload.leave_keyring()
    root_fd = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    step("look up the user")
    who = user.resolve(root_fd, plan.user, plan.group_add)
    wanted = who if plan.set_groups else who._replace(additional_gids=(who.gid,))
    user.check_mapped(wanted, plan.uid_mappings, plan.gid_mappings)
    step("make the terminal")
    master, slave = _open_terminal(root_fd, plan.process)
    prepared = payload.prepare(plan.process, who, set_groups=plan.set_groups, program=plan.filter)
    prepared = prepared._replace(confine=confine)
    payload.close_imports()
    step("fork into the PID namespace")
    pid, pidfd = process.clone3(process.CLONE_PARENT, tid=tid)
    if pid == 0:
        os.setsid()
        payload.become(prepared, step, slave)
    channel.send(JOINED, passed_fd=pidfd)
    if master >= 0:
        channel.send(TERMINAL, passed_fd=master)
    os._exit(0)


class _Step:
    """The name of the step under way, for the report when it fails."""

    def __init__(self) -> None:
        self.name = "start"

    def __call__(self, name: str) -> None:
        self.name = name


def _confine(plan: Plan) -> Callable[[], None] | None:
    """Do and return what holds the process to the container's AppArmor profile and Landlock rules.

    Runs while files and imports are still the host's.
    """
    if plan.process.get("apparmorProfile"):
        from rootlesspy.runtime import attributes

        attributes.confine(plan.process["apparmorProfile"])
    if plan.ruleset_fd < 0:
        return None
    from rootlesspy.linux import landlock

    return lambda: landlock.restrict_self(plan.ruleset_fd)


def _take_stdio(fds: tuple[int, int, int]) -> None:
    # First out of the way: one of them may be another one's number.
    moved = [os.dup(fd) for fd in fds]
    for number, fd in enumerate(moved):
        os.dup2(fd, number)


def _share_pipes(plan: Plan) -> None:
    """Let /dev/stdout and the like be opened where they are the caller's, who is nobody inside."""
    own = os.getuid()
    if any(m["hostID"] <= own < m["hostID"] + m["size"] for m in plan.uid_mappings):
        return
    for number in (0, 1, 2):
        status = os.fstat(number)
        if stat.S_ISFIFO(status.st_mode) and status.st_uid == own:
            os.fchmod(number, 0o666)


def _open_terminal(root_fd: int, wanted: Process) -> tuple[int, int]:
    if not wanted.get("terminal"):
        return -1, -1
    size = wanted.get("consoleSize")
    rows, columns = (size["height"], size["width"]) if size else (0, 0)
    return terminal.open_pty(root_fd, rows, columns)
