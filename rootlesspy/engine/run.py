"""`rp run`: from a request to a running container and its exit code.

Runs in the CLI, up to the fork of the supervisor; then this process is the supervisor's client.
`run` is the table of contents of the whole product: ARCHITECTURE.md walks through it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootlesspy.engine import (
    attach,
    bundle,
    cancel,
    control,
    idmap,
    limits,
    record,
    root,
    start,
    storage,
    supervisor,
)
from rootlesspy.errors import UsageError
from rootlesspy.linux import process
from rootlesspy.network import driver
from rootlesspy.paths import private_directory
from rootlesspy.runtime import seccomp
from rootlesspy.runtime.init import Plan

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.request import RunRequest
    from rootlesspy.image.progress import Progress
    from rootlesspy.linux.userns import IdMaps
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
    step = reporter.step
    # Whatever else the caller has open is nothing to the container's processes.
    process.close_from(3)
    cancellation = cancel.Cancellation()
    private_directory(paths.require_runtime())
    private_directory(paths.data)
    maps = idmap.maps_for(request.userns)
    if maps.is_single():
        reporter.notice(idmap.missing_ranges_notice())
    step(f"find {request.rootfs or request.image}")
    source = root.find(request, paths, maps, reporter, make_progress)
    step(f"choose the network: {request.network.driver}")
    # Before anything is made: what is missing or taken is said at once.
    selection = driver.select(request.network, request.publish)
    if selection.notice:
        reporter.notice(selection.notice)
    step("make the container")
    created = bundle.create(request, source, paths, maps, selection, reporter)
    source.release()
    try:
        job = _job(created, paths, maps, selection, reporter)
        step("fork the supervisor")
        end, pid = _fork_supervisor(job, cancellation)
    except BaseException:
        storage.remove(paths, created.record)
        raise
    finally:
        os.close(created.lock_fd)
    return _attend(request, created.record, end, pid, paths, reporter)


def _job(
    created: bundle.Created, paths: Paths, maps: IdMaps, selection: Selection, reporter: Reporter
) -> start.Job:
    """Decide everything that is not in the spec: limits, filter, file systems of this machine."""
    found, spec = created.record, created.spec
    decided = None
    if found.unit:
        decided = limits.plan(
            spec["linux"].get("resources", {}),
            found.properties,
            host=limits.host(),
            ignore_missing=found.ignore_missing_limits,
            defaults=frozenset(found.default_limits),
        )
        for notice in decided.notices:
            reporter.notice(notice)
    elif found.properties or set(spec["linux"].get("resources", {})) - {"pids"}:
        raise UsageError("limits need a scope: they do not go with --cgroups=disabled")
    program = None
    profile = spec["linux"].get("seccomp")
    if profile is not None:
        private_directory(paths.cache)
        program = seccomp.compile_filter(profile, paths.cache)
    directory = paths.container(found.id)
    kinds = {each["type"] for each in spec["linux"]["namespaces"]}
    return start.Job(
        paths=paths,
        record=found,
        spec=spec,
        maps=maps,
        plan=Plan(
            spec=spec,
            root=storage.root_of(found, directory),
            merged=f"{directory}/rootfs",
            user=found.user,
            group_add=tuple(found.group_add),
            make_cwd=found.make_cwd,
            owns_root=idmap.owns_root(maps),
            set_groups=not maps.is_single(),
            loopback="network" in kinds and selection.request.driver == "none",
            filter=program,
            debug=reporter.debug,
        ),
        limits=decided,
        selection=selection,
        lock_fd=created.lock_fd,
        reporter=reporter,
    )


def _fork_supervisor(
    job: start.Job, cancellation: cancel.Cancellation
) -> tuple[socket.socket, int]:
    ours, theirs = control.socket_pair()
    cancel.hold()
    cancellation.check()
    pid = os.fork()
    if pid == 0:
        ours.close()
        supervisor.main(job, theirs)
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
