"""The client of a supervisor: the caller's terminal and signals for the container, its exit code.

Runs in the CLI.  An attached container without a terminal has the caller's own stdin, stdout and
stderr and nothing is copied here.  Otherwise bytes go between those and what came with `started`:
the master of the container's pty, or the stream sockets of a supervisor that logs.
"""

from __future__ import annotations

import errno
import os
import select

from rootlesspy.engine.supervision import cancel, control, tty
from rootlesspy.engine.supervision.cancel import CancelledError
from rootlesspy.errors import Error
from rootlesspy.light_modules import signal, socket
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.runtime import terminal

if TYPE_CHECKING:
    from rootlesspy.report import Reporter

_CHUNK_BYTES = 65536
_PTY_BYTES = 8192  # it gives 4 KiB at a time
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
_LEAVING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


class SupervisorLostError(Error):
    """The supervisor ended without saying how the container did."""


class Client:
    """One attached caller."""

    def __init__(
        self,
        end: socket.socket,
        supervisor_pid: int | None,
        *,
        interactive: bool,
        detach_keys: bytes,
        reporter: Reporter,
        forwards: bool = True,
    ) -> None:
        """supervisor_pid: our child, 0 when systemd started it, None when it outlives us (exec).

        forwards: signals are passed on.
        """
        self._end = end
        self._supervisor_pid = supervisor_pid
        self._forwards = forwards
        self._keys = _DetachKeys(detach_keys)
        self._interactive = interactive
        self._reporter = reporter
        self._guard = tty.Guard(0)
        self._output_fd = -1
        """The pty's master, or the stream of stdin and stdout."""
        self._errors_fd = -1
        self._is_pty = self._has_tty = False
        self._pending = b""
        self._input_open = interactive
        self.started = False
        self._early = 0
        """A signal that came before it was known to run."""
        self._session = ""
        """The id of an exec session."""
        self._wakeup = _catch_signals()
        self._poll = select.poll()
        self._watched: dict[int, int] = {}

    def run(self) -> int:
        """Serve until the container ends or the user detaches; return rp's exit code.

        Raises Error with the supervisor's words, SupervisorLostError when it was killed.
        """
        try:
            while True:
                ready = self._wait()
                if self._wakeup in ready and self._forward_signals():
                    control.tell(self._end, "bye")
                    return 128 + signal.SIGHUP
                if self._output_fd >= 0 and self._output_fd in ready:
                    self._pump_output()
                if self._errors_fd >= 0 and self._errors_fd in ready:
                    self._pump_errors()
                if 0 in ready and (code := self._pump_input()) is not None:
                    control.tell(self._end, "bye")
                    return code
                if self._end.fileno() in ready:
                    code = self._serve_supervisor()
                    if code is not None:
                        return code
                    if self.started and self._early:
                        self._obey_early()
        finally:
            self._guard.restore()

    def run_until_started(self) -> str:
        """Wait until it runs, detach, and return the id of its session.

        Raises Error as run() does.
        """
        while not self.started:
            self._serve_supervisor()
        if self._output_fd >= 0:
            os.close(self._output_fd)
        control.tell(self._end, "bye")
        return self._session

    def _wait(self) -> set[int]:
        readers = (self._end.fileno(), self._wakeup, self._errors_fd)
        wanted = {fd: select.POLLIN for fd in readers if fd >= 0}
        if self._output_fd >= 0:
            wanted[self._output_fd] = select.POLLIN | (select.POLLOUT if self._pending else 0)
            # No more is read from the caller than the container takes.
            if self._input_open and not self._pending:
                wanted[0] = select.POLLIN
        if wanted != self._watched:
            self._poll, self._watched = select.poll(), wanted
            for fd, events in wanted.items():
                self._poll.register(fd, events)
        return {fd for fd, _ in self._poll.poll()}

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
            self._begin(message)
        elif message.kind == "failed":
            raise failure(message)
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
        if self._supervisor_pid is None:
            return
        if not self._supervisor_pid:
            while control.receive(self._end) is not None:
                pass
            return
        try:
            os.waitpid(self._supervisor_pid, 0)
        except ChildProcessError:
            return

    def _begin(self, message: control.Message) -> None:
        self.started = True
        self._session = message.text("session")
        for fd in message.fds:
            os.set_blocking(fd, False)
        if not message.fds:
            return
        self._output_fd, *others = message.fds
        self._errors_fd = others[0] if others else -1
        self._has_tty = bool(message.number("tty"))
        if self._has_tty:
            self._is_pty = os.isatty(self._output_fd)
            self._take_terminal()
            self._resize()

    def _forward_signals(self) -> bool:
        """Pass signals on; say whether the caller's terminal is gone: the container goes on."""
        for number in os.read(self._wakeup, 64):
            if number == signal.SIGWINCH:
                self._resize()
            elif number == signal.SIGHUP and self.started and not _has_terminal():
                return True
            elif not self.started:
                self._end_start(number)
            else:
                if number == signal.SIGCONT and self._is_terminal:
                    self._take_terminal()
                    self._resize()
                if self._forwards:
                    control.tell(self._end, "signal", number=number)
                elif number in _LEAVING:
                    raise KeyboardInterrupt
        return False

    def _end_start(self, number: int) -> None:
        """Obey a signal that came before it is known to run.  Raises CancelledError."""
        passed_on = self._forwards and self._supervisor_pid and number in cancel.SIGNALS
        if not (passed_on or self._early):
            # It may run already: that it does is told after its first words.  A second signal ends
            # the start.
            self._early = number if self._forwards or number in _LEAVING else 0
        elif self._supervisor_pid:
            # The supervisor unwinds what it has made so far and says so.
            _kill(self._supervisor_pid, number)
        else:
            raise CancelledError(number)

    def _obey_early(self) -> None:
        """Do what a signal asked for while it was not known to run."""
        if not self._forwards:
            raise KeyboardInterrupt
        control.tell(self._end, "signal", number=self._early)
        self._early = 0

    @property
    def _is_terminal(self) -> bool:
        """Whether the container has a terminal, and we a way to it."""
        return self._output_fd >= 0 and self._has_tty

    def _take_terminal(self) -> None:
        """Leave the caller's terminal to the container's: its own does the translation."""
        if self._interactive:
            self._guard.raw()
        else:
            self._guard.raw_output()

    def _resize(self) -> None:
        rows, columns = tty.size_of(0, 1)
        if not (self._is_terminal and rows and columns):
            return
        if self._is_pty:
            terminal.set_size(self._output_fd, rows, columns)
        else:
            control.tell(self._end, "resize", rows=rows, columns=columns)

    def _pump_output(self) -> bool:
        """Copy what the container has written; say whether there may be more."""
        if self._pending:
            self._write_input()
        limit_bytes = _PTY_BYTES if self._is_pty else _CHUNK_BYTES
        output, chunk = bytearray(), _read(self._output_fd, limit_bytes)
        while chunk:
            output += chunk
            chunk = _read(self._output_fd, limit_bytes) if len(output) < _CHUNK_BYTES else None
        _write_all(1, output)
        if chunk == b"":
            os.close(self._output_fd)
            self._output_fd = -1
        return len(output) >= _CHUNK_BYTES

    def _pump_errors(self) -> bool:
        """Copy what the container has written to stderr; say whether there may be more."""
        chunk = _read(self._errors_fd, _CHUNK_BYTES)
        if chunk is None:
            return False
        if not chunk:
            os.close(self._errors_fd)
            self._errors_fd = -1
            return False
        _write_all(2, chunk)
        return True

    def _finish_output(self) -> None:
        while self._output_fd >= 0 and self._pump_output():
            pass
        while self._errors_fd >= 0 and self._pump_errors():
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
            if not self._is_terminal:
                self._end_input()
                return None
            self._pending = _END_OF_INPUT
        else:
            passed, detached = self._keys.filter(chunk)
            if detached:
                return 0
            self._pending = passed
        self._write_input()
        return None

    def _end_input(self) -> None:
        """Tell the payload that there is no more input; it has read all that came before."""
        with socket.socket(fileno=os.dup(self._output_fd)) as stream:
            stream.shutdown(socket.SHUT_WR)

    def _write_input(self) -> None:
        try:
            self._pending = self._pending[os.write(self._output_fd, self._pending) :]
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


def failure(message: control.Message) -> Error:
    """Make the error of a `failed` packet again."""
    error = Error(message.text("message"), hint=message.text("hint") or None)
    error.exit_code = message.number("exit_code") or Error.exit_code
    return error


def _read(fd: int, limit_bytes: int) -> bytes | None:
    """Return what there is to read, b"" at the end, None when there is nothing now."""
    try:
        return os.read(fd, limit_bytes)
    except BlockingIOError:
        return None
    except OSError as error:
        # EIO: the last process that had the terminal open is gone.
        if error.errno not in (errno.EIO, errno.ECONNRESET):
            raise
        return b""


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


def _write_all(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
