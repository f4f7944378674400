"""What becomes of a container that did not start."""

from __future__ import annotations

import os
import time

from rootlesspy.engine import record, storage
from rootlesspy.engine.supervision import control
from rootlesspy.errors import Error, RuntimeFailure
from rootlesspy.light_typing import TYPE_CHECKING

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
    error = of(cause)
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
        tell(client, error)
    return error


def of(cause: BaseException) -> Error:
    """Return the error that people are told."""
    if isinstance(cause, Error):
        return cause
    if isinstance(cause, OSError):
        return RuntimeFailure(f"cannot start the container: {cause}", step="start")
    return RuntimeFailure(words(cause), step="start")


def tell(client: socket.socket, error: Error) -> None:
    """Tell who starts a container why it did not start."""
    control.tell(
        client,
        "failed",
        exit_code=error.exit_code,
        message=error.message,
        hint=error.hint or "",
        keep=isinstance(error, RuntimeFailure),
    )


def words(cause: BaseException) -> str:
    """Say what nobody expected: what the system refused, or a defect of rp."""
    if isinstance(cause, OSError) and cause.strerror:
        where = f"{os.fsdecode(cause.filename)}: " if cause.filename else ""
        return f"the supervisor failed: {where}{cause.strerror.lower()}"
    return f"internal error in the supervisor: {type(cause).__name__}: {cause}"
