"""What happened to containers, images and volumes: one journal record each, for `rp events`.

Cold commands and the supervisor emit; `event_reader` reads.  An event never fails what it tells of.
The fields begin with RP_: `journalctl CONTAINER_NAME=` shows a container's output alone.
"""

from __future__ import annotations

import os
import time

from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.systemd import journal

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord

MESSAGE_ID = "52a95bf1c2cc4d9bb0a79b9ea28e6b9d"
_PATIENCE_S = 0.25


def emit(kind: str, record: ContainerRecord, **attributes: object) -> None:
    """Tell that something happened to a container.

    kind: create, start, exec, exec_died, health_status, stop, died, kill, pause, unpause, restart,
    remove, rename, oom, attach…, as podman names them.  Attributes that have fields of their own
    are exit_code and health_status; empty ones are left out.
    """
    send(
        "container",
        kind,
        name=record.name,
        id=record.id,
        image=record.image,
        labels=record.labels,
        attributes=attributes,
    )


def emit_image(kind: str, name: str, image_id: str, **attributes: object) -> None:
    """Tell that something happened to an image: pull, remove, tag, untag, save, push…"""
    send("image", kind, name=name, id=image_id.removeprefix("sha256:"), attributes=attributes)


def emit_volume(kind: str, name: str) -> None:
    """Tell that something happened to a volume: create, remove, prune."""
    send("volume", kind, name=name)


def send(
    type: str,
    kind: str,
    *,
    name: str,
    id: str = "",
    image: str = "",
    labels: dict[str, str] | None = None,
    attributes: dict[str, object] | None = None,
) -> None:
    """Write one event; when journald does not take it within 250 ms it is forgotten."""
    values = {
        "MESSAGE_ID": MESSAGE_ID,
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "rp",
        "RP_TYPE": type,
        "RP_EVENT": kind,
        "RP_TIME": str(time.time_ns()),
        "RP_NAME": name,
        "RP_ID": id,
        "RP_IMAGE": image,
        "RP_LABELS": json.dumps(labels or {}),
    }
    given = {key: str(value) for key, value in (attributes or {}).items() if value != ""}
    for key in ("exit_code", "health_status"):
        if key in given:
            values[f"RP_{key.upper()}"] = given.pop(key)
    values["RP_ATTRIBUTES"] = json.dumps(given)
    what = f"{type} {kind} {name or id}" + (f" (image={image})" if image else "")
    _deliver(journal.fields(values), what.encode("utf-8", "surrogateescape"))


def _deliver(head: bytes, message: bytes) -> None:
    if not os.access(journal.SOCKET, os.W_OK):
        return
    connection = journal.Journal()
    deadline = time.monotonic() + _PATIENCE_S
    try:
        while not connection.send(head, message):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            connection.wait(left_s)
    except OSError:
        return
    finally:
        connection.close()
