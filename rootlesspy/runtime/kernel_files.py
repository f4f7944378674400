"""Masked paths, read-only paths and sysctls: what of the kernel's own files a payload is left.

Runs in the container's init before the pivot.  Files of /proc and /sys are looked up in what rp has
mounted there, not by the name: in a root that others may write to it can lead to a fake
(CVE-2025-31133, CVE-2025-52881).  Source: OCI runtime-spec, config-linux.md.
"""

from __future__ import annotations

import os
import stat

from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import mount, pathrs
from rootlesspy.runtime import rootfs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NULL = (1, 3)
_EMPTY_OPTIONS = ((b"size", b"4k"), (b"mode", b"0555"))
_EMPTY_FLAGS = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOSUID


def mask(root_fd: int, paths: Sequence[str], trees: Mapping[str, int]) -> None:
    """Hide paths: a file behind /dev/null, a directory behind an empty read-only tmpfs.

    trees: what rootfs.mount_all() returned.
    """
    empty = -1
    for path in paths:
        try:
            target = _open(root_fd, path, os.O_PATH, trees)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            source = rootfs.open_device("null", _NULL)
            tree = mount.open_tree(b"", dir_fd=source)
            os.close(source)
        elif empty < 0:
            tree = mount.new_filesystem(b"tmpfs", _EMPTY_OPTIONS, _EMPTY_FLAGS)
            empty = os.dup(tree)
        else:
            # Cloned from where it is attached: before Linux 6.15 a detached mount has no clones.
            tree = mount.open_tree(b"", dir_fd=empty)
        mount.move_mount(tree, target)
        os.close(tree)
        os.close(target)
    if empty >= 0:
        os.close(empty)


def make_read_only(root_fd: int, paths: Sequence[str], trees: Mapping[str, int]) -> None:
    """Bind each path onto itself, read-only with everything below it.

    trees: what rootfs.mount_all() returned.
    """
    for path in paths:
        try:
            target = _open(root_fd, path, os.O_PATH, trees)
        except (FileNotFoundError, NotADirectoryError):
            continue
        tree = mount.open_tree(b"", dir_fd=target, recursive=True)
        mount.mount_setattr(tree, set_flags=mount.MOUNT_ATTR_RDONLY, recursive=True)
        mount.move_mount(tree, target)
        os.close(tree)
        os.close(target)


def write_sysctls(root_fd: int, sysctls: Mapping[str, str], trees: Mapping[str, int]) -> None:
    """Set namespaced kernel parameters through the container's own /proc.

    trees: what rootfs.mount_all() returned.
    """
    for key, value in sysctls.items():
        path = "/proc/sys/" + key.replace(".", "/")
        fd = _open(root_fd, path, os.O_WRONLY, trees)
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            os.close(fd)


def _open(root_fd: int, path: str, flags: int, trees: Mapping[str, int]) -> int:
    """Open a path of the container, one of /proc or /sys in what rp has mounted there."""
    # Two leading slashes would stay (POSIX).
    plain = os.path.normpath("/" + path.lstrip("/"))
    for top, fd in trees.items():
        if plain == top or plain.startswith(top + "/"):
            return pathrs.open_in_root(fd, plain[len(top) :].lstrip("/"), flags)
    return pathrs.open_in_root(root_fd, path, flags)
