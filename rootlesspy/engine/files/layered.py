"""The files of overlay layers as an overlay shows them, without mounting one.

For whoever reads a container from outside: diff, export, commit.  Works the same for every storage
driver, while the container runs or not, and needs no privilege but that its files can be read.
Directories are walked by descriptors, one for each layer however deep the tree is; no link is
followed.

Whiteouts are a 0:0 character device or an xattr, and a name that begins with .wh. where
fuse-overlayfs wrote it; opaque directories likewise.  Source:
Documentation/filesystems/overlayfs.rst, fuse-overlayfs(1).
"""

from __future__ import annotations

import errno
import os
import stat

from rootlesspy.engine.copytree import Cursor
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OVERLAY, FUSE = "overlay", "fuse-overlayfs"
WHITEOUT_PREFIX = ".wh."
_OPAQUE_NAME = ".wh..wh..opq"
_OPAQUE_XATTRS = ("user.overlay.opaque", "user.fuseoverlayfs.opaque", "trusted.overlay.opaque")
_WHITEOUT_XATTR = "user.overlay.whiteout"
_NO_XATTR = (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What a directory that was replaced while it was walked looks like.
_CHANGED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Entry(NamedTuple):
    """One file of the merged view; dir_fd is the directory that holds it, while it is visited."""

    path: str
    """Relative to the root, without a leading slash."""
    name: str
    status: os.stat_result
    dir_fd: int

    def is_directory(self) -> bool:
        """Say whether it is a directory."""
        return stat.S_ISDIR(self.status.st_mode)


class _Layer:
    """One directory tree of the stack; it lags behind where it lacks a directory."""

    def __init__(self, root_fd: int) -> None:
        self.cursor = Cursor(root_fd)
        self.missing = 0


class Stack:
    """Layers, top first, walked together; marks is who wrote their whiteouts, "" for nobody.

    show_marks: one layer alone, whose whiteouts are shown as the files that they are.
    """

    def __init__(
        self, root_fds: Sequence[int], marks: str = OVERLAY, *, show_marks: bool = False
    ) -> None:
        self._layers = [_Layer(fd) for fd in root_fds]
        self._marks = marks
        self._show_marks = show_marks

    def close(self) -> None:
        """Give the descriptors back."""
        for layer in self._layers:
            layer.cursor.close()

    def entries(self) -> dict[str, tuple[os.stat_result, int]]:
        """Return what the current directory shows: name → status and the layer that has it."""
        found: dict[str, tuple[os.stat_result, int]] = {}
        hidden: set[str] = set()
        for number, layer in enumerate(self._layers):
            if layer.missing:
                continue
            fd = layer.cursor.fd
            for name, status in _scan(fd):
                gone = None
                if not self._show_marks:
                    gone = whiteout_of(name, status, fd, self._marks)
                if gone is not None:
                    hidden.add(gone)
                elif name not in hidden and name not in found:
                    found[name] = (status, number)
            hidden.update(found)
        return found

    def fd_of(self, layer: int) -> int:
        """Return the descriptor of the current directory in a layer."""
        return self._layers[layer].cursor.fd

    def down(self, name: str) -> None:
        """Enter a directory in every layer that adds to it."""
        hidden = False
        for layer in self._layers:
            if layer.missing or hidden:
                layer.missing += 1
                continue
            hidden = not self._enter(layer, name)

    def up(self) -> None:
        """Return to the directory that down() left; ESTALE when it is not there any more."""
        for layer in self._layers:
            if layer.missing:
                layer.missing -= 1
            else:
                layer.cursor.up()

    def exists(self, name: str) -> os.stat_result | None:
        """Return the status of a name in the current directory, None when there is none."""
        for layer in self._present():
            fd = layer.cursor.fd
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                if self._is_hidden(fd, name):
                    return None
                continue
            return None if whiteout_of(name, status, fd, self._marks) is not None else status
        return None

    def is_opaque(self) -> bool:
        """Say whether the current directory hides what lies below the stack."""
        return any(is_opaque(layer.cursor.fd, self._marks) for layer in self._present())

    def _present(self) -> list[_Layer]:
        return [layer for layer in self._layers if not layer.missing]

    def _enter(self, layer: _Layer, name: str) -> bool:
        """Enter name in one layer, or count it as missing; say whether layers below show too."""
        fd = layer.cursor.fd
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            layer.missing += 1
            return not self._is_hidden(fd, name)
        if not stat.S_ISDIR(status.st_mode):
            layer.missing += 1
            return False
        try:
            layer.cursor.down(name)
        except OSError as error:
            if error.errno not in _CHANGED:
                raise
            layer.missing += 1
            return False
        return not is_opaque(layer.cursor.fd, self._marks)

    def _is_hidden(self, fd: int, name: str) -> bool:
        return self._marks == FUSE and _lies_at(fd, WHITEOUT_PREFIX + name)


def walk(stack: Stack, enter: Callable[[Entry], bool] | None = None) -> Iterator[Entry]:
    """Yield all that lies below the root, sorted by name, each directory before its content.

    enter says whether a directory is gone into; all are without it.  Raises OSError.
    """
    pending = [_sorted(stack)]
    trail: list[str] = []
    while pending:
        if not pending[-1]:
            pending.pop()
            if pending:
                stack.up()
                trail.pop()
            continue
        name, (status, layer) = pending[-1].pop()
        # Asked for now: the descriptors are others whenever a directory was left.
        entry = Entry("/".join((*trail, name)), name, status, stack.fd_of(layer))
        yield entry
        if entry.is_directory() and (enter is None or enter(entry)):
            stack.down(name)
            trail.append(name)
            pending.append(_sorted(stack))


def whiteout_of(name: str, status: os.stat_result, dir_fd: int, marks: str) -> str | None:
    """Return the name that a file of a layer hides, "" for a mere mark, None for a real file."""
    if not marks:
        return None
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return name
    if marks == FUSE and name.startswith(WHITEOUT_PREFIX):
        return "" if name == _OPAQUE_NAME else name.removeprefix(WHITEOUT_PREFIX)
    if stat.S_ISREG(status.st_mode) and status.st_size == 0 and status.st_nlink == 1:
        return name if xattr(dir_fd, name, _WHITEOUT_XATTR) is not None else None
    return None


def is_opaque(fd: int, marks: str) -> bool:
    """Say whether an open directory of a layer hides what lower layers have under its name."""
    if not marks:
        return False
    for name in _OPAQUE_XATTRS:
        try:
            if os.getxattr(fd, name) == b"y":
                return True
        except OSError as error:
            if error.errno not in _NO_XATTR:
                raise
    return marks == FUSE and _lies_at(fd, _OPAQUE_NAME)


def is_opaque_entry(entry: Entry, marks: str) -> bool:
    """Say the same of a directory that is visited; False when it is gone."""
    try:
        fd = os.open(entry.name, _DIRECTORY, dir_fd=entry.dir_fd)
    except OSError as error:
        if error.errno in _CHANGED:
            return False
        raise
    try:
        return is_opaque(fd, marks)
    finally:
        os.close(fd)


def xattr(dir_fd: int, name: str, key: str) -> bytes | None:
    """Return an extended attribute of a name in an open directory, None when it has none."""
    try:
        # The directory is reached by its descriptor, whatever its name is now.
        return os.getxattr(f"/proc/self/fd/{dir_fd}/{name}", key, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (*_NO_XATTR, errno.ENOENT):
            raise
        return None


def _sorted(stack: Stack) -> list[tuple[str, tuple[os.stat_result, int]]]:
    """Return the entries in the order in which pop() is to take them."""
    found = stack.entries()
    return sorted(found.items(), key=lambda item: os.fsencode(item[0]), reverse=True)


def _scan(fd: int) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(fd) as listed:
        for each in listed:
            try:
                yield each.name, each.stat(follow_symlinks=False)
            except FileNotFoundError:
                # Removed since the directory was read.
                continue


def _lies_at(fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return True
