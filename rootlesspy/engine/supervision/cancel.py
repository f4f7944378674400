"""Signals that cancel a command: they become an exception, so that what was made is undone.

Held back (blocked) from before the supervisor's fork until both processes know what a signal means
to them: none is lost, and none finds a half-made container that nobody undoes.
"""

from __future__ import annotations

import os

from rootlesspy.errors import Error
from rootlesspy.light_modules import signal

SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


class CancelledError(Error):
    """A signal came while a container was being made or started."""

    def __init__(self, number: int) -> None:
        names = {int(getattr(signal, each)): each for each in ("SIGTERM", "SIGINT", "SIGHUP")}
        super().__init__(f"cancelled by {names[number]}")
        self.exit_code = 128 + number


class Cancellation:
    """Turns the first signal into CancelledError; a later one forces the end."""

    def __init__(self) -> None:
        self._number = 0
        for number in SIGNALS:
            signal.signal(number, self._cancel)
        release()

    def check(self) -> None:
        """Raise CancelledError if a signal came and its exception was lost.

        CPython swallows what is raised in a weak reference's callback, as the import system has.
        """
        if self._number:
            raise CancelledError(self._number)

    def _cancel(self, number: int, _frame: object) -> None:
        self._number = number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise CancelledError(number)


def ignore_signals() -> None:
    """Let nothing interrupt what undoes things."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def hold() -> set[int]:
    """Keep the signals waiting; return the mask for restore()."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def restore(mask: set[int]) -> None:
    """Let the signals come that came before hold()."""
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def release() -> None:
    """Let the signals that waited come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def wake_instead() -> int:
    """Let SIGTERM and SIGINT be read from the descriptor that is returned, a byte each.

    SIGHUP is ignored.  What was held back comes now.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    release()
    return reader
