"""Run commands in a virtual machine over TCP: `wire.py agent` inside, `wire.py run JSON` outside.

The outer process stands for the command, as with enter.py: it relays standard input and output,
signals and the size of its terminal, and dies the way the command died. Every connection is one
command: a line of JSON (a Command), then frames in both directions. Standard library only,
Python 3.11 or newer on both sides.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
import tty
from typing import NamedTuple

PORT = 7
SESSION = "/run/rig/ready"
_MANAGEMENT = "/run/netns/management"
_CLONE_NEWNET = 0x40000000
_CHUNK = 65536
# No more is read from a side whose other end is this far behind.
_BEHIND_BYTES = 8 << 20
FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1,
              signal.SIGUSR2, signal.SIGCONT)  # fmt: skip

# Frames: a letter, a length, data.
_HEADER = struct.Struct("!cI")
INPUT, OUTPUT, ERROR, SIGNAL, SIZE, EXIT = b"i", b"o", b"e", b"s", b"w", b"x"


class Command(NamedTuple):
    """What to run. The login session of alice is entered when `in_session`."""

    token: str
    uid: int
    environment: dict[str, str]
    directory: str
    in_session: bool
    terminal: bool
    argv: list[str]


class Channel:
    """Frames over a non-blocking socket, with what could not be sent yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.unsent = bytearray()
        self._received = bytearray()
        connection.setblocking(False)

    def send(self, kind: bytes, data: bytes) -> None:
        self.unsent += _HEADER.pack(kind, len(data)) + data
        self.flush()

    def flush(self) -> None:
        try:
            while self.unsent:
                del self.unsent[: self.socket.send(self.unsent)]
        except BlockingIOError:
            pass

    def receive(self) -> list[tuple[bytes, bytes]] | None:
        """Return the frames that have come, None at the end of the connection."""
        try:
            data = self.socket.recv(_CHUNK)
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        if not data:
            return None
        self._received += data
        frames = []
        while len(self._received) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._received)
            if len(self._received) < _HEADER.size + length:
                break
            end = _HEADER.size + length
            frames.append((kind, bytes(self._received[_HEADER.size : end])))
            del self._received[:end]
        return frames


# Outside


def run(port: int, command: Command) -> int:
    """Run a command in the machine that listens on a local port; return its exit code."""
    command = command._replace(terminal=os.isatty(0))
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(json.dumps(command).encode() + b"\n")
    channel = Channel(connection)
    # Not sent by the handlers: they would meddle with what is just being sent.
    signals, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in (*FORWARDED, *([signal.SIGWINCH] if command.terminal else [])):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # Whoever starts us may have blocked them until now, so that none is lost or kills the relay.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if not command.terminal:
        return _relay(channel, signals)
    channel.send(SIZE, _terminal_size())
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)
    try:
        return _relay(channel, signals)
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _relay(channel: Channel, signals: int) -> int:
    with_input = True
    while True:
        reading = [channel.socket.fileno(), signals]
        if with_input and len(channel.unsent) < _BEHIND_BYTES:
            reading.append(0)
        writing = [channel.socket.fileno()] if channel.unsent else []
        readable, writable, _ = select.select(reading, writing, [])
        if writable:
            channel.flush()
        if signals in readable:
            for number in os.read(signals, 65536):
                if number == signal.SIGWINCH:
                    channel.send(SIZE, _terminal_size())
                elif number in FORWARDED:
                    channel.send(SIGNAL, bytes([number]))
        if 0 in readable:
            data = _read(0)
            channel.send(INPUT, data)
            with_input = bool(data)
        if channel.socket.fileno() in readable:
            frames = channel.receive()
            if frames is None:
                print("wire: the virtual machine hung up", file=sys.stderr)
                return 255
            for kind, data in frames:
                if kind == EXIT:
                    return int(data)
                _write_all(1 if kind == OUTPUT else 2, data)


def _terminal_size() -> bytes:
    return fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)


def _die_like(code: int) -> int:
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


# Inside


def agent(token: str) -> None:
    """Serve for ever, each connection in a process of its own."""
    listener = _listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _address = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                _serve(connection, token)
            finally:
                os._exit(0)
        connection.close()


def _listen() -> socket.socket:
    # The port lies in a network namespace of its own, so that the machine looks as any other.
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    management = os.open(_MANAGEMENT, os.O_RDONLY | os.O_CLOEXEC)
    _setns(management)
    listener = socket.create_server(("", PORT), backlog=100)
    _setns(own)
    os.close(own)
    os.close(management)
    return listener


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _serve(connection: socket.socket, token: str) -> None:
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return
        line += byte
    command = Command(*json.loads(line))
    if command.token != token:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Session(Channel(connection), command).serve()


class Session:
    """One command and its three streams, inside."""

    def __init__(self, channel: Channel, command: Command) -> None:
        self._channel = channel
        self._typed = bytearray()
        self._typed_ended = False
        self._outputs: dict[int, bytes] = {}
        if command.terminal:
            self._input_fd, slave = os.openpty()
            ends = (slave, slave, slave)
            self._outputs[self._input_fd] = OUTPUT
        else:
            inner_in, self._input_fd = os.pipe()
            out, inner_out = os.pipe()
            err, inner_err = os.pipe()
            ends = (inner_in, inner_out, inner_err)
            self._outputs = {out: OUTPUT, err: ERROR}
        self._terminal = command.terminal
        os.set_blocking(self._input_fd, False)
        self._pid = os.fork()
        if self._pid == 0:
            _become(command, ends)
        for end in set(ends):
            os.close(end)

    def serve(self) -> None:
        """Relay until the command has ended and its output is sent."""
        while self._outputs or self._channel.unsent:
            if not self._step():
                os.kill(self._pid, signal.SIGHUP)
                return
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._channel.send(EXIT, str(code).encode())
        self._channel.socket.setblocking(True)
        self._channel.socket.sendall(self._channel.unsent)

    def _step(self) -> bool:
        channel = self._channel
        reading: list[int] = []
        if len(self._typed) < _BEHIND_BYTES:
            reading.append(channel.socket.fileno())
        if len(channel.unsent) < _BEHIND_BYTES:
            reading += self._outputs
        writing = [channel.socket.fileno()] if channel.unsent else []
        if self._typed and self._input_fd >= 0:
            writing.append(self._input_fd)
        readable, writable, _ = select.select(reading, writing, [])
        if channel.socket.fileno() in writable:
            channel.flush()
        if self._input_fd in writable:
            self._type()
        for output in [fd for fd in self._outputs if fd in readable]:
            data = _read(output)
            if data:
                channel.send(self._outputs[output], data)
            else:
                del self._outputs[output]
        if channel.socket.fileno() in readable:
            frames = channel.receive()
            if frames is None:
                return False
            for kind, data in frames:
                self._take(kind, data)
        return True

    def _take(self, kind: bytes, data: bytes) -> None:
        if kind == INPUT:
            self._typed += data
            self._typed_ended = self._typed_ended or not data
            self._type()
        elif kind == SIGNAL:
            os.kill(self._pid, data[0])
        elif kind == SIZE and self._terminal:
            fcntl.ioctl(self._input_fd, termios.TIOCSWINSZ, data)

    def _type(self) -> None:
        if self._input_fd < 0:
            return
        try:
            while self._typed:
                del self._typed[: os.write(self._input_fd, self._typed)]
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            self._typed.clear()
        if self._typed_ended and not self._terminal:
            os.close(self._input_fd)
            self._input_fd = -1


def _become(command: Command, ends: tuple[int, int, int]) -> None:
    """Turn the forked child into the command."""
    try:
        os.setsid()
        if command.terminal:
            fcntl.ioctl(ends[0], termios.TIOCSCTTY, 0)
            os.fchown(ends[0], command.uid, 5)
        for standard, end in enumerate(ends):
            os.dup2(end, standard)
        os.closerange(3, 1000)
        environment = dict(command.environment)
        if command.in_session:
            _enter_session(command.uid, environment)
        os.setgroups([command.uid])
        os.setgid(command.uid)
        os.setuid(command.uid)
        os.umask(0o022)
        os.chdir(command.directory)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(command.argv[0], command.argv, environment)
    except OSError as error:
        where = error.filename or command.argv[0]
        os.write(2, f"wire: {where}: {error.strerror}\n".encode())
        os._exit(126 if isinstance(error, PermissionError) else 127)


def _enter_session(uid: int, environment: dict[str, str]) -> None:
    with open(SESSION, encoding="ascii") as file:
        session = file.read().strip()
    environment["XDG_SESSION_ID"] = session
    scope = f"/sys/fs/cgroup/user.slice/user-{uid}.slice/session-{session}.scope"
    with open(f"{scope}/cgroup.procs", "w", encoding="ascii") as procs:
        procs.write("0")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except OSError:  # EIO: the last holder of the terminal is gone
        return b""


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def main() -> int:
    """Be the agent or run one command."""
    if sys.argv[1] == "agent":
        with open("/usr/lib/rig/token", encoding="ascii") as file:
            agent(file.read().strip())
    port, fields = json.loads(sys.argv[2])
    return _die_like(run(port, Command(*fields)))


if __name__ == "__main__":
    sys.exit(main())
