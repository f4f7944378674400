"""The journal's native protocol: one datagram per record, a memfd in it for a large one.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL, systemd.journal-fields(7).  Hot: the supervisor writes
the payload's output through it.  Nothing here waits unless it is told for how long.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select

from rootlesspy.light_modules import socket

SOCKET = "/run/systemd/journal/socket"
CURE = (
    "as root: mkdir -p /var/log/journal && systemctl restart systemd-journald, "
    "or join the group systemd-journal"
)
"""What makes a user's journal readable to him."""
_MAX_INLINE_BYTES = 48 * 1024
# linux/sockios.h: how much of what was sent is not received yet.
_SIOCOUTQ = 0x5411
# systemd 252 takes a memfd with exactly these, of whoever is not root, or a file in /dev/shm.
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a file without a name
# A memfd in the queue is memory: the kernel raises this to its minimum, room for about six.
_LARGE_QUEUE_BYTES = 1
_GONE = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE)
# ENOENT: journald's socket unit is being restarted.  ENFILE, EMFILE, ENOMEM pass too.
_PASSING = (
    errno.EAGAIN, errno.ENOBUFS, errno.ENOENT, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
    errno.ENOSPC, errno.ETOOMANYREFS, errno.EINTR,
)  # fmt: skip


def field(name: str, value: bytes) -> bytes:
    """Encode one field; a value with line ends takes the form that has a length.

    Only so can nobody who writes a value begin a field of his own.
    """
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (name.encode(), value)


def fields(values: dict[str, str]) -> bytes:
    """Encode fields that are text."""
    return b"".join(
        field(name, value.encode("utf-8", "surrogateescape")) for name, value in values.items()
    )


class Journal:
    """A connection to journald that survives journald."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._small: socket.socket | None = None
        self._large: socket.socket | None = None
        self._blocked: socket.socket | None = None

    def send(self, head: bytes, message: bytes | bytearray | memoryview) -> bool:
        """Send a record: encoded fields, then MESSAGE; False: not taken now, try again later.

        Raises OSError for what no later try would cure.
        """
        parts = [head, b"MESSAGE\n", len(message).to_bytes(8, "little"), message, b"\n"]
        for _ in range(2):
            try:
                return self._send(parts, large=len(head) + len(message) > _MAX_INLINE_BYTES)
            except OSError as error:
                if error.errno in _PASSING:
                    return False
                if error.errno not in _GONE:
                    raise
                self.close()
        return False

    def wait(self, timeout_s: float) -> None:
        """Wait until journald may take what it just refused."""
        poller = select.poll()
        if self._blocked is not None:
            poller.register(self._blocked.fileno(), select.POLLOUT)
            # It reports a closed peer at once, again and again.
            timeout_s = min(timeout_s, 1.0)
        else:
            timeout_s = min(timeout_s, 0.05)
        poller.poll(int(timeout_s * 1000) + 1)

    def queued_bytes(self) -> int:
        """Return how much of what was sent journald has not received yet."""
        total = 0
        for end in (self._small, self._large):
            if end is not None:
                answer = fcntl.ioctl(end.fileno(), _SIOCOUTQ, bytes(4))
                total += int.from_bytes(answer, "little")
        return total

    def close(self) -> None:
        """Let go of the sockets; what was sent stays sent."""
        for end in (self._small, self._large):
            if end is not None:
                end.close()
        self._small = self._large = self._blocked = None

    def _send(self, parts: list[bytes | bytearray | memoryview], *, large: bool) -> bool:
        if not large:
            if self._small is None:
                self._small = self._connect()
            self._blocked = self._small
            try:
                self._small.sendmsg(parts)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
            else:
                self._blocked = None
                return True
        if self._large is None:
            self._large = self._connect(_LARGE_QUEUE_BYTES)
        self._blocked = self._large
        memory_fd = _in_memory(parts)
        try:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, memory_fd.to_bytes(4, "little"))
            self._large.sendmsg([], [rights])
        finally:
            os.close(memory_fd)
        self._blocked = None
        return True

    def _connect(self, queue_bytes: int = 0) -> socket.socket:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if queue_bytes:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, queue_bytes)
            end.connect(self._path)
        except OSError:
            end.close()
            raise
        return end


def readable() -> bool:
    """Say whether journald takes records here and this user may read back his own.

    A volatile journal is one file for all users (journald.conf(5), SplitMode=): its readers are
    the groups adm and systemd-journal.  A persistent one has a file for each.
    """
    if not os.access(SOCKET, os.W_OK):
        return False
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            machine = file.read(64).strip()
    except OSError:
        return False
    volatile = f"/run/log/journal/{machine}"
    if os.path.lexists(volatile):
        # Without those groups not even its files can be seen.  It goes when it is flushed to disk.
        return os.access(f"{volatile}/system.journal", os.R_OK)
    persistent = f"/var/log/journal/{machine}"
    own = f"{persistent}/user-{os.getuid()}.journal"
    return os.access(own, os.R_OK) or os.access(f"{persistent}/system.journal", os.R_OK)


def _in_memory(parts: list[bytes | bytearray | memoryview]) -> int:
    """Return a descriptor of memory with the parts in it, as journald takes it; raises OSError."""
    fd = os.memfd_create("journal-record", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        # A memfd takes all or fails: no disk is behind it that could be nearly full.
        os.writev(fd, parts)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) == _SEALS:
            return fd
        # The kernel added one of its own: sysctl vm.memfd_noexec.
        shared_fd = os.open(_SHARED_MEMORY, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.dup2(shared_fd, fd, inheritable=False)
        os.close(shared_fd)
        os.writev(fd, parts)
    except BaseException:
        os.close(fd)
        raise
    return fd
