"""The helper process of a network: started, awaited, watched and ended.

It is a child of the supervisor in a session of its own, with three pipes:

    stdin   lifeline: nothing is ever written; it breaks when the supervisor is gone, also by
            kill -9, and the kernel then sends SIGKILL to the helper (F_SETSIG on an O_ASYNC pipe,
            fcntl(2)).  A parent-death signal would not do: AppArmor clears it when the helper's
            profile is entered (security/apparmor/lsm.c, bprm_committing_creds).
    ready   stdout or 3: the first byte says that the network is configured.  pasta closes every
            descriptor above stderr; slirp4netns writes warnings to stdout
    stderr  (and stdout when it is free) what the helper complains about; non-blocking, so that a
            full pipe loses lines instead of stopping the network
"""

from __future__ import annotations

import fcntl
import os
import select
import time

from rootlesspy.errors import RuntimeFailure
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import NamedTuple
from rootlesspy.linux import procfs

# Python ignores SIGPIPE and SIGXFSZ, and pasta of 2023 refuses to start with SIGPIPE ignored.
_DEFAULT_SIGNALS = tuple(
    number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP)
)
# <asm-generic/fcntl.h>
_F_SETSIG = 10
_LOG_BYTES = 65536
_COMPLAINT_CHARACTERS = 300
# pasta of 2023 where there is no /dev/log; slirp4netns about its own features.
_NOISE = ("to syslog", "WARNING: Support for ", "sent tapfd=", "received tapfd=")


class Helper(NamedTuple):
    """A running network helper; the descriptors belong to whoever holds the record."""

    name: str
    pid: int
    start_time: int
    """Clock ticks after boot (proc_pid_stat(5), field 22)."""
    pidfd: int
    """Readable when the helper has ended."""
    lifeline_fd: int
    """Closing it kills the helper."""
    ready_fd: int
    log_fd: int


def find_program(name: str, search: str | None = None) -> str | None:
    """Return the path of an executable in PATH (or in search), /usr/sbin and /sbin included."""
    directories = (os.environ.get("PATH", "") if search is None else search).split(":")
    if search is None:
        directories += ["/usr/bin", "/usr/sbin", "/sbin"]
    for directory in directories:
        path = f"{directory}/{name}"
        if directory.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def start(program: str, arguments: list[str], *, ready_fd: int, umask: int = 0o077) -> Helper:
    """Start the helper with nothing of our environment; it is ready when `wait_ready` says so.

    ready_fd (1 or 3) is where the helper finds the ready pipe.  Our own descriptors 0 to 2 must be
    open.  Raises OSError.
    """
    name = program.rpartition("/")[2]
    lifeline_read, lifeline = os.pipe2(os.O_CLOEXEC)
    ready, ready_write = os.pipe2(os.O_CLOEXEC)
    log, log_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    pidfd = -1
    # Inherited; spawning has no attribute for it, and nobody else runs in this process.
    previous_umask = os.umask(umask)
    try:
        pid = os.posix_spawn(
            program,
            [name, *arguments],
            {},
            file_actions=(
                (os.POSIX_SPAWN_DUP2, lifeline_read, 0),
                (os.POSIX_SPAWN_DUP2, log_write, 1),
                (os.POSIX_SPAWN_DUP2, log_write, 2),
                # Last: number 3 may be one of the others.
                (os.POSIX_SPAWN_DUP2, ready_write, ready_fd),
            ),
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
        # These settings are of the open pipe, which the helper holds as its stdin: they outlive
        # our descriptor.
        fcntl.fcntl(lifeline_read, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline_read, fcntl.F_SETOWN, pid)
        flags = fcntl.fcntl(lifeline_read, fcntl.F_GETFL)
        fcntl.fcntl(lifeline_read, fcntl.F_SETFL, flags | os.O_ASYNC)
        pidfd = os.pidfd_open(pid)
    except OSError:
        for fd in (lifeline, ready, log):
            os.close(fd)
        raise
    finally:
        os.umask(previous_umask)
        for fd in (lifeline_read, ready_write, log_write):
            os.close(fd)
    return Helper(
        name=name,
        pid=pid,
        start_time=procfs.start_time(pid) or 0,
        pidfd=pidfd,
        lifeline_fd=lifeline,
        ready_fd=ready,
        log_fd=log,
    )


def wait_ready(helper: Helper, timeout_s: float) -> bool:
    """Wait for the helper's first byte; False when it ended instead.

    Raises RuntimeFailure when nothing happens in time.
    """
    poll = select.poll()
    poll.register(helper.ready_fd, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while True:
        remaining_s = deadline - time.monotonic()
        if remaining_s > 0 and poll.poll(remaining_s * 1000):
            return bool(os.read(helper.ready_fd, 64))
        if remaining_s <= 0:
            raise RuntimeFailure(
                f"{helper.name} did not configure the network within {timeout_s:g} s",
                step="network",
            )


def complaint(helper: Helper) -> str:
    """Return what the helper has written to stderr, without what everybody knows.

    Left out are lines about a missing syslog and the list of options after a wrong one.
    """
    try:
        text = os.read(helper.log_fd, _LOG_BYTES).decode("utf-8", "replace")
    except BlockingIOError:
        return ""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("Usage:"):
            break
        if line.strip() and not any(word in line for word in _NOISE):
            lines.append(line.strip())
    return "; ".join(lines)[:_COMPLAINT_CHARACTERS]


def stop(helper: Helper) -> None:
    """End the helper, wait for it and close its descriptors; once per helper."""
    kill(helper)
    reap(helper)


def kill(helper: Helper) -> None:
    """Kill the helper; reap() waits until it is gone."""
    try:
        # By descriptor: somebody may have waited for the process and its number be reused.
        signal.pidfd_send_signal(helper.pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


def reap(helper: Helper) -> int | None:
    """Wait for a helper that has ended or been killed; close its descriptors.

    Returns its wait status, None when somebody else has waited for it.
    """
    try:
        status: int | None = os.waitpid(helper.pid, 0)[1]
    except ChildProcessError:
        status = None
    for fd in (helper.lifeline_fd, helper.ready_fd, helper.log_fd, helper.pidfd):
        if fd >= 0:
            os.close(fd)
    return status
