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
import signal
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.linux import process
from rootlesspy.runtime import (
    attributes,
    bundle_create,
    bundle_init,
    init,
    namespaces,
    payload,
    sync,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.oci.runtime_spec import Process

JOINED = b"JOINED"
TERMINAL = b"TERMINAL"
_KINDS = ("user", "mount", "pid", "network", "uts", "ipc", "cgroup", "time")


class Plan(NamedTuple):
    """All that the joiner needs, in memory before the fork."""

    process: Process
    pid: int
    """The container's first process."""
    chroot: bool
    """Its root is not that of its mount namespace."""
    filter: bytes | None
    filter_flags: int
    notify_fd: int
    notify_message: tuple[bytes, ...]
    preserve_fds: int
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
    pid, pidfd, master = 0, -1, -1
    try:
        place(joiner)
        ours.send(bundle_init.PLACED)
        while True:
            message, passed_fd = ours.receive()
            word, _, number = message.partition(b" ")
            if word == JOINED:
                pid, pidfd = int(number), passed_fd
                os.waitpid(joiner, 0)
                joiner = 0
                if plan.notify_fd >= 0:
                    ours.send(number)
            elif word == TERMINAL:
                master = passed_fd
            elif not message:
                break
    except sync.FailedError as error:
        if pid:
            os.waitpid(pid, 0)
        raise bundle_create.explain(error.failed, plan.process["args"][0]) from error
    finally:
        ours.close()
        if joiner:
            signal.pidfd_send_signal(joiner_fd, signal.SIGKILL)
            os.waitpid(joiner, 0)
        os.close(joiner_fd)
    if not pid:
        failed = sync.Failed("hand-shake", 32, "", "")
        raise bundle_create.explain(failed, plan.process["args"][0])
    return Joined(pid, pidfd, master)


def _enter(plan: Plan, container_pidfd: int, channel: sync.Channel, step: init.Steps) -> None:
    process.set_parent_death_signal(signal.SIGKILL)
    step("wait to be placed in the container's cgroup")
    channel.expect(bundle_init.PLACED)
    if plan.initial_cpus:
        step("set the CPU affinity")
        os.sched_setaffinity(0, plan.initial_cpus)
    os.umask(0o022)
    # All of it while the host's /proc is there.
    attributes.apply(plan.process, None, step)
    flags = _differing(plan.pid)
    root = os.open(f"/proc/{plan.pid}/root", os.O_PATH | os.O_CLOEXEC) if plan.chroot else -1
    maps = (f"/proc/{plan.pid}/uid_map", f"/proc/{plan.pid}/gid_map")
    rights = bundle_init.Rights.read(*maps, f"/proc/{plan.pid}/setgroups")
    # From here on nobody may trace this process or open its files in /proc.
    process.set_dumpable(False)
    step("join the container's namespaces")
    if flags:
        process.setns(container_pidfd, flags)
    if root >= 0:
        os.fchdir(root)
        os.chroot(b".")
    bundle_init.become_root(rights)
    root_fd = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    step("look up the user")
    who = bundle_init.identity(root_fd, plan.process, rights)
    step("make the terminal")
    master, slave = init.open_terminal(root_fd, plan.process, console=False)
    if slave < 0:
        step("give away the standard streams")
        bundle_init.give_streams(who)
    prepared = bundle_init.prepare(plan.process, who, rights, program=plan.filter)
    prepared = prepared._replace(
        inherited_fds=plan.preserve_fds,
        filter_flags=plan.filter_flags,
        notify_fd=plan.notify_fd,
    )
    payload.close_imports()
    step("fork into the PID namespace")
    pid, pidfd = process.clone3(process.CLONE_PARENT)
    if pid == 0:
        os.setsid()
        if plan.notify_fd >= 0:
            message = b"%d" % channel_pid(channel)
            prepared = prepared._replace(notify_message=message.join(plan.notify_message))
        if plan.final_cpus:
            step("set the CPU affinity")
            os.sched_setaffinity(0, plan.final_cpus)
        attributes.schedule(plan.process, step)
        payload.become(prepared, step, slave)
    channel.send(JOINED + b" %d" % pid, passed_fd=pidfd)
    if master >= 0:
        channel.send(TERMINAL, passed_fd=master)
    os._exit(0)


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
