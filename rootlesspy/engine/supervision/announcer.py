"""Tells systemd when a container is ready and how it does: --sdnotify, in the supervisor."""

from __future__ import annotations

from rootlesspy.errors import Error, Undo
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.systemd import cgroup, notify

if TYPE_CHECKING:
    from rootlesspy.engine.supervision import readiness
    from rootlesspy.engine.supervision.job import Job
    from rootlesspy.engine.supervision.loop import Loop

_TIMER = "ready"
_LINE_BYTES = 4096


def begin(task: Job, turns: Loop, undo: Undo) -> Announcer:
    """Return the announcer of a container that is to be started; it may hear its payload."""
    relay = None
    if task.record.sdnotify == "container":
        relay = notify.Relay(f"{task.paths.container_runtime(task.record.id)}/notify")
        undo.push(relay.close)
    return Announcer(task, turns, relay)


class Announcer:
    """Sends READY=1 once, when what --sdnotify names has happened."""

    def __init__(self, task: Job, turns: Loop, relay: notify.Relay | None) -> None:
        self._notifier = task.notifier or notify.Notifier("")
        self._kind = task.record.sdnotify
        self._loop = turns
        self._relay = relay
        self._watch: readiness.Watch | None = None
        self._line = b""
        self.is_ready = False
        """systemd has been told so."""

    def begin(self, pid: int, unit: str) -> None:
        """The payload runs, in unit (or none): say so, or begin to wait for more."""
        status = f"STATUS=running as process {pid}"
        if self._relay is not None:
            if control_group := _control_group(pid, unit):
                self._relay.belongs_to(control_group)
            self._loop.watch(self._relay.fileno(), self._pass_on)
            self._notifier.send(status)
        elif self._kind == "healthy":
            self._notifier.send(f"{status}, waiting for its health check")
        elif self._kind in ("runner", "container"):
            self.is_ready = self._notifier.send(notify.READY, status)
        else:
            self._notifier.send(f"{status}, waiting for {self._kind}")
            from rootlesspy.engine.supervision import readiness

            self._watch = readiness.Watch(self._kind, pid)
            self._schedule()

    def output(self, chunk: bytes) -> None:
        """Look for the line that is waited for."""
        if self._watch is None:
            return
        *lines, self._line = (self._line + chunk).split(b"\n")
        self._line = self._line[:_LINE_BYTES]
        if any(self._watch.line(line) for line in lines):
            self._become_ready()

    def health(self, status: str) -> None:
        """The health check has a new result."""
        if self._kind == "healthy" and status == "healthy":
            self._become_ready()
        else:
            self._notifier.send(f"STATUS={status}")

    def stopping(self) -> None:
        """The container was asked to end."""
        self._notifier.send(notify.STOPPING)

    def extend_stop(self, timeout_s: float) -> None:
        """Have systemd wait so long for the end."""
        self._notifier.extend_timeout(int(timeout_s * 1_000_000))

    def _become_ready(self) -> None:
        self._watch = None
        self.is_ready = self._notifier.send(notify.READY, "STATUS=ready")

    def _pass_on(self) -> None:
        if self._relay is not None:
            heard = self._relay.receive()
            if heard:
                self._notifier.send(*heard)

    def _schedule(self) -> None:
        if self._watch is not None and (timeout_ms := self._watch.timeout_ms()) >= 0:
            self._loop.after(_TIMER, timeout_ms / 1000, self._look)

    def _look(self) -> None:
        if self._watch is not None and self._watch.poll():
            self._become_ready()
        self._schedule()


def _control_group(pid: int, unit: str) -> str:
    """Return the cgroup below which the payload is, "" without a scope."""
    if not unit:
        return ""
    try:
        return cgroup.control_group(pid)
    except (Error, OSError):
        return ""
