"""/etc/hosts and resolv.conf of a pod, and the copies of them that its running members have."""

from __future__ import annotations

from rootlesspy.engine.networks import member_files
from rootlesspy.engine.pods import store
from rootlesspy.engine.supervision import etc_files, job
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network import driver

if TYPE_CHECKING:
    from rootlesspy.engine.pods.store import Pod
    from rootlesspy.paths import Paths


def refresh(paths: Paths, pod: Pod) -> None:
    """Write the files for the networks of a pod, in which it has its leases.

    What members wrote there themselves is lost.  Where it cannot be done the old names stay:
    nothing is raised.
    """
    request = driver.restore(pod.network)
    try:
        selection = member_files.selected(paths, pod.id, request)
        known_as = pod.hostname, pod.name
        etc_files.refresh_pod(paths, pod.id, known_as, pod.resolver, selection)
        for each in store.members(paths, pod):
            if each.state == "running" and each.record.shares.get("network") == f"pod:{pod.id}":
                hostname = job.hostname(job.load_spec(paths.container(each.record.id)))
                etc_files.refresh_shared(paths, each.record, hostname)
    except (Error, OSError, ValueError):
        return


def copies(paths: Paths, pod: Pod) -> list[str]:
    """Return the resolv.conf of each running member that has the pod's network."""
    return [
        f"{paths.container_runtime(each.record.id)}/resolv.conf"
        for each in store.members(paths, pod)
        if each.state == "running" and each.record.shares.get("network") == f"pod:{pod.id}"
    ]
