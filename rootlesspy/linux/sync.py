"""Durability of a whole file system.  Source: syncfs(2)."""

from __future__ import annotations

from rootlesspy.light_modules import ctypes
from rootlesspy.linux.libc import check, libc

libc.syncfs.argtypes = (ctypes.c_int,)


def syncfs(fd: int) -> None:
    """Write everything of the file system that fd lies on; raises OSError also for lost writes."""
    check(libc.syncfs(fd))
