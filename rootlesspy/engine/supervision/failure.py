"""What becomes of a container that did not start."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rootlesspy.engine import record, storage
from rootlesspy.engine.supervision import control
from rootlesspy.errors import Error, RuntimeFailure

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths


def report(
    paths: Paths,
    found: ContainerRecord,
    client: socket.socket | None,
    cause: BaseException,
    *,
    service: bool,
) -> Error:
    """Record why a container did not start, or remove it; tell the client; return the error.

    A failure of the runtime leaves the container to be looked at; what a change of the request or
    the machine cures leaves an attached one's caller nothing to clean up.
    """
    error = cause if isinstance(cause, Error) else None
    if isinstance(cause, OSError):
        error = RuntimeFailure(f"cannot start the container: {cause}", step="start")
    elif error is None:
        text = f"internal error in the supervisor: {type(cause).__name__}: {cause}"
        error = RuntimeFailure(text, step="start")
    kept = service or isinstance(error, RuntimeFailure)
    if found.remove or not kept:
        storage.remove(paths, found)
    else:
        now = time.time()
        record.write_exit_record(
            paths.container(found.id),
            record.ExitRecord(
                error.exit_code, now, now, oom_killed=False, error=error.message, reason="start"
            ),
            durable=True,
        )
    if client is not None:
        control.tell(
            client,
            "failed",
            exit_code=error.exit_code,
            message=error.message,
            hint=error.hint or "",
            keep=isinstance(error, RuntimeFailure),
        )
    return error
