"""`rp supervise ID`: the main process of rp-NAME.service, from the record to the payload's end.

systemd starts it, whoever asked for that; nothing but the record and the spec on disk is needed.
It exits with the payload's own exit code, which Restart= goes by, and with 0 after a stop that was
asked for.
"""

from __future__ import annotations

import os

from rootlesspy.engine import names, record, storage
from rootlesspy.engine.supervision import cancel, control, head_start, service, sockets
from rootlesspy.errors import Conflict, Error, NotFound
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, NoReturn
from rootlesspy.linux import process
from rootlesspy.paths import private_directory
from rootlesspy.systemd import notify

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision import job
    from rootlesspy.engine.supervision.beginning import Begun
    from rootlesspy.engine.supervision.own_service import OwnService
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_LOST_STATUS = 125
_DYING_S = 2.0
# Ends after which no policy starts it again: record.ExitRecord.reason.
_ASKED = frozenset(("stop", "kill", "systemctl", "shutdown", "timeout"))


def supervise(text: str, paths: Paths, reporter: Reporter) -> int:
    """Run a container, by id or name, as this service and return the service's exit code.

    Raises Error when it cannot be started; systemd and the caller of `rp start` are both told.
    """
    listening = sockets.take(os.environ)
    cancel.Cancellation()
    # Nothing that is started from here may speak for the service.
    notifier = notify.Notifier(os.environ.pop("NOTIFY_SOCKET", ""))
    private_directory(paths.require_runtime())
    try:
        container_id = record.find(paths, text)
    except NotFound as error:
        _end_without_container(error, paths, reporter, notifier)
    client = control.connect(paths, container_id, control.STARTER)
    journal_fd = os.dup(2)
    try:
        lock_fd = _lock(paths, container_id, client, reporter)
        found = record.load_record(paths.container(container_id))
        process.set_name(f"rp-{found.name}".encode())
        unit = service.own_unit() or names.service(found.name)
        # With sockets it cannot begin so early: its first process is born with them.
        begun = _begin(paths, found, unit, reporter, early=not listening.number)
        start = _Start(paths, found, lock_fd, client, reporter, notifier, unit, listening=listening)
        ended = _run(start, begun)
    except FileNotFoundError:
        os.dup2(journal_fd, 2)
        gone = NotFound(f"no container with id {container_id}", hint="rp ps -a")
        _end_without_container(gone, paths, reporter, notifier)
    except Error as error:
        if client is None:
            raise
        os.dup2(journal_fd, 2)
        reporter.leave()
        reporter.error(error.message, error.hint)
        # Its starter has the answer; a restart policy is for containers that have run.
        service.end_as_asked()
    finally:
        # The payload has had pipes in the place of the service's own standard streams.
        os.dup2(journal_fd, 2)
    if ended.reason in _ASKED:
        service.end_as_asked()
    return _status(ended)


def _end_without_container(
    error: NotFound, paths: Paths, reporter: Reporter, notifier: notify.Notifier
) -> NoReturn:
    """End a service whose container is gone; Restart= would start it again and again.

    Whoever made or removed it was killed before the service was stopped.
    """
    reporter.error(error.message, error.hint)
    transient = f"{os.path.dirname(paths.require_runtime())}/systemd/transient"
    if os.path.lexists(f"{transient}/{service.own_unit()}"):
        # Nobody will look for it among those that failed: systemd forgets what has ended well.
        notifier.send(notify.READY)
    service.end_as_asked()


def _lock(paths: Paths, container_id: str, client: socket.socket | None, reporter: Reporter) -> int:
    """Hold the container: with the lock that its starter hands over, else with our own.

    Raises Conflict when somebody else has it, FileNotFoundError when it is gone.
    """
    if client is not None:
        message = control.receive(client)
        if message is not None and message.fds:
            if began_ns := message.number("began_ns"):
                reporter.follow("supervisor", began_ns, message.fds[1])
            return message.fd
        # Its starter was killed, and has perhaps left half a container.
        record.wait_unlocked(paths.container(container_id), _DYING_S)
        from rootlesspy.engine import leftovers

        leftovers.sweep(paths)
    fd = record.lock(paths.container(container_id))
    if fd is None:
        raise Conflict(
            f"container {container_id[:12]} is already running, or being changed", hint="rp ps"
        )
    return fd


def supervise_forked(
    paths: Paths,
    found: ContainerRecord,
    lock_fd: int,
    client: socket.socket,
    reporter: Reporter,
    own: OwnService,
    begun: Begun | None,
) -> None:
    """Run a container as the service that this process, a fork of rp, makes for itself.

    begun: what was begun before it was on disk.
    """
    status = own.AS_ASKED
    try:
        process.set_name(f"rp-{found.name}".encode())
        if begun is None:
            begun = _begin(paths, found, own.name, reporter, own)
        start = _Start(paths, found, lock_fd, client, reporter, own.notifier, own.name, own)
        ended = _run(start, begun)
        if ended.reason not in _ASKED:
            status = str(_status(ended))
    except Error:
        # Its starter has the answer; a restart policy is for containers that have run.
        pass
    except BaseException:
        status = str(_LOST_STATUS)
        raise
    finally:
        own.end(status)


class _Start(NamedTuple):
    """One start of a container as a service."""

    paths: Paths
    found: ContainerRecord
    lock_fd: int
    client: socket.socket | None
    reporter: Reporter
    notifier: notify.Notifier
    unit: str
    own: OwnService | None = None
    listening: sockets.Listening = sockets.NO_SOCKETS


def _status(ended: record.ExitRecord) -> int:
    return ended.exit_code if ended.exit_code >= 0 else _LOST_STATUS


def _begin(
    paths: Paths,
    found: ContainerRecord,
    unit: str,
    reporter: Reporter,
    own: OwnService | None = None,
    *,
    early: bool = True,
) -> Begun | None:
    """Forget the last run of a container, and begin with what needs little of it."""
    reporter.step("prepare its start")
    directory = paths.container(found.id)
    # The last run's state tells what of it may still live.
    storage.end_lost_run(directory)
    record.forget_run(directory)
    storage.finish_hooks(directory)
    return head_start.take(paths, found, unit, reporter, own) if early else None


def _run(start: _Start, begun: Begun | None) -> record.ExitRecord:
    """Run a container whose lock is held.  Raises Error, told to client."""
    try:
        start.reporter.step("import what reads it")
        # Beside newuidmap.
        from rootlesspy.engine.supervision import job  # noqa: F401

        if begun is not None:
            begun.beginning.go_on()
        task = _job(start, begun)
        if begun is not None:
            begun.beginning.instruct(task.plan)
        # While the container's first process mounts, and the network's helper works.
        from rootlesspy.engine.supervision import supervisor

        return supervisor.supervise(task, start.client, None if begun is None else begun.beginning)
    finally:
        if begun is not None:
            begun.beginning.undo.unwind()


def _job(start: _Start, begun: Begun | None) -> job.Job:
    """Decide how it is started, for which it has perhaps begun.  Raises Error, told to client."""
    from rootlesspy.engine.supervision import job

    start.reporter.step("decide the rest")
    try:
        return job.load(
            start.paths,
            start.found,
            lock_fd=start.lock_fd,
            reporter=start.reporter,
            service=start.unit,
            notifier=start.notifier,
            listening=start.listening,
            terms=None if begun is None else begun.beginning.terms,
            pipes=None if begun is None else begun.pipes,
            own_service=start.own,
        )
    except Error as error:
        _report(start, begun, error)
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        name = start.found.name
        damaged = Error(f"container {name} is damaged: {error}", hint=f"rp rm -f {name}")
        _report(start, begun, damaged)
        raise damaged from error


def _report(start: _Start, begun: Begun | None, error: Error) -> None:
    """Tell who started it, and the record, why it does not start."""
    from rootlesspy.engine.supervision import failure

    if begun is not None:
        # Before its directory goes.
        begun.beginning.undo.unwind(error)
    failure.report(start.paths, start.found, start.client, error, service=True)
