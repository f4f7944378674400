"""The client of a supervisor: the caller's terminal and signals for the container, its exit code.

Runs in the CLI.  Without a terminal the payload has the caller's own stdin, stdout and stderr and
nothing is copied here; with one, bytes go between the caller's terminal and the container's pty.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from typing import TYPE_CHECKING

from rootlesspy.engine import control, tty
from rootlesspy.errors import Error
from rootlesspy.runtime import terminal

if TYPE_CHECKING:
    import socket

    from rootlesspy.report import Reporter

_CHUNK_BYTES = 65536
_END_OF_INPUT = b"\x04"
_FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGCONT,
)


class SupervisorLostError(Error):
    """The supervisor ended without saying how the container did."""


class Client:
    """One attached caller."""

    def __init__(
        self,
        end: socket.socket,
        supervisor_pid: int,
        *,
        interactive: bool,
        detach_keys: bytes,
        reporter: Reporter,
    ) -> None:
        self._end = end
        self._supervisor_pid = supervisor_pid
        self._keys = _DetachKeys(detach_keys)
        self._interactive = interactive
        self._reporter = reporter
        self._guard = tty.Guard(0)
        self._master_fd = -1
        self._pending = b""
        self._input_open = interactive
        self._started = False
        self._wakeup = _catch_signals()

    def run(self) -> int:
        """Serve until the container ends or the user detaches; return rp's exit code.

        Raises Error with the supervisor's words, SupervisorLostError when it was killed.
        """
        try:
            while True:
                ready = self._wait()
                if self._wakeup in ready and self._forward_signals():
                    control.send(self._end, "bye")
                    return 128 + signal.SIGHUP
                if self._master_fd >= 0 and self._master_fd in ready:
                    self._pump_output()
                if 0 in ready and (code := self._pump_input()) is not None:
                    control.send(self._end, "bye")
                    return code
                if self._end.fileno() in ready:
                    code = self._serve_supervisor()
                    if code is not None:
                        return code
        finally:
            self._guard.restore()

    def _wait(self) -> set[int]:
        poller = select.poll()
        poller.register(self._end.fileno(), select.POLLIN)
        poller.register(self._wakeup, select.POLLIN)
        if self._master_fd >= 0:
            wanted = select.POLLIN | (select.POLLOUT if self._pending else 0)
            poller.register(self._master_fd, wanted)
            # No more is read from the caller than the container takes.
            if self._input_open and not self._pending:
                poller.register(0, select.POLLIN)
        return {fd for fd, _ in poller.poll()}

    def _serve_supervisor(self) -> int | None:
        message = control.receive(self._end)
        if message is None or message.kind in ("failed", "exited"):
            self._wait_for_supervisor()
        if message is None:
            raise SupervisorLostError(
                "the container's supervisor was killed, and the container with it",
                hint="journalctl --user -n 20",
            )
        if message.kind == "notice":
            self._reporter.notice(message.text("text"))
        elif message.kind == "started":
            self._begin(message.fd)
        elif message.kind == "failed":
            error = Error(message.text("message"), hint=message.text("hint") or None)
            error.exit_code = message.number("exit_code")
            raise error
        elif message.kind == "exited":
            if message.text("message"):
                self._guard.restore()
                self._reporter.notice(message.text("message"))
            return message.number("exit_code")
        return None

    def _wait_for_supervisor(self) -> None:
        """See the supervisor gone, so that nothing is left when rp ends.

        Its last packet comes right before its end.
        """
        self._finish_output()
        try:
            os.waitpid(self._supervisor_pid, 0)
        except ChildProcessError:
            return

    def _begin(self, master_fd: int) -> None:
        self._started = True
        self._master_fd = master_fd
        if master_fd >= 0:
            os.set_blocking(master_fd, False)
            self._take_terminal()
            self._resize()

    def _forward_signals(self) -> bool:
        """Pass signals on; say whether the caller's terminal is gone: the container goes on."""
        for number in os.read(self._wakeup, 64):
            if number == signal.SIGWINCH:
                self._resize()
            elif number == signal.SIGHUP and self._started and not _has_terminal():
                return True
            elif not self._started:
                # The supervisor unwinds what it has made so far and says so.
                _kill(self._supervisor_pid, number)
            else:
                if number == signal.SIGCONT and self._master_fd >= 0:
                    self._take_terminal()
                    self._resize()
                control.send(self._end, "signal", number=number)
        return False

    def _take_terminal(self) -> None:
        """Leave the caller's terminal to the container's: its own does the translation."""
        if self._interactive:
            self._guard.raw()
        else:
            self._guard.raw_output()

    def _resize(self) -> None:
        rows, columns = tty.size_of(0, 1)
        if self._master_fd >= 0 and rows and columns:
            terminal.set_size(self._master_fd, rows, columns)

    def _pump_output(self) -> bool:
        """Copy what the container has written; say whether there may be more."""
        if self._pending:
            self._write_input()
        try:
            chunk = os.read(self._master_fd, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            chunk = b""
        if not chunk:
            # EIO: the last process that had the terminal open is gone.
            os.close(self._master_fd)
            self._master_fd = -1
            return False
        _write_all(1, chunk)
        return True

    def _finish_output(self) -> None:
        while self._master_fd >= 0 and self._pump_output():
            pass

    def _pump_input(self) -> int | None:
        """Take what the caller typed; return rp's exit code when that ends the attachment."""
        try:
            chunk = os.read(0, _CHUNK_BYTES)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            chunk = b""
        if not chunk and self._guard.is_terminal:
            # A raw terminal has no end of file: its window was closed.
            return 128 + signal.SIGHUP
        if not chunk:
            self._input_open = False
            self._pending = _END_OF_INPUT
        else:
            passed, detached = self._keys.filter(chunk)
            if detached:
                return 0
            self._pending = passed
        self._write_input()
        return None

    def _write_input(self) -> None:
        try:
            self._pending = self._pending[os.write(self._master_fd, self._pending) :]
        except BlockingIOError:
            return
        except OSError:
            self._pending = b""


class _DetachKeys:
    """Finds the detach sequence in what is typed, also when it arrives in pieces."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def filter(self, chunk: bytes) -> tuple[bytes, bool]:
        """Return what is to be passed on, and whether the sequence is complete."""
        if not self._keys:
            return chunk, False
        passed = bytearray()
        for value in chunk:
            if value != self._keys[self._matched]:
                # What looked like the beginning of the sequence was ordinary typing.
                passed += self._keys[: self._matched]
                self._matched = 0
            if value == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(passed), True
            else:
                passed.append(value)
        return bytes(passed), False


def _catch_signals() -> int:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in (*_FORWARDED, signal.SIGWINCH):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _has_terminal() -> bool:
    """Say whether this session still has a controlling terminal (tty(4)).

    Tells the hang-up of a closed window from somebody's kill -HUP.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _kill(pid: int, number: int) -> None:
    # Only these two are handled before the payload runs; any other one would just kill.
    wanted = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
    try:
        os.kill(pid, wanted)
    except ProcessLookupError:
        return


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
