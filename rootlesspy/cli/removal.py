"""Removing several things: each failure is told, the exit code is podman's."""

from __future__ import annotations

from rootlesspy.errors import Conflict, Error, NotFound
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.report import Reporter

_MISSING, _IN_USE = 1, 2


class Removal:
    """Collects what went wrong; the gravest failure decides the exit code."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.exit_code = 0

    def failed(self, error: Error) -> None:
        """Report one failure: 1 when it did not exist, 2 when it is in use, else the error's."""
        self._reporter.error(error.message, error.hint)
        code = error.exit_code
        if isinstance(error, NotFound):
            code = _MISSING
        elif isinstance(error, Conflict):
            code = _IN_USE
        self.exit_code = max(self.exit_code, code)
