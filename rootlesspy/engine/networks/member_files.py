"""/etc/hosts and resolv.conf of a running container whose networks change."""

from __future__ import annotations

from rootlesspy.engine.networks import leases, store
from rootlesspy.engine.supervision import etc_files, job
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network import driver

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.network.driver import NetworkRequest, Selection
    from rootlesspy.paths import Paths


def refresh(paths: Paths, found: ContainerRecord) -> None:
    """Write the files for the networks of a record, in which the container has its leases.

    What the container itself wrote there is lost.  A container that cannot be told keeps its old
    names: nothing is raised.
    """
    request = driver.restore(found.network)
    try:
        selection = selected(paths, found.id, request)
        hostname = job.hostname(job.load_spec(paths.container(found.id)))
        etc_files.refresh(paths, found, hostname, selection)
    except (Error, OSError, ValueError):
        return


def selected(paths: Paths, owner_id: str, request: NetworkRequest) -> Selection:
    """Return what a request selects, with the addresses that its owner has leased.

    owner_id: of a container or a pod.  Raises Error, OSError, ValueError.
    """
    selection = driver.select(request, (), now=False)
    own: list[str] = []
    servers: list[str] = []
    for wanted in request.networks:
        network = store.load(paths, wanted.name)
        lease = leases.load(paths, network.name, owner_id)
        if lease is not None:
            own += lease.plain_addresses()
            servers += (each.gateway for each in network.subnets if network.dns)
    addresses = selection.addresses._replace(networks=tuple(own), name_servers=tuple(servers))
    return selection._replace(addresses=addresses)
