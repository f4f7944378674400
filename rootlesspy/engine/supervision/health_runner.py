"""Health checks in the supervisor: `healthcheck` says when, `sessions` runs them.

Loaded for containers that have one.  begin() once the payload runs, request() for the client's
message `check`, end() before the sessions are ended.  No process and no timer exists between
two checks but the poll loop's own deadline.  A check that is killed by its timeout is killed with
all of its session.
"""

from __future__ import annotations

import os
import select
import time

from rootlesspy.engine.output import events
from rootlesspy.engine.supervision import healthcheck
from rootlesspy.engine.supervision.exec_request import Wish
from rootlesspy.errors import Error
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision.loop import Loop
    from rootlesspy.engine.supervision.sessions import Session, Sessions
    from rootlesspy.engine.supervision.start import Running

_TIMER, _END_TIMER = "health", "health end"
_KILLED = 128 + signal.SIGKILL
# The end of a container kills its processes a moment before it shows itself.
_GRACE_S = 0.1


class _Check:
    """One check at work."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.reader = -1
        self.output = bytearray()


class HealthRunner:
    """All checks of one run of a container.

    act carries out kill, restart or stop; changed is told each new status.
    """

    def __init__(
        self,
        directory: str,
        found: ContainerRecord,
        turns: Loop,
        sessions: Sessions,
        running: Running,
        *,
        act: Callable[[str], None],
        changed: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._record = found
        self._loop = turns
        self._sessions = sessions
        self._running = running
        self._act = act
        self._changed = changed
        config = healthcheck.config_of(found.health or {})
        self._monitor = healthcheck.Monitor(config, time.monotonic())
        self._status = self._monitor.health.status
        self._check: _Check | None = None
        self._waiting: list[Callable[[int, str], None]] = []

    def begin(self) -> None:
        """Forget earlier runs of the container, and begin."""
        self._write()
        self._arm()

    def request(self, reply: Callable[[int, str], None]) -> None:
        """Make a check now, for rp healthcheck run; reply with its exit code and the status."""
        self._waiting.append(reply)
        self._monitor.request(time.monotonic())
        self._arm()

    def end(self) -> None:
        """Check no more; before the sessions end with their container."""
        self._loop.cancel(_TIMER)
        self._loop.cancel(_END_TIMER)
        check, self._check = self._check, None
        if check is not None:
            self._close(check)

    def _arm(self) -> None:
        timeout_ms = self._monitor.timeout_ms(time.monotonic())
        if timeout_ms < 0:
            self._loop.cancel(_TIMER)
        else:
            self._loop.after(_TIMER, timeout_ms / 1000, self._turn)

    def _turn(self) -> None:
        now_s = time.monotonic()
        if self._is_frozen():
            # A paused container is neither healthy nor not.
            self._abandon(now_s)
        elif self._monitor.is_overdue(now_s):
            self._kill()
            self._judge(self._monitor.timed_out(now_s))
        elif (argv := self._monitor.begin(now_s)) is not None:
            self._start(argv)
        self._arm()

    def _start(self, argv: tuple[str, ...]) -> None:
        check = self._check = _Check()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        check.reader = reader
        self._loop.watch(reader, lambda: self._drain(check))
        try:
            check.session = self._sessions.begin(
                Wish(args=argv),
                (null, writer, writer),
                started=lambda _session, _master: None,
                failed=lambda error: self._failed(check, error),
                ended=lambda code: self._ended(check, code),
            )
        except (Error, OSError) as error:
            self._failed(check, error)
        finally:
            os.close(writer)
            os.close(null)

    def _failed(self, check: _Check, error: Error | OSError) -> None:
        """Take it that the check could not be run: a failure like any other."""
        check.output += str(error).encode()
        self._finish(check, error.exit_code if isinstance(error, Error) else Error.exit_code)

    def _ended(self, check: _Check, code: int) -> None:
        if code == _KILLED and check is self._check:
            self._loop.after(_END_TIMER, _GRACE_S, lambda: self._finish(check, code))
        else:
            self._finish(check, code)

    def _finish(self, check: _Check, code: int) -> None:
        if check is not self._check or self._has_ended():
            return
        self._drain(check)
        self._check = None
        self._close(check)
        self._judge(self._monitor.finished(code, bytes(check.output), time.monotonic()))
        self._arm()

    def _judge(self, action: str) -> None:
        """Make known what the monitor made of a result."""
        after = self._monitor.health
        self._write()
        if after.status != self._status:
            self._status = after.status
            events.emit("health_status", self._record, health_status=after.status)
            self._changed(after.status)
        waiting, self._waiting = self._waiting, []
        for reply in waiting:
            reply(after.log[-1].exit_code, after.status)
        if action:
            self._act(action)

    def _kill(self) -> None:
        check, self._check = self._check, None
        if check is None:
            return
        self._close(check)
        session = check.session
        if session is None:
            return
        try:
            if session.pid:
                # It leads a session of its own, and what it started is in it.
                os.killpg(session.pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(session.joining.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _abandon(self, now_s: float) -> None:
        self._kill()
        self._monitor.abandon(now_s)
        waiting, self._waiting = self._waiting, []
        for reply in waiting:
            reply(healthcheck.TIMED_OUT_CODE, self._monitor.health.status)

    def _drain(self, check: _Check) -> None:
        """Keep the beginning of a check's output, throw the rest away."""
        if check.reader < 0:
            return
        try:
            data = os.read(check.reader, healthcheck.MAX_OUTPUT_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._close(check)
            return
        room = self._monitor.output_limit_bytes - len(check.output)
        check.output += data[: max(0, room)]

    def _close(self, check: _Check) -> None:
        if check.reader >= 0:
            self._loop.forget(check.reader)
            os.close(check.reader)
            check.reader = -1

    def _write(self) -> None:
        try:
            healthcheck.write(self._directory, self._monitor.health)
        except OSError:
            # A full disk must not end the container; the status is told by events too.
            return

    def _has_ended(self) -> bool:
        poller = select.poll()
        poller.register(self._running.init.pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def _is_frozen(self) -> bool:
        if self._running.cgroup_fd < 0:
            return False
        try:
            fd = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC,
                         dir_fd=self._running.cgroup_fd)  # fmt: skip
        except OSError:
            return False
        try:
            return b"frozen 1" in os.read(fd, 256)
        finally:
            os.close(fd)
