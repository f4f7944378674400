"""Half-made things of the store and who owns them: flock(2) on open descriptors, nothing else.

A lock is released by the death of its holder, so nothing here can wedge.  Items in tmp/ are
directories that their maker keeps locked; whatever is not locked there is garbage.  One lock per
blob digest makes two pulls of one image fetch each blob once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time

from rootlesspy.errors import Conflict
from rootlesspy.image import children
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import pathrs, userns

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths

_PREFIX = "image-"
_LOCK_SUFFIX = ".lock"
_BRIEF_S = 0.002
_NOTICE_AFTER_S = 5.0
# Somebody else's pull of a huge layer over a slow line is worth waiting for.
_GIVE_UP_AFTER_S = 3600.0
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Item(NamedTuple):
    """A private directory below tmp/ whose descriptor holds its lock."""

    path: str
    fd: int


class BlobLock(NamedTuple):
    """The right to fetch and unpack one blob."""

    path: str
    fd: int

    def release(self) -> None:
        """Give the right away."""
        # Removed while it is held: whoever waits on this file finds another one in its place.
        os.unlink(self.path)
        # Explicitly: a child that was forked meanwhile may hold the same description.
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        os.close(self.fd)


def new_item(paths: Paths) -> Item:
    """Make a locked directory in tmp/.  Raises OSError."""
    gate = _locked_directory(paths.tmp)
    try:
        path = f"{paths.tmp}/{_item_prefix(os.getpid())}{os.urandom(8).hex()}"
        os.mkdir(path, 0o700)
        fd = os.open(path, _DIRECTORY)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Item(path, fd)
    finally:
        os.close(gate)


def remove_item(paths: Paths, item: Item, maps: IdMaps) -> None:
    """Remove an item with all that it holds, and its lock.  Raises OSError."""
    tmp_fd = os.open(paths.tmp, _DIRECTORY)
    try:
        _remove(tmp_fd, os.path.basename(item.path), maps)
    finally:
        os.close(tmp_fd)
        os.close(item.fd)


def sweep(paths: Paths, maps: IdMaps) -> None:
    """Remove what dead processes left in tmp/; what cannot be removed is left for another time."""
    claimed: list[Item] = []
    gate = _locked_directory(paths.tmp)
    try:
        for name in os.listdir(gate):
            path = f"{paths.tmp}/{name}"
            if name.startswith(_PREFIX):
                fd = _claim(path, _DIRECTORY)
                if fd is not None:
                    claimed.append(Item(path, fd))
            elif name.endswith(_LOCK_SUFFIX):
                _remove_stale_lock(path)
    finally:
        os.close(gate)
    for item in claimed:
        try:
            remove_item(paths, item, maps)
        except OSError:
            # Owned by ids that this map does not hold.
            continue


def sweep_after(paths: Paths, maps: IdMaps, makers: set[int], limit_s: float) -> None:
    """Remove what processes that were killed left in tmp/, as soon as it is nobody's.

    Their children share the locks, and may be about to die: a dying process closes its pipes and
    lets go of its locks in no certain order.  What is held for longer is left for another time.
    """
    deadline = time.monotonic() + limit_s
    sweep(paths, maps)
    while _are_left(paths, makers) and time.monotonic() < deadline:
        time.sleep(_BRIEF_S)
        sweep(paths, maps)


def abandoned(paths: Paths) -> list[str]:
    """Return what sweep() would remove."""
    found = []
    try:
        gate = _locked_directory(paths.tmp)
    except FileNotFoundError:
        return []
    try:
        for name in sorted(os.listdir(gate)):
            fd = _claim(f"{paths.tmp}/{name}", _DIRECTORY) if name.startswith(_PREFIX) else None
            if fd is not None:
                os.close(fd)
                found.append(f"{paths.tmp}/{name}")
    finally:
        os.close(gate)
    return found


def lock_blob(paths: Paths, digest: str, waiting: Callable[[int], None]) -> BlobLock:
    """Get the right to fetch one blob; waiting(pid) is called when its holder takes long.

    Raises Conflict when it is not given up within an hour, OSError.
    """
    path = f"{paths.tmp}/{digest.replace(':', '-')}{_LOCK_SUFFIX}"
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _wait_for_lock(fd, waiting)
            if _is_at(fd, path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, str(os.getpid()).encode(), 0)
                return BlobLock(path, fd)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _wait_for_lock(fd: int, waiting: Callable[[int], None]) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        return
    # flock(2) has no time limit.  A lock belongs to the open file description, which a child
    # shares: what the child waits for is ours as soon as it has it.
    child = children.fork(lambda: fcntl.flock(fd, fcntl.LOCK_EX))
    deadline = time.monotonic() + _GIVE_UP_AFTER_S
    if not select.select([child.result_fd], [], [], _NOTICE_AFTER_S)[0]:
        waiting(_holder(fd))
        left = max(deadline - time.monotonic(), 0)
        if not select.select([child.result_fd], [], [], left)[0]:
            children.kill(child)
            raise Conflict(f"process {_holder(fd)} has been pulling the same layer for an hour")
    children.wait(child)


def _are_left(paths: Paths, makers: set[int]) -> bool:
    """Say whether tmp/ has an item or a lock that one of these processes made, or may have made."""
    prefixes = tuple(map(_item_prefix, makers))
    return any(
        name.startswith(prefixes)
        # 0: it was killed before it had written who it is.
        or (name.endswith(_LOCK_SUFFIX) and _maker(f"{paths.tmp}/{name}") in (0, *makers))
        for name in os.listdir(paths.tmp)
    )


def _item_prefix(pid: int) -> str:
    return f"{_PREFIX}{pid}-"


def _maker(path: str) -> int:
    """Return who locked a blob last; 0: nobody knows, or the lock is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return _holder(fd)
    finally:
        os.close(fd)


def _remove_stale_lock(path: str) -> None:
    """Remove a lock file that nobody holds; what stands there now may be somebody's newer one."""
    fd = _claim(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    if fd is None:
        return
    if _is_at(fd, path):
        os.unlink(path)
    os.close(fd)


def _holder(fd: int) -> int:
    digits = os.pread(fd, 20, 0)
    return int(digits) if digits.isdigit() else 0


def _is_at(fd: int, path: str) -> bool:
    """Say whether path still is the file that fd is."""
    try:
        there, here = os.lstat(path), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _locked_directory(path: str) -> int:
    fd = os.open(path, _DIRECTORY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _claim(path: str, flags: int) -> int | None:
    """Open and lock path, unless somebody holds it or it is gone."""
    try:
        fd = os.open(path, flags)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _remove(dir_fd: int, name: str, maps: IdMaps) -> None:
    """Remove a tree, as root of the user namespace where subordinate ids own parts of it."""
    try:
        pathrs.remove_tree(dir_fd, name)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        userns.call_in_userns(maps, lambda: pathrs.remove_tree(dir_fd, name))
