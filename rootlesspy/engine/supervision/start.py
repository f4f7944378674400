"""From nothing to a running payload: the supervisor's half of the hand-shake, in order.

Runs in the supervisor.  Every step pushes its undo; whatever goes wrong, the caller unwinds them.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.engine import record
from rootlesspy.engine.supervision import cancel
from rootlesspy.errors import Error
from rootlesspy.linux import procfs
from rootlesspy.network import driver
from rootlesspy.runtime import create, fuse, rootfs
from rootlesspy.systemd import bus, cgroup, scope

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.supervision.job import Job
    from rootlesspy.network.driver import NetworkStatus, Pending


class Undo:
    """What was done so far, undone in reverse; every entry may be called twice."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []

    def push(self, step: Callable[[], None]) -> None:
        self._steps.append(step)

    def unwind(self, cause: BaseException | None = None) -> None:
        """Run all steps; what fails is added to cause as a note and stops none of the others."""
        while self._steps:
            try:
                self._steps.pop()()
            except (Error, OSError) as error:
                if cause is not None:
                    cause.add_note(f"while cleaning up: {error}")


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


def start(job: Job, undo: Undo, cancellation: cancel.Cancellation) -> Running:
    """Lead the container from nothing to a running payload: the supervisor's half of the story."""
    job.reporter.step("fork the container's init into its namespaces")
    cancel.hold()
    init = create.launch(job.plan, job.memberships)
    undo.push(lambda: _kill_and_reap(init))
    cancel.release()
    try:
        return _lead(job, undo, init, cancellation)
    except (Error, OSError) as error:
        # If init died first, what it said is the cause and the rest its consequence.
        reported = init.reported_failure()
        if reported is None:
            raise
        raise reported from error


def _lead(job: Job, undo: Undo, init: create.Init, cancellation: cancel.Cancellation) -> Running:
    step = job.reporter.step
    helpers = None
    if "user" not in job.record.shares:
        step("write the id maps")
        helpers = create.write_id_maps(init.pid, job.maps)
    # While newuidmap and newgidmap run.
    step("connect to the user manager")
    connection = _connect(job, undo)
    if helpers is not None:
        create.finish_id_maps(helpers)
    fuse_fd = -1
    if isinstance(job.plan.root, rootfs.FuseOverlay):
        step("start fuse-overlayfs")
        cancel.hold()
        server = fuse.start(job.plan.root, job.plan.merged, init.pid)
        undo.push(server.stop)
        cancel.release()
        fuse_fd = server.mount_fd
    init.ids_mapped(fuse_fd)
    step(f"start the network: {job.selection.request.driver}")
    # A helper that was started and not yet noted would be left behind.
    cancel.hold()
    pending = start_network(job, init.pid)
    undo.push(pending.cancel)
    cancel.release()
    if job.selection.request.networks:
        from rootlesspy.engine.networks import membership

        step("join the networks")
        membership.join(job.paths, job.record, init.pid)
    # While the network helper configures the namespace and init mounts.
    step(f"start {job.record.unit or 'no scope'}")
    meter = _place(job, init, connection)
    if meter is not None:
        undo.push(meter.close)
    step("wait for the network")
    network = pending.wait()
    init.placed()
    step("wait until the container is ready")
    master_fd = init.wait_ready()
    running = Running(
        init,
        connection,
        meter,
        pending,
        network,
        master_fd,
        time.time(),
        -1 if meter is None else meter.payload_fd,
    )
    step("record it as running")
    record_start(job, running)
    step("execute the payload")
    # From here on a signal is for the payload.  It waits until serve() knows what to do with it;
    # raised in between it would be an error that nobody undoes.
    cancel.hold()
    cancellation.check()
    init.execute()
    job.listening.close()
    return running


def start_network(job: Job, pid: int) -> Pending:
    """Start the network helper for the namespaces of the container's init."""
    return driver.start(
        job.selection,
        netns_path=f"/proc/{pid}/ns/net",
        userns_path=f"/proc/{pid}/ns/user",
        runtime_dir=job.paths.container_runtime(job.record.id),
    )


def _connect(job: Job, undo: Undo) -> bus.Bus | None:
    if not job.record.unit:
        return None
    runtime = job.paths.require_runtime()
    connection = bus.connect(os.path.dirname(runtime))
    undo.push(connection.close)
    return connection


def _place(job: Job, init: create.Init, connection: bus.Bus | None) -> cgroup.Meter | None:
    """Put init into its scope with all limits; none without a scope."""
    if connection is None or job.limits is None:
        return None
    scope.start(
        connection,
        unit=job.record.unit,
        description=f"Container {job.record.name} ({job.record.image})",
        documentation=["man:rp(1)"],
        pids=[init.pid],
        controller=connection.unique_name,
        stop_timeout_us=job.record.stop_timeout_s * 1_000_000,
        slice=job.slice or None,
        binds_to=job.service or None,
        properties=_with_pod(job, job.limits.properties),
    )
    directory = cgroup.directory(cgroup.control_group(init.pid))
    cgroup.enter_payload(directory, init.pid)
    if job.limits.affinity:
        os.sched_setaffinity(init.pid, job.limits.affinity)
    return cgroup.Meter(directory)


def _with_pod(job: Job, properties: tuple[bus.Property, ...]) -> tuple[bus.Property, ...]:
    """Bind the scope to the service that holds its pod's namespaces too."""
    if not job.bound_to:
        return properties
    return (*properties, bus.Property("BindsTo", "as", [job.bound_to]))


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


def _kill_and_reap(init: create.Init) -> None:
    """End the container if it still lives; the kernel kills all its processes with the first."""
    try:
        signal.pidfd_send_signal(init.pidfd, signal.SIGKILL)
        os.waitpid(init.pid, 0)
    except (ProcessLookupError, ChildProcessError, OSError):
        return
