"""One client that listens to a container: its sockets, and what waits to be read by it."""

from __future__ import annotations

import select

from rootlesspy.light_modules import socket

# How much is kept for a client that reads slowly.
_BUFFER_BYTES = 1024 * 1024


class Listener:
    """One attached client: a stream socket for stdin and stdout, another for stderr."""

    def __init__(self, *, stdin: bool, patient: bool, keeps_fds: bool = False) -> None:
        self.stdin = stdin
        self.keeps_fds = keeps_fds
        self.patient = patient
        self.ends: dict[str, socket.socket] = {}
        self.waiting: dict[str, bytearray] = {}

    def open(self, stream: str) -> int:
        """Make the socket of a stream; return the client's end as a descriptor."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.ends[stream] = ours
        self.waiting[stream] = bytearray()
        return theirs.detach()

    def is_full(self) -> bool:
        """Say whether more waits for this client than is kept for it."""
        return any(len(each) > _BUFFER_BYTES for each in self.waiting.values())

    def push(self, stream: str, chunk: bytes) -> bool:
        """Pass output on, or keep it for later; False when the client is gone."""
        name = stream if stream in self.ends else "stdout"
        waiting = self.waiting[name]
        try:
            if not waiting:
                # Mostly it takes all, which is then copied nowhere else.
                chunk = chunk[self._send(name, chunk) :]
            if chunk:
                waiting += chunk
                self.write()
        except OSError:
            return False
        return True

    def _send(self, stream: str, data: bytes | bytearray) -> int:
        """Pass on what the client takes now; return how much that was."""
        try:
            return self.ends[stream].send(data)
        except BlockingIOError:
            return 0

    def write(self) -> None:
        """Write as much as the client takes now.  Raises OSError when it is gone."""
        for stream, waiting in self.waiting.items():
            while waiting and (sent := self._send(stream, waiting)):
                del waiting[:sent]

    def is_gone(self) -> bool:
        """Say whether the client has closed its end, not only its output."""
        poller = select.poll()
        poller.register(self.ends["stdout"].fileno(), 0)
        return bool(poller.poll(0))

    def flush(self, limit_s: float) -> None:
        """Wait until the client has read everything, is gone, or reads nothing for limit_s."""
        while any(self.waiting.values()):
            poller = select.poll()
            for stream, end in self.ends.items():
                if self.waiting[stream]:
                    poller.register(end.fileno(), select.POLLOUT)
            if not poller.poll(limit_s * 1000):
                return
            try:
                self.write()
            except OSError:
                return

    def close(self) -> None:
        """Close the sockets."""
        for end in self.ends.values():
            end.close()
