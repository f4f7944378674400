"""`rp rename`: another name for a container, running or not.

The new name is reserved first, then the record is written, then the old name is freed: who is
killed on the way leaves the container reachable.  A running container's unit keeps the old name
until the next start.
"""

from __future__ import annotations

import fcntl
import os

from rootlesspy.engine import autostart, lifecycle, names, record, reservation, statefile
from rootlesspy.engine.output import events
from rootlesspy.errors import Conflict, NotFound
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths


def rename(paths: Paths, old: str, new: str) -> ContainerRecord:
    """Give a container another name; return its record.

    Raises NotFound, Conflict when the name is in use or a unit has it, UsageError for one that
    cannot be.
    """
    names.check_name(new)
    lifecycle.get(paths, old)
    # One at a time, so that the record and the links say the same afterwards.
    gate = os.open(paths.containers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    lock_fd = None
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        found = lifecycle.get(paths, old).record
        # Against its removal; who supervises a running one, or copies its files, goes on.
        lock_fd = record.lock(paths.container(found.id))
        renamed = _rename(paths, found, new)
    except FileNotFoundError:
        raise NotFound(f"container {old} was removed meanwhile") from None
    finally:
        if lock_fd is not None:
            os.close(lock_fd)
        os.close(gate)
    events.emit("rename", renamed, oldName=found.name)
    return renamed


def _rename(paths: Paths, found: ContainerRecord, new: str) -> ContainerRecord:
    if autostart.is_installed(paths, found):
        raise Conflict(
            f"container {found.name} has a unit of that name",
            hint=f"rp disable --delete {found.name}",
        )
    reservation.reserve(paths, new, found.id)
    renamed = found._replace(name=new, unit=f"rp-{new}.scope" if found.unit else "")
    try:
        path = f"{paths.container(found.id)}/record.json"
        statefile.write(path, renamed._asdict(), durable=True)
    except BaseException:
        reservation.release_name(paths, new, found.id)
        raise
    reservation.release_name(paths, found.name, found.id)
    _tell_networks(paths, renamed)
    return renamed


def _tell_networks(paths: Paths, renamed: ContainerRecord) -> None:
    """Have the networks that it is in, itself or with its pod, answer for its new name."""
    if renamed.network.get("networks"):
        from rootlesspy.engine.networks import membership

        membership.rename(paths, renamed)
    if renamed.pod:
        from rootlesspy.engine.pods import store

        store.note_rename(paths, renamed.pod)
