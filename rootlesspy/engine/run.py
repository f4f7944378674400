"""`rp run` and `rp create`: from a request to a container, running or not, and its exit code.

It is started by a child of this process: `run` is the table of contents of the whole product, and
ARCHITECTURE.md walks through it.  Detached, that child becomes a service, or systemd executes one.
"""

from __future__ import annotations

import os

from rootlesspy.engine.supervision import cancel, sockets
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import process

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.bundle import Created
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision import detached, executed
    from rootlesspy.engine.supervision.forked import Supervisor
    from rootlesspy.image.progress import Progress
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


def run(
    request: RunRequest,
    paths: Paths,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None = None,
    supervisor: Supervisor | None = None,
) -> int:
    """Run a container in the foreground and return its exit code.

    supervisor: one that was forked already; else it is done here.

    Raises Error (125, 126, 127 by type) when it cannot be started; nothing is left behind then.
    """
    listening = sockets.take(os.environ)
    if request.restart != "no":
        raise UsageError(
            f"--restart={request.restart} needs a container that systemd starts",
            hint="add -d, and rp attach to see it",
        )
    supervisor = _alone(supervisor, reporter, listening)
    try:
        cancellation = cancel.Cancellation()
        from rootlesspy.engine import creation

        created = creation.make(request, paths, reporter, make_progress, supervisor=supervisor)
    except BaseException:
        supervisor.dismiss()
        raise
    reporter.step("hand it to the supervisor")
    supervisor.hand_over(paths, created, cancellation)
    listening.close()
    reporter.step("attend the supervisor")
    # Now, while the supervisor works.
    _tell_created(created.record)
    return supervisor.attend(request, paths, created.record, reporter)


def _alone(
    supervisor: Supervisor | None, reporter: Reporter, listening: sockets.Listening
) -> Supervisor:
    """Close what else the caller has open, and fork the supervisor where that was not done yet.

    Whatever that is is nothing to the container's processes.
    """
    if supervisor is not None:
        supervisor.close_others()
        return supervisor
    from rootlesspy.engine.supervision import forked

    process.close_from(listening.end)
    reporter.step("fork the supervisor")
    # Now: it imports what it needs while the container is made.
    return forked.fork(reporter, listening)


def run_detached(
    request: RunRequest,
    paths: Paths,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None = None,
    supervisor: Supervisor | None = None,
) -> str:
    """Run a container as a service and return its id once it is ready.

    supervisor: as run() has it.  Raises Error as run() does.
    """
    from rootlesspy import settings
    from rootlesspy.engine.supervision import detached

    log_driver = request.log_driver or settings.log_defaults(paths).driver
    if not detached.can_fork(
        paths,
        name=request.name or "",
        sdnotify=request.sdnotify,
        log_driver=log_driver,
        has_scope=request.cgroups != "disabled",
    ):
        if supervisor is not None:
            supervisor.dismiss()
        return _run_executed(request, paths, reporter, make_progress)
    supervisor = _alone(supervisor, reporter, sockets.NO_SOCKETS)
    from rootlesspy.engine import creation

    try:
        cancellation = cancel.Cancellation()
        created = creation.make(request, paths, reporter, make_progress, supervisor=supervisor)
    except BaseException:
        supervisor.dismiss()
        raise
    return _start(
        detached.ForkedStart(paths, created.record, supervisor),
        created,
        paths,
        cancellation,
        reporter,
    )


def _run_executed(
    request: RunRequest,
    paths: Paths,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None,
) -> str:
    """As run_detached(), with a supervisor that systemd executes."""
    from rootlesspy.engine import creation
    from rootlesspy.engine.supervision import executed

    process.close_from(3)
    cancellation = cancel.Cancellation()
    asked: list[executed.Start] = []

    def ask(found: ContainerRecord) -> None:
        # An exception in between would leave a service that nobody calls off.
        cancel.hold()
        try:
            asked.append(executed.ask(paths, found))
        finally:
            cancel.release()

    try:
        created = creation.make(request, paths, reporter, make_progress, reserved=ask)
    except BaseException:
        for each in asked:
            each.call_off()
            each.close()
        raise
    return _start(asked[0], created, paths, cancellation, reporter)


def _start(
    start: executed.Start | detached.ForkedStart,
    created: Created,
    paths: Paths,
    cancellation: cancel.Cancellation,
    reporter: Reporter,
) -> str:
    """Hand a container to its supervisor and return its id once it is ready.

    What comes to nothing is removed.
    """
    from rootlesspy.engine.supervision import detached

    try:
        cancellation.check()
        _tell_created(created.record)
        reporter.step(f"start {start.name}")
        detached.finish(start, paths, created.record, created.lock_fd, reporter)
    except detached.StartError as error:
        if not error.keep:
            start.call_off()
            _remove(paths, created.record)
        raise error.cause from error
    except BaseException:
        start.call_off()
        _remove(paths, created.record)
        raise
    finally:
        start.close()
    return created.record.id


def _remove(paths: Paths, found: ContainerRecord) -> None:
    from rootlesspy.engine import storage

    storage.remove(paths, found)


def create(
    request: RunRequest,
    paths: Paths,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None = None,
) -> str:
    """Make a container that `rp start` starts, and return its id.  Raises Error."""
    from rootlesspy.engine import creation

    cancel.Cancellation()
    created = creation.make(request, paths, reporter, make_progress, made_by="create")
    os.close(created.lock_fd)
    _tell_created(created.record)
    return created.record.id


def _tell_created(found: ContainerRecord) -> None:
    from rootlesspy.engine.output import events

    events.emit("create", found)
