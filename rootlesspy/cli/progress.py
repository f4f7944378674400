"""How far a pull is, on stderr: bars on a terminal, one line per blob elsewhere, nothing if quiet.

A pull forks and may be killed at any time, so there is no thread, the cursor is never hidden, and
between two drawings it always stands at the start of the line below the bars.
"""

from __future__ import annotations

import os
import sys
import time

from rootlesspy.cli import human
from rootlesspy.image.progress import NoProgress
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import escape

if TYPE_CHECKING:
    from rich.progress import TaskID

    from rootlesspy.image.progress import Progress

_REFRESH_S = 0.1
_LABEL_CELLS = 24


def make(*, quiet: bool, debug: bool = False) -> Progress:
    """Return the progress display that fits stderr; bars would be torn by the lines of --debug."""
    if quiet:
        return NoProgress()
    if os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb" and not debug:
        return Bars()
    return Lines()


class Lines(NoProgress):
    """One line per finished blob: for logs and pipes."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, int]] = {}

    def start(self, id: str, label: str, total_bytes: int) -> None:
        """Remember what id stands for."""
        self._known[id] = (label, total_bytes)

    def finish(self, id: str) -> None:
        """Say that a blob is complete."""
        label, total_bytes = self._known.pop(id, (id, 0))
        size = f" ({human.size(total_bytes)})" if total_bytes else ""
        sys.stderr.write(f"rp: {escape(label)}: done{size}\n")
        sys.stderr.flush()


class Bars(NoProgress):
    """A bar per blob with bytes, speed and time left, laid out by rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._console = Console(stderr=True, highlight=False)
        # Never started: rich's own live display has a thread and hides the cursor.
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[phase]}", markup=False),
            console=self._console,
            auto_refresh=False,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}
        self._drawn_lines = 0
        self._drawn_s = 0.0

    def start(self, id: str, label: str, total_bytes: int) -> None:
        """Show a new bar; one without an end when the size is not known."""
        self._totals[id] = total_bytes
        if id in self._tasks:
            self._progress.reset(self._tasks[id], total=total_bytes or None)
        else:
            self._tasks[id] = self._progress.add_task(
                escape(label)[:_LABEL_CELLS], total=total_bytes or None, phase=""
            )
        self._draw(now=True)

    def advance(self, id: str, n_bytes: int) -> None:
        """Move a bar."""
        if id in self._tasks:
            self._progress.advance(self._tasks[id], n_bytes)
            self._draw()

    def phase(self, id: str, text: str) -> None:
        """Say beside the bar what is being done."""
        if id in self._tasks:
            self._progress.update(self._tasks[id], phase=escape(text))
            self._draw(now=True)

    def finish(self, id: str) -> None:
        """Fill the bar."""
        if id in self._tasks:
            self._progress.update(self._tasks[id], completed=self._totals[id] or None, phase="done")
            self._draw(now=True)

    def _draw(self, *, now: bool = False) -> None:
        moment_s = time.monotonic()
        if not now and moment_s - self._drawn_s < _REFRESH_S:
            return
        self._drawn_s = moment_s
        # What does not fit on the screen cannot be drawn over: the newest blobs stay in sight.
        shown = self._progress.tasks[-max(1, self._console.height - 2) :]
        with self._console.capture() as capture:
            self._console.print(self._progress.make_tasks_table(shown))
        text = capture.get()
        up = f"\x1b[{self._drawn_lines}A" if self._drawn_lines else ""
        self._drawn_lines = text.count("\n")
        line_ends = text.replace("\n", "\x1b[K\n")
        sys.stderr.write(f"\r{up}{line_ends}\x1b[J")
        sys.stderr.flush()
