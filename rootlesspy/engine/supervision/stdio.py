"""The payload's stdin, stdout and stderr, between it, its log and its clients.

An attached container without a log has the caller's own descriptors, and nothing is copied
(`Shared`); otherwise the supervisor keeps the streams (`Relay`).  The client that started the
container is waited for when it reads slowly, as a pipe would wait; so is another one, but it is
dropped when it reads next to nothing for five seconds: nobody's window stops a service.
"""

from __future__ import annotations

import os

from rootlesspy.engine.supervision import job
from rootlesspy.engine.supervision import loop as poll
from rootlesspy.engine.supervision.listener import Listener
from rootlesspy.errors import Conflict
from rootlesspy.light_typing import TYPE_CHECKING, Protocol
from rootlesspy.runtime import terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.output.logging import Sink
    from rootlesspy.engine.supervision.job import Job
    from rootlesspy.engine.supervision.pipes import Pipes

_CHUNK_BYTES = 65536
# How long the end of a container waits for a client that reads nothing.
_FLUSH_S = 10.0
# How long the payload waits for a client that did not start it and reads nothing.  Who reads at all
# makes room in that time; without any wait a busy machine would drop every reader of much output.
_PATIENCE_S = 5.0
_TICK = "log"


class Streams(Protocol):
    """What the supervisor does with the payload's streams."""

    def begin(self, master_fd: int) -> None:
        """Take care of them from now on; master_fd is the container's terminal, or -1."""

    def attach(self, *, stdin: bool, first: bool) -> tuple[Listener | None, tuple[int, ...]]:
        """Add a client; return it and the descriptors to give it.  Raises Conflict."""

    def detach(self, listener: Listener) -> None:
        """Forget a client."""

    def resize(self, rows: int, columns: int) -> None:
        """Tell the container's terminal how large its client's is."""

    def finish(self) -> str:
        """Pass on the last words of an ended payload; return what of its output is lost."""


def open_streams(task: Job, turns: poll.Loop, tap: Callable[[bytes], None]) -> Streams:
    """Put what the payload is to have in the place of descriptors 0, 1 and 2.

    tap is shown the output of a container that is ready when a line of it says so.
    """
    found = task.record
    if not job.relays(found, task.service):
        return Shared(turns, tty=found.tty, interactive=found.interactive)
    from rootlesspy.engine.output import logging

    return Relay(
        turns,
        logging.open_sink(task.paths, found, unit=found.unit)
        if found.log_driver or task.service
        else logging.NullSink(),
        tty=found.tty,
        interactive=found.interactive,
        tap=tap if found.sdnotify.startswith("log:") else None,
        pipes=task.pipes,
    )


class Shared:
    """The payload has the caller's own streams, or a terminal whose master one client reads."""

    def __init__(self, loop: poll.Loop, *, tty: bool, interactive: bool) -> None:
        self._loop = loop
        self._tty = tty
        self._master_fd = -1
        self._reader: Listener | None = None
        if not interactive:
            redirect(0)

    def begin(self, master_fd: int) -> None:
        """Let go of the caller's streams: they belong to the payload alone now."""
        redirect(0, 1, 2)
        self._master_fd = master_fd

    def attach(self, *, stdin: bool, first: bool) -> tuple[Listener | None, tuple[int, ...]]:
        """Give the terminal's master to a client; without a terminal only the first has any."""
        if not self._tty:
            if first:
                return None, ()
            raise Conflict(
                "its input and output are those of the rp run that started it",
                hint="run it with --log-driver=journald or -d to attach to it later",
            )
        if self._reader is not None:
            raise Conflict("its terminal is attached elsewhere", hint="detach there first")
        if self._master_fd < 0:
            raise Conflict("its terminal is closed")
        self._loop.forget(self._master_fd)
        self._reader = Listener(stdin=stdin, patient=True, keeps_fds=True)
        return self._reader, (self._master_fd,)

    def detach(self, listener: Listener) -> None:
        """Read the terminal while nobody does, so that the payload does not block on a full one."""
        if listener is self._reader:
            self._reader = None
            if self._master_fd >= 0:
                self._loop.watch(self._master_fd, self._drain)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal; its reader does that itself."""

    def finish(self) -> str:
        """Nothing passes through here."""
        return ""

    def _drain(self) -> None:
        try:
            os.read(self._master_fd, _CHUNK_BYTES)
        except OSError:
            # EIO: no process has the terminal open any more, and none will.
            self._loop.forget(self._master_fd)
            os.close(self._master_fd)
            self._master_fd = -1


class Relay:
    """Copies between the payload and whoever listens."""

    def __init__(
        self,
        loop: poll.Loop,
        sink: Sink,
        *,
        tty: bool,
        interactive: bool,
        tap: Callable[[bytes], None] | None = None,
        pipes: Pipes | None = None,
    ) -> None:
        """tap is shown all output too; pipes are those that the payload has already."""
        self._loop = loop
        self._sink = sink
        self._tap = tap
        self._sources: dict[int, str] = {}
        self._paused = False
        self._input_fd = -1
        self._pending = b""
        self._listeners: list[Listener] = []
        self.tty = tty
        if not tty:
            if pipes is None:
                from rootlesspy.engine.supervision.pipes import Pipes

                pipes = Pipes(interactive=interactive)
                pipes.put()
            self._sources, self._input_fd = pipes.sources, pipes.input_fd

    def begin(self, master_fd: int) -> None:
        """Begin to copy; master_fd is the container's terminal, or -1."""
        redirect(0, 1, 2)
        if master_fd >= 0:
            self._sources[master_fd] = "stdout"
            self._input_fd = master_fd
        for fd in {*self._sources, self._input_fd} - {-1}:
            os.set_blocking(fd, False)
        self._resume()

    def attach(self, *, stdin: bool, first: bool) -> tuple[Listener | None, tuple[int, ...]]:
        """Add a client; return it and the descriptors to give it: output (and input), errors.

        The caller closes them when they are sent.  The payload waits for the first one.
        """
        listener = Listener(stdin=stdin, patient=first)
        theirs = [listener.open("stdout")]
        if not self.tty:
            theirs.append(listener.open("stderr"))
        self._listeners.append(listener)
        if stdin:
            self._watch(listener)
        return listener, tuple(theirs)

    def detach(self, listener: Listener) -> None:
        """Forget a client; doing it twice is harmless."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            self._loop.cancel(_late(listener))
            for end in listener.ends.values():
                self._loop.forget(end.fileno())
            listener.close()
            self._resume()

    def resize(self, rows: int, columns: int) -> None:
        """Tell the container's terminal how large its client's is."""
        if self.tty and self._input_fd >= 0 and rows > 0 and columns > 0:
            terminal.set_size(self._input_fd, rows & 0xFFFF, columns & 0xFFFF)

    def finish(self) -> str:
        """Take the last words of an ended payload, log them and see them read."""
        self._paused = False
        for fd in list(self._sources):
            while fd in self._sources and self._copy(fd):
                pass
        self._sink.close()
        for listener in list(self._listeners):
            listener.flush(_FLUSH_S)
            self.detach(listener)
        return self._sink.lost

    def _resume(self) -> None:
        """Read from the payload again, unless its log or a client is full."""
        self._paused = self._is_full()
        for fd in self._sources:
            if self._paused:
                self._loop.forget(fd)
            else:
                self._watch_source(fd)

    def _watch_source(self, fd: int) -> None:
        writes = poll.WRITE if self._pending and fd == self._input_fd else 0
        self._loop.watch(fd, lambda: self._serve_source(fd), poll.READ | writes)

    def _serve_source(self, fd: int) -> None:
        if self._pending and fd == self._input_fd:
            self._write_input()
        self._copy(fd)

    def _copy(self, fd: int) -> bool:
        """Copy one chunk of output; say whether there may be more."""
        try:
            chunk = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: the last process that had the terminal open is gone.
            chunk = b""
        stream = self._sources[fd]
        if not chunk:
            self._loop.forget(fd)
            del self._sources[fd]
            if fd == self._input_fd:
                self._input_fd = -1
            os.close(fd)
            return False
        self._sink.write(stream, chunk)
        self._schedule()
        if self._tap is not None:
            self._tap(chunk)
        for listener in list(self._listeners):
            if listener.push(stream, chunk):
                self._watch(listener)
                self._limit_wait(listener)
            else:
                self.detach(listener)
        if self._is_full():
            self._resume()
        return True

    def _is_full(self) -> bool:
        return self._sink.full() or any(each.is_full() for each in self._listeners)

    def _limit_wait(self, listener: Listener) -> None:
        """Drop a client that became full and is not patient, unless it makes room in time."""

        def drop() -> None:
            if listener.is_full():
                self.detach(listener)

        if not listener.patient and listener.is_full():
            self._loop.after(_late(listener), _PATIENCE_S, drop)

    def _schedule(self) -> None:
        timeout_ms = self._sink.timeout_ms()
        if timeout_ms >= 0:
            self._loop.after(_TICK, timeout_ms / 1000, self._tick)

    def _tick(self) -> None:
        self._sink.tick()
        self._schedule()
        if self._paused:
            self._resume()

    def _watch(self, listener: Listener) -> None:
        """Watch a client's sockets for what they can do now."""
        for stream, end in listener.ends.items():
            events = poll.WRITE if listener.waiting[stream] else 0
            if stream == "stdout" and listener.stdin and not self._pending:
                events |= poll.READ
            if events:
                self._loop.watch(end.fileno(), lambda: self._serve(listener), events)
            else:
                self._loop.forget(end.fileno())

    def _serve(self, listener: Listener) -> None:
        if listener not in self._listeners:
            return
        try:
            was_full = listener.is_full()
            listener.write()
            if listener.stdin and not self._pending:
                self._take_input(listener)
        except OSError:
            self.detach(listener)
            return
        self._watch(listener)
        if was_full and not listener.is_full():
            self._resume()

    def _take_input(self, listener: Listener) -> None:
        try:
            chunk = listener.ends["stdout"].recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            listener.stdin = False
            # Half-closed: the end of the client's input, and so of the payload's.  A client that
            # has gone altogether says nothing about that.
            if not listener.is_gone():
                self._end_input()
            return
        self._pending = chunk
        self._write_input()

    def _end_input(self) -> None:
        if not self.tty and self._input_fd >= 0:
            self._loop.forget(self._input_fd)
            os.close(self._input_fd)
            self._input_fd = -1

    def _write_input(self) -> None:
        if self._input_fd < 0:
            self._pending = b""
            return
        try:
            self._pending = self._pending[os.write(self._input_fd, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self._pending = b""
        self._watch_input()
        for listener in self._listeners:
            self._watch(listener)

    def _watch_input(self) -> None:
        fd = self._input_fd
        if fd in self._sources:
            if not self._paused:
                self._watch_source(fd)
        elif self._pending:
            self._loop.watch(fd, self._write_input, poll.WRITE)
        else:
            self._loop.forget(fd)


def _late(listener: Listener) -> str:
    """Return the name of the timer that ends the wait for a client."""
    return f"late {id(listener)}"


def redirect(*numbers: int) -> None:
    """Put /dev/null in the place of descriptors."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in numbers:
        os.dup2(null, number)
    os.close(null)
