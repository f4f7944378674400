"""The init of any OCI bundle, for `rp oci`: from a fork to the payload's execve.

Beside runtime.init, which knows exactly what `rp run` needs and is faster.  The hand-shake:

    runtime (create, run)               stage (a fork)
      in its cgroup
      PLACED                  ──▶         joins namespaces that have a path
                              ◀──       MAP_IDS, where a user namespace is new
      IDS_MAPPED              ──▶         makes init, its own sibling
                              ◀──       BORN pid (+ pidfd); the stage ends
                                        init
      DEVICES, where there are network devices
                              ──▶         addresses
                                          mounts, devices, terminal
                              ◀──       HOOKS
      prestart, createRuntime
      HOOKS_DONE pid          ──▶         createContainer, pivot
                              ◀──       READY (+ the pty's master)
      state.json; the runtime is gone, init waits on the socket `start`
    runtime (start)
      START                   ──▶         startContainer, ids, capabilities, seccomp, execve
                              ◀──       end of file, or FAILED

Nothing ties init to the runtime's life once it is ready: its parent is whoever adopts it.
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.light_modules import socket
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, NoReturn
from rootlesspy.linux import mount, process
from rootlesspy.runtime import (
    attributes,
    bundle_mounts,
    bundle_process,
    hooks,
    init,
    kernel_files,
    namespaces,
    payload,
    rootfs,
    sync,
)

if TYPE_CHECKING:
    from rootlesspy.oci.runtime_spec import Spec

PLACED = sync.PLACED
MAP_IDS = b"MAP_IDS"
BORN = b"BORN"
DEVICES = b"DEVICES"
HOOKS = b"HOOKS"
HOOKS_DONE = b"HOOKS_DONE"
START = b"START"

_PROPAGATION = {
    "shared": mount.MS_SHARED,
    "slave": mount.MS_SLAVE,
    "private": mount.MS_PRIVATE,
    "unbindable": mount.MS_UNBINDABLE,
}


class Plan(NamedTuple):
    """All that the stage and init need, in memory before the fork."""

    spec: Spec
    bundle: str
    root: str
    """Host path of the root file system."""
    namespaces: namespaces.Namespaces
    start_fd: int
    """The listening socket `start`."""
    filter: bytes | None
    filter_flags: int
    notify_fd: int
    notify_message: tuple[bytes, ...]
    """What seccomp's agent is told, cut where the container's pid belongs; so the next two."""
    creating: tuple[bytes, ...]
    """State for createContainer."""
    created: tuple[bytes, ...]
    """State for startContainer."""
    create_container: tuple[hooks.Prepared, ...]
    start_container: tuple[hooks.Prepared, ...]
    no_pivot: bool
    no_new_keyring: bool
    preserve_fds: int
    debug: bool


def run_stage(plan: Plan, channel: sync.Channel) -> NoReturn:
    """Enter the namespaces, make init, and die; or report why not."""
    step = init.Steps(debug=plan.debug)
    init.guard(lambda: _stage(plan, channel, step), channel, step)


def _stage(plan: Plan, channel: sync.Channel, step: init.Steps) -> None:
    step("wait to be placed in the cgroup")
    channel.expect(PLACED)

    def map_ids() -> None:
        step("wait for the id maps")
        channel.send(MAP_IDS)
        channel.expect(sync.IDS_MAPPED)

    def become_root() -> None:
        bundle_process.become_root(bundle_process.own_rights())

    step("enter the namespaces")
    namespaces.enter(
        plan.namespaces, map_ids, lambda: bundle_process.become_root(bundle_process.own_rights())
    )
    step("make the container's process")
    flags = plan.namespaces.new_flags("user", "time", "cgroup")
    pid, pidfd = process.clone3(flags | process.CLONE_PARENT)
    if pid == 0:
        init.guard(lambda: _run(plan, channel, step), channel, step)
    channel.send(BORN + b" %d" % pid, passed_fd=pidfd)
    os._exit(0)


class _Tree(NamedTuple):
    """The container's file system, made and not yet entered."""

    root_fd: int
    kernel: dict[str, int]
    """What bundle_mounts.mount_all() returns."""
    master: int
    slave: int


def _run(plan: Plan, channel: sync.Channel, step: init.Steps) -> NoReturn:
    container_process = plan.spec["process"]
    os.setsid()
    # Mount points get the modes that they are made with, not the caller's umask.
    os.umask(0o022)
    if plan.spec.get("linux", {}).get("netDevices"):
        from rootlesspy.runtime import net_devices

        step("set the network devices up")
        net_devices.configure(_receive(channel, DEVICES))
    tree = _build(plan, step)
    step("look up the user")
    rights = bundle_process.own_rights()
    who = bundle_process.identity(tree.root_fd, container_process, rights)
    step("find the working directory")
    bundle_process.make_working_directory(tree.root_fd, container_process["cwd"])
    step("set the host name")
    _set_names(plan.spec)
    if "network" in plan.namespaces.new:
        step("bring the loopback interface up")
        init.bring_loopback_up()
    attributes.apply(container_process, plan.spec.get("linux", {}), step)
    pid = _wait_for_hooks(plan, channel, step)
    _seal(plan, tree, step)
    step("give away the standard streams")
    bundle_process.give_streams(who)
    prepared = bundle_process.prepare(container_process, who, rights, program=plan.filter)
    prepared = prepared._replace(
        inherited_fds=plan.preserve_fds,
        filter_flags=plan.filter_flags,
        notify_fd=plan.notify_fd,
        notify_message=pid.join(plan.notify_message),
    )
    if plan.start_container:
        prepared = prepared._replace(start_hooks=lambda: _start_hooks(plan))
    step("pivot")
    _change_root(plan, tree.root_fd)
    _wait_for_start(plan, prepared, channel, step, (tree.master, tree.slave))


def _build(plan: Plan, step: init.Steps) -> _Tree:
    """Mount everything, make devices and the terminal."""
    linux, mounts = plan.spec.get("linux", {}), plan.spec.get("mounts", [])
    if "cgroup" in plan.namespaces.new:
        step("make the cgroup namespace")
        process.unshare(process.CLONE_NEWCGROUP)
    step("mount the root file system")
    root_fd = _mount_root(plan)
    step("mount")
    own_cgroups = "cgroup" in plan.namespaces.inside
    kernel = bundle_mounts.mount_all(root_fd, mounts, plan.bundle, cgroup_namespace=own_cgroups)
    step("make devices")
    bundle_mounts.add_devices(root_fd, linux.get("devices", []), mounts)
    step("make the terminal")
    master, slave = init.open_terminal(root_fd, plan.spec["process"])
    return _Tree(root_fd, kernel, master, slave)


def _wait_for_hooks(plan: Plan, channel: sync.Channel, step: init.Steps) -> bytes:
    """Let the runtime run its hooks, then run createContainer's; return the pid outside."""
    step("wait for the hooks")
    channel.send(HOOKS)
    pid = _receive(channel, HOOKS_DONE)
    step("run the createContainer hook")
    os.chdir("/")
    # As the container sees it (runtime-spec, state), and not the number that pid is outside.
    own_pid = b"%d" % os.getpid()
    hooks.run_all(plan.create_container, own_pid.join(plan.creating))
    return pid


def _seal(plan: Plan, tree: _Tree, step: init.Steps) -> None:
    """Take away what the payload is not to reach; after the hooks, which may still need it."""
    linux = plan.spec.get("linux", {})
    step("set sysctls")
    # They may have brought the interfaces that these are about.
    kernel_files.write_sysctls(tree.root_fd, linux.get("sysctl", {}), tree.kernel)
    step("mask paths")
    kernel_files.mask(tree.root_fd, linux.get("maskedPaths", []), tree.kernel)
    step("make paths read-only")
    kernel_files.make_read_only(tree.root_fd, linux.get("readonlyPaths", []), tree.kernel)
    if plan.spec["root"].get("readonly"):
        step("make the root file system read-only")
        mount.mount_setattr(tree.root_fd, set_flags=mount.MOUNT_ATTR_RDONLY)
    if not plan.no_new_keyring:
        step("make a session keyring")
        payload.leave_keyring(payload.KEY_OWNERS if "user" in plan.namespaces.new else range(0))


def _mount_root(plan: Plan) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    if "mount" not in plan.namespaces.new:
        # In a namespace of somebody else nothing but the container's own mounts is touched.
        return os.open(plan.root, flags)
    wanted = plan.spec.get("linux", {}).get("rootfsPropagation", "")
    # Slave as runc and crun: an unmount on the host reaches in, no mount of ours gets out.
    first = mount.MS_SLAVE if wanted.removeprefix("r") != "private" else mount.MS_PRIVATE
    mount.mount(None, b"/", None, mount.MS_REC | first, None)
    return rootfs.mount_root(rootfs.Directory(plan.root), "")


def _set_names(spec: Spec) -> None:
    if spec.get("hostname"):
        process.sethostname(os.fsencode(spec["hostname"]))
    if spec.get("domainname"):
        process.setdomainname(os.fsencode(spec["domainname"]))


def _receive(channel: sync.Channel, wanted: bytes) -> bytes:
    """Wait for a message that begins with a word; return what follows."""
    message, _ = channel.receive()
    word, _, rest = message.partition(b" ")
    if word != wanted:
        # The runtime is gone.
        raise sync.FailedError(sync.Failed("hand-shake", errno.EPIPE, "", ""))
    return rest


def _change_root(plan: Plan, root_fd: int) -> None:
    os.fchdir(root_fd)
    if "mount" not in plan.namespaces.new:
        os.chroot(b".")
    elif plan.no_pivot:
        mount.mount(b".", b"/", None, mount.MS_MOVE, None)
        os.chroot(b".")
    else:
        mount.pivot_root(b".", b".")
        mount.umount2(b".", mount.MNT_DETACH)
    os.chdir(b"/")
    wanted = plan.spec.get("linux", {}).get("rootfsPropagation", "")
    if wanted and "mount" in plan.namespaces.new:
        flag = _PROPAGATION.get(wanted) or _PROPAGATION[wanted[1:]]
        mount.mount_setattr(root_fd, propagation=flag, recursive=wanted not in _PROPAGATION)


def _wait_for_start(
    plan: Plan,
    prepared: payload.Prepared,
    channel: sync.Channel,
    step: init.Steps,
    pty: tuple[int, int],
) -> NoReturn:
    """Everything after the pivot: system calls only, until `start` says so."""
    payload.close_imports()
    if "pid" not in plan.namespaces.new:
        # Others are in the PID namespace and may not trace this process while it waits.
        process.set_dumpable(False)
    step("find the executable")
    find_executable(prepared)
    step("get ready")
    listener = socket.socket(fileno=plan.start_fd)
    channel.send(sync.READY, passed_fd=pty[0])
    if pty[0] >= 0:
        # Only whoever got it by READY holds the master: its end is the end of the terminal.
        os.close(pty[0])
    channel.close()
    connection, _ = listener.accept()
    listener.close()
    starter = sync.Channel(connection)
    init.guard(lambda: _become(plan, prepared, starter, step, pty[1]), starter, step)


def _become(
    plan: Plan,
    prepared: payload.Prepared,
    starter: sync.Channel,
    step: init.Steps,
    slave: int,
) -> NoReturn:
    starter.expect(START)
    process.set_dumpable(False)
    attributes.schedule(plan.spec["process"], step)
    payload.become(prepared, step, slave)


def _start_hooks(plan: Plan) -> None:
    state = (b"%d" % os.getpid()).join(plan.created)
    hooks.run_all(plan.start_container, state, closed=range(3, 3 + plan.preserve_fds))


def find_executable(prepared: payload.Prepared) -> None:
    """Look for the command before anybody relies on it.  Raises OSError with its name."""
    refused = False
    for path in prepared.candidates:
        try:
            status = os.stat(path)
        except OSError as error:
            refused = refused or error.errno == errno.EACCES
            continue
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o111:
            return
        refused = True
    number = errno.EACCES if refused else errno.ENOENT
    raise OSError(number, os.strerror(number), prepared.arguments[0])
