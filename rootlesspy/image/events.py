"""What the processes of a pull tell the one that draws: JSON lines on one pipe, never torn.

Writes of up to PIPE_BUF bytes are atomic (pipe(7)), so all processes share the pipe.
"""

from __future__ import annotations

import os
import time

from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.image.progress import Progress
    from rootlesspy.report import Reporter

_EVERY_S = 0.1
_MAX_TEXT = 500


class Events:
    """The writing end, for one blob."""

    def __init__(self, fd: int, blob_id: str) -> None:
        self._fd = fd
        self._id = blob_id
        self._bytes = 0
        self._told = 0.0

    def start(self, label: str, total_bytes: int) -> None:
        """The blob begins, or begins again."""
        self._bytes = 0
        self._send("start", label[:_MAX_TEXT], total_bytes)

    def advance(self, n_bytes: int) -> None:
        """More of it has arrived; told at most ten times per second."""
        self._bytes += n_bytes
        now = time.monotonic()
        if now - self._told >= _EVERY_S:
            self._told = now
            self.flush()

    def flush(self) -> None:
        """Tell what advance() has kept back."""
        if self._bytes:
            self._send("advance", self._bytes)
            self._bytes = 0

    def phase(self, text: str) -> None:
        """What is done with it now."""
        self._send("phase", text[:_MAX_TEXT])

    def notice(self, text: str) -> None:
        """Something that people should read."""
        self._send("notice", text[:_MAX_TEXT])

    def finish(self) -> None:
        """It is complete."""
        self.flush()
        self._send("finish")

    def _send(self, kind: str, *arguments: object) -> None:
        os.write(self._fd, json.dumps([kind, self._id, *arguments]).encode() + b"\n")


class Listener:
    """The reading end: passes events on to a progress display and a reporter."""

    def __init__(self, fd: int, progress: Progress, reporter: Reporter) -> None:
        self._fd = fd
        self._progress = progress
        self._reporter = reporter
        self._rest = b""

    def receive(self) -> bool:
        """Pass on what has arrived, waiting for some; False when all writers are gone."""
        data = os.read(self._fd, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            kind, blob_id, *arguments = json.loads(line)
            if kind == "notice":
                self._reporter.notice(arguments[0])
            else:
                getattr(self._progress, kind)(blob_id, *arguments)
        return bool(data)
