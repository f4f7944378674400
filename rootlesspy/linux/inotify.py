"""Being told that files changed.  Source: inotify(7)."""

from __future__ import annotations

import os

from rootlesspy.light_modules import ctypes
from rootlesspy.linux.libc import check, libc

# <sys/inotify.h>
IN_MODIFY = 0x00000002
IN_ATTRIB = 0x00000004
IN_CLOSE_WRITE = 0x00000008
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE_SELF = 0x00000400
IN_MOVE_SELF = 0x00000800
IN_DONT_FOLLOW = 0x02000000

libc.inotify_init1.argtypes = (ctypes.c_int,)
libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


def watch(path: str, mask: int) -> int:
    """Return a descriptor that is readable when one of these events happened to path.

    Raises OSError, ENOSPC when the user has too many watches.
    """
    fd = check(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
    try:
        add(fd, path, mask)
    except OSError:
        os.close(fd)
        raise
    return fd


def add(fd: int, path: str, mask: int) -> None:
    """Tell of events of one more path.  Raises OSError."""
    check(libc.inotify_add_watch(fd, os.fsencode(path), mask), path)


def drain(fd: int) -> None:
    """Forget the events that were told."""
    try:
        while os.read(fd, 65536):
            pass
    except BlockingIOError:
        return
