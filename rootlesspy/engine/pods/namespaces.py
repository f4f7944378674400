"""Open the namespaces that a container is to be born in, when it starts.

Of a container: through a descriptor of its first process, checked to be the one of the record.  Of
a pod: its service hands them over.  Of a path: with the user namespace that it belongs to.
Sources: pidfd_open(2), setns(2), ioctl_ns(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket

from rootlesspy.engine import idmap, record
from rootlesspy.engine.pods.sharing import Provider, provider_of
from rootlesspy.errors import Conflict, Error, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import mount, pathrs, process, procfs
from rootlesspy.runtime.create import FLAGS
from rootlesspy.runtime.membership import Membership

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

# <linux/nsfs.h>
_NS_GET_USERNS, _NS_GET_NSTYPE = 0xB701, 0xB703


class Shared(NamedTuple):
    """What a container is born into; the descriptors are the supervisor's."""

    memberships: tuple[Membership, ...] = ()
    shm_fd: int = -1
    """A detached mount of the /dev/shm that belongs to the IPC namespace."""


def open_all(paths: Paths, found: ContainerRecord) -> Shared:
    """Open what a container shares.  Raises Conflict when a provider does not run, Unsupported."""
    kinds: dict[Provider, list[str]] = {}
    for kind, text in found.shares.items():
        kinds.setdefault(provider_of(text), []).append(kind)
    memberships: list[Membership] = []
    shm_fd = -1
    for provider, wanted in kinds.items():
        if provider.kind == "container":
            memberships.append(_of_container(paths, found, provider.name, tuple(wanted)))
            if "ipc" in wanted:
                both = process.CLONE_NEWUSER | process.CLONE_NEWNS
                shm_fd = _open_shm(((memberships[-1].fd, both),))
        elif provider.kind == "pod":
            from rootlesspy.engine.pods import membership

            handed, (user_fd, mount_fd) = membership.namespaces(paths, provider.name, tuple(wanted))
            memberships += handed
            if "ipc" in wanted:
                way = (user_fd, process.CLONE_NEWUSER), (mount_fd, process.CLONE_NEWNS)
                shm_fd = _open_shm(way)
            os.close(mount_fd)
        else:
            memberships += _of_path(found, provider.name, wanted, memberships)
    return Shared(tuple(memberships), shm_fd)


def _of_container(
    paths: Paths, found: ContainerRecord, container_id: str, kinds: tuple[str, ...]
) -> Membership:
    other = record.load(paths, container_id)
    if other is None:
        raise Conflict(
            f"container {found.name} shares namespaces with container {container_id[:12]}, which "
            "is gone"
        )
    name = other.record.name
    live = record.live_state(paths.container(container_id))
    if other.state != "running" or live is None:
        raise Conflict(f"container {name} is not running", hint=f"rp start {name}")
    try:
        pidfd = os.pidfd_open(live.pid)
    except ProcessLookupError:
        raise Conflict(f"container {name} is not running", hint=f"rp start {name}") from None
    if procfs.start_time(live.pid) != live.start:
        os.close(pidfd)
        raise Conflict(f"container {name} is not running", hint=f"rp start {name}")
    return Membership(pidfd, kinds, f"container {name}")


def _of_path(
    found: ContainerRecord, path: str, kinds: list[str], others: list[Membership]
) -> list[Membership]:
    """Open the namespace at a path, and before it the user namespace that it belongs to."""
    title = path
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"namespace {path} cannot be opened: {error.strerror}") from error
    (kind,) = [each for each in kinds if each != "user"] or ["user"]
    try:
        if fcntl.ioctl(fd, _NS_GET_NSTYPE) != FLAGS[kind]:
            raise UsageError(f"{path} is not a {kind} namespace")
    except OSError as error:
        raise UsageError(f"{path} is not a namespace", hint="such as /proc/PID/ns/net") from error
    if "user" not in kinds or kind == "user":
        return [Membership(fd, (kind,), title)]
    try:
        owner = fcntl.ioctl(fd, _NS_GET_USERNS)
    except OSError as error:
        raise _foreign(path) from error
    os.set_inheritable(owner, False)
    if os.path.samestat(os.fstat(owner), os.stat("/proc/self/ns/user")):
        raise _foreign(path)
    _check_maps(found, owner, path)
    return [Membership(owner, ("user",), title), Membership(fd, (kind,), title)]


def _foreign(path: str) -> Unsupported:
    return Unsupported(
        f"namespace {path} belongs to root: an ordinary user's container cannot enter it",
        hint="one of your own: rp unshare unshare --net sleep infinity",
    )


def _check_maps(found: ContainerRecord, userns_fd: int, path: str) -> None:
    """Raise Unsupported when the user namespace maps other ids than the container's files have."""
    mapped = _read_maps(userns_fd, path)
    if mapped[0] != tuple(tuple(each) for each in idmap.of(found).uids):
        raise Unsupported(
            f"the user namespace of {path} maps other ids than this container's files have",
            hint="one that fits: rp unshare unshare --net sleep infinity",
        )


def maps_of(path: str) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Return both id maps of the user namespace at a path, line by line.

    Raises UsageError for what is none, Unsupported for one that is not the caller's.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"namespace {path} cannot be opened: {error.strerror}") from error
    try:
        if fcntl.ioctl(fd, _NS_GET_NSTYPE) != process.CLONE_NEWUSER:
            raise UsageError(f"{path} is not a user namespace")
        return _read_maps(fd, path)
    except OSError as error:
        raise UsageError(f"{path} is not a namespace", hint="such as /proc/PID/ns/user") from error
    finally:
        os.close(fd)


def _read_maps(userns_fd: int, path: str) -> tuple[tuple[tuple[int, ...], ...], ...]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid, child = process.clone3(0)
    if pid == 0:
        _tell_map(userns_fd, writer)
    os.close(child)
    os.close(writer)
    with open(reader, encoding="ascii") as file:
        text = file.read()
    os.waitpid(pid, 0)
    if not text:
        raise _foreign(path)
    return tuple(
        tuple(tuple(map(int, line.split())) for line in part.splitlines())
        for part in text.split(";")
    )


def _tell_map(userns_fd: int, writer: int) -> None:
    """Be the child of _read_maps(); never returns."""
    try:
        process.setns(userns_fd, process.CLONE_NEWUSER)
        with open("/proc/self/uid_map", "rb") as uids, open("/proc/self/gid_map", "rb") as gids:
            os.write(writer, uids.read() + b";" + gids.read())
    finally:
        os._exit(0)


def _open_shm(way: tuple[tuple[int, int], ...]) -> int:
    """Clone the mount at /dev/shm of a mount namespace; -1 when it has none.

    way: what setns(2) is called with to get there.

    The child that enters its mount namespace imports nothing there and opens one path, below the
    container's root, without following links (SECURITY.md I1, I4).
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, child = process.clone3(0)
    if pid == 0:
        _send_shm(way, theirs)
    os.close(child)
    theirs.close()
    try:
        message, ancillary, _, _ = ours.recvmsg(64, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    finally:
        ours.close()
        os.waitpid(pid, 0)
    for _level, _kind, data in ancillary:
        return int.from_bytes(data[:4], "little")
    number = int(message or b"3")
    if number in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):
        # No /dev/shm there, or no mount: then there is nothing to share.
        return -1
    raise Error(f"the shared memory of the other container cannot be had: {os.strerror(number)}")


def _send_shm(way: tuple[tuple[int, int], ...], channel: socket.socket) -> None:
    """Be the child of _open_shm(); never returns."""
    try:
        process.set_dumpable(False)
        for namespace_fd, flags in way:
            process.setns(namespace_fd, flags)
        root_fd = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        fd = pathrs.open_in_root(root_fd, b"dev/shm", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        tree = mount.open_tree(b"", dir_fd=fd)
        packed = tree.to_bytes(4, "little")
        channel.sendmsg([b"ok"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])
    except OSError as error:
        channel.send(b"%d" % (error.errno or errno.EIO))
    finally:
        os._exit(0)
