"""The fields of `rp ps --format`, with podman's names."""

from __future__ import annotations

from datetime import UTC, datetime

from rootlesspy.cli import gotime, human
from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.cli.ps import command_text, ports_text, size_text, status_text
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.cli.ps_facts import Facts
    from rootlesspy.engine.record import Container, ContainerRecord
    from rootlesspy.engine.views.disk_usage import Sizes

_SHORT_ID = 12
HEADERS = {
    "ID": "CONTAINER ID",
    "CreatedHuman": "CREATED",
    "RunningFor": "RUNNING FOR",
    "ImageID": "IMAGE ID",
    "PodName": "PODNAME",
    "Pod": "POD ID",
    "Cgroup": "CGROUPNS",
    "PIDNS": "PIDNS",
    "USERNS": "USERNS",
    "CPUTime": "CPU TIME",
    "OOMKills": "OOM KILLS",
    "IORead": "IO READ",
    "IOWrite": "IO WRITE",
}
UNKNOWN = "--"
"""What stands for a number that this machine does not count, as in `rp stats`."""
_NAMESPACES = {
    "Cgroup": "cgroup", "IPC": "ipc", "MNT": "mnt", "NET": "net", "PIDNS": "pid",
    "USERNS": "user", "UTS": "uts",
}  # fmt: skip
# rp's own fields: what a container uses, or had used when it ended.
_USAGE: dict[str, tuple[str, Callable[[int], str]]] = {
    "MemoryPeak": ("MemoryPeak", lambda number: human.size(number, digits=4, gap="")),
    "CPUTime": ("CPUUsageUSec", lambda number: gotime.duration(number * 1000)),
    "Throttled": ("CPUThrottledUSec", lambda number: gotime.duration(number * 1000)),
    "PidsPeak": ("PidsPeak", str),
    "IORead": ("IOReadBytes", lambda number: human.size(number, digits=4, gap="")),
    "IOWrite": ("IOWriteBytes", lambda number: human.size(number, digits=4, gap="")),
    "OOMKills": ("OOMKills", str),
}


def row(container: Container, now_s: float, facts: Facts, *, full: bool) -> Record:
    """Return the fields a template may use; `full` leaves ids and commands whole.

    What costs more than a glance is a function: looked up when the template asks for it.
    """
    record = container.record
    ended = container.exit
    length = None if full else _SHORT_ID
    created = human.ago(record.created_s, now_s)
    return Record(
        AutoRemove=record.remove,
        Command=command_text(container, full=full),
        Created=created,
        CreatedAt=str(datetime.fromtimestamp(record.created_s, UTC)),
        CreatedHuman=created,
        ExitCode=ended.exit_code if ended else 0,
        Exited=container.state == "exited",
        ExitedAt=int(ended.finished_s) if ended else 0,
        ID=record.id[:length],
        Image=record.image,
        ImageID=record.image_id.removeprefix("sha256:")[:length],
        Label=lambda name: record.labels.get(name, ""),
        Labels=record.labels,
        Names=record.name,
        Networks=",".join(network_names(record)),
        Pid=container.pid,
        Pod=record.pod[:length],
        PodName=lambda: facts.pod_name(container),
        Ports=ports_text(facts.ports(container)),
        Restarts=lambda: facts.restarts(container),
        RunningFor=created,
        StartedAt=int(container.started_s),
        State=container.state,
        Status=status_text(container, now_s, facts.health(container)),
        CIDFile="",
        Health=facts.health(container),
        Mounts=lambda: [each["Destination"] for each in facts.mounts(container)],
        Size=lambda: size_text(facts.sizes(container)),
        **{field: _namespace(container, facts, kind) for field, kind in _NAMESPACES.items()},
        **{field: _used(container, facts, *how) for field, how in _USAGE.items()},
    )


def json_row(
    container: Container, now_s: float, facts: Facts, *, size: bool = False
) -> dict[str, Any]:
    """Return one element of `--format json`."""
    record = container.record
    ended = container.exit
    return {
        "AutoRemove": record.remove,
        "Command": list(record.command),
        "Created": int(record.created_s),
        "CreatedAt": human.ago(record.created_s, now_s),
        "ExitCode": ended.exit_code if ended else 0,
        "Exited": container.state == "exited",
        "ExitedAt": int(ended.finished_s) if ended else 0,
        "Id": record.id,
        "Image": record.image,
        "ImageID": record.image_id.removeprefix("sha256:"),
        "Labels": dict(record.labels) or None,
        "Mounts": [each["Destination"] for each in facts.mounts(container)],
        "Names": [record.name],
        "Networks": network_names(record),
        "Pid": container.pid,
        "Pod": record.pod,
        "PodName": facts.pod_name(container),
        "Ports": [_port(*port) for port in facts.ports(container)] or None,
        "Restarts": facts.restarts(container),
        "Size": _json_size(facts.sizes(container)) if size else None,
        "StartedAt": int(container.started_s),
        "State": container.state,
        "Status": status_text(container, now_s, facts.health(container)),
    }


def _namespace(container: Container, facts: Facts, kind: str) -> Callable[[], str]:
    return lambda: facts.namespaces(container)[kind]


def _used(
    container: Container, facts: Facts, key: str, write: Callable[[int], str]
) -> Callable[[], str]:
    def text() -> str:
        number = facts.usage(container)[key]
        return UNKNOWN if number is None else write(number)

    return text


def _json_size(sizes: Sizes) -> dict[str, int]:
    return {"rootFsSize": sizes.SizeRootFs, "rwSize": sizes.SizeRw}


def _port(address: object, host: object, inner: object, protocol: object) -> dict[str, object]:
    return {
        "host_ip": address,
        "container_port": inner,
        "host_port": host,
        "range": 1,
        "protocol": protocol,
    }


def network_names(record: ContainerRecord) -> list[str]:
    """Return the user-defined networks of a container, else its driver."""
    networks = record.network.get("networks")
    if isinstance(networks, (list, tuple)) and networks:
        return [str(each[0]) for each in networks]
    return [str(record.network["driver"])] if record.network.get("driver") else []
