"""What the supervisor and its clients say to each other: one JSON object per packet.

    supervisor → client                          client → supervisor
      notice  {text}                               signal  {number}
      started {pid} (+ the pty's master)           resize  {rows, columns}
      failed  {exit_code, message, hint}           bye     {}   (detached: the container goes on)
      exited  {exit_code, message}

A client that just disappears is treated like one that said bye; the container goes on.
"""

from __future__ import annotations

import json
import socket
from typing import NamedTuple

_PACKET_BYTES = 65536
_FD_BYTES = 4


class Message(NamedTuple):
    """One packet; fd is -1 when none came with it."""

    kind: str
    fields: dict[str, object]
    fd: int = -1

    def text(self, key: str) -> str:
        """Return a field as text, "" when it is missing."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        """Return a field as a number, 0 when it is missing."""
        value = self.fields.get(key)
        return value if isinstance(value, int) else 0


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return the supervisor's and the client's end."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, kind: str, *, fd: int = -1, **fields: object) -> bool:
    """Send one packet; say whether somebody was there to take it."""
    ancillary = []
    if fd >= 0:
        ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(_FD_BYTES, "little")))
    encoded = json.dumps({"kind": kind, **fields}).encode()
    try:
        end.sendmsg([encoded[:_PACKET_BYTES]], ancillary)
    except OSError:
        return False
    return True


def receive(end: socket.socket) -> Message | None:
    """Return the next packet, or None at the end of the connection."""
    try:
        packet, ancillary, _, _ = end.recvmsg(
            _PACKET_BYTES, socket.CMSG_SPACE(_FD_BYTES), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionError:
        return None
    fd = -1
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fd = int.from_bytes(data[:_FD_BYTES], "little")
    if not packet:
        return None
    fields = json.loads(packet)
    return Message(str(fields.pop("kind", "")), fields, fd)
