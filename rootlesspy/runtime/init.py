"""The container's init: from a fresh process in new namespaces to the payload's execve.

Runs in the child of clone3.  One linear story, a call per line; comments say why the order is as it
is.  Everything it needs is in the Plan, made before the fork.  After the pivot (`_become_payload`)
only system calls through already loaded functions: no import, no file opened by name, no codec, as
whatever is found there belongs to the image (SECURITY.md I4).
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from rootlesspy.linux import mount, pathrs, process
from rootlesspy.runtime import payload, rootfs, sync, terminal, user

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.oci.runtime_spec import Spec


class Plan(NamedTuple):
    """All that init needs, in memory before the fork."""

    spec: Spec
    root: rootfs.Overlay | rootfs.FuseOverlay | rootfs.Directory
    merged: str
    """Where an overlay is mounted, in the bundle."""
    user: str
    """Who the payload is, as in --user; resolved in the image's passwd and group."""
    group_add: tuple[str, ...]
    make_cwd: bool
    """The working directory comes from the image: make it when it is missing."""
    owns_root: bool
    """Root of the container is the caller's own uid, which may be moved to a scope as it is."""
    set_groups: bool
    """The gid map was written by newgidmap, so that setgroups(2) is allowed."""
    loopback: bool
    """Bring the loopback interface up: no network helper does it."""
    filter: bytes | None
    """The compiled seccomp program."""
    own_stdio: bool
    """Its stdin, stdout and stderr are pipes of the supervisor's, to be given to the user."""
    debug: bool
    listen_fds: int = 0
    """How many descriptors from 3 on are for the payload."""
    own_uts: bool = True
    """The host name is the container's own to set."""
    shm_fd: int = -1
    """A detached mount for /dev/shm, of the container that the IPC namespace belongs to."""


class Steps:
    """The name of the step under way, for the report when it fails."""

    def __init__(self, *, debug: bool) -> None:
        self.name = "start"
        self._debug = debug

    def __call__(self, name: str) -> None:
        self.name = name
        if self._debug:
            os.write(2, b"rp: debug: init: " + name.encode() + b"\n")


def run(plan: Plan, channel: sync.Channel) -> NoReturn:
    """Become the payload, or report why not over the channel and die."""
    step = Steps(debug=plan.debug)
    guard(lambda: _run(plan, channel, step), channel, step)


def guard(story: Callable[[], object], channel: sync.Channel, step: Steps) -> NoReturn:
    """Run a child's story, which ends in execve; report its failure over the channel and die."""
    try:
        story()
    except sync.FailedError:
        # The other side is gone or gave up: there is nobody to tell.
        pass
    except OSError as error:
        name = error.filename
        path = os.fsdecode(name) if isinstance(name, (str, bytes)) else ""
        failed = sync.Failed(step.name, error.errno or errno.EIO, path, error.strerror or "")
        channel.send_failure(failed)
    except BaseException as error:  # noqa: BLE001 - the child's last line
        text = f"{type(error).__name__}: {error}"
        channel.send_failure(sync.Failed(step.name, 0, "", text))
    finally:
        os._exit(125)


def _run(plan: Plan, channel: sync.Channel, step: Steps) -> NoReturn:
    spec, container_process, linux = plan.spec, plan.spec["process"], plan.spec["linux"]
    step("wait for the id maps")
    fuse_fd = channel.expect(sync.IDS_MAPPED)
    if not plan.owns_root:
        # systemd moves only a process that still has the caller's uid (before v258).
        step("wait to be placed in the scope")
        channel.expect(sync.PLACED)
    step("become root of the user namespace")
    payload.set_ids(0, 0, () if plan.set_groups else None)
    # After the ids, as changing them clears the signal.
    process.set_parent_death_signal(signal.SIGKILL)
    os.setsid()
    # Mount points and the working directory get the modes that they are made with, not the
    # supervisor's 0700, which would shut other users of the container out.
    os.umask(0o022)

    step("let no mount out")
    # Slave, not private: what the host mounts below an rslave volume is to appear in it.
    mount.mount(None, b"/", None, mount.MS_REC | mount.MS_SLAVE, None)
    step("mount the root file system")
    if not plan.owns_root:
        rootfs.own(plan.root)
    root_fd = rootfs.mount_root(plan.root, plan.merged, fuse_fd)
    step("mount")
    rootfs.mount_all(root_fd, spec["mounts"])
    if plan.shm_fd >= 0:
        mount.move_mount(plan.shm_fd, pathrs.make_directories(root_fd, "dev/shm"))
    step("make devices")
    rootfs.add_devices(root_fd)
    step("make the terminal")
    master, slave = open_terminal(root_fd, container_process)
    step("look up the user")
    who = user.resolve(root_fd, plan.user, plan.group_add)
    if linux.get("uidMappings"):
        # With a single id no supplementary group is set, so none has to be mapped.
        wanted = who if plan.set_groups else who._replace(additional_gids=(who.gid,))
        user.check_mapped(wanted, linux["uidMappings"], linux.get("gidMappings", ()))
    step("find the working directory")
    cwd = container_process["cwd"]
    if plan.make_cwd:
        os.close(pathrs.make_directories(root_fd, cwd))
    step("set sysctls")
    rootfs.write_sysctls(root_fd, linux.get("sysctl", {}))
    if plan.own_uts:
        step("set the host name")
        process.sethostname(os.fsencode(spec.get("hostname", "")))
    if plan.loopback:
        step("bring the loopback interface up")
        bring_loopback_up()

    if plan.owns_root:
        step("wait to be placed in the scope")
        channel.expect(sync.PLACED)
    # The id maps are written and the network helper has what it needs: from here on nobody may
    # trace this process or open its files in /proc (SECURITY.md I5).
    process.set_dumpable(False)
    step("make the cgroup namespace")
    # After the scope, so that the container sees its own cgroup as the root.
    process.unshare(process.CLONE_NEWCGROUP)
    step("mount cgroup")
    rootfs.mount_cgroup(root_fd, spec["mounts"])
    step("mask paths")
    rootfs.mask(root_fd, linux.get("maskedPaths", []))
    step("make paths read-only")
    rootfs.make_read_only(root_fd, linux.get("readonlyPaths", []))
    if spec["root"].get("readonly"):
        step("make the root file system read-only")
        # Last of the mounts: their mount points had to be made.
        mount.mount_setattr(root_fd, set_flags=mount.MOUNT_ATTR_RDONLY)
    step("make a session keyring")
    new_keyring()
    if plan.own_stdio:
        step("give away the standard streams")
        _own_stdio(who)
    prepared = payload.prepare(
        container_process, who, set_groups=plan.set_groups, program=plan.filter
    )._replace(inherited_fds=plan.listen_fds)
    step("pivot")
    os.fchdir(root_fd)
    mount.pivot_root(b".", b".")
    mount.umount2(b".", mount.MNT_DETACH)
    _become_payload(prepared, channel, step, master, slave)


def _become_payload(
    prepared: payload.Prepared, channel: sync.Channel, step: Steps, master: int, slave: int
) -> NoReturn:
    """Everything after the pivot: system calls only."""
    payload.close_imports()
    step("change to the working directory")
    os.chdir(b"/")
    step("get ready")
    channel.send(sync.READY, passed_fd=master)
    channel.expect(sync.EXEC)
    payload.become(prepared, step, slave)


def open_terminal(
    root_fd: int, container_process: Mapping[str, object], *, console: bool = True
) -> tuple[int, int]:
    """Make the terminal that a process asks for; return (master, slave), -1 without.

    console: it becomes /dev/console too, as that of the container's first process.
    """
    if not container_process.get("terminal"):
        return -1, -1
    size = container_process.get("consoleSize")
    rows, columns = (size["height"], size["width"]) if isinstance(size, dict) else (0, 0)
    master, slave = terminal.open_pty(root_fd, rows, columns)
    if console:
        terminal.bind_console(root_fd, slave)
    return master, slave


def _own_stdio(who: user.User) -> None:
    """Let the payload's user open /dev/stdout and the like, which are pipes of the supervisor's."""
    for number in (0, 1, 2):
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            os.fchown(number, who.uid, who.gid)


def new_keyring() -> None:
    """Leave the caller's session keyring behind."""
    try:
        process.join_new_session_keyring()
    except OSError as error:
        # No keyrings in this kernel, or refused by an outer seccomp filter: none to inherit.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise


def bring_loopback_up() -> None:
    """Set the loopback interface of this network namespace up."""
    # netdevice(7): struct ifreq with the flags IFF_UP | IFF_RUNNING; SIOCSIFFLAGS.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
