"""When a container counts as started: `--sdnotify`.

    runner     once its program runs; podman's word conmon is taken too, and ignore means the same
    container  once it says READY=1 itself (systemd.notify.Relay)
    healthy    once its health check has succeeded
    port:N     once something in its network listens on TCP port N
    log:REGEX  once it has printed a line in which the pattern is found

Watch is what the supervisor asks for the last two; it needs neither a program in the image nor a
connection, which some servers would take for a client.
"""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from re import Pattern

_WORDS = {
    "runner": "runner",
    "conmon": "runner",
    "ignore": "runner",
    "container": "container",
    "healthy": "healthy",
}
_EXAMPLES = "runner, container, healthy, port:8080 or log:REGEX"
_LISTEN = b"0A"
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 20, 500
_LINE_BYTES = 4096


def parse(text: str, option: str) -> str:
    """Check the text of --sdnotify; raises UsageError."""
    if text in _WORDS:
        return _WORDS[text]
    kind, colon, value = text.partition(":")
    if kind == "port" and _port(value):
        return text
    if kind == "log" and colon and value:
        _compile(value, option)
        return text
    raise UsageError(f"{option} {text!r} is not one of {_EXAMPLES}")


class Watch:
    """Waits for a port or a line of one container; once it is ready it asks for nothing more."""

    def __init__(self, sdnotify: str, pid: int) -> None:
        """Take record.sdnotify and the pid of the payload."""
        kind, _, value = sdnotify.partition(":")
        self._pid = pid
        self._port = _port(value) if kind == "port" else 0
        self._pattern = _compile(value, "--sdnotify") if kind == "log" else None
        self._pause_ms = _FIRST_PAUSE_MS

    def timeout_ms(self) -> int:
        """Return after how many milliseconds poll() is due; -1: it is not."""
        return self._pause_ms if self._port else -1

    def poll(self) -> bool:
        """Say whether the port is listened on by now; True once only."""
        if not self._port:
            return False
        if not is_listening(self._pid, self._port):
            self._pause_ms = min(self._pause_ms * 2, _LONGEST_PAUSE_MS)
            return False
        self._port = 0
        return True

    def line(self, line: bytes) -> bool:
        """Say whether this line of output is the one waited for; True once only."""
        if self._pattern is None:
            return False
        if self._pattern.search(line[:_LINE_BYTES].decode("utf-8", "replace")) is None:
            return False
        self._pattern = None
        return True


def is_listening(pid: int, port: int) -> bool:
    """Say whether a TCP port is listened on in the network namespace of a process.

    proc_net_tcp: local address:port and state in hexadecimal, the 2nd and 4th column.
    """
    wanted = b":%04X" % port
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{name}", "rb") as file:
                for line in file:
                    fields = line.split(None, 4)
                    if len(fields) > 3 and fields[3] == _LISTEN and fields[1].endswith(wanted):
                        return True
        except OSError:
            # It has ended, or IPv6 is off.
            continue
    return False


def _port(text: str) -> int:
    """Return the port number, 0 for what is none."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return 0
    number = int(text)
    return number if number <= 65535 else 0


def _compile(text: str, option: str) -> Pattern[str]:
    # Imported here: few wait for a line, and all would pay.
    import re

    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"{option} log:{text}: {error}") from error
