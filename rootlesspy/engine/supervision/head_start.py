"""What the supervisor of a service begins before it has imported the rest.

The container is on disk.  Its first process, its scope, its id maps and its network need little of
it and little code; the network's helper, which takes longest, works while the supervisor imports
what reads the rest (supervise.py).
"""

from __future__ import annotations

from rootlesspy.engine import idmap, limits, statefile, storage
from rootlesspy.engine.inputs.constants import KEEP_GROUPS
from rootlesspy.engine.supervision.beginning import (
    Beginning,
    Begun,
    Terms,
    description,
    pipes_of,
)
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network import driver
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision.own_service import OwnService
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

# Requests that are seen to before there is a process, or with which one is born.
_FIRST = frozenset(("verify_always", "landlock"))


def take(
    paths: Paths,
    found: ContainerRecord,
    service: str,
    reporter: Reporter,
    own: OwnService | None = None,
) -> Begun | None:
    """Begin a container whose last run is forgotten; None for one that asks for more than this.

    service: the one that it is of; own: the same, where this process makes it itself.
    What cannot be decided is left to its start, which says why; what fails is raised by
    Beginning.init.
    """
    terms = _terms(paths, found, service, reporter) if _is_plain(found) else None
    if terms is None:
        return None
    private_directory(paths.container_runtime(found.id))
    pipes = pipes_of(tty=found.tty, interactive=found.interactive)
    beginning = Beginning(terms, paths, reporter, own)
    beginning.begin_early(pipes)
    return Begun(beginning, pipes)


def _is_plain(found: ContainerRecord) -> bool:
    return not (
        found.shares
        or found.pod
        or found.userns != "host-map"
        or found.id_maps
        or found.network.get("driver") not in driver.SELF_CONTAINED
        or found.network.get("networks")
        or found.log_driver == "passthrough"
        # The directory of its notify socket, which it mounts, is made later.
        or found.sdnotify == "container"
        or _FIRST & found.request.keys()
    )


def _terms(paths: Paths, found: ContainerRecord, service: str, reporter: Reporter) -> Terms | None:
    try:
        spec = statefile.read_spec(paths.container(found.id))
        linux = spec["linux"]
        if spec.get("hooks"):
            return None
        decided = None
        if found.unit:
            decided = limits.plan(
                linux.get("resources", {}),
                found.properties,
                host=limits.host(),
                ignore_missing=found.ignore_missing_limits,
                defaults=frozenset(found.default_limits),
            )
        selection = driver.select(driver.restore(found.network), storage.ports(found))
    except (Error, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    if decided is not None:
        for notice in decided.notices:
            reporter.notice(notice)
    maps = idmap.of(found)
    return Terms(
        container_id=found.id,
        unit=found.unit,
        description=description(found.name, found.image),
        namespaces=tuple(each["type"] for each in linux["namespaces"]),
        maps=maps,
        keeps_groups=KEEP_GROUPS in found.group_add or not maps.needs_helpers(),
        limits=decided,
        selection=selection,
        stop_timeout_s=found.stop_timeout_s,
        service=service,
    )
