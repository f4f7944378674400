"""sd_notify(3): tell systemd how the supervisor does, and pass on what the payload says.

Runs in the supervisor.  How it wires both:

    notifier = Notifier(os.environ.pop("NOTIFY_SOCKET", ""))   at its very start
    relay = Relay(f"{runtime_dir}/notify")                     before the container is made, for
                                                               --sdnotify=container alone
    relay.belongs_to(cgroup)                                   once the scope is there
    poller.register(relay.fileno(), select.POLLIN)             then, whenever it is readable:
    notifier.send(*relay.receive())
    notifier.send(READY, "STATUS=...")                         by itself in the other modes
    notifier.send(STOPPING)                                    as the stop begins
    relay.close()                                              at the end; the socket goes too

The directory is bound read-only on MOUNTED in the container, whose NOTIFY_SOCKET is ADDRESS.  The
payload's words pass a filter: it may not become another main process, hand over descriptors or
make systemd wait for more than it said.
"""

from __future__ import annotations

import os
import sys

from rootlesspy.light_modules import socket, struct
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.systemd import cgroup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

READY, STOPPING = "READY=1", "STOPPING=1"
MOUNTED = "/run/notify"
ADDRESS = f"{MOUNTED}/notify.sock"

# systemd's own limit, NOTIFY_BUFFER_MAX, is PIPE_BUF.
_FD_BYTES = 4
_DATAGRAM_BYTES = 4096
_STATUS_CHARACTERS = 512
_DATAGRAMS_AT_ONCE = 64
_MOST_FDS = 253
_SEND_TIMEOUT_S = 5.0
_CREDENTIALS = struct.Struct("3i")

# Not MAINPID, FDSTORE, NOTIFYACCESS, WATCHDOG_USEC: they are between systemd and the supervisor.
_FLAGS = frozenset(("READY", "RELOADING", "STOPPING"))
_NUMBERS = frozenset(("EXTEND_TIMEOUT_USEC", "ERRNO", "MONOTONIC_USEC"))


class Notifier:
    """The way to the service manager; without an address everything goes nowhere."""

    def __init__(self, address: str) -> None:
        """Take NOTIFY_SOCKET's value: a path, or @NAME for an abstract socket."""
        self._address = f"\0{address[1:]}" if address[:1] == "@" else address

    def send(self, *assignments: str) -> bool:
        """Send assignments such as READY=1 in one datagram; say whether they arrived.

        Waits for at most 5 s when the manager's queue is full.
        """
        if not self._address or not assignments:
            return False
        message = "\n".join(assignments).encode("utf-8", "backslashreplace")
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        with socket.socket(socket.AF_UNIX, kind) as sender:
            sender.settimeout(_SEND_TIMEOUT_S)
            try:
                sender.sendto(message[:_DATAGRAM_BYTES], self._address)
            except OSError:
                # The manager is gone, or being executed anew: the next state is sent afresh.
                return False
        return True

    def store(self, name: str, fds: Sequence[int]) -> bool:
        """Have systemd keep copies of descriptors under a name; say whether they arrived.

        It hands them over when it starts the service again (sd_listen_fds(3)).
        """
        if not self._address:
            return False
        # Without FDPOLL=0 a socket that has an error to tell would be thrown away.
        message = f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0".encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_SEND_TIMEOUT_S)
            try:
                sender.connect(self._address)
                packed = b"".join(fd.to_bytes(_FD_BYTES, sys.byteorder) for fd in fds)
                sender.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])
            except OSError:
                return False
        return True

    def extend_timeout(self, us: int) -> bool:
        """Have systemd wait so many microseconds more for the start or the stop."""
        return self.send(f"EXTEND_TIMEOUT_USEC={us}")


class Relay:
    """The payload's notify socket."""

    def __init__(self, directory: str) -> None:
        """Make the socket in directory, which is made too.  Raises OSError."""
        self._path = f"{directory}/notify.sock"
        self._cgroup: str | None = None
        # The parent is 0700; in the container any of its users may speak.
        os.makedirs(directory, 0o755, exist_ok=True)
        os.chmod(directory, 0o755)  # noqa: S103 - as said
        _unlink(self._path)
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            _bind(self._socket, directory)
            os.chmod(self._path, 0o666)  # noqa: S103 - as said
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def belongs_to(self, control_group: str) -> None:
        """Hear only processes in this cgroup or below it; until then all are heard."""
        self._cgroup = control_group.rstrip("/")

    def receive(self) -> list[str]:
        """Return what the payload has said, for Notifier.send(); never blocks, never raises.

        What cannot be passed on is dropped.  Of a storm only the newest of each kind counts.
        """
        heard: dict[str, str] = {}
        for _ in range(_DATAGRAMS_AT_ONCE):
            message = self._read()
            if message is None:
                break
            for assignment in filtered(message):
                key = assignment.partition("=")[0]
                heard.pop(key, None)
                heard[key] = assignment
        return list(heard.values())

    def close(self) -> None:
        """Remove the socket; doing it twice is harmless."""
        self._socket.close()
        _unlink(self._path)

    def _read(self) -> bytes | None:
        """Return the next datagram, empty for one that does not count; None when there is none."""
        space = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(_MOST_FDS * 4)
        try:
            message, ancillary, flags, _ = self._socket.recvmsg(
                _DATAGRAM_BYTES, space, socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return None
        pid = 0
        for level, kind, data in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_RIGHTS:
                # Also what systemd-notify sends with BARRIER=1, to learn that it was heard.
                _close_all(data)
            elif kind == socket.SCM_CREDENTIALS:
                pid = _CREDENTIALS.unpack(data)[0]
        if flags & socket.MSG_TRUNC or not self._may_speak(pid):
            return b""
        return message

    def _may_speak(self, pid: int) -> bool:
        """Say whether a process is one of the payload's.

        One that has ended already is believed, as short-lived ones (a shell's sendto) would be lost
        else: the socket's directory lets in nobody but the user and the container.
        """
        if self._cgroup is None:
            return True
        try:
            path = cgroup.control_group(pid)
        except OSError:
            return True
        return path == self._cgroup or path.startswith(f"{self._cgroup}/")


def filtered(message: bytes) -> list[str]:
    """Return the assignments of a datagram that may reach systemd, each checked and cleaned."""
    try:
        lines = message.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return []
    return [line for line in map(_allowed, lines) if line]


def watchdog(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables that tell the payload of the service's WatchdogSec=.

    Without WATCHDOG_PID, which would be the supervisor's: the payload's whole tree may answer.
    """
    us = environment.get("WATCHDOG_USEC", "")
    return (f"WATCHDOG_USEC={us}",) if _is_number(us) else ()


def _allowed(line: str) -> str:
    """Return the assignment as it may be sent, empty when it may not."""
    key, _, value = line.partition("=")
    if key in _FLAGS:
        return line if value == "1" else ""
    if key in _NUMBERS:
        return line if _is_number(value) else ""
    if key == "WATCHDOG":
        return line if value in ("1", "trigger") else ""
    if key == "STATUS":
        shown = "".join(each if each.isprintable() else " " for each in value)
        return f"STATUS={shown[:_STATUS_CHARACTERS]}"
    return ""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


def _bind(bound: socket.socket, directory: str) -> None:
    """Bind notify.sock in directory, whose path may be longer than a socket's 107 bytes."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        bound.bind(f"/proc/self/fd/{fd}/notify.sock")
    finally:
        os.close(fd)


def _close_all(data: bytes) -> None:
    for at in range(0, len(data) - _FD_BYTES + 1, _FD_BYTES):
        os.close(int.from_bytes(data[at : at + _FD_BYTES], sys.byteorder))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
