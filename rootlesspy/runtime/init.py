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
import resource
import signal
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from rootlesspy.linux import mount, pathrs, process
from rootlesspy.runtime import caps, rootfs, seccomp, sync, terminal, user

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.oci.runtime_spec import Spec

_SIGNALS = 64
_DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_FOUND = frozenset((errno.ENOENT, errno.ENOTDIR))


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


class _Steps:
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
    step = _Steps(debug=plan.debug)
    try:
        _run(plan, channel, step)
    except sync.FailedError:
        # The supervisor is gone or gave up: there is nobody to tell.
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


def _run(plan: Plan, channel: sync.Channel, step: _Steps) -> NoReturn:
    spec, container_process, linux = plan.spec, plan.spec["process"], plan.spec["linux"]
    step("wait for the id maps")
    fuse_fd = channel.expect(sync.IDS_MAPPED)
    if not plan.owns_root:
        # systemd moves only a process that still has the caller's uid (before v258).
        step("wait to be placed in the scope")
        channel.expect(sync.PLACED)
    step("become root of the user namespace")
    _set_ids(0, 0, () if plan.set_groups else None)
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
    step("make devices")
    rootfs.add_devices(root_fd)
    step("make the terminal")
    master, slave = _open_terminal(root_fd, container_process)
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
    step("set the host name")
    process.sethostname(os.fsencode(spec.get("hostname", "")))
    if plan.loopback:
        step("bring the loopback interface up")
        _bring_loopback_up()

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
    _new_keyring()
    if plan.own_stdio:
        step("give away the standard streams")
        _own_stdio(who)
    prepared = _prepare(plan, container_process, who)
    step("pivot")
    os.fchdir(root_fd)
    mount.pivot_root(b".", b".")
    mount.umount2(b".", mount.MNT_DETACH)
    _become_payload(prepared, channel, step, master, slave)


class _Prepared(NamedTuple):
    """What the last steps need, encoded: nothing is computed after the pivot."""

    who: user.User
    groups: tuple[int, ...] | None
    arguments: list[bytes]
    environment: dict[bytes, bytes]
    candidates: list[bytes]
    cwd: bytes
    capabilities: dict[str, list[str]]
    rlimits: list[tuple[int, tuple[int, int]]]
    no_new_privileges: bool
    umask: int
    filter: bytes | None


def _prepare(plan: Plan, container_process: Mapping[str, object], who: user.User) -> _Prepared:
    spec_process = plan.spec["process"]
    environment: dict[bytes, bytes] = {}
    for entry in spec_process.get("env", []):
        key, _, value = os.fsencode(entry).partition(b"=")
        environment[key] = value
    environment.setdefault(b"HOME", os.fsencode(who.home))
    arguments = [os.fsencode(argument) for argument in spec_process["args"]]
    given = spec_process.get("capabilities", {})
    capabilities = {
        name: list(given.get(name, []))  # type: ignore[call-overload]  # the five literal keys
        for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    if who.uid == 0:
        # Root gains what it holds from the bounding set; inheritable stays empty (CVE-2022-24769).
        capabilities["inheritable"] = capabilities["ambient"] = []
    else:
        capabilities["effective"] = capabilities["permitted"] = capabilities["ambient"]
    return _Prepared(
        who=who,
        groups=who.additional_gids if plan.set_groups else None,
        arguments=arguments,
        environment=environment,
        candidates=_candidates(arguments[0], environment.get(b"PATH", _DEFAULT_PATH)),
        cwd=os.fsencode(spec_process["cwd"]),
        capabilities=capabilities,
        rlimits=[
            (
                getattr(resource, limit["type"]),
                (_unlimited(limit["soft"]), _unlimited(limit["hard"])),
            )
            for limit in spec_process.get("rlimits", [])
        ],
        no_new_privileges=bool(container_process.get("noNewPrivileges")),
        umask=spec_process["user"].get("umask", 0o022),
        filter=plan.filter,
    )


def _become_payload(
    prepared: _Prepared, channel: sync.Channel, step: _Steps, master: int, slave: int
) -> NoReturn:
    """Everything after the pivot, in one function: system calls only."""
    _close_imports()
    step("change to the working directory")
    os.chdir(b"/")
    step("get ready")
    channel.send(sync.READY, passed_fd=master)
    channel.expect(sync.EXEC)
    if slave >= 0:
        step("take the terminal")
        os.fchown(slave, prepared.who.uid, -1)
        terminal.become_controlling(slave)
    step("set resource limits")
    for number, limit in prepared.rlimits:
        resource.setrlimit(number, limit)
    # As CPython and the caller may have changed them; the payload starts with the defaults.
    _reset_signals()
    os.umask(prepared.umask)
    step("set capabilities and ids")
    if not prepared.no_new_privileges and prepared.filter is not None:
        # Without no_new_privs the kernel wants CAP_SYS_ADMIN for a filter: before it is dropped.
        seccomp.install(prepared.filter)
    process.set_keep_capabilities(True)
    _set_ids(prepared.who.uid, prepared.who.gid, prepared.groups)
    # As the user, so that a directory it may not enter is refused.
    step("change to the working directory")
    _change_directory(prepared.cwd)
    step("set capabilities and ids")
    caps.apply(**prepared.capabilities)
    process.set_parent_death_signal(signal.SIGKILL)
    # Everything above 2 ends at execve, the channel too: that is how success is told.
    process.close_on_exec_from(3)
    if prepared.no_new_privileges:
        process.set_no_new_privileges()
        if prepared.filter is not None:
            step("install the seccomp filter")
            # Last, as it may forbid any of the calls above.
            seccomp.install(prepared.filter)
    step("exec")
    _execute(prepared)


def _execute(prepared: _Prepared) -> NoReturn:
    """Try each candidate as execvp(3) does; raise the error that tells most."""
    refused = None
    for path in prepared.candidates:
        try:
            os.execve(path, prepared.arguments, prepared.environment)  # noqa: S606 - what we are for
        except OSError as error:
            if error.errno in _NOT_FOUND:
                continue
            refused = refused or error.errno
            if error.errno != errno.EACCES:
                break
    number = refused or errno.ENOENT
    raise OSError(number, "", prepared.arguments[0])


def _candidates(command: bytes, path: bytes) -> list[bytes]:
    if b"/" in command or not command:
        return [command]
    return [(directory or b".") + b"/" + command for directory in path.split(b":")]


def _open_terminal(root_fd: int, container_process: Mapping[str, object]) -> tuple[int, int]:
    if not container_process.get("terminal"):
        return -1, -1
    size = container_process.get("consoleSize")
    rows, columns = (size["height"], size["width"]) if isinstance(size, dict) else (0, 0)
    master, slave = terminal.open_pty(root_fd, rows, columns)
    terminal.bind_console(root_fd, slave)
    return master, slave


def _set_ids(uid: int, gid: int, groups: tuple[int, ...] | None) -> None:
    if groups is not None:
        os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _change_directory(cwd: bytes) -> None:
    os.chdir(cwd)
    # A directory outside the root reads as "(unreachable)…" and is refused (CVE-2024-21626).
    if not os.getcwdb().startswith(b"/"):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), cwd)


def _reset_signals() -> None:
    for number in range(1, _SIGNALS + 1):
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            # SIGKILL, SIGSTOP and the two that the C library keeps for itself.
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _own_stdio(who: user.User) -> None:
    """Let the payload's user open /dev/stdout and the like, which are pipes of the supervisor's."""
    for number in (0, 1, 2):
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            os.fchown(number, who.uid, who.gid)


def _new_keyring() -> None:
    try:
        process.join_new_session_keyring()
    except OSError as error:
        # No keyrings in this kernel, or refused by an outer seccomp filter: none to inherit.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise


def _bring_loopback_up() -> None:
    # netdevice(7): struct ifreq with the flags IFF_UP | IFF_RUNNING; SIOCSIFFLAGS.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 0x41))


def _close_imports() -> None:
    """Make every later import fail: what would be found now belongs to the image."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def _unlimited(value: int) -> int:
    return resource.RLIM_INFINITY if value >= 2**63 - 1 or value < 0 else value
