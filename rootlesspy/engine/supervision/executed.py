"""A supervisor that systemd executes: the main process of rp-NAME.service.

Who starts it listens on `starter`; the supervisor calls back, is handed the lock of the container's
directory and tells how the start went, as a forked one does.

`rp run` asks for the service as soon as the container has a name, and makes the container while
systemd executes the supervisor, which waits for the lock.  If nothing comes of it the service is
called off; if `rp` is killed the supervisor sees that nobody will hand it anything, removes what is
half-made, and ends (supervise.py).
"""

from __future__ import annotations

import os
import select

from rootlesspy.engine import names
from rootlesspy.engine.supervision import control, service
from rootlesspy.engine.supervision.detached import StartError
from rootlesspy.errors import Error, RuntimeFailure
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.systemd import bus
from rootlesspy.systemd import service as unit

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_READY_TIMEOUT_S = unit.START_TIMEOUT_S


class Start:
    """A service that systemd was asked for; its supervisor waits for the container."""

    def __init__(
        self,
        paths: Paths,
        found: ContainerRecord,
        listener: socket.socket,
        connection: bus.Bus,
        cookie: int,
    ) -> None:
        self._paths = paths
        self._found = found
        self._listener = listener
        self._cookie = cookie
        self._is_answered = False
        self._job = ""
        self.connection = connection
        self.name = names.service(found.name)

    def hand_over(self, lock_fd: int, reporter: Reporter) -> socket.socket:
        """Hand the container, which is whole now, to the supervisor when that calls.

        Return the connection, over which notices come and then `started` or `failed`.
        lock_fd, the lock of the container's directory, is closed here.  Raises StartError.
        """
        try:
            self._is_answered = True
            # Of the same name: the last supervisor let go of the lock, and is about to exit.
            wanted = service.of(self._found, self._paths)
            self._job = unit.enqueued_when_free(self.connection, wanted, self._cookie)
            end = _accept(self.connection, self._listener, self._job, self._found)
            began_ns = reporter.began_ns
            fds = (lock_fd, 2) if began_ns else (lock_fd,)
            if not control.send(end, "start", fds, {"began_ns": began_ns}):
                end.close()
                raise _ended_early(self.name, "it was killed")
        except Error as error:
            raise StartError(error, keep=False) from error
        finally:
            os.close(lock_fd)
            self._listener.close()
        return end

    def wait(self) -> None:
        """Wait until systemd takes the service for ready; raises RuntimeFailure, Unsupported."""
        unit.wait(self.connection, self.name, self._job, _READY_TIMEOUT_S)

    def call_off(self) -> None:
        """Have systemd stop and forget the service, for which there is no container after all."""
        try:
            if not self._is_answered:
                self._is_answered = True
                self._job = unit.enqueued(self.connection, self.name, self._cookie)
            if not self._job:
                # The service is not this start's.
                return
            stop = unit.stop(self.connection, self.name)
            self.connection.wait_job(stop, _READY_TIMEOUT_S)
            unit.reset_failed(self.connection, self.name)
        except Error:
            # No such unit any more, or no manager: then nothing runs.
            return

    def close(self) -> None:
        """Close what was opened for it; doing it twice is harmless."""
        self._listener.close()
        self.connection.close()


def ask(paths: Paths, found: ContainerRecord, *, installed: bool = False) -> Start:
    """Ask systemd for the service of a container, which may still be in the making.

    The caller holds the lock of its directory.  installed: it has a unit file.  Raises Error.
    """
    listener = control.listen(paths, found.id, control.STARTER)
    try:
        connection = bus.connect(os.path.dirname(paths.require_runtime()))
        try:
            if installed:
                cookie = unit.request_start(connection, names.service(found.name))
            else:
                cookie = unit.request_transient(connection, service.of(found, paths))
        except BaseException:
            connection.close()
            raise
    except BaseException:
        listener.close()
        raise
    return Start(paths, found, listener, connection, cookie)


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
            raise _ended_early(names.service(found.name), f"job {result}")


def _ended_early(name: str, why: str) -> RuntimeFailure:
    return RuntimeFailure(
        f"{name} ended before the container began: {why}",
        step="service",
        hint=f"journalctl --user -n 20 -u {name}",
    )
