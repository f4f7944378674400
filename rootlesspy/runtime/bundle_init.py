"""The init of any OCI bundle, for `rp oci`: from a fork to the payload's execve.

Beside runtime.init, which knows exactly what `rp run` needs and is faster.  The hand-shake:

    runtime (create, run)               stage (a fork)
      in its cgroup
      PLACED                  ──▶         joins namespaces that have a path
                              ◀──       MAP_IDS, where a user namespace is new
      IDS_MAPPED              ──▶         makes init, its own sibling
                              ◀──       BORN pid (+ pidfd); the stage ends
                                        init
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
import socket
import stat
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from rootlesspy.linux import mount, pathrs, process
from rootlesspy.runtime import (
    attributes,
    bundle_mounts,
    hooks,
    init,
    namespaces,
    payload,
    rootfs,
    sync,
    user,
)

if TYPE_CHECKING:
    from rootlesspy.oci.runtime_spec import LinuxIDMapping, Process, Spec

PLACED = sync.PLACED
MAP_IDS = b"MAP_IDS"
BORN = b"BORN"
HOOKS = b"HOOKS"
HOOKS_DONE = b"HOOKS_DONE"
START = b"START"

_CAPABILITY_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
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

    step("enter the namespaces")
    namespaces.enter(plan.namespaces, map_ids, lambda: become_root(own_rights()))
    step("make the container's process")
    flags = plan.namespaces.new_flags("user", "time", "cgroup")
    pid, pidfd = process.clone3(flags | process.CLONE_PARENT)
    if pid == 0:
        init.guard(lambda: _run(plan, channel, step), channel, step)
    channel.send(BORN + b" %d" % pid, passed_fd=pidfd)
    os._exit(0)


class Rights(NamedTuple):
    """Which ids a user namespace has, and whether groups can be set in it."""

    uids: list[LinuxIDMapping]
    gids: list[LinuxIDMapping]
    set_groups: bool

    @classmethod
    def read(cls, uid_map: str, gid_map: str, setgroups: str) -> Rights:
        """Read them from files of procfs (user_namespaces(7)).  Raises OSError."""
        with open(setgroups, "rb") as file:
            return cls(id_map(uid_map), id_map(gid_map), file.read().strip() == b"allow")


def own_rights() -> Rights:
    """Return those of the caller's user namespace."""
    return Rights.read("/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups")


def id_map(path: str) -> list[LinuxIDMapping]:
    """Read an id map of procfs as the specification writes one."""
    with open(path, "rb") as file:
        rows = [[int(word) for word in line.split()] for line in file]
    return [{"containerID": row[0], "hostID": row[1], "size": row[2]} for row in rows]


def become_root(rights: Rights) -> None:
    """Take the ids of the user namespace's root, where they are mapped."""
    if rights.set_groups:
        os.setgroups(())
    if _is_mapped(0, rights.gids):
        os.setresgid(0, 0, 0)
    if _is_mapped(0, rights.uids):
        os.setresuid(0, 0, 0)


def _is_mapped(number: int, maps: list[LinuxIDMapping]) -> bool:
    return any(m["containerID"] <= number < m["containerID"] + m["size"] for m in maps)


def _run(plan: Plan, channel: sync.Channel, step: init.Steps) -> NoReturn:
    spec, container_process, linux = plan.spec, plan.spec["process"], plan.spec.get("linux", {})
    os.setsid()
    # Mount points get the modes that they are made with, not the caller's umask.
    os.umask(0o022)
    if "cgroup" in plan.namespaces.new:
        step("make the cgroup namespace")
        process.unshare(process.CLONE_NEWCGROUP)
    step("mount the root file system")
    root_fd = _mount_root(plan)
    step("mount")
    own_cgroups = "cgroup" in plan.namespaces.inside
    mounts = spec.get("mounts", [])
    bundle_mounts.mount_all(root_fd, mounts, plan.bundle, cgroup_namespace=own_cgroups)
    step("make devices")
    bundle_mounts.add_devices(root_fd, linux.get("devices", []), mounts)
    step("make the terminal")
    master, slave = init.open_terminal(root_fd, container_process)
    step("look up the user")
    rights = own_rights()
    who = identity(root_fd, container_process, rights)
    step("find the working directory")
    make_working_directory(root_fd, container_process["cwd"])
    step("set the host name")
    _set_names(spec)
    if "network" in plan.namespaces.new:
        step("bring the loopback interface up")
        init.bring_loopback_up()
    attributes.apply(container_process, linux.get("personality"), step)

    step("wait for the hooks")
    channel.send(HOOKS)
    pid = _receive_pid(channel)
    step("run createContainer hooks")
    os.chdir("/")
    hooks.run_all(plan.create_container, pid.join(plan.creating))
    step("set sysctls")
    # After the hooks, which may have brought the interfaces that they are about.
    rootfs.write_sysctls(root_fd, linux.get("sysctl", {}))
    step("mask paths")
    rootfs.mask(root_fd, linux.get("maskedPaths", []))
    step("make paths read-only")
    rootfs.make_read_only(root_fd, linux.get("readonlyPaths", []))
    if spec["root"].get("readonly"):
        step("make the root file system read-only")
        mount.mount_setattr(root_fd, set_flags=mount.MOUNT_ATTR_RDONLY)
    if not plan.no_new_keyring:
        step("make a session keyring")
        init.new_keyring()
    step("give away the standard streams")
    give_streams(who)
    prepared = prepare(container_process, who, rights, program=plan.filter)
    prepared = prepared._replace(
        inherited_fds=plan.preserve_fds,
        filter_flags=plan.filter_flags,
        notify_fd=plan.notify_fd,
        notify_message=pid.join(plan.notify_message),
    )
    step("pivot")
    _change_root(plan, root_fd)
    _wait_for_start(plan, prepared, channel, step, (master, slave), pid)


def identity(root_fd: int, container_process: Process, rights: Rights) -> user.User:
    """Return who a process is to be.  Raises UserLookupError for what it cannot be."""
    wanted = container_process["user"]
    uid, gid = wanted["uid"], wanted["gid"]
    additional = tuple(wanted.get("additionalGids", ()))
    if additional and not rights.set_groups:
        raise user.UserLookupError(
            errno.EPERM, "additional groups cannot be set: /proc/self/setgroups says deny"
        )
    try:
        home = user.resolve(root_fd, str(uid), ()).home
    except user.UserLookupError:
        home = "/"
    who = user.User(uid, gid, additional, home)
    everything = who._replace(additional_gids=(gid, *additional))
    user.check_mapped(everything, rights.uids, rights.gids)
    return who


def prepare(
    container_process: Process, who: user.User, rights: Rights, *, program: bytes | None
) -> payload.Prepared:
    """Encode a process with its five capability sets as they are written.

    It outlives the runtime, so that no death signal is set.
    """
    prepared = payload.prepare(
        container_process, who, set_groups=rights.set_groups, program=program
    )
    given = container_process.get("capabilities", {})
    sets = {
        name: list(given.get(name, []))  # type: ignore[call-overload]  # the five literal keys
        for name in _CAPABILITY_SETS
    }
    return prepared._replace(capabilities=sets, parent_death_signal=0)


def make_working_directory(root_fd: int, cwd: str) -> None:
    """Make a working directory that is missing, where the root file system lets us."""
    try:
        os.close(pathrs.make_directories(root_fd, cwd))
    except OSError:
        # Whether it can be entered is seen when the payload enters it.
        return


def give_streams(who: user.User) -> None:
    """Let the payload's user open /dev/stdout and the like, where the streams can be given away."""
    for number in (0, 1, 2):
        status = os.fstat(number)
        if status.st_uid == who.uid or stat.S_ISREG(status.st_mode) or _is_null(status):
            continue
        try:
            os.fchown(number, who.uid, -1)
        except OSError as error:
            # Another user's terminal, a socket, a read-only file system: it stays as it is.
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EROFS, errno.ENOSYS):
                raise


def _is_null(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


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


def _receive_pid(channel: sync.Channel) -> bytes:
    message, _ = channel.receive()
    word, _, pid = message.partition(b" ")
    if word != HOOKS_DONE:
        # The runtime is gone.
        raise sync.FailedError(sync.Failed("hand-shake", errno.EPIPE, "", ""))
    return pid


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
    pid: bytes,
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
    init.guard(lambda: _become(plan, prepared, starter, step, pty[1], pid), starter, step)


def _become(
    plan: Plan,
    prepared: payload.Prepared,
    starter: sync.Channel,
    step: init.Steps,
    slave: int,
    pid: bytes,
) -> NoReturn:
    starter.expect(START)
    process.set_dumpable(False)
    step("run startContainer hooks")
    hooks.run_all(plan.start_container, pid.join(plan.created))
    attributes.schedule(plan.spec["process"], step)
    payload.become(prepared, step, slave)


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
