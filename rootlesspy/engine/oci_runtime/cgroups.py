"""Where a container's processes are in the cgroup tree: a scope of systemd's, or a directory.

    --systemd-cgroup   PREFIX-NAME.scope in the user manager, processes in its sub-cgroup `payload`
    otherwise          cgroupsPath below the tree's root or else below the caller's own cgroup

Where neither can be had (no user bus, nothing delegated) a container without limits runs in the
cgroup that it was made from, as with runc and crun; one with limits is refused.
"""

from __future__ import annotations

import errno
import os
import select

from rootlesspy.engine.oci_runtime import resources
from rootlesspy.errors import Error, RuntimeFailure, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.systemd import cgroup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.engine import limits
    from rootlesspy.oci.runtime_spec import LinuxResources, Spec
    from rootlesspy.systemd import bus

SYSTEMD, CGROUPFS, NONE = "systemd", "cgroupfs", ""
_STOP_TIMEOUT_US = 10_000_000
_FREEZE_TIMEOUT_MS = 30_000


class Request(NamedTuple):
    """What config.json asks for, translated and checked; nothing is made yet."""

    manager: str
    unit: str
    slice: str
    path: str
    wanted: resources.Wanted
    """Of cgroupfs: below the root of the tree, or of the caller's cgroup."""


class Placed(NamedTuple):
    """Where the processes are now."""

    manager: str
    unit: str
    directory: str


def request(spec: Spec, container_id: str, *, systemd: bool) -> Request:
    """Translate cgroupsPath and resources.  Raises UsageError, Unsupported."""
    linux = spec.get("linux", {})
    annotations = spec.get("annotations", {})
    path = linux.get("cgroupsPath", "")
    asked = resources.without_defaults(linux.get("resources", {}))
    if systemd:
        slice_, unit = _unit(path, container_id)
        wanted = resources.for_systemd(asked, annotations, host())
        return Request(SYSTEMD, unit, slice_, "", wanted)
    for setting in resources.settings(annotations):
        from rootlesspy.systemd import properties

        # Without a unit there is nothing that a kill signal or a dependency could belong to.
        if any(cgroup.controller_of(each) for each in properties.parse_assignment(setting)):
            raise UsageError(f"annotation org.systemd.property: {setting} needs --systemd-cgroup")
    if ".." in path.split("/"):
        raise UsageError(f"config.json: linux.cgroupsPath: {path} leaves its place")
    return Request(CGROUPFS, "", "", path or container_id, resources.for_files(asked))


def _unit(path: str, container_id: str) -> tuple[str, str]:
    """Read SLICE:PREFIX:NAME; empty is user.slice:rp-oci:ID."""
    parts = path.split(":") if path else ["", "rp-oci", container_id]
    if len(parts) != 3:
        raise UsageError(f"config.json: linux.cgroupsPath: {path!r} is not SLICE:PREFIX:NAME")
    slice_, prefix, name = parts
    if not name or "/" in path or name.endswith((".slice", ".service")):
        raise UsageError(f"config.json: linux.cgroupsPath: {path!r} names no scope")
    if slice_ and not slice_.endswith(".slice"):
        raise UsageError(f"config.json: linux.cgroupsPath: {slice_!r} is no slice")
    unit = name if name.endswith(".scope") else f"{prefix}-{name}.scope" if prefix else name
    return slice_ or "user.slice", unit if unit.endswith(".scope") else f"{unit}.scope"


def owner_id() -> int:
    """Return the user whose manager is asked: the one that root of a user namespace is outside."""
    from rootlesspy.runtime import bundle_process

    uid = os.geteuid()
    for extent in bundle_process.id_map("/proc/self/uid_map"):
        first = extent["containerID"]
        if first <= uid < first + extent["size"]:
            return extent["hostID"] + uid - first
    return uid


def host() -> limits.Host:
    """Return what this machine enforces for the user, also seen from a user namespace."""
    from rootlesspy.engine import limits

    found = limits.host()
    manager = cgroup.manager_directory(owner_id())
    return found._replace(delegated=cgroup.controllers(manager))


def place(wanted: Request, container_id: str, pid: int, environment: Mapping[str, str]) -> Placed:
    """Put a process, and what it will fork, where the request says.

    Raises Unsupported, RuntimeFailure, Conflict.
    """
    if wanted.manager == SYSTEMD:
        try:
            connection = _connect(environment)
        except Unsupported:
            if wanted.wanted.asked():
                raise
            return Placed(NONE, "", "")
        try:
            return _make_scope(connection, wanted, container_id, pid)
        finally:
            connection.close()
    return _make_directory(wanted, pid)


def _connect(environment: Mapping[str, str]) -> bus.Bus:
    # Most bundles need no bus, and every command pays for what is imported at the top.
    from rootlesspy.systemd import bus

    return bus.connect(environment.get("XDG_RUNTIME_DIR"))


def _make_scope(connection: bus.Bus, wanted: Request, container_id: str, pid: int) -> Placed:
    from rootlesspy.systemd import scope

    asked = scope.request(
        connection,
        unit=wanted.unit,
        description=f"OCI container {container_id}",
        pids=[pid],
        stop_timeout_us=_STOP_TIMEOUT_US,
        slice=wanted.slice,
        properties=wanted.wanted.properties,
    )
    scope.wait_started(connection, wanted.unit, asked)
    directory = cgroup.directory(cgroup.control_group(pid))
    payload = cgroup.enter_payload(directory, pid)
    _enable(directory, wanted.wanted.files)
    write_files(payload, wanted.wanted.files)
    return Placed(SYSTEMD, wanted.unit, payload)


def _make_directory(wanted: Request, pid: int) -> Placed:
    mounted = cgroup.directory("/")
    own = cgroup.directory(cgroup.control_group(os.getpid()))
    parents = (mounted, own) if wanted.path.startswith("/") else (own,)
    for parent in parents:
        directory = f"{parent.rstrip('/')}/{wanted.path.strip('/')}"
        try:
            _make_below(parent, directory, wanted.wanted.files)
            _write(f"{directory}/cgroup.procs", str(pid))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY):
                raise _failure(directory, error) from error
            _remove_empty(directory)
            continue
        write_files(directory, wanted.wanted.files)
        return Placed(CGROUPFS, "", directory)
    if wanted.wanted.asked():
        name = wanted.wanted.files[0][0]
        raise Unsupported(
            f"{name} cannot be enforced: no cgroup here is this user's to divide",
            hint="use --systemd-cgroup, or systemd-run --user --scope -p Delegate=yes",
        )
    return Placed(NONE, "", "")


def _make_below(parent: str, directory: str, files: tuple[tuple[str, str], ...]) -> None:
    current = parent.rstrip("/")
    for name in directory[len(current) :].strip("/").split("/"):
        _enable(current, files)
        current = f"{current}/{name}"
        if not os.path.isdir(current):
            os.mkdir(current, 0o755)


def _enable(directory: str, files: tuple[tuple[str, str], ...]) -> None:
    """Let the children of a cgroup have the controllers that the files belong to."""
    # Those above what was delegated have them, and are not this user's to write to.
    with open(f"{directory}/cgroup.subtree_control", encoding="ascii") as file:
        enabled = file.read().split()
    for controller in dict.fromkeys(name.partition(".")[0] for name, _ in files):
        if controller in enabled:
            continue
        try:
            _write(f"{directory}/cgroup.subtree_control", f"+{controller}")
        except OSError as error:
            if error.errno == errno.ENOENT:
                from rootlesspy.engine import limits

                raise Unsupported(
                    f"the {controller} controller is not delegated to users",
                    hint=f"see {limits.DROP_IN}",
                ) from error
            raise


def write_files(directory: str, files: tuple[tuple[str, str], ...]) -> None:
    """Write limits into a cgroup.  Raises Unsupported for one that is not there, RuntimeFailure."""
    for name, text in files:
        try:
            _write(f"{directory}/{name}", text)
        except FileNotFoundError:
            raise Unsupported(f"{name} cannot be set: this cgroup has no such file") from None
        except OSError as error:
            raise _failure(f"{directory}/{name}", error) from error


def update(placed: Placed, wanted: resources.Wanted, environment: Mapping[str, str]) -> None:
    """Change the limits of a container.  Raises Unsupported, RuntimeFailure."""
    if placed.manager == NONE and wanted.asked():
        raise Unsupported("the container has no cgroup of its own: it was made without one")
    if wanted.properties:
        from rootlesspy.systemd import scope

        connection = _connect(environment)
        try:
            scope.set_properties(connection, placed.unit, wanted.properties)
        finally:
            connection.close()
    if wanted.files:
        _enable(os.path.dirname(placed.directory), wanted.files)
        write_files(placed.directory, wanted.files)


def translate(placed: Placed, asked: LinuxResources) -> resources.Wanted:
    """Translate resources for the manager that a container has."""
    if placed.manager == SYSTEMD:
        return resources.for_systemd(asked, {}, host())
    return resources.for_files(asked)


def join(placed: Placed, pid: int, environment: Mapping[str, str]) -> None:
    """Move a process to the container's others; without a cgroup it stays.  Raises Error."""
    if not placed.directory:
        return
    try:
        _write(f"{placed.directory}/cgroup.procs", str(pid))
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM)
        if not denied or placed.manager != SYSTEMD:
            raise _failure(placed.directory, error) from error
        from rootlesspy.systemd import scope

        # The caller is in another part of the tree: systemd may move it.
        connection = _connect(environment)
        try:
            scope.attach(connection, placed.unit, f"/{cgroup.PAYLOAD}", [pid])
        finally:
            connection.close()


def freeze(placed: Placed, *, frozen: bool) -> None:
    """Freeze or thaw all processes and wait until they are.  Raises Unsupported, RuntimeFailure."""
    if not placed.directory:
        raise Unsupported("the container has no cgroup of its own and cannot be paused")
    try:
        events = os.open(f"{placed.directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            os.pread(events, 4096, 0)
            _write(f"{placed.directory}/cgroup.freeze", str(int(frozen)))
            while f"frozen {int(frozen)}" not in os.pread(events, 4096, 0).decode().splitlines():
                if not poll.poll(_FREEZE_TIMEOUT_MS):
                    raise RuntimeFailure("the container does not freeze", step="cgroup")
        finally:
            os.close(events)
    except OSError as error:
        raise _failure(placed.directory, error) from error


def processes(directory: str) -> list[int]:
    """Return the processes of a cgroup and of those below it; none when it is gone."""
    found: list[int] = []
    for current, _, names in os.walk(directory):
        if "cgroup.procs" in names:
            try:
                with open(f"{current}/cgroup.procs", encoding="ascii") as file:
                    found += [int(line) for line in file]
            except OSError:
                continue
    return sorted(found)


def remove(placed: Placed, environment: Mapping[str, str]) -> None:
    """Kill what is left in a container's cgroup and remove it; doing it twice is harmless."""
    if placed.manager == SYSTEMD:
        from rootlesspy.systemd import scope

        _kill(placed.directory)
        try:
            connection = _connect(environment)
        except Error:
            return
        try:
            scope.stop(connection, placed.unit, _STOP_TIMEOUT_US / 1_000_000 + 15)
        finally:
            connection.close()
    elif placed.manager == CGROUPFS:
        _kill(placed.directory)
        _remove_empty(placed.directory)


def _kill(directory: str) -> None:
    """Kill every process of a cgroup and wait until it is empty."""
    try:
        events = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        if "populated 1" in os.pread(events, 4096, 0).decode():
            _write(f"{directory}/cgroup.kill", "1")
        while "populated 1" in os.pread(events, 4096, 0).decode():
            if not poll.poll(_FREEZE_TIMEOUT_MS):
                return
    except OSError:
        # It has gone meanwhile.
        return
    finally:
        os.close(events)


def _remove_empty(directory: str) -> None:
    for current, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(current)
        except OSError:
            return


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _failure(path: str, error: OSError) -> RuntimeFailure:
    return RuntimeFailure(
        f"{path}: {error.strerror}", step="cgroup", errno=error.errno or 0, path=path
    )
