"""Socket activation: listening sockets from the service manager reach the payload as 3, 4, 5…

sd_listen_fds(3): the manager hands them over from descriptor 3 on and names the process that they
are for in LISTEN_PID.  They stay at those very numbers, close-on-exec, in rp, the supervisor and
init, so that nothing else can take them; only the payload's last step lets them through, and its
environment names process 1.

Under `systemd-socket-activate` and in a service of one's own an attached `rp run` does the same.
"""

from __future__ import annotations

import os
import stat

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import MutableMapping

FIRST = 3
_MOST = 768
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class Listening(NamedTuple):
    """The descriptors FIRST to FIRST + number - 1, and what their units call them."""

    number: int = 0
    names: str = ""

    @property
    def end(self) -> int:
        """The first descriptor after them."""
        return FIRST + self.number

    def environment(self) -> list[str]:
        """Return the variables that tell process 1 of the container."""
        if not self.number:
            return []
        named = [f"LISTEN_FDNAMES={self.names}"] if self.names else []
        return [f"LISTEN_FDS={self.number}", "LISTEN_PID=1", *named]

    def close(self) -> None:
        """Close them here, once the payload has them: it alone decides who is answered."""
        for fd in range(FIRST, self.end):
            os.close(fd)


NO_SOCKETS = Listening()


def take(environment: MutableMapping[str, str]) -> Listening:
    """Take what was handed to this process, and its variables out of the environment.

    Must come before anything is opened.  Raises UsageError for a directory, by which a container
    would get out of its root.
    """
    pid, fds, names, _ = (environment.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not (fds.isascii() and fds.isdigit() and len(fds) < 5):
        return Listening()
    listening = Listening(min(int(fds), _MOST), names)
    for fd in range(FIRST, listening.end):
        try:
            kind = os.fstat(fd).st_mode
        except OSError as error:
            raise UsageError(f"LISTEN_FDS={fds}, but descriptor {fd} is not open") from error
        if stat.S_ISDIR(kind):
            raise UsageError(f"descriptor {fd} of LISTEN_FDS is a directory")
        os.set_inheritable(fd, False)
    return listening
