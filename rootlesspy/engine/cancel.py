"""Signals that cancel a command: they become an exception, so that what was made is undone.

Held back (blocked) from before the supervisor's fork until both processes know what a signal means
to them: none is lost, and none finds a half-made container that nobody undoes.
"""

from __future__ import annotations

import signal

from rootlesspy.errors import Error

SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


class CancelledError(Error):
    """A signal came while a container was being made or started."""

    def __init__(self, number: int) -> None:
        super().__init__(f"cancelled by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def raise_on_signals() -> None:
    """From here on the signals raise CancelledError; a later one forces the end."""

    def cancel(number: int, _frame: object) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise CancelledError(number)

    for number in SIGNALS:
        signal.signal(number, cancel)


def ignore_signals() -> None:
    """Let nothing interrupt what undoes things."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def hold() -> None:
    """Keep the signals waiting."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release() -> None:
    """Let the signals that waited come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
