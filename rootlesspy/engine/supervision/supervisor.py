"""The process beside a container: starts it, waits for it, records its end, cleans up.

A child of the CLI in a session of its own (attached), or the main process of rp-NAME.service; its
clients may come, die and go without harm.  It is never inside the container's namespaces or scope.
One poll loop, no threads.  If it is killed the payload dies with it: by the parent-death signal,
and the scope is bound to the service.
"""

from __future__ import annotations

import gc
import os

from rootlesspy.engine import record, storage
from rootlesspy.engine.output import events
from rootlesspy.engine.supervision import (
    announcer,
    cancel,
    control,
    exit_status,
    failure,
    job,
    loop,
    payload_signal,
    start,
    stdio,
    tty,
)
from rootlesspy.engine.supervision.clients import Clients
from rootlesspy.errors import Conflict, Error, Undo
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import process
from rootlesspy.systemd import cgroup as cgroups

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.supervision.beginning import Beginning
    from rootlesspy.engine.supervision.clients import Client
    from rootlesspy.engine.supervision.control import Message
    from rootlesspy.engine.supervision.health_runner import HealthRunner
    from rootlesspy.engine.supervision.sessions import Sessions
    from rootlesspy.systemd import cgroup

_SETTLED_AFTER_S = 5.0  # short containers do without
_READY_TIMEOUT_S = 5.0
_OBJECTS_OF_A_TURN = 2_000  # what CPython begins with


def supervise(
    task: job.Job, client: socket.socket | None, begun: Beginning | None = None
) -> record.ExitRecord:
    """Start a container, attend it and record its end; client is who started it, if anybody.

    begun: what was begun of its start before it was on disk.  Raises Error when it could not be
    started: then nothing is left but the record, and not even that for --rm; the client knows.
    """
    process.set_child_subreaper()
    # Before the client makes the caller's terminal raw.
    guard = tty.Guard(0) if task.record.tty and not task.service else None
    undo = Undo()
    undo.push(lambda: storage.release(task.paths, task.record))
    if begun is not None:
        undo.take_over(begun.undo)
    turns = loop.Loop()
    try:
        announcing = announcer.begin(task, turns, undo)
        streams = stdio.open_streams(task, turns, announcing.output)
        listener = control.listen(task.paths, task.record.id, control.CONTROL)
        undo.push(listener.close)
        running = start.start(task, undo, cancel.Cancellation(), begun)
    except BaseException as error:
        cancel.ignore_signals()
        undo.unwind(error)
        service = bool(task.service)
        raise failure.report(task.paths, task.record, client, error, service=service) from error
    supervision = _Supervision(task, turns, streams, running, guard, announcing)
    supervision.serve(client, listener)
    undo.unwind()
    return supervision.finish()


class _Supervision:
    """The time from execve to the end of the payload."""

    def __init__(
        self,
        task: job.Job,
        turns: loop.Loop,
        streams: stdio.Streams,
        running: start.Running,
        guard: tty.Guard | None,
        announcing: announcer.Announcer,
    ) -> None:
        self._job = task
        self._loop = turns
        self._streams = streams
        self._running = running
        self._clients = Clients(turns, self, streams)
        self._sessions: Sessions | None = None
        self._announcer = announcing
        self._health = self._health_runner()
        self._first: Client | None = None
        self._terminal = guard
        self._bus_fd = -1
        self._emulated = 0
        self._error = ""
        self._reason = ""
        self._ended = False
        self._network_fd = -1
        self._usage: cgroup.Usage | None = None
        self._record = record.lost()
        self._starting = task.own_service
        """The service whose start goes on."""

    def serve(self, client: socket.socket | None, listener: socket.socket) -> None:
        """Wait for the payload's end, obeying systemd, clients and signals meanwhile."""
        running, turns = self._running, self._loop
        self._streams.begin(running.master_fd)
        wakeup = cancel.wake_instead()
        turns.watch(wakeup, lambda: self._serve_signals(wakeup))
        turns.watch(running.init.pidfd, self._notice_end)
        self._watch_network()
        turns.after("settle", _SETTLED_AFTER_S, self._settle)
        if running.connection is not None and self._job.record.unit:
            running.connection.on_request_stop(self._job.record.unit, self._stop_by_systemd)
        if running.meter is not None and running.meter.fileno() >= 0:
            turns.watch(running.meter.fileno(), self._read_meter, loop.PRIORITY)
        # Before anybody is told: what they do next comes after it.
        events.emit("start", self._job.record)
        if client is not None:
            self._first = self._clients.add(client)
            self._clients.attach(self._first, stdin=self._job.record.interactive, first=True)
        self._clients.listen(listener)
        self._announcer.begin(running.init.pid, self._job.record.unit)
        if self._health is not None:
            self._health.begin()
        self._job.reporter.step("attend the payload")
        self._job.reporter.leave()
        # What is there now stays, and need not be looked at again.
        gc.freeze()
        gc.set_threshold(_OBJECTS_OF_A_TURN)
        while not self._ended:
            self._watch_bus()
            turns.turn()
        if self._announcer.is_ready:
            # Whatever comes first: systemd has been told.
            self._tell_ready(_READY_TIMEOUT_S)
        self._job.reporter.step("clean up")
        # The network helper: it goes while the rest is cleaned up.
        self._running.pending.kill()
        status = self._reap()
        if self._health is not None:
            self._health.end()
        if self._sessions is not None:
            self._sessions.end()
        lost = self._streams.finish()
        self._error = self._error or lost
        # While the bus still answers.
        seen = exit_status.Seen(status, self._emulated, self._reason, self._error, self._usage)
        self._record = exit_status.of(self._job, self._running, seen)

    def finish(self) -> record.ExitRecord:
        """Write the record of the end, tell everybody, and return it."""
        task, ended = self._job, exit_status.with_warnings(self._job, self._record)
        # Before anybody can see the end: readers of its log take this for the last of it.
        if ended.oom_killed:
            events.emit("oom", task.record)
        events.emit("died", task.record, exit_code=ended.exit_code, reason=ended.reason)
        task.reporter.step("remove it" if task.record.remove else "record its end")
        if task.record.remove:
            storage.remove(task.paths, task.record)
        else:
            record.write_exit_record(task.paths.container(task.record.id), ended, durable=True)
        self._running.pending.reap()  # who is told may need its ports
        self._clients.tell_end(ended.exit_code, ended.error)
        return ended

    # --- what clients ask for: clients.Duties -----------------------------------------------

    def stop(self, reason: str, timeout_s: float | None = None) -> None:
        """Ask the payload to end: its stop signal to PID 1 alone, SIGKILL after the timeout.

        Asked again it gets no second signal; a shorter timeout counts.
        """
        if not self._reason:
            self._reason = reason
            self._announcer.stopping()
            # The cgroup may be gone before its end is seen here.
            self._read_meter()
            self._signal(self._job.record.stop_signal)
        limit_s = self._job.record.stop_timeout_s if timeout_s is None else timeout_s
        if limit_s > self._job.record.stop_timeout_s:
            # systemd would give up before.
            self._announcer.extend_stop(limit_s)
        self._loop.after_at_most("stop", max(0.0, limit_s), self._kill)

    def signal(self, number: int, reason: str = "") -> None:
        """Signal the payload; with a reason it is meant to end it."""
        if reason and number in (signal.SIGKILL, self._job.record.stop_signal):
            self._reason = self._reason or reason
        self._signal(number)

    def started_fields(self) -> dict[str, object]:
        """Say what runs."""
        found = self._job.record
        return {"pid": self._running.init.pid, "tty": found.tty, "unit": found.unit}

    def serve_other(self, client: Client, message: Message) -> None:
        """Run one more process, or refuse what this version does not know."""
        try:
            if message.kind == "exec" and not self._ended:
                from rootlesspy.engine.supervision import exec_server

                exec_server.serve(self._all_sessions(), client, message, self._job.record)
                return
            if message.kind == "check":
                self._check_health(client)
                return
            if message.kind == "ports" and not self._ended:
                self._change_ports(client, message)
                return
        except (Error, ImportError) as error:
            # Modules too may be missing: files that an upgrade is replacing.
            self._clients.refuse(client, error if isinstance(error, Error) else Error(str(error)))
            return
        finally:
            message.close()
        unknown = Error(f"the container's supervisor knows no request {message.kind!r}")
        self._clients.refuse(client, unknown)

    def client_left(self, client: Client, *, said_bye: bool) -> None:
        """End its exec session; give a terminal back if its owner died with it in raw mode."""
        if client.session is not None:
            from rootlesspy.engine.supervision import exec_server

            leave = exec_server.detach if said_bye else exec_server.hang_up
            leave(self._all_sessions(), client.session, self._loop)
        if client is not self._first or self._terminal is None:
            return
        if not said_bye:
            self._terminal.restore()
        # A terminal that is held open never hangs up: its window could not close.
        self._terminal.close()

    def _check_health(self, client: Client) -> None:
        if self._health is None:
            raise Conflict(f"container {self._job.record.name} has no health check")
        self._health.request(
            lambda code, status: client.tell("checked", exit_code=code, status=status)
        )

    # --- what happens ---------------------------------------------------------------------------

    def _notice_end(self) -> None:
        # At once: systemd removes the cgroup as soon as it is empty.
        self._read_meter()
        self._ended = True

    def _health_runner(self) -> HealthRunner | None:
        """Load what runs health checks, for a container that has one."""
        if self._job.record.health is None:
            return None
        from rootlesspy.engine.supervision.health_runner import HealthRunner

        return HealthRunner(
            self._job.paths.container(self._job.record.id),
            self._job.record,
            self._loop,
            self._all_sessions(),
            self._running,
            act=self._act_on_health,
            changed=self._announcer.health,
        )

    def _all_sessions(self) -> Sessions:
        """Load what runs more processes in the container, once there is one."""
        if self._sessions is None:
            from rootlesspy.engine.supervision.sessions import Sessions

            self._sessions = Sessions(self._job, self._loop, self._running)
        return self._sessions

    def _act_on_health(self, action: str) -> None:
        """Do what --health-on-failure says; a restart is systemd's, an attached one only ends."""
        connection, service = self._running.connection, self._job.service
        if action == "kill":
            self._reason = self._reason or "unhealthy"
            self._error = "killed: its health check failed"
            self._kill()
        elif action == "restart" and service and connection is not None:
            self._reason = "restart"
            connection.send("RestartUnit", "ss", service, "replace")
            self._signal(self._job.record.stop_signal)
            self._loop.after_at_most("stop", self._job.record.stop_timeout_s, self._kill)
        else:
            self.stop("unhealthy")

    def _stop_by_systemd(self) -> None:
        running = self._running
        if running.connection is not None and cgroups.is_frozen(running.init.pid):
            # A paused payload hears no signal.
            try:
                running.connection.send("ThawUnit", "s", self._job.record.unit)
            except Error:
                # Then it is killed when its time is up.
                pass
        self.stop("systemctl")

    def _watch_bus(self) -> None:
        connection = self._running.connection
        if connection is None:
            return
        if connection.poll_events():
            self._bus_fd = connection.fileno()
            self._loop.watch(self._bus_fd, self._hear_bus, connection.poll_events())
            timeout_ms = connection.timeout_ms()
            if timeout_ms >= 0:
                self._loop.after("bus", timeout_ms / 1000, connection.process)
        elif self._bus_fd >= 0:
            # At logout the broker may go first.  The library has closed the descriptor: soon its
            # number is something else's.
            self._loop.forget(self._bus_fd)
            self._bus_fd = -1

    def _hear_bus(self) -> None:
        if self._running.connection is not None:
            self._running.connection.process()
        self._tell_ready(0)

    def _tell_ready(self, timeout_s: float) -> None:
        """Tell who has started it how the start of its service has ended, once it has."""
        if self._starting is None:
            return
        result = self._starting.result(timeout_s)
        if result is not None:
            self._starting = None
            if self._first is not None:
                self._first.tell("ready", result=result)

    def _read_meter(self) -> None:
        if self._running.meter is not None:
            self._usage = self._running.meter.read()

    def _watch_network(self) -> None:
        helper = self._running.network.helper
        if helper is not None:
            self._network_fd = helper.pidfd
            self._loop.watch(self._network_fd, self._restart_network)

    def _restart_network(self) -> None:
        """Start the network helper again; if it cannot be, the container goes on without one."""
        task, running = self._job, self._running
        self._loop.forget(self._network_fd)
        running.pending.cancel()
        try:
            pending = start.restart_network(task, running.init)
            network = pending.wait()
        except (Error, OSError) as error:
            self._error = f"network lost: {running.network.driver} died: {error}"
            return
        self._running = running._replace(pending=pending, network=network)
        self._watch_network()
        start.record_start(task, self._running)

    def _change_ports(self, client: Client, message: Message) -> None:
        """Publish other ports, for which the helper has to be started again; raises Conflict."""
        from rootlesspy.engine.supervision import port_change

        before, pending, error = self._job, self._running.pending, self._error
        self._job = port_change.applied(before, message)
        self._restart_network()
        failure, self._error = self._error, error
        if self._running.pending is pending:
            self._job = before
            self._restart_network()
            raise Conflict(failure.partition(" died: ")[2] or failure)
        client.tell("changed")

    def _settle(self) -> None:
        """Prepare for a longer life: follow the host, load what clients may ask for later."""
        try:
            from rootlesspy.engine.supervision import exec_server, host_resolvers  # noqa: F401

            self._all_sessions()
        except ImportError:
            return  # an upgrade is replacing the files: the container need not die of it
        gc.freeze()
        host_resolvers.follow(self._job, self._loop, self._restart_network)

    def _serve_signals(self, wakeup: int) -> None:
        """Signals to the supervisor itself: systemd's or a logout's SIGTERM means a clean stop.

        SIGINT is the client's, typed at the moment when the payload began.
        """
        for number in os.read(wakeup, 64):
            if number == signal.SIGTERM:
                self._stop_by_systemd()
            elif number == signal.SIGINT:
                self._signal(signal.SIGINT)

    def _kill(self) -> None:
        self._read_meter()
        try:
            signal.pidfd_send_signal(self._running.init.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _signal(self, number: int) -> None:
        # Now: after its end systemd may be faster.
        self._read_meter()
        init = self._running.init
        if payload_signal.send(init.pid, init.pidfd, number):
            self._emulated = number

    def _reap(self) -> int:
        if not self._job.record.has_own_pids():
            # Its first process ends a PID namespace only if that is its own.
            payload_signal.kill_cgroup(self._running.cgroup_fd)
        _, status = os.waitpid(self._running.init.pid, 0)
        os.close(self._running.init.pidfd)
        return status
