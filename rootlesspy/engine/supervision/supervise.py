"""`rp supervise ID`: the main process of rp-NAME.service, from the record to the payload's end.

systemd starts it, whoever asked for that; nothing but the record and the spec on disk is needed.
It exits with the payload's own exit code, which Restart= goes by, and with 0 after a stop that was
asked for.
"""

from __future__ import annotations

import os

from rootlesspy.engine import record, storage
from rootlesspy.engine.supervision import cancel, control, head_start, service, sockets
from rootlesspy.errors import Conflict, Error, NotFound
from rootlesspy.light_typing import TYPE_CHECKING, NoReturn
from rootlesspy.linux import process
from rootlesspy.paths import private_directory
from rootlesspy.systemd import notify

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision import job
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
        ended = _run(paths, found, lock_fd, client, reporter, notifier, listening)
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
    return ended.exit_code if ended.exit_code >= 0 else _LOST_STATUS


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


def _run(
    paths: Paths,
    found: ContainerRecord,
    lock_fd: int,
    client: socket.socket | None,
    reporter: Reporter,
    notifier: notify.Notifier,
    listening: sockets.Listening,
) -> record.ExitRecord:
    """Run a container whose lock is held.  Raises Error, told to client."""
    reporter.step("prepare its start")
    directory = paths.container(found.id)
    # The last run's state tells what of it may still live.
    storage.end_lost_run(directory)
    record.forget_run(directory)
    storage.finish_hooks(directory)
    unit = service.own_unit() or service.unit_name(found.name)
    begun = None if listening.number else head_start.take(paths, found, unit, reporter)
    try:
        reporter.step("import what reads it")
        # Beside newuidmap.
        from rootlesspy.engine.supervision import job  # noqa: F401

        if begun is not None:
            begun.beginning.go_on()
        task = _job(paths, found, lock_fd, client, reporter, notifier, listening, unit, begun)
        if begun is not None:
            begun.beginning.instruct(task.plan)
        # While the container's first process mounts, and the network's helper works.
        from rootlesspy.engine.supervision import supervisor

        return supervisor.supervise(task, client, None if begun is None else begun.beginning)
    finally:
        if begun is not None:
            begun.beginning.undo.unwind()


def _job(
    paths: Paths,
    found: ContainerRecord,
    lock_fd: int,
    client: socket.socket | None,
    reporter: Reporter,
    notifier: notify.Notifier,
    listening: sockets.Listening,
    unit: str,
    begun: head_start.HeadStart | None,
) -> job.Job:
    """Decide how it is started, for which it has perhaps begun.  Raises Error, told to client."""
    from rootlesspy.engine.supervision import job

    reporter.step("decide the rest")
    try:
        return job.load(
            paths,
            found,
            lock_fd=lock_fd,
            reporter=reporter,
            service=unit,
            notifier=notifier,
            listening=listening,
            terms=None if begun is None else begun.beginning.terms,
            pipes=None if begun is None else begun.pipes,
        )
    except Error as error:
        from rootlesspy.engine.supervision import failure

        if begun is not None:
            # Before its directory goes.
            begun.beginning.undo.unwind(error)
        failure.report(paths, found, client, error, service=True)
        raise
