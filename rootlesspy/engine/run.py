"""`rp run` and `rp create`: from a request to a container, running or not, and its exit code.

Attached, it is started here, by a child of this process: `run` is the table of contents of the
whole product, and ARCHITECTURE.md walks through it.  Detached, systemd starts it as a service.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootlesspy.engine import bundle, idmap, record, root, storage
from rootlesspy.engine.supervision import attach, cancel, control, job, sockets, supervisor
from rootlesspy.errors import UsageError
from rootlesspy.linux import process
from rootlesspy.network import driver, ports
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.image.progress import Progress
    from rootlesspy.network.driver import Selection
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


def run(
    request: RunRequest,
    paths: Paths,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None = None,
) -> int:
    """Run a container in the foreground and return its exit code.

    Raises Error (125, 126, 127 by type) when it cannot be started; nothing is left behind then.
    """
    listening = sockets.take(os.environ)
    if request.restart != "no":
        raise UsageError(
            f"--restart={request.restart} needs a container that systemd starts",
            hint="add -d, and rp attach to see it",
        )
    # Whatever else the caller has open is nothing to the container's processes.
    process.close_from(listening.end)
    cancellation = cancel.Cancellation()
    created, selection = make(request, paths, reporter, make_progress)
    found = created.record
    try:
        task = job.prepare(
            paths,
            found,
            created.spec,
            selection,
            lock_fd=created.lock_fd,
            reporter=reporter,
            listening=listening,
        )
        reporter.step("fork the supervisor")
        end, pid = _fork_supervisor(task, cancellation)
        listening.close()
    except BaseException:
        storage.remove(paths, found)
        raise
    finally:
        os.close(created.lock_fd)
    # Now, while the supervisor works.
    _tell_created(found)
    return _attend(request, found, end, pid, paths, reporter)


def run_detached(
    request: RunRequest,
    paths: Paths,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None = None,
) -> str:
    """Run a container as a service and return its id once it is ready.

    Raises Error as run() does.
    """
    from rootlesspy.engine.supervision import detached

    process.close_from(3)
    cancel.Cancellation()
    created, _ = make(request, paths, reporter, make_progress)
    _tell_created(created.record)
    try:
        detached.start(paths, created.record, created.lock_fd, reporter)
    except detached.StartError as error:
        if not error.keep:
            storage.remove(paths, created.record)
        raise error.cause from error
    except BaseException:
        detached.abandon(paths, created.record)
        raise
    return created.record.id


def create(
    request: RunRequest,
    paths: Paths,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None = None,
) -> str:
    """Make a container that `rp start` starts, and return its id.  Raises Error."""
    cancel.Cancellation()
    created, _ = make(request, paths, reporter, make_progress, made_by="create")
    os.close(created.lock_fd)
    _tell_created(created.record)
    return created.record.id


def make(
    request: RunRequest,
    paths: Paths,
    reporter: Reporter,
    make_progress: Callable[[], Progress] | None,
    made_by: str = "run",
) -> tuple[bundle.Created, Selection]:
    """Make a container on disk, locked, with its image pulled when the policy says so."""
    step = reporter.step
    private_directory(paths.require_runtime())
    private_directory(paths.data)
    if request.shares_namespaces():
        from rootlesspy.engine.pods import sharing

        request = sharing.resolve(request, paths, reporter)
        if made_by == "run":
            sharing.start_needed(paths, request, reporter)
    maps = idmap.maps_for(request.userns)
    if maps.is_single():
        reporter.notice(idmap.missing_ranges_notice())
    step(f"find {request.rootfs or request.image}")
    source = root.find(request, paths, maps, reporter, make_progress)
    if request.publish_all:
        exposed = tuple(source.config.get("ExposedPorts") or ())
        request = request._replace(publish=ports.with_exposed(request.publish, exposed))
    step(f"choose the network: {request.network.driver}")
    # Before anything is made: what is missing or taken is said at once.
    network = request.network
    if network.networks:
        from rootlesspy.engine.networks import membership

        network = membership.resolve(paths, network)
    selection = driver.select(network, request.publish, now=made_by != "create")
    if selection.notice:
        reporter.notice(selection.notice)
    step("make the container")
    created = bundle.create(request, source, paths, maps, selection, reporter, made_by)
    source.release()
    return created, selection


def _tell_created(found: ContainerRecord) -> None:
    from rootlesspy.engine.output import events

    events.emit("create", found)


def _fork_supervisor(task: job.Job, cancellation: cancel.Cancellation) -> tuple[socket.socket, int]:
    ours, theirs = control.socket_pair()
    cancel.hold()
    cancellation.check()
    pid = os.fork()
    if pid == 0:
        ours.close()
        supervisor.main(task, theirs)
    theirs.close()
    return ours, pid


def _attend(
    request: RunRequest,
    found: ContainerRecord,
    end: socket.socket,
    pid: int,
    paths: Paths,
    reporter: Reporter,
) -> int:
    """Be the supervisor's client; if it is killed, do its last duties."""
    client = attach.Client(
        end,
        pid,
        interactive=request.interactive,
        detach_keys=request.detach_keys,
        reporter=reporter,
        forwards=request.sig_proxy,
    )
    cancel.release()
    try:
        return client.run()
    except attach.SupervisorLostError:
        _bury(paths, found)
        raise
    finally:
        end.close()


def _bury(paths: Paths, found: ContainerRecord) -> None:
    """Record a container whose supervisor was killed as lost, or remove it with --rm."""
    storage.kill_payload(paths.container(found.id))
    if found.remove:
        storage.remove(paths, found)
        return
    storage.release(paths, found)
    lost = record.lost()
    record.write_exit_record(paths.container(found.id), lost, durable=True)
