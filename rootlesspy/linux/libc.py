"""The C library as ctypes sees it: one handle, checked prototypes, errno turned into OSError.

Nothing here knows containers.  Every other module of this room goes through `check`, so that a
failed call is always an OSError with the kernel's errno and, where there is one, the path.
"""

from __future__ import annotations

import os

from rootlesspy.light_modules import ctypes

libc = ctypes.CDLL(None, use_errno=True)

# Some calls have no libc wrapper on the oldest supported glibc.  From 424 on the numbers are the
# same on every architecture; seccomp(2) is older.
_MACHINE = os.uname().machine
SYS_pidfd_send_signal = 424
SYS_open_tree = 428
SYS_move_mount = 429
SYS_fsopen = 430
SYS_fsconfig = 431
SYS_fsmount = 432
SYS_clone3 = 435
SYS_close_range = 436
SYS_openat2 = 437
SYS_mount_setattr = 442
SYS_keyctl = {"x86_64": 250, "aarch64": 219}.get(_MACHINE, -1)

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000

libc.syscall.restype = ctypes.c_long


def check(result: int, path: str | bytes | None = None) -> int:
    """Return result, or raise OSError with the errno of the call that just failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def syscall(number: int, *arguments: object, path: str | bytes | None = None) -> int:
    """Call syscall(2); integers are passed as C longs.  Raises OSError."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(libc.syscall(ctypes.c_long(number), *converted), path)
