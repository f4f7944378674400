"""Landlock: what a process and its descendants may still open, change, connect to; from Linux 5.13.

A ruleset names the rights that it takes away; its rules give some back below a directory or for a
port.  Source: landlock(7), <linux/landlock.h>.  Raises OSError only.
"""

from __future__ import annotations

import errno

from rootlesspy.light_modules import ctypes
from rootlesspy.linux.libc import syscall

_SYS_CREATE_RULESET = 444
_SYS_ADD_RULE = 445
_SYS_RESTRICT_SELF = 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_RULE_NET_PORT = 2

ACCESS_FS_EXECUTE = 1 << 0
ACCESS_FS_WRITE_FILE = 1 << 1
ACCESS_FS_READ_FILE = 1 << 2
ACCESS_FS_READ_DIR = 1 << 3
ACCESS_FS_REMOVE_DIR = 1 << 4
ACCESS_FS_REMOVE_FILE = 1 << 5
ACCESS_FS_MAKE_CHAR = 1 << 6
ACCESS_FS_MAKE_DIR = 1 << 7
ACCESS_FS_MAKE_REG = 1 << 8
ACCESS_FS_MAKE_SOCK = 1 << 9
ACCESS_FS_MAKE_FIFO = 1 << 10
ACCESS_FS_MAKE_BLOCK = 1 << 11
ACCESS_FS_MAKE_SYM = 1 << 12
ACCESS_FS_REFER = 1 << 13
ACCESS_FS_TRUNCATE = 1 << 14
ACCESS_FS_FILE = ACCESS_FS_EXECUTE | ACCESS_FS_WRITE_FILE | ACCESS_FS_READ_FILE | ACCESS_FS_TRUNCATE
"""The rights that a file, which is no directory, can have."""
ACCESS_NET_BIND_TCP = 1 << 0
ACCESS_NET_CONNECT_TCP = 1 << 1
SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
SCOPE_SIGNAL = 1 << 1


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _NetPortAttr(ctypes.Structure):
    _fields_ = (("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64))


def abi() -> int:
    """Return the version of the interface; 0: the kernel has none, or it is off at boot."""
    try:
        return syscall(
            _SYS_CREATE_RULESET, ctypes.c_void_p(None), ctypes.c_size_t(0), _CREATE_RULESET_VERSION
        )
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            # EPERM: a seccomp filter around rp.
            return 0
        raise


def create_ruleset(access_fs: int, access_net: int, scoped: int) -> int:
    """Return a descriptor, close-on-exec, of a ruleset that takes these rights away."""
    attributes = _RulesetAttr(access_fs, access_net, scoped)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    return syscall(_SYS_CREATE_RULESET, ctypes.byref(attributes), size, 0)


def allow_path(ruleset_fd: int, path_fd: int, access: int) -> None:
    """Give rights back for what an O_PATH descriptor names, and all that is below it."""
    rule = _PathBeneathAttr(access, path_fd)
    syscall(_SYS_ADD_RULE, ruleset_fd, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)


def allow_port(ruleset_fd: int, port: int, access: int) -> None:
    """Give rights back for one TCP port."""
    rule = _NetPortAttr(access, port)
    syscall(_SYS_ADD_RULE, ruleset_fd, _RULE_NET_PORT, ctypes.byref(rule), 0)


def restrict_self(ruleset_fd: int) -> None:
    """Hold the calling thread and its descendants to a ruleset, for good.

    Needs no_new_privs, or CAP_SYS_ADMIN in the user namespace.
    """
    syscall(_SYS_RESTRICT_SELF, ruleset_fd, 0)
