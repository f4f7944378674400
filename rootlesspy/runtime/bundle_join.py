"""Run one more process in a container of `rp oci`: the payload of `rp oci exec`.

    runtime (exec)                      joiner (a fork)
      in the container's cgroup
      PLACED                  ──▶         joins the namespaces that are not its own
                              ◀──       JOINED pid (+ pidfd)
                              ◀──       with a terminal TERMINAL (+ the pty's master); it ends
                                          its sibling, in the PID namespace: execve
                              ◀──       end of file, or FAILED

Beside runtime.join, which serves `rp run`: here the process outlives the runtime, has the five
capability sets that it was given, and the container may share any namespace with the caller.
"""

from __future__ import annotations

import os

from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, NoReturn
from rootlesspy.linux import process
from rootlesspy.runtime import (
    attributes,
    bundle_create,
    bundle_init,
    bundle_process,
    init,
    namespaces,
    payload,
    sync,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.oci.runtime_spec import Linux, Process

JOINED = b"JOINED"
TERMINAL = b"TERMINAL"
_KINDS = ("user", "mount", "pid", "network", "uts", "ipc", "cgroup", "time")


class Plan(NamedTuple):
    """All that the joiner needs, in memory before the fork."""

    process: Process
    linux: Linux
    """Of the container's spec."""
    pid: int
    """The container's first process."""
    chroot: bool
    """Its root is not that of its mount namespace."""
    filter: bytes | None
    filter_flags: int
    notify_fd: int
    notify_message: tuple[bytes, ...]
    preserve_fds: int
    listens: bool
    """The environment has LISTEN_PID, for this process (sd_listen_fds(3))."""
    initial_cpus: frozenset[int]
    final_cpus: frozenset[int]
    debug: bool


class Joined(NamedTuple):
    """A process that runs in the container, or is about to."""

    pid: int
    pidfd: int
    master_fd: int


def launch(plan: Plan, container_pidfd: int, place: Callable[[int], None]) -> Joined:
    """Run a process in the container and return once it was executed.

    place puts the joiner where the container's processes are.  Raises rootlesspy's errors.
    """
    ours, theirs = sync.channel_pair()
    joiner, joiner_fd = process.clone3(0)
    if joiner == 0:
        ours.close()
        step = init.Steps(debug=plan.debug)
        init.guard(lambda: _enter(plan, container_pidfd, theirs, step), theirs, step)
    theirs.close()
    joined = Joined(0, -1, -1)
    try:
        place(joiner)
        ours.send(bundle_init.PLACED)
        joined = _follow(ours, told=plan.notify_fd >= 0)
    except sync.FailedError as error:
        raise bundle_create.explain(error.failed, plan.process["args"][0]) from error
    finally:
        ours.close()
        # It has ended already, unless something failed.
        signal.pidfd_send_signal(joiner_fd, signal.SIGKILL)
        os.waitpid(joiner, 0)
        os.close(joiner_fd)
    if not joined.pid:
        failed = sync.Failed("hand-shake", 32, "", "")
        raise bundle_create.explain(failed, plan.process["args"][0])
    return joined


def _follow(channel: sync.Channel, *, told: bool) -> Joined:
    """Read what the joiner and the process say until this one was executed.

    told: the process is told its pid.  Raises FailedError.
    """
    joined = Joined(0, -1, -1)
    try:
        while True:
            message, passed_fd = channel.receive()
            word, _, number = message.partition(b" ")
            if word == JOINED:
                joined = joined._replace(pid=int(number), pidfd=passed_fd)
                if told:
                    channel.send(number)
            elif word == TERMINAL:
                joined = joined._replace(master_fd=passed_fd)
            elif not message:
                return joined
    except sync.FailedError:
        if joined.pid:
            os.waitpid(joined.pid, 0)
        raise


def _enter(plan: Plan, container_pidfd: int, channel: sync.Channel, step: init.Steps) -> None:
    process.set_parent_death_signal(signal.SIGKILL)
    step("wait to be placed in the container's cgroup")
    channel.expect(bundle_init.PLACED)
    if plan.initial_cpus:
        step("set the CPU affinity")
        os.sched_setaffinity(0, plan.initial_cpus)
    os.umask(0o022)
    # All of it while the host's /proc is there.
    attributes.apply(plan.process, plan.linux, step)
    flags = _differing(plan.pid)
    root = os.open(f"/proc/{plan.pid}/root", os.O_PATH | os.O_CLOEXEC) if plan.chroot else -1
    files = (f"/proc/{plan.pid}/{name}" for name in ("uid_map", "gid_map", "setgroups"))
    rights = bundle_process.Rights.read(*files)
    # From here on nobody may trace this process or open its files in /proc.
    process.set_dumpable(False)
    step("join the container's namespaces")
    _change_place(container_pidfd, flags, root)
    bundle_process.become_root(rights)
    step("make a session keyring")
    payload.leave_keyring(payload.KEY_OWNERS if flags & process.CLONE_NEWUSER else range(0))
    root_fd = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    step("look up the user")
    who = bundle_process.identity(root_fd, plan.process, rights)
    step("make the terminal")
    master, slave = init.open_terminal(root_fd, plan.process, console=False)
    if slave < 0:
        step("give away the standard streams")
        bundle_process.give_streams(who)
    prepared = bundle_process.prepare(plan.process, who, rights, program=plan.filter)
    prepared = prepared._replace(inherited_fds=plan.preserve_fds)
    prepared = prepared._replace(filter_flags=plan.filter_flags, notify_fd=plan.notify_fd)
    payload.close_imports()
    step("fork into the PID namespace")
    pid, pidfd = process.clone3(process.CLONE_PARENT)
    if pid == 0:
        _become(plan, prepared, channel, step, slave)
    channel.send(JOINED + b" %d" % pid, passed_fd=pidfd)
    if master >= 0:
        channel.send(TERMINAL, passed_fd=master)
    os._exit(0)


def _change_place(container_pidfd: int, flags: int, root: int) -> None:
    if flags:
        process.setns(container_pidfd, flags)
    if root >= 0:
        os.fchdir(root)
        os.chroot(b".")


def _become(
    plan: Plan, prepared: payload.Prepared, channel: sync.Channel, step: init.Steps, slave: int
) -> NoReturn:
    """Be the process, in the PID namespace: system calls only."""
    os.setsid()
    if plan.notify_fd >= 0:
        message = b"%d" % channel_pid(channel)
        prepared = prepared._replace(notify_message=message.join(plan.notify_message))
    if plan.final_cpus:
        step("set the CPU affinity")
        os.sched_setaffinity(0, plan.final_cpus)
    if plan.listens:
        prepared.environment[b"LISTEN_PID"] = b"%d" % os.getpid()
    attributes.schedule(plan.process, step)
    payload.become(prepared, step, slave)


def channel_pid(channel: sync.Channel) -> int:
    """Return this process's pid as the runtime sees it, which tells it."""
    message, _ = channel.receive()
    return int(message)


def _differing(pid: int) -> int:
    """Return the flags of the namespaces that a process does not share with the caller."""
    flags = 0
    for kind in _KINDS:
        name = namespaces.FILES.get(kind, kind)
        own, other = os.stat(f"/proc/self/ns/{name}"), os.stat(f"/proc/{pid}/ns/{name}")
        if own.st_ino != other.st_ino:
            flags |= namespaces.FLAGS[kind]
    return flags
