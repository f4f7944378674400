"""How the kernel treats a process: scheduler, I/O class, memory policy, personality.

One thin function each.  Sources: sched_setattr(2), ioprio_set(2), set_mempolicy(2), personality(2).
Raises OSError only.
"""

from __future__ import annotations

import errno
import os

from rootlesspy.light_modules import ctypes
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux.libc import check, libc, syscall

if TYPE_CHECKING:
    from collections.abc import Iterable

_MACHINE = os.uname().machine
_SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}.get(_MACHINE, -1)
_SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}.get(_MACHINE, -1)

_SYS_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237, "riscv64": 237}.get(_MACHINE, -1)

# <linux/sched.h>
POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
# <linux/ioprio.h>
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
# <linux/mempolicy.h>
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}
_IOPRIO_CLASS_SHIFT = 13
_IOPRIO_WHO_PROCESS = 1
# <linux/personality.h>
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}

libc.personality.argtypes = (ctypes.c_ulong,)


class _SchedAttr(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
    )


def sched_setattr(
    policy: int,
    flags: int,
    *,
    nice: int = 0,
    priority: int = 0,
    runtime_ns: int = 0,
    deadline_ns: int = 0,
    period_ns: int = 0,
) -> None:
    """Set the calling thread's policy and parameters; raises OSError, ENOSYS where unknown."""
    if _SYS_SCHED_SETATTR < 0:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    size = ctypes.sizeof(_SchedAttr)
    wanted = _SchedAttr(size, policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns)
    syscall(_SYS_SCHED_SETATTR, 0, ctypes.byref(wanted), 0)


def ioprio_set(io_class: int, priority: int) -> None:
    """Set the calling thread's I/O class and its priority in it, 0 to 7.  Raises OSError."""
    if _SYS_IOPRIO_SET < 0:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    syscall(_SYS_IOPRIO_SET, _IOPRIO_WHO_PROCESS, 0, io_class << _IOPRIO_CLASS_SHIFT | priority)


def set_mempolicy(mode: int, nodes: Iterable[int]) -> None:
    """Set where the calling thread's memory comes from, which execve(2) keeps.  Raises OSError."""
    if _SYS_SET_MEMPOLICY < 0:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    mask = 0
    for node in nodes:
        mask |= 1 << node
    size = mask.bit_length() // 64 * 8 + 8
    packed = ctypes.create_string_buffer(mask.to_bytes(size, "little"), size)
    # The kernel takes one bit less than it is told.
    bits = size * 8 + 1 if mask else 0
    syscall(_SYS_SET_MEMPOLICY, mode, packed if mask else None, bits)


def personality(persona: int) -> None:
    """Set the execution domain, which execve(2) keeps.  Raises OSError."""
    check(libc.personality(persona))
