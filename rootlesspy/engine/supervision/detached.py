"""Start a container through systemd: its supervisor is the main process of rp-NAME.service.

Whoever starts it listens on `starter`; the supervisor calls back, is handed the lock of the
container's directory and tells how the start went, as an attached one does.  So a failed start has
the same words and exit code either way.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

from rootlesspy.engine import autostart, storage
from rootlesspy.engine.supervision import attach, control, service
from rootlesspy.errors import Conflict, Error, RuntimeFailure
from rootlesspy.systemd import bus, linger
from rootlesspy.systemd import service as unit

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_READY_TIMEOUT_S = unit.START_TIMEOUT_S
_LEAVING_TIMEOUT_S = 5.0
_POLL_S = 0.02


class StartError(Exception):
    """The container did not start; keep says whether it is worth looking at."""

    def __init__(self, cause: Error, *, keep: bool) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.keep = keep


def start(paths: Paths, found: ContainerRecord, lock_fd: int, reporter: Reporter) -> None:
    """Start a container as a service and wait until it is ready.

    lock_fd, the lock of its directory, is closed here.  Raises StartError.
    """
    end, job, connection = begin(paths, found, lock_fd, reporter)
    try:
        _await_started(end, reporter)
        reporter.step("wait until it is ready")
        unit.wait(connection, service.unit_name(found.name), job, _READY_TIMEOUT_S)
    except StartError:
        _call_off(connection, found)
        raise
    except Error as error:
        _call_off(connection, found)
        raise StartError(error, keep=True) from error
    finally:
        end.close()
        connection.close()
    if notice := linger.warning(paths):
        reporter.notice(notice)


def begin(
    paths: Paths, found: ContainerRecord, lock_fd: int, reporter: Reporter
) -> tuple[socket.socket, str, bus.Bus]:
    """Have systemd start the service; return the supervisor's connection, the job and the bus.

    What comes next over the connection is notices, and then `started` or `failed`.
    """
    try:
        listener = control.listen(paths, found.id, control.STARTER)
        try:
            connection = bus.connect(os.path.dirname(paths.require_runtime()))
            job = _enqueue(connection, paths, found, reporter)
            end = _accept(connection, listener, job, found)
        finally:
            listener.close()
        control.send(end, "start", (lock_fd,), {})
    except Error as error:
        raise StartError(error, keep=False) from error
    finally:
        os.close(lock_fd)
    return end, job, connection


def abandon(paths: Paths, found: ContainerRecord) -> None:
    """Undo an interrupted start: stop the service, remove the container."""
    try:
        connection = bus.connect(os.path.dirname(paths.require_runtime()))
        name = service.unit_name(found.name)
        try:
            connection.wait_job(unit.stop(connection, name), _READY_TIMEOUT_S)
        finally:
            connection.close()
    except Error:
        # No such unit, or no manager: then nothing runs.
        pass
    storage.remove(paths, found)


def _call_off(connection: bus.Bus, found: ContainerRecord) -> None:
    """Let systemd not try again what was told to have failed; nothing to try, no harm."""
    if found.restart == "no":
        return
    name = service.unit_name(found.name)
    try:
        connection.wait_job(unit.stop(connection, name), _READY_TIMEOUT_S)
    except Error:
        return


def _enqueue(connection: bus.Bus, paths: Paths, found: ContainerRecord, reporter: Reporter) -> str:
    name = service.unit_name(found.name)
    reporter.step(f"start {name}")
    if autostart.is_installed(paths, found):
        return unit.start(connection, name)
    deadline = time.monotonic() + _LEAVING_TIMEOUT_S
    while True:
        if unit.is_restarting(connection, name):
            return unit.start(connection, name)
        try:
            return unit.start_transient(connection, service.of(found, paths))
        except Conflict:
            # The last supervisor let go of the lock, which is ours, and is about to exit.
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def _accept(
    connection: bus.Bus, listener: socket.socket, job: str, found: ContainerRecord
) -> socket.socket:
    """Wait for the supervisor to call, or for systemd to say that it never will."""
    poller = select.poll()
    poller.register(listener.fileno(), select.POLLIN)
    while True:
        poller.register(connection.fileno(), connection.poll_events())
        timeout_ms = connection.timeout_ms()
        for fd, _ in poller.poll(timeout_ms if timeout_ms >= 0 else None):
            if fd == listener.fileno():
                end, _ = listener.accept()
                return end
        connection.process()
        result = connection.job_result(job)
        if result is not None:
            name = service.unit_name(found.name)
            raise RuntimeFailure(
                f"{name} ended before the container began: job {result}",
                step="service",
                hint=f"journalctl --user -n 20 -u {name}",
            )


def _await_started(end: socket.socket, reporter: Reporter) -> None:
    """Wait for `started`.  Raises StartError with the supervisor's words."""
    while True:
        message = control.receive(end)
        if message is None:
            error = attach.SupervisorLostError(
                "the container's supervisor was killed", hint="journalctl --user -n 20"
            )
            raise StartError(error, keep=True)
        if message.kind == "notice":
            reporter.notice(message.text("text"))
        elif message.kind == "started":
            message.close()
            return
        elif message.kind == "failed":
            raise StartError(attach.failure(message), keep=bool(message.number("keep")))
