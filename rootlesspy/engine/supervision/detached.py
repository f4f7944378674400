"""Start a container as a service: its supervisor is in rp-NAME.service, and outlives rp.

Mostly that is a fork of rp (forked.py), which makes the service and moves there.  Where it cannot
be, and for a container with a unit file, systemd executes it (executed.py).  Either tells how the
start went over a socket, as an attached one does: a failed start has the same words and exit code.
"""

from __future__ import annotations

import os
import sys

from rootlesspy.engine import names
from rootlesspy.engine.supervision import cancel, control, forked
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import process
from rootlesspy.systemd import cgroup, migration

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision.executed import Start
    from rootlesspy.engine.supervision.forked import Supervisor
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


# Whatever takes megabytes imports it, and nothing on the way of a start does.
_LARGE = "typing"
# The user manager asks the system's to move what is outside of its own tree.
_SYSTEM_BUS = "/run/dbus/system_bus_socket"
_NAMESPACES = ("user", "mnt", "net", "pid", "uts", "ipc", "cgroup")


class StartError(Exception):
    """The container did not start; keep says whether it is worth looking at."""

    def __init__(self, cause: Error, *, keep: bool) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.keep = keep


class ForkedStart:
    """A supervisor that rp has forked, which waits for the container and makes its own service."""

    def __init__(self, paths: Paths, found: ContainerRecord, supervisor: Supervisor) -> None:
        self._paths = paths
        self._found = found
        self._supervisor = supervisor
        self._end: socket.socket | None = None
        self.name = names.service(found.name)

    def hand_over(self, lock_fd: int, _reporter: Reporter) -> socket.socket:
        """Hand the container, which is whole now, to the supervisor.

        Return the connection, over which notices come, then `started` or `failed`, then `ready`.
        lock_fd, the lock of the container's directory, is closed here.  Raises StartError.
        """
        try:
            self._end = self._supervisor.start(self._found.id, lock_fd, detached=True)
        except Error as error:
            raise StartError(error, keep=False) from error
        finally:
            os.close(lock_fd)
        return self._end

    def wait(self) -> None:
        """Wait until systemd takes the service for ready; raises RuntimeFailure."""
        result = ""
        while self._end is not None and not result:
            message = control.receive(self._end)
            if message is None or message.kind == "exited":
                result = "failed"
            elif message.kind == "ready":
                result = message.text("result")
        if result != "done":
            from rootlesspy.systemd import service

            raise service.not_started(self.name, result)

    def call_off(self) -> None:
        """Have the supervisor end, its container and its service with it."""
        if not self._supervisor.cancel():
            _stop_service(self._paths, self._found, forget=True)

    def close(self) -> None:
        """Let go of a supervisor that has nothing; harmless for any other one."""
        self._supervisor.dismiss()


def can_fork(paths: Paths, *, name: str, sdnotify: str, log_driver: str, has_scope: bool) -> bool:
    """Say whether the supervisor of a detached container may be a fork of this process.

    systemd executes the one whose service hands it something (a watchdog, its standard streams),
    or holds the payload too, or is configured by drop-ins; and any one where this process sees
    another machine than systemd, or is much larger than a supervisor should be.
    name: the container's, "" when it has none yet.
    """
    if sdnotify == "container" or log_driver == "passthrough" or not has_scope:
        return False
    return _LARGE not in sys.modules and _is_like_executed(paths, name)


def start(paths: Paths, found: ContainerRecord, lock_fd: int, reporter: Reporter) -> None:
    """Start a container that exists as a service and wait until it is ready.

    lock_fd, the lock of its directory, is closed here.  Raises StartError.
    """
    asked = begin(paths, found, lock_fd, reporter)
    try:
        finish(asked, paths, found, lock_fd, reporter)
    finally:
        asked.close()


def begin(
    paths: Paths, found: ContainerRecord, lock_fd: int, reporter: Reporter
) -> Start | ForkedStart:
    """Ask for the service of a container that exists, or for a supervisor that does.

    lock_fd is closed when that fails.  Raises StartError.
    """
    reporter.step(f"start {names.service(found.name)}")
    try:
        installed = _is_installed(paths, found)
        if not installed and can_fork(
            paths,
            name=found.name,
            sdnotify=found.sdnotify,
            log_driver=found.log_driver,
            has_scope=bool(found.unit),
        ):
            migration.prepare()
            supervisor = forked.fork(reporter)
            cancel.release()
            return ForkedStart(paths, found, supervisor)
        from rootlesspy.engine.supervision import executed

        return executed.ask(paths, found, installed=installed)
    except Error as error:
        os.close(lock_fd)
        raise StartError(error, keep=False) from error


def finish(
    asked: Start | ForkedStart,
    paths: Paths,
    found: ContainerRecord,
    lock_fd: int,
    reporter: Reporter,
) -> None:
    """Hand the container over and wait until it is ready.

    lock_fd, the lock of its directory, is closed here.  Raises StartError.
    """
    end = asked.hand_over(lock_fd, reporter)
    try:
        from rootlesspy.systemd import linger

        if notice := linger.warning(paths):
            reporter.notice(notice)
        _await_started(end, reporter)
        reporter.step("wait until it is ready")
        asked.wait()
    except StartError:
        _try_no_more(paths, found)
        raise
    except Error as error:
        _try_no_more(paths, found)
        raise StartError(error, keep=True) from error
    finally:
        end.close()


def _is_like_executed(paths: Paths, name: str) -> bool:
    """Say whether nothing but resource limits tells this process from one that systemd executes."""
    # The manager itself has capabilities: nobody may look at its namespaces.
    executed = cgroup.broker_pid(os.getuid())
    if not executed or process.no_new_privileges() or _has_drop_ins(paths, name):
        return False
    if not os.path.lexists(_SYSTEM_BUS):
        return False
    try:
        return all(
            os.readlink(f"/proc/self/ns/{kind}") == os.readlink(f"/proc/{executed}/ns/{kind}")
            for kind in _NAMESPACES
        )
    except OSError:
        return False


def _has_drop_ins(paths: Paths, name: str) -> bool:
    """Say whether there are drop-ins for its service, or for all services of rp or of users.

    systemd.unit(5): those of rp-a-b.service are in rp-a-b.service.d, rp-a-.service.d, rp-.service.d
    and service.d.
    """
    words = names.service(name).removesuffix(".service").split("-")
    prefixes = ["-".join(words[:end]) + "-" for end in range(1, len(words))]
    units = [names.service(name), *(f"{each}.service" for each in prefixes), "service"]
    return any(
        os.path.lexists(f"{directory}/{each}.d")
        for directory in (f"{paths.config}/systemd/user", "/etc/systemd/user")
        for each in units
    )


def _is_installed(paths: Paths, found: ContainerRecord) -> bool:
    """Say whether a container has a unit file of its own; most have none."""
    if not os.path.lexists(f"{paths.config}/systemd/user/{names.service(found.name)}"):
        return False
    from rootlesspy.engine import autostart

    return autostart.is_installed(paths, found)


def _try_no_more(paths: Paths, found: ContainerRecord) -> None:
    """Let systemd not try again what was told to have failed; nothing to try, no harm."""
    if found.restart != "no":
        _stop_service(paths, found, forget=False)


def _stop_service(paths: Paths, found: ContainerRecord, *, forget: bool) -> None:
    """Have systemd stop a service, if there is one, and perhaps forget that it failed."""
    from rootlesspy.systemd import bus, service

    name = names.service(found.name)
    try:
        connection = bus.connect(os.path.dirname(paths.require_runtime()))
    except Error:
        return
    try:
        connection.wait_job(service.stop(connection, name), service.START_TIMEOUT_S)
        if forget:
            service.reset_failed(connection, name)
    except Error:
        # No such unit: then nothing runs.
        return
    finally:
        connection.close()


def _await_started(end: socket.socket, reporter: Reporter) -> None:
    """Wait for `started`.  Raises StartError with the supervisor's words."""
    while True:
        message = control.receive(end)
        if message is None:
            from rootlesspy.engine.supervision import attach

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
            from rootlesspy.engine.supervision import attach

            raise StartError(attach.failure(message), keep=bool(message.number("keep")))
