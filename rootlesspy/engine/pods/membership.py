"""Containers as members of pods: what they take over, and the namespaces that they are born in."""

from __future__ import annotations

from rootlesspy.engine.pods import store
from rootlesspy.engine.pods.sharing import Provider
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.runtime.membership import Membership

if TYPE_CHECKING:
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


_NEW = "new:"


def join(
    paths: Paths, request: RunRequest, found: dict[str, Provider], reporter: Reporter
) -> RunRequest:
    """Make a container a member: it shares what its pod shares, unless it asks for another's.

    Raises NotFound, UsageError for what is the pod's to say, as podman.
    """
    if request.pod.startswith(_NEW):
        request = _make(paths, request, reporter)
    pod = store.find(paths, request.pod)
    if request.cgroups == "disabled":
        raise UsageError("--pod and --cgroups=disabled exclude each other: a pod is a slice")
    if not pod.infra:
        return request._replace(pod=pod.id)
    own = {kind for kind in ("ipc", "pid", "uts") if getattr(request, kind)}
    shared = [kind for kind in pod.share if kind not in found and kind not in own]
    if request.userns not in ("host-map", pod.userns) or request.uidmap or request.gidmap:
        raise UsageError(f"--userns={request.userns}: pod {pod.name} has {pod.userns}")
    if "network" in shared:
        chosen = request.network
        if chosen.chosen or chosen.networks:
            # As podman: a network of its own leaves the pod's.
            shared.remove("network")
        elif request.publish or request.publish_all:
            raise UsageError(
                "ports of a pod are published when it is made",
                hint=f"rp pod create --publish {next(iter(request.publish), '80')}",
            )
        else:
            request = request._replace(network=chosen._replace(driver="pod", options=(pod.id,)))
    if "uts" in shared and request.hostname:
        raise UsageError(
            f"--hostname: the members of pod {pod.name} share one",
            hint=f"rp pod create --hostname {request.hostname}",
        )
    if "uts" in shared:
        request = request._replace(hostname=pod.hostname)
    if shared:
        for kind in (*shared, "user"):
            found.setdefault(kind, Provider("pod", pod.id))
    id_maps = tuple(tuple(tuple(line) for line in lines) for lines in pod.id_maps)
    return request._replace(pod=pod.id, userns=pod.userns, id_maps=id_maps)


def _make(paths: Paths, request: RunRequest, reporter: Reporter) -> RunRequest:
    """Make the pod of --pod new:NAME, with what is asked of the network; as podman."""
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.pods import actions

    asked = RunRequest(
        image="",
        name=request.pod.removeprefix(_NEW) or None,
        hostname=request.hostname,
        network=request.network,
        publish=request.publish,
        add_hosts=request.add_hosts,
        dns=request.dns,
        dns_search=request.dns_search,
        dns_options=request.dns_options,
        userns=request.userns,
    )
    made = actions.create(paths, asked, store.SHARED, reporter, infra=True)
    plain = RunRequest(image="")
    return request._replace(
        pod=made.id,
        hostname=None,
        network=plain.network,
        publish=(),
        add_hosts=(),
        dns=(),
        dns_search=(),
        dns_options=(),
    )


def namespaces(
    paths: Paths, pod_id: str, kinds: tuple[str, ...]
) -> tuple[list[Membership], list[int]]:
    """Return a pod's namespaces of these kinds, and those that its /dev/shm is reached by.

    Raises Conflict when the pod does not run.
    """
    from rootlesspy.engine.pods import client

    pod = store.find(paths, pod_id)
    handed = client.started(paths, pod)
    title = f"pod {pod.name}"
    found = [Membership(handed.fds[kind], (kind,), title) for kind in kinds]
    handed.close("user", "mount", *kinds)
    return found, [handed.fds["user"], handed.fds["mount"]]


class Units(NamedTuple):
    """What of systemd's a pod's member belongs to."""

    slice: str
    service: str
    """Empty for a pod without one."""
    presence_fd: int = -1
    """As long as it is open the pod has a member; -1: nobody asks."""


def units(paths: Paths, pod_id: str) -> Units:
    """Return a pod's slice, started with its limits, and its service.  Raises Conflict, Error."""
    from rootlesspy.engine.pods import actions, client

    pod = store.find(paths, pod_id)
    if not pod.infra:
        actions.start_service(paths, pod)
        return Units(pod.slice, "")
    return Units(pod.slice, pod.unit, client.enter(paths, pod))
