"""Process-related system calls, one thin function each: clone3, pidfds, prctl, ids, namespaces.

Sources: clone(2), pidfd_open(2), prctl(2), setns(2), unshare(2), close_range(2), keyctl(2).
"""

from __future__ import annotations

import os

from rootlesspy.light_modules import ctypes, signal
from rootlesspy.linux.libc import (
    SYS_clone3,
    SYS_close_range,
    SYS_keyctl,
    check,
    libc,
    syscall,
)

# <linux/sched.h>
CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PARENT = 0x8000
_CLONE_PARENT_SETTID = 0x100000
_CLONE_PIDFD = 0x1000
_CLONE_INTO_CGROUP = 0x200000000

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39

_CLOSE_RANGE_CLOEXEC = 4
_KEYCTL_JOIN_SESSION_KEYRING = 1

libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
libc.memmove.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
libc.sethostname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
libc.setdomainname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)

# A second handle that keeps the interpreter lock during the call, as os.fork() does: the child of
# clone3 continues inside Python with a consistent lock.
_holding_gil = ctypes.PyDLL(None, use_errno=True)
_holding_gil.syscall.restype = ctypes.c_long


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


def clone3(flags: int, *, cgroup_fd: int = -1, tid: ctypes.c_int | None = None) -> tuple[int, int]:
    """Fork with clone3(2): return (pid, pidfd) in the parent and (0, -1) in the child.

    flags are CLONE_NEW* flags, and CLONE_PARENT for a sibling; with cgroup_fd the child is born in
    that cgroup.  The kernel writes the pid to tid before the child begins.  The caller must be
    single-threaded.  Raises OSError.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(
        flags=flags | _CLONE_PIDFD,
        pidfd=ctypes.addressof(pidfd),
        # A sibling has the caller's own; the kernel refuses another.
        exit_signal=0 if flags & CLONE_PARENT else signal.SIGCHLD,
    )
    if cgroup_fd >= 0:
        arguments.flags |= _CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    if tid is not None:
        arguments.flags |= _CLONE_PARENT_SETTID
        arguments.parent_tid = ctypes.addressof(tid)
    # The three hooks are what os.fork() itself runs around fork(2).
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _holding_gil.syscall(
        ctypes.c_long(SYS_clone3),
        ctypes.byref(arguments),
        ctypes.c_size_t(ctypes.sizeof(arguments)),
    )
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid, pidfd.value


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    check(libc.setns(fd, kind))


def set_parent_death_signal(number: int) -> None:
    """Ask the kernel for this signal when the parent dies; cleared whenever credentials change."""
    check(libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0))


def set_dumpable(dumpable: bool) -> None:
    """Allow or refuse that other processes trace this one or open its /proc files."""
    check(libc.prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0))


def set_keep_capabilities(keep: bool) -> None:
    """Keep permitted capabilities over a change from uid 0 to another uid."""
    check(libc.prctl(_PR_SET_KEEPCAPS, int(keep), 0, 0, 0))


def set_child_subreaper() -> None:
    """Become the parent of orphaned descendants, so that none escapes being waited for."""
    check(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def set_no_new_privileges() -> None:
    """Make execve(2) never grant privileges, for this process and its descendants."""
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def set_name(name: bytes) -> None:
    """Set the name that ps shows, at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name[:15])
    check(libc.prctl(_PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0))


def set_title(words: tuple[str, ...]) -> None:
    """Show other words as this process's command line, cut off where the real one ended.

    Source: proc_pid_stat(5), arg_start and arg_end.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    shown = os.fsencode("\0".join(words))[: max(0, end - begin - 1)]
    libc.memmove(begin, shown.ljust(end - begin, b"\0"), end - begin)


def raise_oom_score_adj_to(pid: int) -> None:
    """Be killed for want of memory as early as another process, if that is earlier.

    Source: proc_pid_oom_score_adj(5).
    """
    wanted, own = (_oom_score_adj(each) for each in (pid, os.getpid()))
    if wanted > own:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(wanted))


def _oom_score_adj(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/oom_score_adj", "rb") as file:
            return int(file.read())
    except OSError:
        return 0


def no_new_privileges() -> bool:
    """Say whether execve(2) grants this process and its descendants no privileges."""
    return bool(check(libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)))


def sethostname(name: bytes) -> None:
    """sethostname(2)."""
    check(libc.sethostname(name, len(name)))


def setdomainname(name: bytes) -> None:
    """setdomainname(2)."""
    check(libc.setdomainname(name, len(name)))


def close_on_exec_from(first_fd: int) -> None:
    """Mark every descriptor from first_fd on close-on-exec."""
    syscall(SYS_close_range, first_fd, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)


def close_from(first_fd: int) -> None:
    """Close every descriptor from first_fd on."""
    syscall(SYS_close_range, first_fd, 0xFFFFFFFF, 0)


def join_new_session_keyring() -> None:
    """Replace the session keyring by an empty one, so that the caller's keys stay outside.

    Raises OSError; ENOSYS where the kernel has no keyrings.
    """
    if SYS_keyctl < 0:
        # Unknown number on this architecture: the default seccomp profile refuses keyctl anyway.
        return
    syscall(SYS_keyctl, _KEYCTL_JOIN_SESSION_KEYRING, ctypes.c_char_p(None))
