"""What users do with containers that exist: list them, remove them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootlesspy.engine import record, storage
from rootlesspy.errors import Conflict, Error

if TYPE_CHECKING:
    from rootlesspy.engine.record import Container
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_KILL_TIMEOUT_S = 10.0


def containers(paths: Paths) -> list[Container]:
    """Return all containers, newest first; what killed commands left is removed on the way."""
    storage.sweep(paths)
    found = (record.load(paths, container_id) for container_id in record.ids(paths))
    return sorted(
        (each for each in found if each is not None),
        key=lambda each: each.record.created_s,
        reverse=True,
    )


def remove(
    paths: Paths,
    names: list[str],
    *,
    force: bool,
    reporter: Reporter,
    volumes: bool = False,
) -> None:
    """Remove containers by name, id or unique id prefix; force ends running ones first.

    volumes: their anonymous volumes too.

    Raises NotFound, Conflict for a running one without force.
    """
    for name in names:
        container_id = record.find(paths, name)
        found = record.load(paths, container_id)
        if found is None or found.state == "broken":
            _remove_broken(paths, container_id, force=force)
            continue
        if found.state == "running" or record.is_locked(paths.container(container_id)):
            if not force:
                raise Conflict(
                    f"container {found.record.name} is running",
                    hint=f"stop it first, or: rp rm -f {found.record.name}",
                )
            reporter.step(f"kill {found.record.name}")
            _kill(paths, found)
        if os.path.lexists(paths.container(container_id)):
            storage.remove(paths, found.record, volumes=volumes)


def _kill(paths: Paths, found: Container) -> None:
    """Kill a container and wait until its supervisor has cleaned up.

    Raises Error when that does not happen in time.
    """
    directory = paths.container(found.record.id)
    storage.kill_payload(directory)
    if not record.wait_unlocked(directory, _KILL_TIMEOUT_S):
        raise Error(
            f"container {found.record.name} does not end",
            hint="a process in uninterruptible sleep? see: ps -eo pid,stat,wchan,cmd",
        )


def _remove_broken(paths: Paths, container_id: str, *, force: bool) -> None:
    if not force:
        raise Conflict(
            f"container {container_id[:12]} is damaged", hint=f"rp rm -f {container_id[:12]}"
        )
    storage.remove_damaged(paths, container_id)
