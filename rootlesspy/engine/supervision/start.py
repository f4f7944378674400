"""From nothing to a running payload: the supervisor's half of the hand-shake, in order.

Runs in the supervisor.  Every step pushes its undo; whatever goes wrong, the caller unwinds them.
"""

from __future__ import annotations

import os
import time

from rootlesspy.engine import record
from rootlesspy.engine.supervision import cancel
from rootlesspy.engine.supervision.beginning import Beginning, Terms, description
from rootlesspy.errors import Error, Undo
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import procfs
from rootlesspy.network import driver
from rootlesspy.runtime import rootfs
from rootlesspy.systemd import bus, cgroup, scope

if TYPE_CHECKING:
    from rootlesspy.engine.supervision.job import Job
    from rootlesspy.network.driver import NetworkStatus, Pending
    from rootlesspy.runtime import create


class Running(NamedTuple):
    """A started container."""

    init: create.Init
    connection: bus.Bus | None
    meter: cgroup.Meter | None
    pending: Pending
    network: NetworkStatus
    master_fd: int
    started_s: float
    cgroup_fd: int
    """The payload's cgroup, for more processes to be born in; -1 without a scope."""


def start(
    job: Job, undo: Undo, cancellation: cancel.Cancellation, begun: Beginning | None = None
) -> Running:
    """Lead the container from nothing to a running payload: the supervisor's half of the story.

    begun: what was begun before it was on disk, which undo undoes already.
    """
    if job.hooks is not None:
        undo.push(job.hooks.stopped)
    beginning = begun or Beginning(_terms(job), job.paths, job.reporter, job.own_service)
    try:
        if begun is None:
            try:
                beginning.begin(job.plan, job.memberships)
            finally:
                undo.take_over(beginning.undo)
        return _lead(job, undo, beginning, cancellation)
    except (Error, OSError) as error:
        # If init died first, what it said is the cause and the rest its consequence.
        reported = beginning.reported_failure()
        if reported is None:
            raise
        raise reported from error


def _lead(job: Job, undo: Undo, beginning: Beginning, cancellation: cancel.Cancellation) -> Running:
    step, init = job.reporter.step, beginning.init
    beginning.map_ids()
    if not init.has_plan:
        init.plan(job.plan)
    served: tuple[int, ...] = ()
    if not init.works:
        mount_fd, served = _start_fuse(job, init, undo)
        init.ids_mapped(mount_fd)
    pending = beginning.start_network()
    undo.take_over(beginning.undo)
    if job.selection.request.networks:
        from rootlesspy.engine.networks import membership

        step("join the networks")
        membership.join(job.paths, job.record, init.pid)
    # While the network helper configures the namespace and init mounts.
    step(f"wait for {job.record.unit or 'no scope'}")
    meter = _place(job, beginning)
    if meter is not None:
        undo.push(meter.close)
    # While the network's helper works, which says why if it has ended.
    beginning.join_service(served)
    step("wait for the network")
    network = pending.wait()
    init.placed()
    beginning.wait_joined()
    if job.hooks is not None:
        step("run the hooks of its creation")
        init.wait_hooks()
        job.hooks.created(init.pid)
        init.hooks_done()
    step("wait until the container is ready")
    master_fd = init.wait_ready()
    running = Running(
        init,
        beginning.connection,
        meter,
        pending,
        network,
        master_fd,
        time.time(),
        -1 if meter is None else meter.payload_fd,
    )
    # Not before: until init is ready its root, which others look at by its pid, is the host's.
    step("record it as running")
    record_start(job, running)
    step("execute the payload")
    # From here on a signal is for the payload.  It waits until serve() knows what to do with it;
    # raised in between it would be an error that nobody undoes.
    cancel.hold()
    cancellation.check()
    init.execute()
    job.listening.close()
    if job.hooks is not None:
        step("run the poststart hooks")
        job.hooks.started(init.pid)
    return running


def _start_fuse(job: Job, init: create.Init, undo: Undo) -> tuple[int, tuple[int, ...]]:
    """Return the mount and the process of a root that a program serves; -1 for any other one."""
    if not isinstance(job.plan.root, rootfs.FuseOverlay):
        return -1, ()
    from rootlesspy.runtime import fuse

    job.reporter.step("start fuse-overlayfs")
    held = cancel.hold()
    server = fuse.start(job.plan.root, job.plan.merged, init.pid, is_outsider=job.plan.is_outsider)
    undo.push(server.stop)
    cancel.restore(held)
    return server.mount_fd, (server.pid,)


def restart_network(job: Job, init: create.Init) -> Pending:
    """Start another network helper for a container whose last one is gone.

    Raises Error, OSError.
    """
    pid = init.pid
    if init.tap:
        driver.remove_interface(pid, init.tap)
        init.tap = ""
    return driver.start(
        job.selection,
        netns_path=f"/proc/{pid}/ns/net",
        userns_path=f"/proc/{pid}/ns/user",
        runtime_dir=job.paths.container_runtime(job.record.id),
    )


def _terms(job: Job) -> Terms:
    """Return what a container on disk begins with."""
    found, decided = job.record, job.limits
    if decided is not None and job.bound_to:
        # The scope ends with the service that holds its pod's namespaces too.
        bound = bus.Property("BindsTo", "as", [job.bound_to])
        decided = decided._replace(properties=(*decided.properties, bound))
    return Terms(
        container_id=found.id,
        unit=found.unit,
        description=description(found.name, found.image),
        namespaces=tuple(each["type"] for each in job.spec["linux"]["namespaces"]),
        maps=None if "user" in found.shares else job.maps,
        keeps_groups=not job.plan.set_groups,
        limits=decided,
        selection=job.selection,
        stop_timeout_s=found.stop_timeout_s,
        slice=job.slice,
        service=job.service,
    )


def _place(job: Job, beginning: Beginning) -> cgroup.Meter | None:
    """Wait until init is in its scope, and divide that; none without a scope."""
    connection, init = beginning.connection, beginning.init
    if connection is None or job.limits is None:
        return None
    scope.wait_started(connection, job.record.unit, beginning.asked)
    directory = cgroup.directory(cgroup.control_group(init.pid))
    cgroup.enter_payload(directory, init.pid)
    if job.limits.affinity:
        os.sched_setaffinity(init.pid, job.limits.affinity)
    return cgroup.Meter(directory)


def record_start(job: Job, running: Running) -> None:
    """Write which processes the container has now."""
    pid, network = running.init.pid, running.network
    record.write_live_state(
        job.paths.container(job.record.id),
        record.LiveState(
            supervisor_pid=os.getpid(),
            supervisor_start=procfs.start_time(os.getpid()) or 0,
            pid=pid,
            start=procfs.start_time(pid) or 0,
            boot_id=procfs.boot_id(),
            started_s=running.started_s,
            helper_pid=network.helper_pid or 0,
            helper_start=network.helper_start_time or 0,
            unit=job.record.unit,
            service=job.service,
        ),
    )
