"""The root of a container for a function that works on its files: `rp cp`.

Stopped: a child in a new user and mount namespace mounts the root and the volumes as a start would,
while the container's lock keeps it from being started, removed or entered by another command.
Running: a child joins the container's user namespace only, for the ids and the right to set them;
it holds a descriptor of the root in the container's mount namespace, and stays itself among the
host's mounts: nothing that it imports or opens by name can come from the image (SECURITY.md I4).
It is not dumpable, and in no PID namespace that the container sees (I5).

The function sees volumes in both cases; everything goes through linux.pathrs below the descriptor.
"""

from __future__ import annotations

import os
import select
import time

from rootlesspy.engine import idmap, lifecycle, record, statefile, storage
from rootlesspy.errors import Conflict, Error, Unsupported
from rootlesspy.image import children
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import mount, process, procfs, userns
from rootlesspy.linux.sync import syncfs
from rootlesspy.runtime import rootfs, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.engine.record import ContainerRecord, LiveState
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths

_BUSY_S = 20.0
_PAUSE_S = 0.02
_FUSE_TIMEOUT_MS = 10_000
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Held(NamedTuple):
    """A container that does not change its state unnoticed while one works on its files."""

    record: ContainerRecord
    directory: str
    maps: IdMaps
    lock_fd: int
    """Holds the lock of a stopped container; -1 while it runs."""
    pidfd: int
    """Its first process; -1 when it is stopped."""
    pid: int
    volumes_directory: str = ""

    def is_running(self) -> bool:
        """Say whether the container ran when it was looked at."""
        return self.pidfd >= 0

    def exists(self) -> bool:
        """Say whether the container has not been removed meanwhile."""
        return os.path.lexists(f"{self.directory}/record.json")

    def release(self) -> None:
        """Let go of the container."""
        for fd in (self.lock_fd, self.pidfd):
            if fd >= 0:
                os.close(fd)


def hold(paths: Paths, text: str, held: tuple[Held, ...] = ()) -> Held:
    """Find a container by name or id and hold it; waits a while for another command.

    One that is held already is returned as it is.  Raises NotFound, Conflict when it stays busy,
    Error for a damaged one.
    """
    deadline = time.monotonic() + _BUSY_S
    container_id = lifecycle.get(paths, text).record.id
    directory = paths.container(container_id)
    for each in held:
        if each.record.id == container_id:
            return each
    while True:
        found = lifecycle.get(paths, container_id)
        maps = idmap.of(found.record)
        try:
            lock_fd = record.lock(directory)
        except FileNotFoundError:
            # Removed just now: get() says so in its words.
            continue
        if lock_fd is not None:
            return Held(found.record, directory, maps, lock_fd, -1, 0, paths.volumes)
        live = record.live_state(directory)
        if found.state == "running" and live is not None:
            pidfd = _open_payload(live)
            if pidfd is not None:
                return Held(found.record, directory, maps, -1, pidfd, live.pid)
        if time.monotonic() > deadline:
            raise Conflict(
                f"container {found.record.name} is in use by another command",
                hint="try again when that one has ended",
            )
        time.sleep(_PAUSE_S)


def call(held: Held, function: Callable[[int], object]) -> object:
    """Run function with a descriptor of the container's root; return its JSON-able value.

    function runs in a child as root of the container's user namespace.  Raises what it raises:
    rootlesspy.errors, OSError.
    """
    if held.is_running():
        return children.wait(children.fork(lambda: _in_running(held, function)))
    spec = read_spec(held.directory)
    return call_with_ids(held.maps, lambda: _in_stopped(held, spec, function))


def call_with_ids(maps: IdMaps, function: Callable[[], object]) -> object:
    """Run function as root of a new user namespace with these ids; return its JSON-able value.

    Raises what it raises: rootlesspy.errors, OSError; Unsupported where ids cannot be mapped.
    """
    try:
        answer = userns.call_in_userns(maps, lambda: children.answer(function))
    except userns.HelperError as error:
        raise Unsupported(
            f"cannot map ids: {error.filename}: {error.strerror}", hint="see: rp doctor"
        ) from error
    except OSError as error:
        raise Unsupported(
            f"cannot make a user namespace: {error.strerror}", hint="see: rp doctor"
        ) from error
    return children.value_of(answer)


def _open_payload(live: LiveState) -> int | None:
    """Return a pidfd of a container's first process; None when it is gone (SECURITY.md T3)."""
    if live.boot_id != procfs.boot_id():
        return None
    try:
        pidfd = os.pidfd_open(live.pid)
    except ProcessLookupError:
        return None
    # Compared after the pidfd is held: from here on the pid cannot become somebody else's.
    try:
        if procfs.start_time(live.pid) == live.start:
            return pidfd
    except OSError:
        pass
    os.close(pidfd)
    return None


def _in_running(held: Held, function: Callable[[int], object]) -> object:
    ended = Conflict(f"container {held.record.name} ended meanwhile")
    try:
        root_fd = os.open(f"/proc/{held.pid}/root", _DIRECTORY)
        process.setns(held.pidfd, process.CLONE_NEWUSER)
    except (ProcessLookupError, FileNotFoundError):
        raise ended from None
    # If its pidfd has not ended, whoever is at this pid still is the container.
    if _has_ended(held.pidfd):
        raise ended
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # Both are cleared by the change of ids.
    process.set_dumpable(False)
    process.set_parent_death_signal(signal.SIGKILL)
    return function(root_fd)


def _has_ended(pidfd: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def _in_stopped(
    held: Held, spec: Mapping[str, object], function: Callable[[int], object]
) -> object:
    """Mount the container's root with its volumes and run function; nothing outlives the child."""
    root = storage.root_of(held.record, held.directory)
    merged = f"{held.directory}/rootfs"
    rootfs.own(root)
    if isinstance(root, rootfs.FuseOverlay):
        server = _serve_fuse(root, merged)
        root_fd = os.open(merged, _DIRECTORY)
    else:
        server = None
        root_fd = rootfs.mount_root(root, merged)
    volumes = _volumes(spec, held)
    opened = sources.open_all(volumes, held.volumes_directory)
    for entry in volumes:
        rootfs.mount_one(root_fd, entry, opened)
    top = spec.get("root")
    if isinstance(top, dict) and top.get("readonly"):
        mount.mount_setattr(root_fd, set_flags=mount.MOUNT_ATTR_RDONLY)
    try:
        return function(root_fd)
    finally:
        if server is not None:
            _stop_fuse(server, merged)
        os.close(root_fd)


def _volumes(spec: Mapping[str, object], held: Held) -> list[Mapping[str, object]]:
    """Return the spec's bind mounts that are there: volumes, and no files of the running one."""
    listed = spec.get("mounts")
    found = []
    for entry in listed if isinstance(listed, list) else ():
        source = str(entry.get("source", ""))
        own = f"/{held.record.id}/" in source or str(entry.get("destination", "")).startswith(
            ("/sys", "/dev/", "/run/rp-init")
        )
        if entry.get("type") == "bind" and not own and os.path.lexists(source):
            found.append(entry)
    return found


def _serve_fuse(root: rootfs.FuseOverlay, merged: str) -> int:
    """Start fuse-overlayfs and wait for its mount; return its pid.  Raises Error."""
    before = os.stat(merged).st_dev
    pid = os.fork()
    if pid == 0:
        try:
            process.set_parent_death_signal(signal.SIGKILL)
            options = f"lowerdir={':'.join(reversed(root.lower))}"
            options += f",upperdir={root.upper},workdir={root.work}"
            # It speaks of mount options that it does not know.
            null = os.open("/dev/null", os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            os.execv(root.program, [root.program, "-f", "-o", options, merged])  # noqa: S606 - fixed
        finally:
            os._exit(127)
    with open("/proc/self/mountinfo", "rb") as watcher:
        pidfd = os.pidfd_open(pid)
        poller = select.poll()
        # The kernel wakes a poller of mountinfo when a mount is made (proc_pid_mounts(5)).
        poller.register(watcher, select.POLLPRI)
        poller.register(pidfd, select.POLLIN)
        while os.stat(merged).st_dev == before:
            ready = poller.poll(_FUSE_TIMEOUT_MS)
            if not ready or any(fd == pidfd for fd, _ in ready):
                raise Error("fuse-overlayfs failed to mount the container's files")
        os.close(pidfd)
    return pid


def working_directory(held: Held) -> str:
    """Return the directory that relative paths of the container begin at."""
    process_of = read_spec(held.directory).get("process")
    cwd = process_of.get("cwd") if isinstance(process_of, dict) else None
    return cwd if isinstance(cwd, str) and cwd.startswith("/") else "/"


def _stop_fuse(server: int, merged: str) -> None:
    """Have everything written, then end the server: this process may still hold its files."""
    fd = os.open(merged, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)


def read_spec(directory: str) -> dict[str, object]:
    """Read a container's config.json.  Raises Error."""
    try:
        return statefile.read_spec(directory)
    except (OSError, ValueError) as error:
        raise Error(
            f"{directory}/config.json cannot be read", hint="remove the container with rp rm -f"
        ) from error
