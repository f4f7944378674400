"""Terminals of `rp oci`: the master goes to a console socket, or is ours to copy.

Sources: runc's documented console-socket protocol (one SCM_RIGHTS message over a stream socket),
termios(3), ioctl_tty(2).
"""

from __future__ import annotations

import os
import select
import signal
import socket

from rootlesspy.engine.supervision.tty import Guard
from rootlesspy.errors import RuntimeFailure
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.runtime import terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

_COPY_BYTES = 65536
_NOT_FORWARDED = frozenset(
    (
        *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGURG, signal.SIGPIPE),
        *(signal.SIGTTOU, signal.SIGTTIN, signal.SIGTSTP, signal.SIGXFSZ),
    )
)


def send_master(path: str, master: int) -> None:
    """Send a pty's master to whoever listens on a console socket.  Raises RuntimeFailure."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            packed = master.to_bytes(4, "little")
            connection.sendmsg([b"/dev/ptmx"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])
    except OSError as error:
        raise RuntimeFailure(
            f"console socket {path}: {error.strerror}", step="console", path=path
        ) from error


class Signals:
    """Signals of this process while it stands in front of another one: read, not acted on."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in signal.valid_signals() - _NOT_FORWARDED:
            try:
                signal.signal(number, lambda _number, _frame: None)
            except (OSError, ValueError):
                # The two that the C library keeps for itself.
                continue

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._reader

    def read(self) -> Iterator[int]:
        """Return the signals that arrived."""
        try:
            yield from os.read(self._reader, 256)
        except BlockingIOError:
            return


def attend(pidfd: int, master: int, signals: Signals) -> None:
    """Stand in front of a process until it ends: pass signals on, copy its terminal."""
    guard = Guard(0)
    if master >= 0:
        guard.raw()
    try:
        _attend(pidfd, master, signals)
    finally:
        if master >= 0:
            guard.restore()
        guard.close()


def _attend(pidfd: int, master: int, signals: Signals) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(signals, select.POLLIN)
    if master >= 0:
        _follow_size(master)
        poll.register(master, select.POLLIN)
        poll.register(0, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if signals.fileno() in ready:
            for number in signals.read():
                _forward(number, pidfd, master)
        if 0 in ready and not _copy(0, master):
            poll.unregister(0)
        if master in ready and not _copy(master, 1):
            poll.unregister(master)
        if pidfd in ready:
            while master >= 0 and select.select([master], [], [], 0)[0] and _copy(master, 1):
                pass
            return


def _forward(number: int, pidfd: int, master: int) -> None:
    if number == signal.SIGWINCH and master >= 0:
        _follow_size(master)
        return
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return


def _copy(source: int, target: int) -> bool:
    """Copy what there is; say whether there may be more."""
    try:
        data = os.read(source, _COPY_BYTES)
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
    except OSError:
        # EIO: nobody holds the terminal any more; EPIPE: nobody reads.
        return False
    return bool(data)


def _follow_size(master: int) -> None:
    try:
        terminal.set_size(master, *terminal.get_size(0))
    except OSError:
        # The caller's stdin is no terminal.
        return
