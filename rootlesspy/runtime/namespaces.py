"""The namespaces of a bundle: some made, some joined by path, in an order that works.

`resolve` runs in the runtime's process; `enter` in a child of it, which then makes the container's
init a sibling of its own (clone3 with CLONE_PARENT), since a PID or time namespace is entered by
children only.  Sources: namespaces(7), setns(2), time_namespaces(7), runtime-spec config-linux.md.
"""

from __future__ import annotations

import errno
import fcntl
import os

from rootlesspy.errors import RuntimeFailure
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.oci.runtime_spec import Linux, LinuxTimeOffset

FLAGS = {
    "user": process.CLONE_NEWUSER,
    "mount": process.CLONE_NEWNS,
    "pid": process.CLONE_NEWPID,
    "network": process.CLONE_NEWNET,
    "uts": process.CLONE_NEWUTS,
    "ipc": process.CLONE_NEWIPC,
    "cgroup": process.CLONE_NEWCGROUP,
    "time": process.CLONE_NEWTIME,
}
FILES = {"mount": "mnt", "network": "net"}
"""Names in /proc/PID/ns that are not the specification's."""
_NS_GET_NSTYPE = 0xB703  # <linux/nsfs.h>


class Namespaces(NamedTuple):
    """What init is to be in."""

    new: frozenset[str]
    joined: tuple[tuple[str, int], ...]
    """(type, descriptor) of those given by path; ones that the caller is in are left out."""
    inside: frozenset[str]
    """All that the spec names."""
    time_offsets: Mapping[str, LinuxTimeOffset]

    def new_flags(self, *excepted: str) -> int:
        """Return the CLONE_NEW* flags of the new ones."""
        flags = 0
        for name in self.new.difference(excepted):
            flags |= FLAGS[name]
        return flags


def resolve(linux: Linux) -> Namespaces:
    """Open what is given by path and check that it is what it is said to be.

    Raises RuntimeFailure.
    """
    new, joined, inside = set(), [], set()
    for entry in linux.get("namespaces", ()):
        name, path = entry["type"], entry.get("path")
        inside.add(name)
        if not path:
            new.add(name)
            continue
        fd = _open(name, path)
        if _is_own(name, fd):
            os.close(fd)
        else:
            joined.append((name, fd))
    return Namespaces(
        frozenset(new), tuple(joined), frozenset(inside), linux.get("timeOffsets", {})
    )


def _open(name: str, path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _failure(name, path, error.errno or errno.EIO) from error
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError as error:
        os.close(fd)
        raise _failure(name, path, errno.EINVAL) from error
    if kind != FLAGS[name]:
        os.close(fd)
        raise _failure(name, path, errno.EINVAL)
    return fd


def _failure(name: str, path: str, number: int) -> RuntimeFailure:
    reason = "is no such namespace" if number == errno.EINVAL else os.strerror(number)
    return RuntimeFailure(
        f"{name} namespace {path}: {reason}", step="join namespaces", errno=number, path=path
    )


def _is_own(name: str, fd: int) -> bool:
    own, given = os.stat(f"/proc/self/ns/{FILES.get(name, name)}"), os.fstat(fd)
    return (own.st_dev, own.st_ino) == (given.st_dev, given.st_ino)


def enter(wanted: Namespaces, map_ids: Callable[[], None], become_root: Callable[[], None]) -> None:
    """Join and make the namespaces that must exist before init is born.

    map_ids has the new user namespace's maps written; become_root takes its ids.  Afterwards
    new_flags("user", "time", "cgroup") are left to clone3.  Raises OSError.
    """
    joined = dict(wanted.joined)
    # With the caller's rights first: a namespace may belong to the caller's user namespace, or to
    # the container's.
    later = [
        name
        for name in ("network", "ipc", "uts", "cgroup", "time")
        if name in joined and not _try_setns(joined[name], FLAGS[name])
    ]
    if "user" in joined:
        process.setns(joined["user"], FLAGS["user"])
    elif "user" in wanted.new:
        process.unshare(FLAGS["user"])
        map_ids()
    become_root()
    for name in (*later, "pid", "mount"):
        if name in joined:
            process.setns(joined[name], FLAGS[name])
    if "time" in wanted.new:
        process.unshare(FLAGS["time"])
        _set_time_offsets(wanted.time_offsets)


def _try_setns(fd: int, flag: int) -> bool:
    try:
        process.setns(fd, flag)
    except PermissionError:
        return False
    return True


def _set_time_offsets(offsets: Mapping[str, LinuxTimeOffset]) -> None:
    lines = [
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}"
        for clock, offset in offsets.items()
    ]
    if lines:
        fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, "\n".join(lines).encode())
        finally:
            os.close(fd)
