"""What the supervisor and its clients say to each other: one JSON object per packet.

    client → supervisor                          supervisor → client
      attach  {stdin}                              notice   {text}
      exec    {…}  (+ stdin, stdout, stderr)       started  {pid, unit, tty}  (+ terminal, streams)
      stop    {timeout_s, reason}                  failed   {exit_code, message, hint, keep}
      signal  {number, reason}                     exited   {exit_code, message}
      resize  {rows, columns}                      done     {}  (a request was carried out)
                                                   ready    {result}  (of its service's start)
      watch   {}   (wait for the end)              checked  {exit_code, status}
      check   {}   (its health, now)
      bye     {}   (detached: the container goes on)

What does not fit in a packet, such as a long command line, is in a file in memory that goes with
it: the last descriptor of a packet with the field `elsewhere`.

The client that starts a container says `start` first, with the lock of its directory; before that,
while it is still made, it may say `begin` (outlook.py), and `bye` if nothing comes of it.  A client
of a container that runs is treated, when it just disappears, like one that said bye.  The
supervisor listens on `control` in the container's runtime directory, 0700; whoever has systemd
execute one listens on `starter` there, and the supervisor calls back.
"""

from __future__ import annotations

import os

from rootlesspy.light_modules import json, socket
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rootlesspy.paths import Paths

CONTROL, STARTER = "control", "starter"
_PACKET_BYTES = 131072
# Linux takes 200 KB, and less where net.core.wmem_default is lower.
_SENT_BYTES = 65536
_ELSEWHERE = "elsewhere"
_ELSEWHERE_BYTES = 16 * 1024 * 1024
_FD_BYTES = 4
_FDS = 8
_BACKLOG = 64


class Message(NamedTuple):
    """One packet, with the descriptors that came with it."""

    kind: str
    fields: dict[str, object]
    fds: tuple[int, ...] = ()

    @property
    def fd(self) -> int:
        """The first descriptor, or -1."""
        return self.fds[0] if self.fds else -1

    def text(self, key: str) -> str:
        """Return a field as text, "" when it is missing."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        """Return a field as a number, 0 when it is missing."""
        value = self.fields.get(key)
        return value if isinstance(value, int) else 0

    def seconds(self, key: str) -> float:
        """Return a field as a time, which may have a fraction; 0 when it is missing."""
        value = self.fields.get(key)
        return float(value) if isinstance(value, (int, float)) else 0.0

    def close(self) -> None:
        """Close the descriptors that came with it."""
        for fd in self.fds:
            os.close(fd)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return the supervisor's and the client's end."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def listen(paths: Paths, container_id: str, name: str) -> socket.socket:
    """Listen on a socket of the container's runtime directory, which is made when it is missing.

    A socket that is there is replaced: who made it is gone, for the caller holds the lock.
    """
    directory = paths.container_runtime(container_id)
    os.makedirs(directory, 0o700, exist_ok=True)
    try:
        os.unlink(f"{directory}/{name}")
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _at(directory, name, listener.bind)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(paths: Paths, container_id: str, name: str = CONTROL) -> socket.socket | None:
    """Connect to the supervisor of a container, or to who starts it; None when nobody is there."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _at(paths.container_runtime(container_id), name, end.connect)
    except (FileNotFoundError, ConnectionRefusedError):
        end.close()
        return None
    except BaseException:
        end.close()
        raise
    return end


def connect_once(paths: Paths, container_id: str) -> bool:
    """Say whether somebody listens."""
    end = connect(paths, container_id)
    if end is None:
        return False
    end.close()
    return True


def tell(end: socket.socket, kind: str, **fields: object) -> bool:
    """Send one packet without descriptors; say whether somebody was there to take it."""
    return send(end, kind, (), fields)


def send(end: socket.socket, kind: str, fds: Sequence[int], fields: Mapping[str, object]) -> bool:
    """Send one packet; say whether somebody was there to take it.

    A connection that lost a packet is shut down: nobody waits for an answer.
    """
    encoded = json.dumps({"kind": kind, **fields}).encode()
    try:
        if len(encoded) <= _SENT_BYTES:
            _send(end, encoded, fds)
        else:
            _send_elsewhere(end, encoded, fds)
    except OSError:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        return False
    return True


def _send(end: socket.socket, encoded: bytes, fds: Sequence[int]) -> None:
    ancillary = []
    if fds:
        packed = b"".join(fd.to_bytes(_FD_BYTES, "little") for fd in fds)
        ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, packed))
    end.sendmsg([encoded], ancillary)


def _send_elsewhere(end: socket.socket, encoded: bytes, fds: Sequence[int]) -> None:
    fd = os.memfd_create("packet", os.MFD_CLOEXEC)
    try:
        view = memoryview(encoded)
        while view:
            view = view[os.write(fd, view) :]
        _send(end, json.dumps({_ELSEWHERE: len(encoded)}).encode(), (*fds, fd))
    finally:
        os.close(fd)


def receive(end: socket.socket) -> Message | None:
    """Return the next packet, or None at the end of the connection.

    Raises ValueError for one that cannot be understood; its descriptors are closed.
    """
    try:
        packet, ancillary, _, _ = end.recvmsg(
            _PACKET_BYTES, socket.CMSG_SPACE(_FD_BYTES * (_FDS + 1)), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionError:
        return None
    fds: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds += (
                int.from_bytes(data[at : at + _FD_BYTES], "little")
                for at in range(0, len(data) - _FD_BYTES + 1, _FD_BYTES)
            )
    if not packet:
        return None
    try:
        return _unpacked(packet, fds)
    except ValueError:
        for fd in fds:
            os.close(fd)
        raise


def is_silent(end: socket.socket) -> bool:
    """Say whether nothing has arrived yet, not even the end of the connection."""
    try:
        end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


def _unpacked(packet: bytes, fds: list[int]) -> Message:
    message = _message(packet, tuple(fds))
    if _ELSEWHERE not in message.fields or not fds:
        return message
    fd = fds.pop()
    try:
        return _message(_content(fd), tuple(fds))
    finally:
        os.close(fd)


def _content(fd: int) -> bytes:
    """Return what is in the file of a packet; whoever sent it may be writing to it."""
    if os.fstat(fd).st_size > _ELSEWHERE_BYTES:
        raise ValueError("a packet is too large")
    content = b""
    while part := os.pread(fd, _ELSEWHERE_BYTES, len(content)):
        content += part
        if len(content) > _ELSEWHERE_BYTES:
            raise ValueError("a packet is too large")
    return content


def _message(packet: bytes, fds: tuple[int, ...]) -> Message:
    try:
        fields = json.loads(packet)
    except RecursionError as error:
        raise ValueError("a packet is nested too deeply") from error
    if isinstance(fields, dict):
        return Message(str(fields.pop("kind", "")), fields, fds)
    raise ValueError("a packet is no object")


def _at(directory: str, name: str, call: Callable[[str], None]) -> None:
    """Bind or connect below a directory whose path may be too long for sun_path (unix(7))."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)
