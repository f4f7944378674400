"""What rp says to the person who typed: one line per fact, on stderr, never on stdout.

Text that comes from an image, a registry or a container is escaped before it reaches a terminal.
"""

from __future__ import annotations

import os
import sys
import time


def escape(text: str) -> str:
    """Return text with control, bidirectional and unpaired surrogate characters made visible."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character == " " or character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def colours(fd: int) -> bool:
    """Say whether fd is a terminal that may be given colours (https://no-color.org)."""
    return os.isatty(fd) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


class Reporter:
    """Writes messages of one invocation to stderr.

    `--debug` adds each step before it is done, `--debug-timing` each step with what it took.
    began_ns: when the command began, on CLOCK_MONOTONIC; 0 without --debug-timing.
    """

    def __init__(self, *, debug: bool = False, quiet: bool = False, began_ns: int = 0) -> None:
        self.debug = debug
        self.quiet = quiet
        self.began_ns = began_ns
        self._part = "rp"
        self._step = "start Python and read the command line"
        self._step_ns = began_ns
        self._fd = -1

    def step(self, text: str) -> None:
        """With --debug, say what is about to be done; with --debug-timing it is under way now."""
        if self.debug:
            self._line(f"rp: debug: {escape(text)}")
        if self.began_ns:
            self._finish_step(text)

    def be(self, part: str) -> None:
        """In a forked process, report its steps as those of this part of rp."""
        self._part, self._step, self._step_ns = part, "begin", time.monotonic_ns()

    def follow(self, part: str, began_ns: int, fd: int) -> None:
        """Report the steps of this process, from its start on, as of a command of another one.

        fd: that one's stderr, which leave() closes.
        """
        self.began_ns, self._part, self._fd = began_ns, part, fd
        self._step = "start Python and import"
        self._step_ns = time.monotonic_ns() - time.process_time_ns()

    def keep_stderr(self) -> None:
        """Report to what is stderr now, whatever it becomes, until leave()."""
        self._fd = os.dup(2)

    def leave(self) -> None:
        """Report no more to another process."""
        if self._fd >= 0:
            self.done()
            os.close(self._fd)
            self.began_ns, self._fd = 0, -1

    def done(self) -> None:
        """With --debug-timing, report the last step of this process."""
        if self.began_ns:
            self._finish_step("")

    def _finish_step(self, following: str) -> None:
        now_ns = time.monotonic_ns()
        if self._step:
            at_ms = (self._step_ns - self.began_ns) / 1e6
            took_ms = (now_ns - self._step_ns) / 1e6
            self._line(
                f"rp: timing: {at_ms:8.1f} ms +{took_ms:7.1f}  {self._part}: {escape(self._step)}"
            )
        self._step, self._step_ns = following, now_ns

    def notice(self, text: str) -> None:
        """Say something that the user may ignore for ever."""
        if not self.quiet:
            self._line(f"rp: {escape(text)}")

    def error(self, message: str, hint: str | None = None) -> None:
        """Print an error, and its cure when one is known."""
        bold, end = ("\x1b[1;31m", "\x1b[0m") if colours(2) else ("", "")
        self._line(f"{bold}rp:{end} {escape(message)}")
        if hint:
            self._line(f"hint: {escape(hint)}")

    def _line(self, text: str) -> None:
        try:
            if self._fd >= 0:
                os.write(self._fd, f"{text}\n".encode("utf-8", "backslashreplace"))
                return
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            # stderr is closed or gone: there is nobody left to tell.
            return
