"""What a supervisor needs to start one container: everything decided, nothing asked again.

Made from the record and the spec on disk, so that `rp run`, `rp start` and systemd start alike.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.engine import idmap, limits, storage
from rootlesspy.engine.supervision import etc_files, sockets
from rootlesspy.errors import UsageError
from rootlesspy.paths import private_directory
from rootlesspy.runtime import seccomp
from rootlesspy.runtime.init import Plan
from rootlesspy.systemd import notify

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.network.driver import Selection
    from rootlesspy.oci.runtime_spec import Spec
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.runtime.membership import Membership
    from rootlesspy.systemd.notify import Notifier

NO_SOCKETS = sockets.Listening()


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
    """The service whose main process the supervisor is; empty for an attached container."""
    notifier: Notifier | None = None
    """Tells systemd how the service does; None for an attached container."""
    listening: sockets.Listening = NO_SOCKETS
    """What the service manager handed over for the payload."""
    memberships: tuple[Membership, ...] = ()
    """Namespaces of others that it is born in."""
    slice: str = ""
    """The pod's slice, for its scope."""
    bound_to: str = ""
    """The pod's service, with which it ends."""
    resolv_conf: str = ""
    """What was made of the host's, for engine.supervision.host_resolvers."""


def prepare(
    paths: Paths,
    found: ContainerRecord,
    spec: Spec,
    selection: Selection,
    *,
    lock_fd: int,
    reporter: Reporter,
    service: str = "",
    notifier: Notifier | None = None,
    listening: sockets.Listening = NO_SOCKETS,
) -> Job:
    """Decide everything that is not in the spec: limits, filter, file systems of this machine.

    Writes the container's /etc files.  Raises Unsupported, UsageError, OSError.
    """
    maps = idmap.maps_for(found.userns)
    if found.request.get("verify_always"):
        from rootlesspy.engine.images import verification

        verification.check(paths, found, maps, reporter)
    decided = _limits(found, spec, reporter)
    program = None
    profile = spec["linux"].get("seccomp")
    if profile is not None:
        private_directory(paths.cache)
        program = seccomp.compile_filter(profile, paths.cache)
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
    resolv_conf = etc_files.write(paths, found, spec.get("hostname", ""), selection)
    directory = paths.container(found.id)
    kinds = {each["type"] for each in spec["linux"]["namespaces"]}
    plan = Plan(
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
        own_stdio=relays(found, service) and not found.tty,
        listen_fds=listening.number,
        debug=reporter.debug,
        own_uts="uts" not in found.shares,
    )
    memberships: tuple[Membership, ...] = ()
    if found.shares:
        from rootlesspy.engine.pods import namespaces

        shared = namespaces.open_all(paths, found)
        memberships, plan = shared.memberships, plan._replace(shm_fd=shared.shm_fd)
    slice_name, bound_to = "", ""
    if found.pod:
        from rootlesspy.engine.pods.membership import units

        slice_name, bound_to = units(paths, found.pod)
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
        resolv_conf=resolv_conf,
    )


def relays(found: ContainerRecord, service: str) -> bool:
    """Say whether the supervisor stands between the payload and its standard streams.

    It does for its log and for clients that come and go; an attached container that nobody wants
    logged has the caller's own.
    """
    if service:
        return found.log_driver != "passthrough"
    return found.log_driver in ("journald", "json-file")


def load_spec(directory: str) -> Spec:
    """Read a container's config.json.  Raises OSError, ValueError."""
    with open(f"{directory}/config.json", encoding="utf-8") as file:
        spec: Spec = json.load(file)
    return spec


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
