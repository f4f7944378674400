"""`rp network connect` and `disconnect`: the networks of a container, running or not."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager

from rootlesspy.engine import lifecycle, record, statefile
from rootlesspy.engine.networks import client, leases, member_files, membership, store
from rootlesspy.engine.output import events
from rootlesspy.engine.views import stats
from rootlesspy.errors import Conflict, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network import driver

if TYPE_CHECKING:
    from collections.abc import Generator

    from rootlesspy.engine.pods.store import Pod
    from rootlesspy.engine.record import Container, ContainerRecord
    from rootlesspy.network.attachment import Attachment
    from rootlesspy.network.driver import NetworkRequest
    from rootlesspy.network.networks import Network
    from rootlesspy.paths import Paths

# They have the network of somebody else, or are to have none.
_WITHOUT = ("host", "none", *driver.SHARED)


def connect(paths: Paths, network_name: str, container: str, wanted: Attachment) -> None:
    """Connect a container with one more network, at once if it runs, and at each later start.

    Raises NotFound, Conflict (it is in the network, an address is taken), UsageError.
    """
    network = store.find(paths, network_name)
    wanted = wanted._replace(name=network.name)
    membership.check(network, wanted)
    with _held_pod(paths, container) as pod:
        if pod is not None:
            from rootlesspy.engine.networks import pod_connection

            pod_connection.connect(paths, network, pod, wanted)
            return
    with _held(paths, container) as found:
        request = driver.restore(found.record.network)
        if any(each.name == network.name for each in request.networks):
            raise Conflict(f"container {found.record.name} is in network {network.name} already")
        if request.driver in _WITHOUT and (request.chosen or not request.networks):
            raise _without(found.record, request, network.name)
        changed = _with(found.record, (*request.networks, wanted))
        if found.state == "running":
            _connect_live(paths, network, wanted, found)
            member_files.refresh(paths, changed)
        _write(paths, changed)
        events.send("network", "connect", name=network.name, id=network.id)


def disconnect(paths: Paths, network_name: str, container: str, *, force: bool = False) -> None:
    """Disconnect a container from a network, at once if it runs, and for good.

    force: also from a network that is gone.  Raises NotFound, Conflict (it is not in it).
    """
    try:
        name = store.find(paths, network_name).name
    except NotFound:
        if not force:
            raise
        name = network_name
    with _held_pod(paths, container) as pod:
        if pod is not None:
            from rootlesspy.engine.networks import pod_connection

            pod_connection.disconnect(paths, name, pod)
            return
    with _held(paths, container) as found:
        request = driver.restore(found.record.network)
        kept = tuple(each for each in request.networks if each.name != name)
        if kept == request.networks:
            raise Conflict(f"container {found.record.name} is not in network {name}")
        if found.state == "running":
            membership.leave_one(paths, name, found.record.id)
            member_files.refresh(paths, _with(found.record, kept))
        _write(paths, _with(found.record, kept))
        events.send("network", "disconnect", name=name)


def reload(paths: Paths, texts: tuple[str, ...]) -> list[str]:
    """Connect running containers, all without names, with their networks again; return their ids.

    Raises NotFound, RuntimeFailure.
    """
    found = [lifecycle.get(paths, each) for each in texts] if texts else lifecycle.containers(paths)
    running = [each for each in found if each.state == "running"]
    wanted = {each.name for one in running for each in membership.of(one.record)}
    for name in sorted(wanted):
        client.ask(paths, name, "reload")
    return [each.record.id for each in running]


def _without(found: ContainerRecord, request: NetworkRequest, network: str) -> UsageError:
    """Return why a container cannot be connected: the network that it has is not its own."""
    hint = f"rp run it with --network {network}"
    if request.driver == "pod":
        hint = f"the pod can be: rp network connect {network} {request.options[0][:12]}"
    return UsageError(f"container {found.name} has --network {request.driver}", hint=hint)


def _is_container(paths: Paths, text: str) -> bool:
    """Say whether a name or id is a container's, else it is a pod's.  Raises NotFound."""
    from rootlesspy.engine.pods import store as pods

    try:
        record.find(paths, text)
    except NotFound as error:
        try:
            pods.find(paths, text)
        except NotFound:
            raise error from None
        return False
    return True


@contextmanager
def _held_pod(paths: Paths, text: str) -> Generator[Pod | None]:
    """Yield the pod of this name or id, None where a container is meant; one at a time."""
    from rootlesspy.engine.pods import store as pods

    if _is_container(paths, text):
        yield None
        return
    gate = os.open(paths.pods, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield pods.find(paths, text)
    finally:
        os.close(gate)


@contextmanager
def _held(paths: Paths, container: str) -> Generator[Container]:
    """Yield a container; one at a time changes records."""
    container_id = lifecycle.get(paths, container).record.id
    gate = os.open(paths.containers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        found = record.load(paths, container_id)
        if found is None:
            raise NotFound(f"container {container} was removed meanwhile")
        yield found
    finally:
        os.close(gate)


def _connect_live(paths: Paths, network: Network, wanted: Attachment, found: Container) -> None:
    """Give a running container its interface.  Raises Conflict, RuntimeFailure, OSError."""
    # Also its way out, which may be called eth0 in one that was started without networks.
    held = stats.network(found.pid)
    if wanted.interface in held:
        raise Conflict(f"container {found.record.name} has an interface {wanted.interface}")
    interface = wanted.interface or next(
        name for number in range(len(held) + 1) if (name := f"eth{number}") not in held
    )
    membership.reserve_one(paths, network, wanted, found.record, interface)
    try:
        membership.join_one(paths, network.name, found.record.id, found.pid)
    except BaseException:
        leases.release(paths, network.name, found.record.id)
        raise


def _with(found: ContainerRecord, attachments: tuple[Attachment, ...]) -> ContainerRecord:
    """Return the record of a container with other networks, also of what was asked for."""
    request = driver.restore(found.network)._replace(networks=attachments)
    asked = dict(found.request)
    asked["network"] = list(request)
    return found._replace(network=dict(request._asdict()), request=asked)


def _write(paths: Paths, changed: ContainerRecord) -> None:
    path = f"{paths.container(changed.id)}/record.json"
    statefile.write(path, changed._asdict(), durable=True)
