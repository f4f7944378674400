"""The files of one container: its writable layer, its runtime directory, and their removal.

A removed container first leaves `containers/` by a rename into `tmp/`, still locked: it is gone for
everybody at once, and what a killed removal left there engine.leftovers finishes.
"""

from __future__ import annotations

import os
import stat

from rootlesspy.engine import idmap, record, reservation, statefile, storage_driver
from rootlesspy.errors import Error, Unsupported
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import pathrs, procfs, userns
from rootlesspy.paths import private_directory
from rootlesspy.runtime import rootfs
from rootlesspy.runtime.rootfs import Directory, FuseOverlay, Overlay

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.network.ports import PortMapping
    from rootlesspy.paths import Paths

_ROOT_MODE = 0o755
# Any map of the caller's subordinate ids can remove all that they own.
HOST_MAP = "host-map"
_NO_USERNS = ""
_NO_LAYERS = "no-layers"
_SCOPE_END_S = 10.0


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


def give_to_root(directory: str, kind: str, maps: IdMaps) -> None:
    """Give the writable layer to root of a container that may not take it: of the caller's ids.

    Raises OSError.
    """
    root = Overlay(lower=(), upper=f"{directory}/upper", work=f"{directory}/work")
    userns.call_in_userns(maps, lambda: rootfs.own(root))
    if kind == "fuse-overlayfs":
        # Its server is in the container's user namespace; around it are the caller's directories.
        os.chmod(directory, 0o711)  # noqa: S103


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
        return Overlay(lower=lower, upper=upper, work=work, volatile=found.remove)
    program = storage_driver.fuse_overlayfs()
    if program is None:
        raise Unsupported("fuse-overlayfs is not installed", hint="apt-get install fuse-overlayfs")
    return FuseOverlay(program=program, lower=lower, upper=upper, work=work)


def ports(found: ContainerRecord) -> tuple[PortMapping, ...]:
    """Return the published ports of a record."""
    if not found.ports:
        return ()
    from rootlesspy.network.ports import PortMapping

    return tuple(PortMapping(*fields) for fields in found.ports)  # type: ignore[arg-type]  # as written


def release(paths: Paths, found: ContainerRecord) -> None:
    """Remove what belongs to the running container alone; doing it twice is harmless."""
    if found.network.get("networks"):
        from rootlesspy.engine.networks import membership

        membership.release(paths, found)
    if paths.runtime is not None:
        remove_below(paths.runtime, found.id, _NO_USERNS)


def remove(paths: Paths, found: ContainerRecord, *, volumes: bool = True) -> None:
    """Remove a container with its name and everything it has written.  Raises OSError.

    volumes: its anonymous volumes too, as --rm and rm --volumes want it.
    """
    finish_hooks(paths.container(found.id))
    release(paths, found)
    if found.pod:
        from rootlesspy.engine.pods import store

        store.delist(paths, found.pod, found.id)
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
    remove_below(paths.tmp, gone, HOST_MAP)
    if volumes and found.anonymous_volumes:
        from rootlesspy.engine import volume

        # Any map of the caller's subordinate ids can remove all that they own.
        maps = idmap.default_maps()
        volume.remove_anonymous(paths, tuple(found.anonymous_volumes), maps)


def refuse_mounts(paths: Paths, container_id: str, name: str) -> None:
    """Raise Error while something is mounted in a container's directory: it is somebody else's.

    rp itself mounts there in the mount namespaces of containers alone.
    """
    found = procfs.mounts_below(os.path.realpath(paths.container(container_id)))
    if found:
        raise Error(
            f"container {name} cannot be removed: {found[-1]} is mounted in its directory",
            hint=f"unmount it first: umount {found[-1]}",
        )


def remove_damaged(paths: Paths, container_id: str) -> None:
    """Remove a container whose record cannot be read, with every name that leads to it."""
    for name in statefile.names_in(paths.names):
        reservation.release_name(paths, name, container_id)
    remove_below(paths.containers, container_id, HOST_MAP)


def kill_payload(directory: str) -> None:
    """Kill a container's first process if it still lives, and so all of them.

    Only one that has cleared its parent-death signal outlives a killed supervisor.  It is told from
    a stranger with a reused pid by start time and boot id (SECURITY.md T3).  Without a PID
    namespace of its own the others outlive it, in its scope.
    """
    try:
        live = record.live_state(directory)
        own = record.load_record(directory).has_own_pids()
    except (statefile.DamagedError, OSError):
        return
    if live is None or live.boot_id != procfs.boot_id():
        return
    if not own and live.unit:
        _kill_scope(directory, live)
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


def _kill_scope(directory: str, live: record.LiveState) -> None:
    """Kill what is left in the scope of a container whose supervisor was killed, once.

    Its record says afterwards that it ended: the unit's name may be somebody else's later.
    """
    if record.is_locked(directory) or record.exit_record(directory) is not None:
        # Its supervisor does it, or did.
        return
    if _end_scope(live.unit, wait=False):
        record.write_exit_record(directory, record.lost(live.started_s), durable=True)


def end_lost_run(directory: str) -> None:
    """End what a killed supervisor left of a container that the caller is to start again.

    Its scope is waited for: the next one has its name.
    """
    try:
        live = record.live_state(directory)
        lost = live is not None and record.exit_record(directory) is None
    except (statefile.DamagedError, OSError):
        return
    kill_payload(directory)
    if live is not None and lost and live.unit and live.boot_id == procfs.boot_id():
        _end_scope(live.unit, wait=True)


def _end_scope(unit: str, *, wait: bool) -> bool:
    """Kill all that is in a scope; False without a user manager, where there are no scopes."""
    from rootlesspy.systemd import bus, scope

    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    try:
        connection = bus.connect(runtime)
        try:
            scope.kill(connection, unit, signal.SIGKILL)
            if wait:
                scope.stop(connection, unit, _SCOPE_END_S)
        finally:
            connection.close()
    except Error:
        return False
    return True


def finish_hooks(directory: str, *, held: bool = True) -> None:
    """Run the poststop hooks that a killed supervisor owes.

    held: the caller has the container's lock, or nobody will start it any more.
    """
    if os.path.lexists(f"{directory}/{record.POSTSTOP}"):
        from rootlesspy.engine.supervision import hooks

        if held:
            hooks.finish(directory)
        else:
            hooks.finish_unattended(directory)


def remove_below(parent: str, name: str, userns_mode: str) -> None:
    """Remove what has this name, also where subordinate ids own it.  Raises OSError."""
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
