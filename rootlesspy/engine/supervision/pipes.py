"""The pipes between a payload and the supervisor that relays its streams."""

from __future__ import annotations

import fcntl
import os

_STREAMS = ((1, "stdout"), (2, "stderr"))


class Pipes:
    """Ends for the payload at 0, 1 and 2, and the supervisor's ends of the same."""

    def __init__(self, *, interactive: bool) -> None:
        """Make them; a payload that is not interactive reads from /dev/null.  Raises OSError."""
        self.input_fd = -1
        if interactive:
            reader, self.input_fd = os.pipe2(os.O_CLOEXEC)
        else:
            reader = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._ends = {0: reader}
        self.sources: dict[int, str] = {}
        for number, stream in _STREAMS:
            source, self._ends[number] = os.pipe2(os.O_CLOEXEC)
            self.sources[source] = stream
        self._own: dict[int, int] = {}

    def put(self) -> None:
        """Put the payload's ends in the place of 0, 1 and 2, for it to inherit."""
        for number, fd in self._ends.items():
            os.dup2(fd, number)
            os.close(fd)

    def lend(self) -> None:
        """Put them there until take_back()."""
        self._own = {number: fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3) for number in self._ends}
        self.put()

    def take_back(self) -> None:
        """Put back what was there before lend()."""
        for number, fd in self._own.items():
            os.dup2(fd, number)
            os.close(fd)
        self._own = {}
