"""Signal a payload's first process as if the kernel did not shield it."""

from __future__ import annotations

import errno
import os

from rootlesspy.light_modules import signal

# rt_sigtimedwait of this machine, then of 32-bit programs, with and without 64-bit time.
_SIGTIMEDWAIT = (b"128" if os.uname().machine == "x86_64" else b"137", b"177", b"421")
# signal(7): default action is not to end the process.
_HARMLESS = frozenset(
    (
        signal.SIGCHLD,
        signal.SIGCONT,
        signal.SIGURG,
        signal.SIGWINCH,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
    )
)


def send(pid: int, pidfd: int, number: int) -> bool:
    """Send a signal to PID 1 of a container; say whether SIGKILL had to stand for it.

    A PID namespace's first process ignores every signal that it has no handler for
    (pid_namespaces(7)): `sleep` could not be stopped.  Where the default action would have ended
    any other process the container is killed, and the caller's exit code says which signal it was.
    """
    emulated = number not in _HARMLESS and not _handles(pid, number)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL if emulated else number)
    except ProcessLookupError:
        return False
    return emulated


def _handles(pid: int, number: int) -> bool:
    """Say whether a process catches, ignores or waits for a signal (proc_pid_status(5)).

    A blocked one is waited for: init programs and systemd read theirs by sigwait or signalfd.
    """
    bit = 1 << number - 1
    fields = (b"SigCgt:", b"SigIgn:", b"SigBlk:")
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(fields) and int(line[7:], 16) & bit:
                    return True
    except (FileNotFoundError, ProcessLookupError):
        return True
    return _sleeps_in_sigwait(pid)


def _sleeps_in_sigwait(pid: int) -> bool:
    """Say whether a process sleeps in sigwait(3), which lifts the block meanwhile."""
    try:
        with open(f"/proc/{pid}/syscall", "rb") as file:
            return file.read(256).partition(b" ")[0] in _SIGTIMEDWAIT
    except OSError:
        # Gone, or not ours to look at.
        return False


def kill_cgroup(directory_fd: int) -> None:
    """Kill every process of a cgroup (cgroups(7), cgroup.kill); -1: none is known."""
    if directory_fd < 0:
        return
    try:
        fd = os.open("cgroup.kill", os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory_fd)
    except FileNotFoundError:
        # systemd has removed the cgroup already: it was empty.
        return
    try:
        os.write(fd, b"1")
    except OSError as error:
        # Removed since; whether by ENOENT or ENODEV is the kernel's affair.
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
    finally:
        os.close(fd)
