"""What killed commands left behind, which whoever lists containers finishes or removes."""

from __future__ import annotations

import errno
import fcntl
import os

from rootlesspy.engine import names, record, reservation, statefile
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sized

    from rootlesspy.engine.record_cache import Seen
    from rootlesspy.paths import Paths

_REMOVED = "removed-"
# What engine.storage, volume_store and pods.store leave in tmp/ when they are killed.
_HALF_MADE = (_REMOVED, "volume-", "pod-")
_MANY = 32


def sweep(
    paths: Paths, *, running: bool = False, seen: Seen | None = None
) -> list[record.Container]:
    """Finish what killed commands left: removals, half-made containers, ended --rm containers.

    Whatever is locked has a living owner and is left alone.  Return the containers that there are;
    running: no record of those that have ended is read.  seen: takes what record_cache saw.
    """
    for name in statefile.names_in(paths.tmp):
        if name.startswith(_HALF_MADE) and _try_lock(f"{paths.tmp}/{name}"):
            _remove_half_removed(paths, name)
    everything = record.ids(paths)
    wanted = _unfinished(paths, everything) if running else everything
    listed = _attend_all(paths, wanted, {} if seen is None else seen, running=running)
    if len(statefile.names_in(paths.names)) > len(everything):
        reservation.drop_stale(paths)
    return listed


def are_many(containers: Sized) -> bool:
    """Say whether so many containers are listed faster with what the last listing read."""
    return len(containers) >= _MANY


def _unfinished(paths: Paths, everything: list[str]) -> list[str]:
    """Return the containers that run, or for which something is left to be done."""
    if not everything:
        return []
    # Names below it are found in half the time of whole paths.
    fd = os.open(paths.containers, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return [
            each
            for each in everything
            if not os.access(f"{each}/exit.json", os.F_OK, dir_fd=fd)
            or os.access(f"{each}/poststop", os.F_OK, dir_fd=fd)
        ]
    finally:
        os.close(fd)


def _attend_all(
    paths: Paths, wanted: list[str], seen: Seen, *, running: bool
) -> list[record.Container]:
    """Finish what is left to be done for containers; return those that are still there.

    Of many the state files are read only where they have changed since the last listing.
    """
    if not are_many(wanted) or paths.runtime is None:
        found = [_attend(paths, each) for each in wanted]
        return [each for each in found if each is not None]
    from rootlesspy.engine import record_cache

    cache = record_cache.RecordCache(paths, wanted, seen, running=running)
    known = cache.known()
    found = [known.get(each) or _attend(paths, each, cache.read) for each in wanted]
    listed = [each for each in found if each is not None]
    cache.save(listed)
    return listed


def _remove_half_removed(paths: Paths, name: str) -> None:
    from rootlesspy.engine import storage

    try:
        identity = name.removeprefix(_REMOVED)
        # A pod's: that of a container is removed first.
        if paths.runtime is not None and names.is_id_prefix(identity):
            storage.remove_below(paths.runtime, identity, storage.HOST_MAP)
        storage.remove_below(paths.tmp, name, storage.HOST_MAP)
    except OSError as error:
        # Somebody has mounted something there. It stays, and stops no command.
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise


def _attend(
    paths: Paths, container_id: str, read: record.Read = statefile.read_shape
) -> record.Container | None:
    """Finish what is left to be done for one container; return it if it is still there."""
    directory = paths.container(container_id)
    found = record.load(paths, container_id, read)
    if found is None:
        _remove_half_made(paths, container_id)
        return None
    if found.state == "running" or not (_may_be_left(found, directory)):
        return found
    if record.is_locked(directory):
        return found
    from rootlesspy.engine import storage

    storage.kill_payload(directory)
    storage.finish_hooks(directory, held=False)
    found = record.load(paths, container_id)
    if found is not None and (
        (found.record.remove and _is_over(found)) or _is_half_made(found, directory)
    ):
        return None if _remove_unattended(paths, found) else record.load(paths, container_id)
    return found


def _may_be_left(found: record.Container, directory: str) -> bool:
    """Say whether a container that does not run may be a killed command's."""
    if os.path.lexists(f"{directory}/{record.POSTSTOP}") or found.record.remove:
        return True
    if found.state == "created":
        return _is_half_made(found, directory)
    return found.exit is None or found.exit.exit_code == record.LOST_EXIT_CODE


def _is_over(found: record.Container) -> bool:
    """Say whether nobody will start a --rm container any more; `rp create` makes them for later."""
    if found.state == "created":
        return found.record.made_by == "run"
    return found.state == "exited"


def _is_half_made(found: record.Container, directory: str) -> bool:
    """Say whether the maker of a container died before config.json was there."""
    return found.state == "created" and not os.path.lexists(f"{directory}/config.json")


def _remove_unattended(paths: Paths, found: record.Container) -> bool:
    """Remove a container that nobody will start any more, unless somebody holds it after all.

    Say whether it is gone.
    """
    directory = paths.container(found.record.id)
    try:
        lock_fd = record.lock(directory)
    except FileNotFoundError:
        return True
    if lock_fd is None:
        return False
    try:
        gone = found.record.remove or _is_half_made(found, directory)
        if gone:
            from rootlesspy.engine import storage

            storage.remove(paths, found.record)
    finally:
        os.close(lock_fd)
    return gone


def _remove_half_made(paths: Paths, container_id: str) -> None:
    """Remove a directory whose maker died before the record was written, or with the machine.

    A maker that is between mkdir(2) and flock(2) begins again: record.create().
    """
    directory = paths.container(container_id)
    try:
        lock_fd = record.lock(directory)
    except FileNotFoundError:
        return
    if lock_fd is None:
        return
    try:
        record.load_record(directory)
    except FileNotFoundError:
        from rootlesspy.engine import storage

        if paths.runtime is not None:
            storage.remove_below(paths.runtime, container_id, storage.HOST_MAP)
        storage.remove_below(paths.containers, container_id, storage.HOST_MAP)
    except (statefile.DamagedError, OSError):
        return
    finally:
        os.close(lock_fd)


def _try_lock(directory: str) -> bool:
    """Say whether nobody holds this directory now."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
