"""Other published ports for a container that runs: `rp port add` and `rp port rm`.

Neither pasta nor a forwarder beside it could open a port later and still show the program its true
clients, so the network helper is started again with the new list: connections through it end.
"""

from __future__ import annotations

import fcntl
import os

from rootlesspy.engine import record, statefile, storage
from rootlesspy.engine.supervision import control
from rootlesspy.errors import Error, NotFound, Unsupported
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network import driver, pasta
from rootlesspy.network.ports import PortMapping, merge

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.engine.supervision.control import Message
    from rootlesspy.engine.supervision.job import Job
    from rootlesspy.paths import Paths

    Change = Callable[[ContainerRecord], tuple[PortMapping, ...]]

_FORWARDING = ("pasta", "slirp4netns")


def applied(task: Job, message: Message) -> Job:
    """Return the supervisor's job with the ports of a request."""
    listed = message.fields.get("ports")
    ports = [list(each) for each in listed] if isinstance(listed, list) else []
    mappings = tuple(PortMapping(*each) for each in ports)
    return task._replace(
        record=task.record._replace(ports=ports),
        selection=task.selection._replace(ports=mappings),
    )


def add(paths: Paths, text: str, wanted: tuple[PortMapping, ...]) -> None:
    """Publish more ports.  Raises Conflict for one in use, UsageError, Unsupported, Error."""
    _change(paths, text, lambda found: _with(found, wanted))


def remove(paths: Paths, text: str, unwanted: tuple[PortMapping, ...]) -> None:
    """Publish ports no longer; without a host port all that lead to the container's port.

    Raises NotFound for one that is not published, and as add() does.
    """
    _change(paths, text, lambda found: _without(found, unwanted))


def _with(found: ContainerRecord, wanted: tuple[PortMapping, ...]) -> tuple[PortMapping, ...]:
    present = storage.ports(found)
    merged = merge((*present, *wanted))
    request = driver.restore(found.network)
    added = tuple(each for each in merged if each not in present)
    selection = driver.select(request, added)
    if request.driver == "pasta":
        # What only the whole list shows: one port of two addresses to different ports.
        pasta.check_ports(merged)
    return (*present, *selection.ports)


def _without(found: ContainerRecord, unwanted: tuple[PortMapping, ...]) -> tuple[PortMapping, ...]:
    left = list(storage.ports(found))
    for each in unwanted:
        fitting = [known for known in left if _fits(known, each)]
        if not fitting:
            raise NotFound(
                f"container {found.name} does not publish {str(each).removeprefix(':')}",
                hint=f"rp port {found.name}",
            )
        left = [known for known in left if known not in fitting]
    return tuple(left)


def _fits(known: PortMapping, each: PortMapping) -> bool:
    return (known.container_port, known.protocol) == (each.container_port, each.protocol) and (
        each.host_port in (0, known.host_port) and each.host_ip in ("", known.host_ip)
    )


def _change(paths: Paths, text: str, change: Change) -> None:
    container_id = record.find(paths, text)
    # One at a time, and not while it is given another name.
    gate = os.open(paths.containers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        found = record.load_record(paths.container(container_id))
        kind = str(found.network.get("driver"))
        if kind not in _FORWARDING:
            raise Unsupported(
                f"container {found.name} has --network {kind}: no port can be published"
            )
        ports = [list(each) for each in change(found)]
        _tell(paths, container_id, ports)
        path = f"{paths.container(container_id)}/record.json"
        statefile.write(path, found._replace(ports=ports)._asdict(), durable=True)
    finally:
        os.close(gate)


def _tell(paths: Paths, container_id: str, ports: list[list[object]]) -> None:
    """Have a running container's supervisor carry it out.  Raises Error with its words."""
    end = control.connect(paths, container_id)
    if end is None:
        return
    try:
        control.tell(end, "ports", ports=ports)
        message = control.receive(end)
    finally:
        end.close()
    if message is None:
        raise Error("the container ended meanwhile")
    if message.kind != "changed":
        raise Error(message.text("message"), hint=message.text("hint") or None)
