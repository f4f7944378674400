"""Capability sets of the process that becomes the payload.

Runs in the container's init after the pivot: system calls through already loaded ctypes, nothing
imported, no file opened.  Numbers are those of <linux/capability.h>, calls those of capget(2) and
prctl(2); libcap is not needed.

The caller's part, because the kernel clears sets when ids change (capabilities(7), "Effect of user
ID changes on capabilities"):

    linux.process.set_keep_capabilities(True)
                              # else setresuid() from 0 to another id empties the permitted set
    setgroups, setresgid, setresuid
    seccomp.install(...)      # here when no_new_privs is off: it needs CAP_SYS_ADMIN
    apply(...)                # raises what setresuid() lowered, drops, sets
    set no_new_privs, seccomp.install(...)   # here when no_new_privs is on
    execve                    # clears the keep flag
"""

from __future__ import annotations

import os

from rootlesspy.errors import RuntimeFailure
from rootlesspy.light_modules import ctypes
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE"
    " NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO"
    " SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME"
    " SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG"
    " WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
NUMBERS = {f"CAP_{name}": number for number, name in enumerate(_NAMES.split())}

# <linux/prctl.h>
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_IS_SET = 1
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
# <linux/capability.h>: two 32-bit words per set
LINUX_CAPABILITY_VERSION_3 = 0x20080522

EINVAL = 22


class _CapUserHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapUserData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_capget = _libc.capget
_capget.argtypes = (ctypes.POINTER(_CapUserHeader), ctypes.POINTER(_CapUserData))
_capset = _libc.capset
_capset.argtypes = (ctypes.POINTER(_CapUserHeader), ctypes.POINTER(_CapUserData))


class CapabilityMasks(NamedTuple):
    """The five sets as bit masks: bit n is capability n."""

    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int


def mask(names: Iterable[str]) -> int:
    """Return the bit mask of capability names; raise RuntimeFailure for an unknown one."""
    bits = 0
    for name in names:
        number = NUMBERS.get(name)
        if number is None:
            raise RuntimeFailure(
                f"unknown capability {name!r}", step="set capabilities", errno=EINVAL
            )
        bits |= 1 << number
    return bits


def last_cap() -> int:
    """Return the number of the kernel's last capability, asked by prctl(2): no file is read."""
    number = 0
    while _prctl(PR_CAPBSET_READ, number + 1, 0, 0, 0) >= 0:
        number += 1
    return number


def current() -> CapabilityMasks:
    """Return the calling thread's own sets."""
    effective, permitted, inheritable = _get()
    bounding = ambient = 0
    for number in range(last_cap() + 1):
        bounding |= (_prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1) << number
        ambient |= (_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, number, 0, 0) == 1) << number
    return CapabilityMasks(bounding, effective, permitted, inheritable, ambient)


def apply(
    *,
    bounding: Iterable[str],
    effective: Iterable[str],
    permitted: Iterable[str],
    inheritable: Iterable[str],
    ambient: Iterable[str],
) -> None:
    """Give the calling thread exactly these five sets; raise OSError when the kernel refuses.

    Needs CAP_SETPCAP in the permitted set where the bounding set shrinks.
    """
    wanted = CapabilityMasks(
        mask(bounding), mask(effective), mask(permitted), mask(inheritable), mask(ambient)
    )
    had_effective, had_permitted, had_inheritable = _get()
    if had_effective != had_permitted:
        # setresuid() lowered the effective set; dropping from the bounding set needs CAP_SETPCAP.
        _set(had_permitted, had_permitted, had_inheritable)
    # First, as the last capset() takes CAP_SETPCAP away.
    _drop_bounding(wanted.bounding)
    # Before capset(): lowering permitted or inheritable lowers ambient, but only bit by bit.
    _check(_prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "PR_CAP_AMBIENT_CLEAR_ALL")
    _set(wanted.effective, wanted.permitted, wanted.inheritable)
    # Last: an ambient capability must already be both permitted and inheritable.
    for number in range(64):
        if wanted.ambient >> number & 1:
            raised = _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0)
            _check(raised, "PR_CAP_AMBIENT_RAISE")


def _drop_bounding(keep: int) -> None:
    """Drop every capability the kernel knows, also unnamed ones, that is not in keep."""
    for number in range(64):
        present = _prctl(PR_CAPBSET_READ, number, 0, 0, 0)
        if present < 0 and number >= len(NUMBERS) and ctypes.get_errno() == EINVAL:
            return
        _check(present, "PR_CAPBSET_READ")
        if present and not keep >> number & 1:
            _check(_prctl(PR_CAPBSET_DROP, number, 0, 0, 0), "PR_CAPBSET_DROP")


def _get() -> tuple[int, int, int]:
    header = _CapUserHeader(LINUX_CAPABILITY_VERSION_3, 0)
    data = (_CapUserData * 2)()
    _check(_capget(ctypes.byref(header), data), "capget")
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def _set(effective: int, permitted: int, inheritable: int) -> None:
    header = _CapUserHeader(LINUX_CAPABILITY_VERSION_3, 0)
    data = (_CapUserData * 2)()
    for word in (0, 1):
        data[word].effective = effective >> 32 * word & 0xFFFFFFFF
        data[word].permitted = permitted >> 32 * word & 0xFFFFFFFF
        data[word].inheritable = inheritable >> 32 * word & 0xFFFFFFFF
    _check(_capset(ctypes.byref(header), data), "capset")


def _check(result: int, call: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
