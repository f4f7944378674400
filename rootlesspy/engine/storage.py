"""The files of one container: its writable layer, its runtime directory, and their removal.

A removed container first leaves `containers/` by a rename into `tmp/`, still locked: it is gone for
everybody at once, and what a killed removal left there the next sweep finishes.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import time
from typing import TYPE_CHECKING

from rootlesspy.engine import idmap, record, reservation, statefile, storage_driver
from rootlesspy.errors import Unsupported
from rootlesspy.linux import pathrs, procfs, userns
from rootlesspy.network.ports import PortMapping
from rootlesspy.paths import private_directory
from rootlesspy.runtime.rootfs import Directory, FuseOverlay, Overlay

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths

_ROOT_MODE = 0o755
# Any map of the caller's subordinate ids can remove all that they own.
_HOST_MAP = "host-map"
_NO_USERNS = ""
_NO_LAYERS = "no-layers"
_HALF_MADE_S = 60
# What this module and volume_store leave in tmp/ when they are killed.
_HALF_MADE = ("removed-", "volume-")


def prepare_overlay(directory: str, lower: tuple[str, ...]) -> None:
    """Make the writable layer of a container over unpacked layers.  Raises OSError."""
    top = stat.S_IMODE(os.stat(lower[-1]).st_mode) if lower else _ROOT_MODE
    parts = [("upper", top), ("work", 0o700), ("rootfs", 0o700)]
    if not lower:
        # An image without layers: overlay wants at least one directory below.
        parts.append((_NO_LAYERS, 0o755))
    for name, mode in parts:
        os.mkdir(f"{directory}/{name}", 0o700)
        # mkdir(2) obeys the umask; the root of the container has the image's own mode.
        os.chmod(f"{directory}/{name}", mode)


def copy_layers(directory: str, lower: tuple[str, ...], maps: IdMaps) -> None:
    """Make the root of a container a plain copy of the layers.  Raises OSError."""
    from rootlesspy.engine import copytree

    os.mkdir(f"{directory}/rootfs", 0o700)
    userns.call_in_userns(maps, lambda: copytree.copy_layers(lower, f"{directory}/rootfs"))


def root_of(found: ContainerRecord, directory: str) -> Overlay | FuseOverlay | Directory:
    """Return what init mounts as the container's root."""
    storage = found.storage
    if storage["kind"] == "directory":
        return Directory(str(storage["path"]))
    if storage["kind"] == "copy":
        return Directory(f"{directory}/rootfs")
    listed = storage["lower"]
    lower = tuple(listed) if isinstance(listed, list) else ()
    lower = lower or (f"{directory}/{_NO_LAYERS}",)
    upper, work = f"{directory}/upper", f"{directory}/work"
    if storage["kind"] == "overlay":
        return Overlay(lower=lower, upper=upper, work=work)
    program = storage_driver.fuse_overlayfs()
    if program is None:
        raise Unsupported("fuse-overlayfs is not installed", hint="apt-get install fuse-overlayfs")
    return FuseOverlay(program=program, lower=lower, upper=upper, work=work)


def ports(found: ContainerRecord) -> tuple[PortMapping, ...]:
    """Return the published ports of a record."""
    return tuple(PortMapping(*fields) for fields in found.ports)  # type: ignore[arg-type]  # as written


def release(paths: Paths, found: ContainerRecord) -> None:
    """Remove what belongs to the running container alone; doing it twice is harmless."""
    if found.network.get("networks"):
        from rootlesspy.engine.networks import membership

        membership.release(paths, found)
    if paths.runtime is not None:
        _remove_below(paths.runtime, found.id, _NO_USERNS)


def remove(paths: Paths, found: ContainerRecord, *, volumes: bool = True) -> None:
    """Remove a container with its name and everything it has written.  Raises OSError.

    volumes: its anonymous volumes too, as --rm and rm --volumes want it.
    """
    release(paths, found)
    record.release_names(paths, found)
    private_directory(paths.tmp)
    gone = f"removed-{found.id}"
    try:
        os.rename(paths.container(found.id), f"{paths.tmp}/{gone}")
    except FileNotFoundError:
        pass
    else:
        from rootlesspy.engine.output import events

        events.emit("remove", found)
    _remove_below(paths.tmp, gone, found.userns)
    if volumes and found.anonymous_volumes:
        from rootlesspy.engine import volume

        maps = idmap.maps_for(found.userns)
        volume.remove_anonymous(paths, tuple(found.anonymous_volumes), maps)


def remove_damaged(paths: Paths, container_id: str) -> None:
    """Remove a container whose record cannot be read, with every name that leads to it."""
    for name in _names(paths.names):
        reservation.release_name(paths, name, container_id)
    _remove_below(paths.containers, container_id, _HOST_MAP)


def kill_payload(directory: str) -> None:
    """Kill a container's first process if it still lives, and so all of them.

    Only one that has cleared its parent-death signal outlives a killed supervisor.  It is told from
    a stranger with a reused pid by start time and boot id (SECURITY.md T3).
    """
    try:
        live = record.live_state(directory)
    except (statefile.DamagedError, OSError):
        return
    if live is None or live.boot_id != procfs.boot_id():
        return
    try:
        pidfd = os.pidfd_open(live.pid)
    except ProcessLookupError:
        return
    try:
        # Compared after the pidfd is held: from here on the pid cannot become somebody else's.
        if procfs.start_time(live.pid) == live.start:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def sweep(paths: Paths) -> None:
    """Finish what killed commands left: removals, half-made containers, ended --rm containers.

    Whatever is locked has a living owner and is left alone.
    """
    for name in _names(paths.tmp):
        if name.startswith(_HALF_MADE) and _try_lock(f"{paths.tmp}/{name}"):
            _remove_below(paths.tmp, name, _HOST_MAP)
    for container_id in record.ids(paths):
        directory = paths.container(container_id)
        if record.is_locked(directory):
            continue
        kill_payload(directory)
        found = record.load(paths, container_id)
        if found is None:
            _remove_half_made(paths, container_id)
        elif found.record.remove and _is_over(found):
            remove(paths, found.record)


def _is_over(found: record.Container) -> bool:
    """Say whether nobody will start a --rm container any more; `rp create` makes them for later."""
    if found.state == "created":
        return found.record.made_by == "run"
    return found.state == "exited"


def _remove_half_made(paths: Paths, container_id: str) -> None:
    """Remove a directory whose maker died before the record was written.

    Not a young one: its maker may be between mkdir(2) and flock(2).
    """
    directory = paths.container(container_id)
    try:
        age_s = time.time() - os.stat(directory).st_mtime
    except FileNotFoundError:
        return
    if age_s > _HALF_MADE_S and _try_lock(directory):
        _remove_below(paths.containers, container_id, _HOST_MAP)


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


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _remove_below(parent: str, name: str, userns_mode: str) -> None:
    try:
        parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        pathrs.remove_tree(parent_fd, name)
    except PermissionError:
        if not userns_mode:
            raise
        maps = idmap.maps_for(userns_mode)
        # Files of subordinate ids: only root of a user namespace with those ids may remove them.
        userns.call_in_userns(maps, lambda: pathrs.remove_tree(parent_fd, name))
    finally:
        os.close(parent_fd)
