"""The container's init: from a fresh process in new namespaces to the payload's execve.

Runs in the child of clone3.  One linear story, a call per line; comments say why the order is as it
is.  Everything it needs is in the Plan, made before the fork.  After the pivot (`_become_payload`)
only system calls through already loaded functions: no import, no file opened by name, no codec, as
whatever is found there belongs to the image (SECURITY.md I4).
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import stat
import time

from rootlesspy.light_modules import signal, socket, struct
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, NoReturn
from rootlesspy.linux import mount, pathrs, process
from rootlesspy.runtime import kernel_files, payload, rootfs, sources, sync, terminal, user

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.oci.runtime_spec import Spec
    from rootlesspy.runtime.hooks import Inside
    from rootlesspy.runtime.landlock import Rules


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
    is_outsider: bool = False
    """The caller's own ids are not mapped: what is the caller's is closed to root of the container.
    """
    volumes_directory: str = ""
    """Where rp keeps volumes: no link is followed there."""
    shm_fd: int = -1
    """A detached mount for /dev/shm, of the container that the IPC namespace belongs to."""
    hooks: Inside | None = None
    landlock: Rules | None = None
    """What the payload may do with files and TCP, where that was said."""
    began_ns: int = 0
    """Report what each step took, from this time on CLOCK_MONOTONIC; 0: do not."""


_ROOTS = {each.__name__: each for each in (rootfs.Overlay, rootfs.FuseOverlay, rootfs.Directory)}


class Steps:
    """The name of the step under way, for the report when it fails.

    debug: announce each step.  began_ns: unless 0, when the command began on CLOCK_MONOTONIC, to
    print each step with what it took.
    """

    def __init__(self, *, debug: bool, began_ns: int = 0) -> None:
        self.name = "start"
        self._debug = debug
        self._began_ns = began_ns
        self._step_ns = time.monotonic_ns()

    def __call__(self, name: str) -> None:
        if self._began_ns:
            now_ns = time.monotonic_ns()
            at_ms = (self._step_ns - self._began_ns) / 1e6
            took_ms = (now_ns - self._step_ns) / 1e6
            self._step_ns = now_ns
            text = f"rp: timing: {at_ms:8.1f} ms +{took_ms:7.1f}  init: {self.name}\n"
            os.write(2, text.encode())
        self.name = name
        if self._debug:
            os.write(2, b"rp: debug: init: " + name.encode() + b"\n")


def run(plan: Plan | None, channel: sync.Channel) -> NoReturn:
    """Become the payload, or report why not over the channel and die.

    Without a plan the supervisor is waited for, who sends it.
    """
    step = Steps(debug=False)
    guard(lambda: _run_planned(*_await_maps(plan, channel), channel), channel, step)


def _await_maps(plan: Plan | None, channel: sync.Channel) -> tuple[Plan, int]:
    """Wait until the id maps are written; return what to do, and the mount of a FuseOverlay or -1.

    Until then nothing is known of a container that begins early, but its network's device.
    """
    if plan is None:
        # Who made it may be gone before it has anything to say.
        process.set_parent_death_signal(signal.SIGKILL)
    while True:
        message, fd = channel.receive()
        if message.startswith(sync.MAKE_TAP):
            _make_tap(os.fsdecode(message.removeprefix(sync.MAKE_TAP)), channel)
        elif message in (sync.PLAN, sync.PLAN_MAPPED):
            plan, fd = unpack(fd), -1
        if plan is not None and message in (sync.IDS_MAPPED, sync.PLAN_MAPPED):
            return plan, fd
        if not message:
            raise sync.FailedError(sync.Failed("hand-shake", errno.EPIPE, "", ""))


def _make_tap(name: str, channel: sync.Channel) -> None:
    """Make the network device to which the helper attaches: one of its own ends with it.

    For that the kernel waits for each of its processors, some 20 ms; this one ends with the
    namespace, when nobody waits.
    """
    from rootlesspy.linux import tun

    try:
        tun.make_tap(name)
    except OSError:
        # The helper makes one, or says why it cannot.
        channel.send(sync.NO_TAP)
    else:
        channel.send(sync.TAP)


def _run_planned(plan: Plan, fuse_fd: int, channel: sync.Channel) -> NoReturn:
    step = Steps(debug=plan.debug, began_ns=plan.began_ns)
    guard(lambda: _run(plan, fuse_fd, channel, step), channel, step)


def pack(plan: Plan) -> int:
    """Write a plan without hooks and Landlock rules to a file in memory; return its descriptor."""
    fields = plan._asdict()
    fields["root"] = (type(plan.root).__name__, *plan.root)
    fd = os.memfd_create("plan", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(marshal.dumps(fields))
    return fd


def unpack(fd: int) -> Plan:
    """Read what pack() wrote.  Raises OSError."""
    with open(fd, "rb") as file:
        file.seek(0)
        # Of the supervisor's own making, over a channel that nobody else has.
        fields = marshal.loads(file.read())  # noqa: S302
    kind, *parts = fields["root"]
    fields["root"] = _ROOTS[kind](*parts)
    return Plan(**fields)


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


def _run(plan: Plan, fuse_fd: int, channel: sync.Channel, step: Steps) -> NoReturn:
    spec, container_process, linux = plan.spec, plan.spec["process"], plan.spec["linux"]
    if not plan.owns_root:
        # systemd moves only a process that still has the caller's uid (before v258).
        step("wait to be placed in the scope")
        channel.expect(sync.PLACED)
    # As the caller, and with all rights over the container's ids: root of it may have fewer.
    step("mount the root file system")
    root_parts = rootfs.open_root(plan.root)
    step("mount")
    opened = sources.open_all(spec["mounts"], plan.volumes_directory)
    if plan.own_stdio and plan.is_outsider:
        _share_stdio()
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
    if not (plan.owns_root or plan.is_outsider):
        rootfs.own(plan.root)
    root_fd = rootfs.mount_root(plan.root, plan.merged, fuse_fd, root_parts)
    step("mount")
    trees = rootfs.mount_all(root_fd, spec["mounts"], opened)
    for fd in opened.values():
        os.close(fd)
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
    kernel_files.write_sysctls(root_fd, linux.get("sysctl", {}), trees)
    if plan.own_uts:
        step("set the host name")
        process.sethostname(os.fsencode(spec.get("hostname", "")))
    if plan.loopback:
        step("bring the loopback interface up")
        bring_loopback_up()

    if plan.owns_root:
        step("wait to be placed in the scope")
        channel.expect(sync.PLACED)
    if plan.hooks is not None:
        _run_hooks(plan.hooks, channel, step)
    if container_process.get("apparmorProfile"):
        from rootlesspy.runtime import attributes

        step("set the AppArmor profile")
        # Files of a process that is not dumpable are not its own to write.
        attributes.confine(container_process["apparmorProfile"])
    # The id maps are written and the network helper has what it needs: from here on nobody may
    # trace this process or open its files in /proc (SECURITY.md I5).
    process.set_dumpable(False)
    if any(each["type"] == "cgroup" for each in linux["namespaces"]):
        step("make the cgroup namespace")
        # After the scope, so that the container sees its own cgroup as the root.
        process.unshare(process.CLONE_NEWCGROUP)
    step("mount cgroup")
    rootfs.mount_cgroup(root_fd, spec["mounts"])
    step("mask paths")
    kernel_files.mask(root_fd, linux.get("maskedPaths", []), trees)
    step("make paths read-only")
    kernel_files.make_read_only(root_fd, linux.get("readonlyPaths", []), trees)
    if spec["root"].get("readonly"):
        step("make the root file system read-only")
        # Last of the mounts: their mount points had to be made.
        mount.mount_setattr(root_fd, set_flags=mount.MOUNT_ATTR_RDONLY)
    step("make a session keyring")
    payload.leave_keyring()
    if plan.own_stdio and not plan.is_outsider:
        step("give away the standard streams")
        _own_stdio(who)
    prepared = payload.prepare(
        container_process, who, set_groups=plan.set_groups, program=plan.filter
    )._replace(inherited_fds=plan.listen_fds)
    if plan.hooks is not None and plan.hooks.start_container:
        prepared = prepared._replace(start_hooks=plan.hooks.start)
    if plan.landlock is not None:
        step("make the Landlock rules")
        prepared = prepared._replace(confine=_landlock(root_fd, plan.landlock, channel))
    step("pivot")
    os.fchdir(root_fd)
    mount.pivot_root(b".", b".")
    mount.umount2(b".", mount.MNT_DETACH)
    _become_payload(prepared, channel, step, master, slave)


def _run_hooks(hooks: Inside, channel: sync.Channel, step: Steps) -> None:
    """Let the hooks outside run, then those that see the container's mounts and the host's."""
    step("wait for the hooks")
    # Those outside enter the namespaces by this process, as nsenter(1) does.
    process.set_dumpable(hooks.traceable)
    channel.send(sync.HOOKS)
    channel.expect(sync.HOOKS_DONE)
    step("run the createContainer hook")
    os.chdir(b"/")
    hooks.create()


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


def _landlock(root_fd: int, rules: Rules, channel: sync.Channel) -> Callable[[], None]:
    """Make the ruleset, pass it on for processes that join later, and return what applies it."""
    from rootlesspy.linux import landlock
    from rootlesspy.runtime.landlock import make_ruleset

    ruleset_fd = make_ruleset(root_fd, rules)
    channel.send(sync.RULESET, passed_fd=ruleset_fd)
    return lambda: landlock.restrict_self(ruleset_fd)


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


def _share_stdio() -> None:
    """Do the same where root may not: the pipes are reached through processes of its own alone."""
    for number in (0, 1, 2):
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            os.fchmod(number, 0o666)


def bring_loopback_up() -> None:
    """Set the loopback interface of this network namespace up."""
    # netdevice(7): struct ifreq with the flags IFF_UP | IFF_RUNNING; SIOCSIFFLAGS.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
