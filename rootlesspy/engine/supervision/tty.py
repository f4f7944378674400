"""The caller's own terminal: raw mode, its size, and giving it back as it was.

Without one the modules that set terminals are not loaded.  Source: termios(3), tcsetattr(3).
"""

from __future__ import annotations

import os

from rootlesspy.runtime import terminal


class Guard:
    """Remembers how a terminal was set and can set it so again, also after the user died."""

    def __init__(self, fd: int) -> None:
        self._fd = -1
        if not os.isatty(fd):
            return
        import termios

        try:
            self._saved = termios.tcgetattr(fd)
        except termios.error:
            return
        self._fd = os.dup(fd)

    @property
    def is_terminal(self) -> bool:
        """Whether there was a terminal to remember."""
        return self._fd >= 0

    def raw(self) -> None:
        """Pass every byte through as it is: no echo, no signals, no translation."""
        if self._fd >= 0:
            import termios
            import tty

            tty.setraw(self._fd, termios.TCSANOW)

    def raw_output(self) -> None:
        """Pass output through as it is; keys still mean what they mean to the caller."""
        if self._fd >= 0:
            import termios

            attributes = termios.tcgetattr(self._fd)
            attributes[1] &= ~termios.OPOST
            termios.tcsetattr(self._fd, termios.TCSANOW, attributes)

    def close(self) -> None:
        """Let go of the terminal; doing it twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def restore(self) -> None:
        """Set the terminal as it was; doing it twice is harmless."""
        if self._fd >= 0:
            import termios

            try:
                # Not TCSAFLUSH: what was typed ahead belongs to the shell.
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
            except termios.error:
                # The terminal is gone (closed window): nothing to give back.
                return


def size_of(*fds: int) -> tuple[int, int]:
    """Return rows and columns of the first of these that is a terminal, or (0, 0)."""
    for fd in fds:
        try:
            return terminal.get_size(fd)
        except OSError:
            continue
    return 0, 0
