"""The last steps before execve, for the container's first process and for those that join it.

`prepare` runs while files and imports are still the host's; `become` makes system calls only.
"""

from __future__ import annotations

import errno
import os
import resource
import sys

from rootlesspy.light_modules import signal, socket
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, NoReturn
from rootlesspy.linux import process
from rootlesspy.runtime import caps, seccomp, terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.oci.runtime_spec import Process
    from rootlesspy.runtime import user

_SIGNALS = 64
_DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_FOUND = frozenset((errno.ENOENT, errno.ENOTDIR))
KEY_OWNERS = range(1, 65)
"""Ids of the container that session keyrings may belong to."""


class Prepared(NamedTuple):
    """What the last steps need, encoded: nothing is computed once the files are the image's."""

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
    inherited_fds: int = 0
    """How many descriptors from 3 on the payload is given."""
    parent_death_signal: int = signal.SIGKILL
    """0: the payload outlives whoever made it."""
    filter_flags: int = 0
    notify_fd: int = -1
    """The socket that gets the descriptor of seccomp's notifications, with notify_message."""
    notify_message: bytes = b""
    confine: Callable[[], None] | None = None
    """Applies the Landlock rules: system calls only."""
    start_hooks: Callable[[], None] | None = None
    """Runs the startContainer hooks."""


def prepare(
    container_process: Process, who: user.User, *, set_groups: bool, program: bytes | None
) -> Prepared:
    """Encode what an OCI process asks for; program is the compiled seccomp filter."""
    environment: dict[bytes, bytes] = {}
    for entry in container_process.get("env", []):
        key, _, value = os.fsencode(entry).partition(b"=")
        environment[key] = value
    environment.setdefault(b"HOME", os.fsencode(who.home))
    arguments = [os.fsencode(argument) for argument in container_process["args"]]
    given = container_process.get("capabilities", {})
    capabilities = {
        name: list(given.get(name, []))  # type: ignore[call-overload]  # the five literal keys
        for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    if who.uid == 0:
        # Root gains what it holds from the bounding set; inheritable stays empty (CVE-2022-24769).
        capabilities["inheritable"] = capabilities["ambient"] = []
    else:
        capabilities["effective"] = capabilities["permitted"] = capabilities["ambient"]
    return Prepared(
        who=who,
        groups=who.additional_gids if set_groups else None,
        arguments=arguments,
        environment=environment,
        candidates=_candidates(arguments[0], environment.get(b"PATH", _DEFAULT_PATH)),
        cwd=os.fsencode(container_process["cwd"]),
        capabilities=capabilities,
        rlimits=[
            (
                getattr(resource, limit["type"]),
                (_unlimited(limit["soft"]), _unlimited(limit["hard"])),
            )
            for limit in container_process.get("rlimits", [])
        ],
        no_new_privileges=bool(container_process.get("noNewPrivileges")),
        umask=container_process["user"].get("umask", 0o022),
        filter=program,
    )


def become(prepared: Prepared, step: Callable[[str], None], slave: int) -> NoReturn:
    """Become the payload: system calls only.  slave: its terminal, or -1.

    Raises OSError with the name of what failed last given to step.
    """
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
    if not prepared.no_new_privileges:
        # Without no_new_privs the kernel wants CAP_SYS_ADMIN for these: before it is dropped.
        _confine(prepared, step)
    process.set_keep_capabilities(True)
    set_ids(prepared.who.uid, prepared.who.gid, prepared.groups)
    # As the user, so that a directory it may not enter is refused.
    step("change to the working directory")
    _change_directory(prepared.cwd)
    step("set capabilities and ids")
    caps.apply(**prepared.capabilities)
    if prepared.parent_death_signal:
        process.set_parent_death_signal(prepared.parent_death_signal)
    for fd in range(3, 3 + prepared.inherited_fds):
        os.set_inheritable(fd, True)
    # Everything else above 2 ends at execve, the channel too: that is how success is told.
    process.close_on_exec_from(3 + prepared.inherited_fds)
    if prepared.no_new_privileges:
        process.set_no_new_privileges()
        _confine(prepared, step)
    if prepared.start_hooks is not None:
        # Now, as they may be the image's own programs: they get no right that it has not.
        step("run the startContainer hook")
        prepared.start_hooks()
    step("exec")
    _execute(prepared)


def _confine(prepared: Prepared, step: Callable[[str], None]) -> None:
    """Apply what restricts this process for good, the filter last: it may forbid the others."""
    if prepared.confine is not None:
        step("apply the Landlock rules")
        prepared.confine()
    if prepared.filter is not None:
        step("install the seccomp filter")
        _install_filter(prepared, prepared.filter)
    step("set capabilities and ids")


def _install_filter(prepared: Prepared, program: bytes) -> None:
    listener = seccomp.install(program, prepared.filter_flags)
    if listener >= 0:
        # The agent learns of the container by the message, and answers from here on.
        packed = listener.to_bytes(4, "little")
        with socket.socket(fileno=prepared.notify_fd) as agent:
            agent.sendmsg(
                [prepared.notify_message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)]
            )
        os.close(listener)


def _execute(prepared: Prepared) -> NoReturn:
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


def leave_keyring(owners: range = KEY_OWNERS) -> None:
    """Leave the caller's session keyring behind, as root of the container.

    A user may own 200 keys (keyrings(7), kernel.keys.maxkeys), his other programs' among them: the
    keyring belongs to one of the container's ids in owners where they are mapped and have room.
    Raises OSError.
    """
    own = os.getresuid()[0]
    for uid in owners:
        try:
            # Keys belong to the real id; with the other two all rights stay.
            os.setresuid(uid, -1, -1)
        except OSError:
            break
        try:
            if _join_new_keyring():
                return
        finally:
            os.setresuid(own, -1, -1)
    if not _join_new_keyring():
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def _join_new_keyring() -> bool:
    """Tell whether there was room for one more key."""
    try:
        process.join_new_session_keyring()
    except OSError as error:
        if error.errno == errno.EDQUOT:
            return False
        # No keyrings in this kernel, or refused by an outer seccomp filter: none to inherit.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    return True


def set_ids(uid: int, gid: int, groups: tuple[int, ...] | None) -> None:
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


def close_imports() -> None:
    """Make every later import fail: what would be found now belongs to the image."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def _unlimited(value: int) -> int:
    return resource.RLIM_INFINITY if value >= 2**63 - 1 or value < 0 else value
