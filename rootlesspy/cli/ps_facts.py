"""What a listing needs of containers beyond their records, looked up when it is shown, once.

Hot: nothing is imported or read for a plain `rp ps` but one cgroup file of each running container,
for the first one also where its cgroup is, and health.json of those that have checks.
"""

from __future__ import annotations

import os

from rootlesspy.engine import leftovers
from rootlesspy.engine.views import stats
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootlesspy.engine.record import Container
    from rootlesspy.engine.record_cache import MountCache, Seen
    from rootlesspy.engine.views.disk_usage import Sizes
    from rootlesspy.paths import Paths


def with_pauses(containers: list[Container]) -> list[Container]:
    """Tell paused containers from running ones: their scope is frozen."""
    found = containers.copy()
    with stats.Scopes() as scopes:
        for index, each in enumerate(containers):
            if each.state == "running" and scopes.is_frozen(
                scopes.find(each.pid, each.record.unit)
            ):
                found[index] = each._replace(state="paused")
    return found


def health(paths: Paths, container: Container) -> str:
    """Return starting, healthy or unhealthy; empty without checks."""
    if not container.record.health:
        return ""
    from rootlesspy.engine import statefile
    from rootlesspy.engine.supervision import healthcheck

    try:
        found = healthcheck.read(paths, container.record.id)
    except (statefile.DamagedError, OSError):
        return ""
    return healthcheck.STARTING if found is None else found.status


class Facts:
    """The dearer facts of the containers of one listing."""

    def __init__(self, paths: Paths, containers: list[Container], seen: Seen | None = None) -> None:
        self.paths = paths
        self._containers = containers
        self._seen: Seen = {} if seen is None else seen
        self._restarts: dict[str, int] | None = None
        self._sizes: dict[str, Sizes] | None = None
        self._mounts: MountCache | None = None

    def health(self, container: Container) -> str:
        """Return starting, healthy or unhealthy; empty without checks, and after the end."""
        return health(self.paths, container) if container.pid else ""

    def pod_name(self, container: Container) -> str:
        """Return the name of a container's pod; empty without one."""
        if not container.record.pod:
            return ""
        from rootlesspy.engine.pods import views

        return views.pod_name(self.paths, container.record.pod)

    def ports(self, container: Container) -> list[list[object]]:
        """Return the published ports of a container, or of the pod whose network it has."""
        if container.record.network.get("driver") != "pod":
            return container.record.ports
        from rootlesspy.engine.pods import views

        return views.pod_ports(self.paths, container.record.pod)

    def restarts(self, container: Container) -> int:
        """Return how often systemd restarted a container; all are asked for at once."""
        if self._restarts is None:
            self._restarts = _restarts(self.paths, self._containers)
        return self._restarts.get(container.record.id, 0)

    def sizes(self, container: Container) -> Sizes:
        """Return the bytes of a container's files, all measured at once; raises Error."""
        from rootlesspy.engine.views import disk_usage

        if self._sizes is None:
            listed = (each.record for each in self._containers)
            self._sizes = disk_usage.all_sizes(self.paths, listed)
        identity = container.record.id
        if identity not in self._sizes:
            # Says why it cannot be told.
            self._sizes[identity] = disk_usage.sizes(self.paths, container.record)
        return self._sizes[identity]

    def mounts(self, container: Container) -> list[dict[str, Any]]:
        """Return what is mounted into a container, as inspect shows it."""
        identity = container.record.id
        if self._mounts is None and leftovers.are_many(self._containers) and self.paths.runtime:
            from rootlesspy.engine.record_cache import MountCache

            ids = (each.record.id for each in self._containers)
            self._mounts = MountCache(self.paths, ids, self._seen)
        found = None if self._mounts is None else self._mounts.get(identity)
        if found is None:
            from rootlesspy.engine.views import inspect, inspect_host

            spec = inspect.load_mounts(self.paths.container(identity))
            found = inspect_host.mount_points(spec, self.paths, identity)
            if self._mounts is not None and spec:
                self._mounts.put(identity, found)
        return found

    def keep(self) -> None:
        """Keep what was looked up for the next listing of many."""
        if self._mounts is not None:
            self._mounts.save()

    def usage(self, container: Container) -> dict[str, Any]:
        """Return what a container uses or has used, in the keys of inspect's Usage."""
        from rootlesspy.engine.views import usage

        directory = stats.scope_directory(container.pid) if container.pid else None
        return usage.document(container, directory)

    def namespaces(self, container: Container) -> dict[str, str]:
        """Return the numbers of a container's namespaces by their kind; empty after the end."""
        kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
        return {kind: _namespace(container.pid, kind) if container.pid else "" for kind in kinds}


def _namespace(pid: int, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}").partition("[")[2].rstrip("]")
    except OSError:
        return ""


def _restarts(paths: Paths, containers: list[Container]) -> dict[str, int]:
    from rootlesspy.engine import record, statefile
    from rootlesspy.engine.views import restarts

    services = {}
    for each in containers:
        if each.record.restart in restarts.NEVER:
            continue
        try:
            live = record.live_state(paths.container(each.record.id))
        except (statefile.DamagedError, OSError):
            continue
        if live is not None and live.service:
            services[each.record.id] = live.service
    return restarts.counts(paths, services, containers)
