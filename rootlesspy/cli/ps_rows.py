"""The fields of `rp ps --format`, with podman's names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rootlesspy.cli import human
from rootlesspy.cli.gotemplate import Record
from rootlesspy.cli.ps import command_text, ports_text, status_text

if TYPE_CHECKING:
    from rootlesspy.engine.record import Container

_SHORT_ID = 12
HEADERS = {
    "ID": "CONTAINER ID",
    "CreatedHuman": "CREATED",
    "RunningFor": "RUNNING FOR",
    "ImageID": "IMAGE ID",
    "PodName": "PODNAME",
    "Pod": "POD ID",
}


def row(container: Container, now_s: float, *, full: bool) -> Record:
    """Return the fields a template may use; `full` leaves ids and commands whole."""
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
        Networks=str(record.network.get("driver", "")),
        Pid=container.pid,
        Pod="",
        PodName="",
        Ports=ports_text(record.ports),
        Restarts="0",
        RunningFor=created,
        StartedAt=int(container.started_s),
        State=container.state,
        Status=status_text(container, now_s),
    )


def json_row(container: Container, now_s: float) -> dict[str, Any]:
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
        "Names": [record.name],
        "Networks": [str(record.network["driver"])] if record.network else [],
        "Pid": container.pid,
        "Pod": "",
        "PodName": "",
        "Ports": [_port(*port) for port in record.ports] or None,
        "Restarts": 0,
        "StartedAt": int(container.started_s),
        "State": container.state,
        "Status": status_text(container, now_s),
    }


def _port(address: object, host: object, inner: object, protocol: object) -> dict[str, object]:
    return {
        "host_ip": address,
        "container_port": inner,
        "host_port": host,
        "range": 1,
        "protocol": protocol,
    }
