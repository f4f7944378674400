"""What is known of a container before it is on disk: told by rp to the waiting supervisor.

It is enough for its first process, its scope, its id maps and its network (beginning.py).  Some
containers ask for more than that: they begin when they are on disk.
"""

from __future__ import annotations

import os

from rootlesspy.engine import isolation
from rootlesspy.engine.inputs.constants import KEEP_GROUPS
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network import driver

if TYPE_CHECKING:
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.record import Place
    from rootlesspy.network.driver import Selection
    from rootlesspy.paths import Paths

_OWN_STREAMS = frozenset(("", "none", "passthrough"))


def of(request: RunRequest, place: Place, selection: Selection) -> dict[str, object]:
    """Return the fields of a `begin` packet."""
    return {
        "id": place.container_id,
        "unit": isolation.unit(request, place.name),
        "name": place.name,
        "image": request.rootfs or request.image,
        "namespaces": [each["type"] for each in isolation.namespaces(request)],
        "network": selection.request._asdict(),
        "ports": [list(mapping) for mapping in selection.ports],
        "resources": isolation.resources(request),
        "properties": list(request.properties),
        "default_limits": isolation.default_limits(request),
        "ignore_missing_limits": request.ignore_missing_limits,
        "stop_timeout_s": isolation.stop_timeout_s(request),
        "keeps_groups": KEEP_GROUPS in request.group_add,
        "tty": request.tty,
        "interactive": request.interactive,
        "detach": request.detach,
        "restart": request.restart,
        "remove": request.remove,
    }


def can_be_given(request: RunRequest, paths: Paths) -> bool:
    """Say whether nothing is asked for that the container's first process is born with."""
    network = request.network
    return not (
        request.shares
        or request.pod
        or request.userns != "host-map"
        or request.id_maps
        or network.driver not in driver.SELF_CONTAINED
        or network.networks
        # A service's supervisor stands between it and its streams, another one only for a log.
        or (request.log_driver == "passthrough" if request.detach else _has_log(request))
        # The directory of its notify socket, which it mounts, is made later.
        or request.sdnotify == "container"
        # What is not what was pulled is to begin with nothing.
        or request.verify_always
        or request.landlock
        or request.cdi_devices
        or request.publish_all
        or request.hooks_dirs
        or paths.names_hooks(os.environ)
    )


def _has_log(request: RunRequest) -> bool:
    return request.log_driver not in _OWN_STREAMS
