"""What users do with pods: make, start, stop, signal, freeze and remove them.

What concerns the members is done to each of them as its own command does it.
"""

from __future__ import annotations

import fcntl
import os
import time

from rootlesspy.engine import ending, idmap, isolation, lifecycle, limits, names, record, specgen
from rootlesspy.engine.pods import store
from rootlesspy.engine.supervision import attach, control, service
from rootlesspy.errors import Conflict, Error, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network import driver
from rootlesspy.paths import private_directory
from rootlesspy.systemd import bus, cgroup, scope
from rootlesspy.systemd import service as unit
from rootlesspy.systemd.bus import BusError, Property

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.pods.store import Pod
    from rootlesspy.engine.record import Container
    from rootlesspy.network.driver import Selection
    from rootlesspy.oci.runtime_spec import LinuxResources
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.systemd.bus import Bus

_SHM_BYTES = 64 * 1024 * 1024
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.05
_STARTED = "started"
_AROUND = ("rp-pod.slice", "rp.slice")


def create(
    paths: Paths,
    request: RunRequest,
    share: tuple[str, ...],
    reporter: Reporter,
    *,
    infra: bool,
    exit_policy: str = "continue",
) -> Pod:
    """Make a pod: what is asked of a container's namespaces and limits is asked of the pod's.

    share: kinds of store.KINDS' values.  Raises Conflict, UsageError, Unsupported.
    """
    private_directory(paths.require_runtime())
    share = share if infra else ()
    selection = _select(paths, request, shares_network="network" in share)
    if selection.notice:
        reporter.notice(selection.notice)
    choice = None
    if infra and idmap.is_chosen_late(request):
        from rootlesspy.engine import idmap_choice

        choice = idmap_choice.choose(paths, request, (), "")
        request = request._replace(id_maps=choice.lines())
    try:
        pod = _described(request, selection, request.name or store.new_name(paths), share)
        pod = pod._replace(infra=infra, exit_policy=exit_policy)
        _limits(pod)
        store.create(paths, pod)
    finally:
        if choice is not None:
            choice.release()
    return pod


def _select(paths: Paths, request: RunRequest, *, shares_network: bool) -> Selection:
    """Find out how the members will be connected.  Raises Conflict, UsageError, Unsupported."""
    network = request.network
    if network.driver in driver.SHARED:
        raise UsageError("a pod shares nobody else's network")
    if not shares_network:
        for option, given in (("--publish", request.publish), ("--network NAME", network.networks)):
            if given:
                raise UsageError(f"{option} needs a network that the pod shares: --share net")
    if network.networks:
        from rootlesspy.engine.networks import membership

        network = membership.resolve(paths, network)
    return driver.select(network, request.publish)


def _described(request: RunRequest, selection: Selection, name: str, share: tuple[str, ...]) -> Pod:
    """Return a new pod as it is kept on disk."""
    resources = dict(isolation.resources(request))
    if request.pids_limit is None:
        resources.pop("pids")
    return store.Pod(
        id=store.new_id(),
        name=name,
        created_s=time.time(),
        labels=dict(request.labels),
        share=list(share),
        infra=True,
        hostname=request.hostname or name,
        network=dict(selection.request._asdict()),
        ports=[list(each) for each in selection.ports],
        resolver={
            "add_hosts": [list(pair) for pair in request.add_hosts],
            "dns": list(request.dns),
            "dns_search": list(request.dns_search),
            "dns_options": list(request.dns_options),
        },
        userns=request.userns,
        resources=resources,
        shm_size_bytes=request.shm_size_bytes or _SHM_BYTES,
        sysctls=specgen.sysctls(request) if "network" in share else {},
        ignore_missing_limits=request.ignore_missing_limits,
        id_maps=[[list(line) for line in lines] for lines in request.id_maps],
    )


def start_service(paths: Paths, pod: Pod) -> bool:
    """Start a pod's slice, and its service where it has one; say whether it had to be.

    Raises Error with the service's words, NotFound when it was removed meanwhile.
    """
    if control.connect_once(paths, pod.id):
        return False
    connection = bus.connect(os.path.dirname(paths.require_runtime()))
    # One at a time: several members may start at once, and the last one's slices be stopped.
    fd = _lock(paths)
    try:
        # A slice without a pod would be nobody's to stop.
        store.find(paths, pod.id)
        _start_slice(connection, pod)
        if not pod.infra or control.connect_once(paths, pod.id):
            return False
        _start(connection, paths, pod)
        marker = f"{paths.pods}/{pod.name}/{_STARTED}"
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    finally:
        connection.close()
        os.close(fd)
    return True


def start(paths: Paths, pod: Pod, reporter: Reporter) -> None:
    """Start a pod's service and all members that do not run.  Raises Error."""
    start_service(paths, pod)
    _each(
        (each for each in store.members(paths, pod) if each.state != "running"),
        lambda each: lifecycle.start(paths, each.record.id, reporter),
    )


def stop(paths: Paths, pod: Pod, timeout_s: float | None, reporter: Reporter) -> None:
    """Stop all members and then what holds their namespaces.  Raises Error."""
    _each(
        (each for each in store.members(paths, pod) if each.state == "running"),
        lambda each: ending.stop(paths, each.record.id, timeout_s, reporter),
    )
    _stop_units(paths, pod)


def kill(paths: Paths, pod: Pod, number: int) -> None:
    """Signal the first process of every member that runs.  Raises Error."""
    _each(
        (each for each in store.members(paths, pod) if each.state == "running"),
        lambda each: lifecycle.signal(paths, each.record.id, number),
    )


def pause(paths: Paths, pod: Pod) -> None:
    """Freeze every member that runs.  Raises Error."""
    _each(
        (
            each
            for each in store.members(paths, pod)
            if each.state == "running" and not lifecycle.is_paused(paths, each)
        ),
        lambda each: lifecycle.pause(paths, each.record.id),
    )


def unpause(paths: Paths, pod: Pod) -> None:
    """Let every frozen member go on.  Raises Error."""
    _each(
        (each for each in store.members(paths, pod) if lifecycle.is_paused(paths, each)),
        lambda each: lifecycle.unpause(paths, each.record.id),
    )


def remove(
    paths: Paths, pod: Pod, reporter: Reporter, *, force: bool, timeout_s: float | None = None
) -> None:
    """Remove a pod and its members; force: running ones too.  Raises Conflict, Error."""
    found = store.members(paths, pod)
    running = [each.record.name for each in found if each.state == "running"]
    if running and not force:
        raise Conflict(
            f"pod {pod.name} has running containers: {', '.join(running)}",
            hint=f"rp pod rm -f {pod.name}",
        )
    # The newest first: it may share with an older one.
    for each in reversed(found):
        ending.remove(paths, [each.record.id], force=force, reporter=reporter, timeout_s=timeout_s)
    _stop_units(paths, pod, forget=True)


def is_awaited(paths: Paths, pod: Pod) -> bool:
    """Say whether a member is being started, or will be by systemd (--restart)."""
    found = store.members(paths, pod)
    if any(record.is_locked(paths.container(each.record.id)) for each in found):
        return True
    restarting = [each.record.name for each in found if each.record.restart != "no"]
    if not restarting:
        return False
    connection = bus.connect(os.path.dirname(paths.require_runtime()))
    try:
        return any(
            _is_active(connection, names.service(name), "deactivating") for name in restarting
        )
    finally:
        connection.close()


def was_started(paths: Paths, pod: Pod) -> bool:
    """Say whether a pod has ever run."""
    return os.path.exists(f"{paths.pods}/{pod.name}/{_STARTED}")


def _each(found: Iterable[Container], do: Callable[[Container], object]) -> None:
    """Do it to all of them; the first failure is raised at the end."""
    failures: list[Error] = []
    for each in found:
        try:
            do(each)
        except Error as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _limits(pod: Pod) -> tuple[Property, ...]:
    """Return the properties of the slice.  Raises Unsupported for what would not be held."""
    resources: LinuxResources = pod.resources  # type: ignore[assignment]  # as specgen made them
    decided = limits.plan(
        resources, (), host=limits.host(), ignore_missing=pod.ignore_missing_limits
    )
    if decided.affinity is not None:
        raise Unsupported(
            "--cpuset-cpus of a pod needs the cpuset controller, which is not delegated",
            hint="rp doctor",
        )
    return decided.properties


def _start_slice(connection: Bus, pod: Pod) -> None:
    if _is_active(connection, pod.slice):
        return
    wanted = [Property("Description", "s", f"Pod {pod.name}"), *_limits(pod)]
    try:
        job = connection.start_transient_unit(pod.slice, wanted)
    except BusError as error:
        raise scope.explain(error, pod.slice) from error
    result = connection.wait_job(job, _STOP_TIMEOUT_S)
    if result != "done":
        raise Error(
            f"{pod.slice} was not started: {result}", hint=f"systemctl --user status {pod.slice}"
        )


def _stop_slices(connection: Bus, paths: Paths, pod: Pod) -> None:
    """Stop a pod's slice, and those around it with the last one: systemd would keep them."""
    scope.stop(connection, pod.slice, _STOP_TIMEOUT_S)
    if any(_is_active(connection, each.slice) for each in store.everything(paths)):
        return
    for name in _AROUND:
        shown = connection.unit_properties(
            name, "org.freedesktop.systemd1.Slice", ("ControlGroup",)
        )
        # The user may have made others in it.
        if _is_empty(str(shown.get("ControlGroup") or "")):
            scope.stop(connection, name, _STOP_TIMEOUT_S)


def _is_empty(group: str) -> bool:
    """Say whether a cgroup is there, with no other one in it."""
    if not group:
        return False
    try:
        with os.scandir(cgroup.directory(group)) as entries:
            return not any(each.is_dir() for each in entries)
    except FileNotFoundError:
        return False


def _is_active(connection: Bus, name: str, *more: str) -> bool:
    state = connection.unit_properties(name, bus.UNIT, ("ActiveState",)).get("ActiveState")
    return state in ("active", "activating", *more)


def _lock(paths: Paths) -> int:
    """Wait for the lock of all pods; closing the descriptor releases it."""
    fd = os.open(paths.pods, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _start(connection: Bus, paths: Paths, pod: Pod) -> None:
    argv, environment = service.program()
    wanted = unit.Service(
        name=pod.unit,
        description=f"Pod {pod.name}",
        documentation=("man:rp(1)",),
        command=(*argv, "pod-service", pod.name),
        environment=(*service.directories(paths), *environment),
        identifier=f"rp-pod-{pod.name}",
    )
    private_directory(paths.container_runtime(pod.id))
    listener = control.listen(paths, pod.id, control.STARTER)
    try:
        unit.wait(connection, pod.unit, _start_unit(connection, wanted))
    except Error:
        listener.setblocking(False)
        try:
            end, _ = listener.accept()
        except OSError:
            end = None
        message = None if end is None else control.receive(end)
        if message is not None and message.kind == "failed":
            unit.reset_failed(connection, pod.unit)
            raise attach.failure(message) from None
        raise
    finally:
        listener.close()


def _start_unit(connection: Bus, wanted: unit.Service) -> str:
    """Have the service started, once the one before it has ended.  Raises Conflict, Error."""
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while True:
        try:
            return unit.start_transient(connection, wanted)
        except Conflict:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def release_slices(paths: Paths, pod: Pod) -> None:
    """Stop the slices of a pod whose service ends by itself, which holds the lock of all pods."""
    connection = bus.connect(os.path.dirname(paths.require_runtime()))
    try:
        _stop_slices(connection, paths, pod)
    finally:
        connection.close()


def try_lock(paths: Paths) -> int | None:
    """Take the lock of all pods, None when somebody has it; closing the descriptor releases it."""
    return record.lock(paths.pods)


def _stop_units(paths: Paths, pod: Pod, *, forget: bool = False) -> None:
    """Stop a pod's service and slices; forget: and remove it before anybody can start them."""
    fd = _lock(paths)
    try:
        try:
            connection = bus.connect(os.path.dirname(paths.require_runtime()))
        except Unsupported:
            # Without a user manager nothing of it runs.
            pass
        else:
            try:
                scope.stop(connection, pod.unit, _STOP_TIMEOUT_S)
                unit.reset_failed(connection, pod.unit)
                _stop_slices(connection, paths, pod)
            finally:
                connection.close()
        if forget:
            store.remove(paths, pod)
    finally:
        os.close(fd)
