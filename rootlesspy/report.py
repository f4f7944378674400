"""What rp says to the person who typed: one line per fact, on stderr, never on stdout.

Text that comes from an image, a registry or a container is escaped before it reaches a terminal.
"""

from __future__ import annotations

import os
import sys


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
    """Writes messages of one invocation to stderr; `--debug` adds the trace of steps."""

    def __init__(self, *, debug: bool = False, quiet: bool = False) -> None:
        self.debug = debug
        self.quiet = quiet

    def step(self, text: str) -> None:
        """With --debug, say what is about to be done."""
        if self.debug:
            self._line(f"rp: debug: {escape(text)}")

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
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            # stderr is closed or gone: there is nobody left to tell.
            return
