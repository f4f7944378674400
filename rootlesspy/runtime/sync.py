"""The hand-shake between the supervisor and the container's init: every message, in one place.

    supervisor                          init (born by clone3 in its new namespaces)
      newuidmap, newgidmap
      MAKE_TAP (its name)     ─▶        only where the network's helper attaches to a device
                              ◀──       TAP, or NO_TAP if it cannot be made
      PLAN (+ file)           ─▶        only to one that was born before there was a container;
                                        PLAN_MAPPED says IDS_MAPPED too
      IDS_MAPPED (+ fuse mount) ─▶        becomes root of its user namespace, mounts
      scope started, network attached
      PLACED                  ──▶
                              ◀──       HOOKS, only of a container that has some
      prestart, createRuntime
      HOOKS_DONE              ──▶         createContainer
                                          cgroup namespace, masks, pivot
                              ◀──       with --landlock RULESET (+ its descriptor)
                              ◀──       READY (with -t: the pty's master, by SCM_RIGHTS)
      record written
      EXEC                    ──▶         ids, capabilities, seccomp, startContainer, execve
                              ◀──       end of file: the socket was close-on-exec, exec succeeded
                              ◀──       FAILED(step, errno, path, text), at any time

The channel is a SOCK_SEQPACKET pair: one send is one message.  Init's half works after the pivot:
plain bytes, nothing imported, no file opened.
"""

from __future__ import annotations

import errno
import os

from rootlesspy.light_modules import socket
from rootlesspy.light_typing import NamedTuple

MAKE_TAP = b"MAKE_TAP "
TAP = b"TAP"
NO_TAP = b"NO_TAP"
PLAN = b"PLAN"
PLAN_MAPPED = b"PLAN_MAPPED"
IDS_MAPPED = b"IDS_MAPPED"
PLACED = b"PLACED"
HOOKS = b"HOOKS"
HOOKS_DONE = b"HOOKS_DONE"
RULESET = b"RULESET"
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
            raise FailedError(parse_failure(received))

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
            while message := self._socket.recv(_MESSAGE_BYTES, socket.MSG_DONTWAIT):
                if message.startswith(_FAILED):
                    return _parse(message, READY)
        except OSError:
            pass
        return None

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


def parse_failure(message: bytes) -> Failed:
    """Return what a message says that came where the end of file was waited for."""
    return _parse(message, b"end of file")


def _parse(message: bytes, wanted: bytes) -> Failed:
    fields = message.split(b"\0")
    if fields[0] == _FAILED and len(fields) == 5:
        texts = [field.decode("utf-8", "surrogateescape") for field in fields[1:]]
        return Failed(texts[0], int(texts[1]), texts[2], texts[3])
    text = f"waited for {wanted.decode()}, got {message[:64]!r}" if message else ""
    return Failed("hand-shake", errno.EPIPE, "", text or os.strerror(errno.EPIPE))
