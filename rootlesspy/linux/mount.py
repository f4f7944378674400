"""mount(2) and the descriptor-based mount calls, one thin function each.

Mounts are made detached (open_tree, fsmount), given their attributes, and attached to a directory
descriptor (move_mount): no path of a container is ever looked up twice.  Sources: mount(2),
open_tree(2), move_mount(2), fsopen(2), fsconfig(2), fsmount(2), mount_setattr(2), pivot_root(2).
"""

from __future__ import annotations

import os

from rootlesspy.light_modules import ctypes
from rootlesspy.linux.libc import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fsopen,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_open_tree,
    check,
    libc,
    syscall,
)

# <sys/mount.h>
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_UNBINDABLE = 0x20000
MS_MOVE = 0x2000
MNT_DETACH = 2

# <linux/mount.h>
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
libc.pivot_root.argtypes = (ctypes.c_char_p, ctypes.c_char_p)


def mount(
    source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None
) -> None:
    """mount(2)."""
    check(libc.mount(source, target, kind, flags, data), target)


def umount2(target: bytes, flags: int) -> None:
    """umount2(2)."""
    check(libc.umount2(target, flags), target)


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """pivot_root(2)."""
    check(libc.pivot_root(new_root, put_old), new_root)


def open_tree(path: bytes, *, dir_fd: int = AT_FDCWD, recursive: bool = False) -> int:
    """Clone the mount at path (or, with an empty path, at dir_fd) and return its descriptor."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    if recursive:
        flags |= AT_RECURSIVE
    if not path:
        flags |= AT_EMPTY_PATH
    return syscall(SYS_open_tree, dir_fd, ctypes.c_char_p(path), flags, path=path)


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount onto the file or directory that target_fd refers to."""
    syscall(
        SYS_move_mount,
        mount_fd,
        ctypes.c_char_p(b""),
        target_fd,
        ctypes.c_char_p(b""),
        _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH,
    )


def mount_setattr(
    mount_fd: int,
    *,
    set_flags: int = 0,
    clear_flags: int = 0,
    propagation: int = 0,
    recursive: bool = False,
    userns_fd: int = 0,
) -> None:
    """Change MOUNT_ATTR_* flags and the propagation (MS_*) of the mount at mount_fd.

    userns_fd: the user namespace whose id maps MOUNT_ATTR_IDMAP takes.
    """
    attributes = _MountAttr(set_flags, clear_flags, propagation, userns_fd)
    syscall(
        SYS_mount_setattr,
        mount_fd,
        ctypes.c_char_p(b""),
        AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0),
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
    )


def new_filesystem(
    kind: bytes, options: tuple[tuple[bytes, bytes | None], ...], attributes: int
) -> int:
    """Make a file system instance and return its detached mount.

    options are fsconfig(2) parameters, None for a flag; attributes are MOUNT_ATTR_* flags.
    """
    context = syscall(SYS_fsopen, ctypes.c_char_p(kind), _FSOPEN_CLOEXEC, path=kind)
    try:
        # The first is what mountinfo shows as the source.
        for key, value in ((b"source", kind), *options):
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            syscall(
                SYS_fsconfig,
                context,
                command,
                ctypes.c_char_p(key),
                ctypes.c_char_p(value),
                0,
                path=key,
            )
        null = ctypes.c_char_p(None)
        syscall(SYS_fsconfig, context, _FSCONFIG_CMD_CREATE, null, null, 0, path=kind)
        return syscall(SYS_fsmount, context, _FSMOUNT_CLOEXEC, attributes, path=kind)
    finally:
        os.close(context)
