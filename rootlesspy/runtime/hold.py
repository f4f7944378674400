"""A process that holds namespaces for others and does nothing else: the core of a pod.

Runs in the child of clone3.  Its own root is an empty tmpfs with the pod's /dev/shm, and nobody may
trace it (SECURITY.md I5); after the pivot it makes system calls only.  As process 1 of a shared PID
namespace it reaps what the members leave.

    holder                              child
      IDS_MAPPED              ──▶         becomes root, mounts
                              ◀──       READY
      PLACED                  ──▶         cannot be traced any more, as the network helper is there
      OPEN                    ──▶         can be again, for a new helper
                              ◀──       READY
"""

from __future__ import annotations

import os

from rootlesspy.light_modules import signal
from rootlesspy.light_typing import NamedTuple, NoReturn
from rootlesspy.linux import mount, process
from rootlesspy.runtime import init, kernel_files, payload, sync
from rootlesspy.runtime.create import FLAGS

OPEN = b"OPEN"
_TMPFS_FLAGS = mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC


class Plan(NamedTuple):
    """All that the child needs, in memory before the fork."""

    place: str
    """An empty directory of the host, on which its root is mounted for a moment."""
    hostname: str
    """Empty: there is no UTS namespace."""
    shm_size_bytes: int
    set_groups: bool
    loopback: bool
    sysctls: tuple[tuple[str, str], ...]


def launch(plan: Plan, kinds: tuple[str, ...]) -> tuple[int, int, sync.Channel]:
    """Fork the child into new namespaces; return its pid, its pidfd and the channel to it."""
    flags = 0
    for kind in kinds:
        flags |= FLAGS[kind]
    ours, theirs = sync.channel_pair()
    pid, pidfd = process.clone3(flags)
    if pid == 0:
        ours.close()
        _run(plan, theirs)
    theirs.close()
    return pid, pidfd, ours


def _run(plan: Plan, channel: sync.Channel) -> NoReturn:
    step = init.Steps(debug=False)
    init.guard(lambda: _hold(plan, channel, step), channel, step)


def _hold(plan: Plan, channel: sync.Channel, step: init.Steps) -> NoReturn:
    step("wait for the id maps")
    channel.expect(sync.IDS_MAPPED)
    # As the caller: root of the namespace may not go there where the caller's ids are not mapped.
    place_fd = os.open(plan.place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    step("become root of the user namespace")
    payload.set_ids(0, 0, () if plan.set_groups else None)
    # Another uid cleared it, and the network helper, which is the caller's, has to look in.
    process.set_dumpable(True)
    process.set_parent_death_signal(signal.SIGKILL)
    os.setsid()
    os.umask(0o022)
    step("make the root")
    mount.mount(None, b"/", None, mount.MS_REC | mount.MS_SLAVE, None)
    root_fd = mount.new_filesystem(b"tmpfs", ((b"mode", b"0755"), (b"size", b"4k")), _TMPFS_FLAGS)
    mount.move_mount(root_fd, place_fd)
    os.mkdir("dev", 0o755, dir_fd=root_fd)
    os.mkdir("dev/shm", 0o755, dir_fd=root_fd)
    shm = mount.new_filesystem(
        b"tmpfs", ((b"mode", b"1777"), (b"size", b"%d" % plan.shm_size_bytes)), _TMPFS_FLAGS
    )
    mount.move_mount(shm, os.open("dev/shm", os.O_PATH | os.O_CLOEXEC, dir_fd=root_fd))
    step("set sysctls")
    host_fd = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    kernel_files.write_sysctls(host_fd, dict(plan.sysctls), {})
    if plan.hostname:
        step("set the host name")
        process.sethostname(os.fsencode(plan.hostname))
    if plan.loopback:
        step("bring the loopback interface up")
        init.bring_loopback_up()
    step("pivot")
    os.fchdir(root_fd)
    mount.pivot_root(b".", b".")
    mount.umount2(b".", mount.MNT_DETACH)
    payload.close_imports()
    os.chdir(b"/")
    os.closerange(3, channel.fileno())
    process.close_from(channel.fileno() + 1)
    channel.send(sync.READY)
    _wait(channel)


def _wait(channel: sync.Channel) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, _ = channel.receive()
        if not message:
            os._exit(0)
        process.set_dumpable(message == OPEN)
        channel.send(sync.READY)
