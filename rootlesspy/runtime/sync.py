"""The hand-shake between the supervisor and the container's init: every message, in one place.

    supervisor                          init (born by clone3 in its new namespaces)
      newuidmap, newgidmap
      IDS_MAPPED (+ fuse mount) ─▶        becomes root of its user namespace, mounts
      scope started, network attached
      PLACED                  ──▶         cgroup namespace, masks, pivot
                              ◀──       READY (with -t: the pty's master, by SCM_RIGHTS)
      record written
      EXEC                    ──▶         ids, capabilities, seccomp, execve
                              ◀──       end of file: the socket was close-on-exec, exec succeeded
                              ◀──       FAILED(step, errno, path, text), at any time

The channel is a SOCK_SEQPACKET pair: one send is one message.  Init's half works after the pivot:
plain bytes, nothing imported, no file opened.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple

IDS_MAPPED = b"IDS_MAPPED"
PLACED = b"PLACED"
READY = b"READY"
EXEC = b"EXEC"
_FAILED = b"FAILED"

_MESSAGE_BYTES = 8192
_FD_BYTES = 4


class Failed(NamedTuple):
    """What init says before it dies."""

    step: str
    errno: int
    path: str
    text: str


class FailedError(Exception):
    """Init reported a failure, or ended without a word (errno EPIPE)."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.step, failed.text)
        self.failed = failed


class Channel:
    """One end of the hand-shake's socket."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def send(self, message: bytes, *, passed_fd: int = -1) -> None:
        """Send one message, with a descriptor when one is passed.  Raises OSError."""
        ancillary = []
        if passed_fd >= 0:
            packed = passed_fd.to_bytes(_FD_BYTES, "little")
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, packed))
        self._socket.sendmsg([message], ancillary)

    def send_failure(self, failed: Failed) -> None:
        """Tell the supervisor why init cannot go on."""
        fields = (failed.step, str(failed.errno), failed.path, failed.text)
        encoded = b"\0".join(field.encode("utf-8", "surrogateescape") for field in fields)
        self._socket.send(_FAILED + b"\0" + encoded[: _MESSAGE_BYTES - 16])

    def expect(self, message: bytes) -> int:
        """Wait for exactly this message; return the descriptor that came with it, or -1.

        Raises FailedError when the other side failed or is gone.
        """
        received, passed_fd = self._receive()
        if received == message:
            return passed_fd
        raise FailedError(_parse(received, message))

    def expect_end(self) -> None:
        """Wait until the other side closed the channel without a message.

        Raises FailedError for a FAILED message.
        """
        received, _ = self._receive()
        if received:
            raise FailedError(_parse(received, b"end of file"))

    def fileno(self) -> int:
        """Return the socket's descriptor, to be polled."""
        return self._socket.fileno()

    def receive(self) -> tuple[bytes, int]:
        """Return one message and the descriptor that came with it, or -1; b"" at the end.

        Raises FailedError for a FAILED message.
        """
        message, passed_fd = self._receive()
        if message.startswith(_FAILED):
            raise FailedError(_parse(message, b""))
        return message, passed_fd

    def pending_failure(self) -> Failed | None:
        """Return a FAILED message that has arrived, without waiting for one."""
        try:
            message = self._socket.recv(_MESSAGE_BYTES, socket.MSG_DONTWAIT)
        except OSError:
            return None
        return _parse(message, READY) if message.startswith(_FAILED) else None

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _receive(self) -> tuple[bytes, int]:
        try:
            message, ancillary, _, _ = self._socket.recvmsg(
                _MESSAGE_BYTES, socket.CMSG_SPACE(_FD_BYTES), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return b"", -1
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                return message, int.from_bytes(data[:_FD_BYTES], "little")
        return message, -1


def channel_pair() -> tuple[Channel, Channel]:
    """Return the supervisor's and init's end."""
    supervisor, init = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(supervisor), Channel(init)


def _parse(message: bytes, wanted: bytes) -> Failed:
    fields = message.split(b"\0")
    if fields[0] == _FAILED and len(fields) == 5:
        texts = [field.decode("utf-8", "surrogateescape") for field in fields[1:]]
        return Failed(texts[0], int(texts[1]), texts[2], texts[3])
    text = f"waited for {wanted.decode()}, got {message[:64]!r}" if message else ""
    return Failed("hand-shake", errno.EPIPE, "", text or os.strerror(errno.EPIPE))
