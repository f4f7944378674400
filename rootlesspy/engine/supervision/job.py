"""What a supervisor needs to start one container: everything decided, nothing asked again.

Made from the record and the spec on disk, so that `rp run`, `rp start` and systemd start alike.
"""

from __future__ import annotations

import os

from rootlesspy.engine import idmap, limits, statefile, storage
from rootlesspy.engine.inputs.constants import KEEP_GROUPS
from rootlesspy.engine.supervision import etc_files, sockets
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, cast
from rootlesspy.network import driver
from rootlesspy.paths import private_directory
from rootlesspy.runtime import seccomp
from rootlesspy.runtime.init import Plan
from rootlesspy.systemd import notify

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision.beginning import Terms
    from rootlesspy.engine.supervision.hooks import Hooks
    from rootlesspy.engine.supervision.own_service import OwnService
    from rootlesspy.engine.supervision.pipes import Pipes
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.network.driver import NetworkRequest, Selection
    from rootlesspy.oci.runtime_spec import Spec
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.runtime.membership import Membership
    from rootlesspy.systemd.notify import Notifier


class Job(NamedTuple):
    """One container to supervise, all decided."""

    paths: Paths
    record: ContainerRecord
    spec: Spec
    maps: IdMaps
    plan: Plan
    limits: limits.Plan | None
    """None without a scope."""
    selection: Selection
    lock_fd: int
    """Holds the lock of the container's directory, until the supervisor's very end."""
    reporter: Reporter
    service: str = ""
    """The service that the supervisor is in; empty for an attached container."""
    notifier: Notifier | None = None
    """Tells systemd how the service does; None for an attached container."""
    listening: sockets.Listening = sockets.NO_SOCKETS
    """What the service manager handed over for the payload."""
    memberships: tuple[Membership, ...] = ()
    """Namespaces of others that it is born in."""
    slice: str = ""
    """The pod's slice, for its scope."""
    bound_to: str = ""
    """The pod's service, with which it ends."""
    presence_fd: int = -1
    """Open as long as the supervisor lives: a connection to the pod's service."""
    resolv_conf: str = ""
    """What was made of the host's, for engine.supervision.host_resolvers."""
    hooks: Hooks | None = None
    pipes: Pipes | None = None
    """What the container's first process has at 0, 1 and 2 already."""
    own_service: OwnService | None = None
    """The service, where the supervisor makes it itself."""


def load(
    paths: Paths,
    found: ContainerRecord,
    *,
    lock_fd: int,
    reporter: Reporter,
    service: str = "",
    notifier: Notifier | None = None,
    listening: sockets.Listening = sockets.NO_SOCKETS,
    terms: Terms | None = None,
    pipes: Pipes | None = None,
    own_service: OwnService | None = None,
) -> Job:
    """Decide all that is not in the spec of a container on disk: limits, filter, file systems.

    Writes the container's /etc files.  terms, pipes: what it has begun with.  Raises Error,
    OSError.
    """
    spec = load_spec(paths.container(found.id))
    if terms is None:
        selection = driver.select(_network(paths, found), storage.ports(found))
    else:
        selection = terms.selection
    maps = idmap.of(found) if terms is None or terms.maps is None else terms.maps
    if found.request.get("verify_always"):
        from rootlesspy.engine.images import verification

        verification.check(paths, found, maps, reporter)
    decided = None if terms is None else terms.limits
    if decided is None:
        decided = _limits(found, spec, reporter)
    program = _filter(paths, spec)
    handed = listening.environment()
    if notifier is not None and found.sdnotify == "container":
        handed += notify.watchdog(os.environ)
    spec["process"]["env"] = [*spec["process"]["env"], *handed]
    if found.network.get("networks"):
        from rootlesspy.engine.networks import membership

        selection = membership.reserve(paths, found, selection)
    if found.secrets:
        from rootlesspy.engine.supervision import secret_files

        secret_files.provide(paths, found, spec, maps)
    slice_name, bound_to, presence_fd = "", "", -1
    if found.pod:
        # First: the /etc files are those of the pod, which may have to be started.
        from rootlesspy.engine.pods.membership import units

        slice_name, bound_to, presence_fd = units(paths, found.pod)
    resolv_conf = etc_files.write(paths, found, hostname(spec), selection)
    directory = paths.container(found.id)
    plan = _plan(
        paths,
        found,
        spec,
        maps,
        program=program,
        loopback=selection.request.driver == "none",
        own_stdio=relays(found, service) and not found.tty,
        listen_fds=listening.number,
        reporter=reporter,
    )
    memberships: tuple[Membership, ...] = ()
    if found.shares:
        from rootlesspy.engine.pods import namespaces

        shared = namespaces.open_all(paths, found)
        memberships, plan = shared.memberships, plan._replace(shm_fd=shared.shm_fd)
    own_hooks = None
    if spec.get("hooks"):
        from rootlesspy.engine.supervision.hooks import Hooks

        own_hooks = Hooks(directory, spec)
        inside = own_hooks.inside(
            traceable="pid" not in found.shares, inherited_fds=listening.number
        )
        plan = plan._replace(hooks=inside)
    return Job(
        paths=paths,
        record=found,
        spec=spec,
        maps=maps,
        plan=plan,
        limits=decided,
        selection=selection,
        lock_fd=lock_fd,
        reporter=reporter,
        service=service,
        notifier=notifier,
        listening=listening,
        memberships=memberships,
        slice=slice_name,
        bound_to=bound_to,
        presence_fd=presence_fd,
        resolv_conf=resolv_conf,
        hooks=own_hooks,
        pipes=pipes,
        own_service=own_service,
    )


def _network(paths: Paths, found: ContainerRecord) -> NetworkRequest:
    """Return what the container is connected to; raises NotFound for a network that is gone."""
    request = driver.restore(found.network)
    if not request.networks:
        return request
    from rootlesspy.engine.networks import membership

    return membership.resolve(paths, request)


def _plan(
    paths: Paths,
    found: ContainerRecord,
    spec: Spec,
    maps: IdMaps,
    *,
    program: bytes | None,
    loopback: bool,
    own_stdio: bool,
    listen_fds: int,
    reporter: Reporter,
) -> Plan:
    """Return what the container's first process does."""
    directory = paths.container(found.id)
    kinds = {each["type"] for each in spec["linux"]["namespaces"]}
    keeps_groups = KEEP_GROUPS in found.group_add
    is_outsider = idmap.leaves_caller_out(maps)
    plan = Plan(
        spec=spec,
        root=storage.root_of(found, directory),
        # Where the caller's directories are closed: a directory that nobody needs any more.
        merged="/sys" if is_outsider else f"{directory}/rootfs",
        user=found.user,
        group_add=() if keeps_groups else tuple(found.group_add),
        make_cwd=found.make_cwd,
        owns_root=idmap.owns_root(maps),
        set_groups=maps.needs_helpers() and not keeps_groups,
        loopback=loopback and "network" in kinds,
        filter=program,
        own_stdio=own_stdio,
        listen_fds=listen_fds,
        debug=reporter.debug,
        # Where its stderr is the log already its steps are no part of that.
        began_ns=0 if own_stdio else reporter.began_ns,
        is_outsider=is_outsider,
        volumes_directory=paths.volumes,
        own_uts="uts" in kinds and "uts" not in found.shares,
    )
    if found.request.get("landlock"):
        from rootlesspy.engine.security import landlock

        plan = plan._replace(landlock=landlock.of_container(found))
    return plan


def _filter(paths: Paths, spec: Spec) -> bytes | None:
    """Return the seccomp program of a container that has a profile."""
    profile = spec["linux"].get("seccomp")
    if profile is None:
        return None
    private_directory(paths.cache)
    return seccomp.compile_filter(profile, paths.cache)


def relays(found: ContainerRecord, service: str) -> bool:
    """Say whether the supervisor stands between the payload and its standard streams.

    It does for its log, for clients that come and go, and for a container without the caller's
    ids; any other attached one that nobody wants logged has the caller's own.
    """
    if service:
        return found.log_driver != "passthrough"
    if found.log_driver in ("journald", "json-file"):
        return True
    # Who is not the caller may not open /dev/stdout where it is the caller's.
    return found.userns != "host-map" and not found.tty and idmap.leaves_caller_out(idmap.of(found))


def load_spec(directory: str) -> Spec:
    """Read a container's config.json.  Raises OSError, ValueError."""
    return cast("Spec", statefile.read_spec(directory))


def hostname(spec: Spec) -> str:
    """Return the host name that a container sees: the host's own with --uts=host."""
    return spec.get("hostname") or os.uname().nodename


def _limits(found: ContainerRecord, spec: Spec, reporter: Reporter) -> limits.Plan | None:
    resources = spec["linux"].get("resources", {})
    if not found.unit:
        if found.properties or set(resources) - {"pids"}:
            raise UsageError("limits need a scope: they do not go with --cgroups=disabled")
        return None
    decided = limits.plan(
        resources,
        found.properties,
        host=limits.host(),
        ignore_missing=found.ignore_missing_limits,
        defaults=frozenset(found.default_limits),
    )
    for notice in decided.notices:
        reporter.notice(notice)
    return decided
