"""What a process of a bundle is to be: its ids, rights, directory and streams.

For the container's first process (bundle_init) and those that join it (bundle_join), before they
become the payload.
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import pathrs
from rootlesspy.runtime import payload, user

if TYPE_CHECKING:
    from rootlesspy.oci.runtime_spec import LinuxIDMapping, Process

_CAPABILITY_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


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
