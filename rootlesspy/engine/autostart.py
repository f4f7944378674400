"""Containers with a unit file of their own: written, enabled, disabled, removed with them.

The file is `service.of` in text, in ~/.config/systemd/user, and belongs to rp: it is written again
when the container's policy changes, and says in a section of its own which container it is for.
What users add goes into drop-ins (`systemctl --user edit`), which rp never touches.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootlesspy.engine import record, service
from rootlesspy.errors import Conflict, NotFound, Unsupported, UsageError
from rootlesspy.systemd import bus as buses
from rootlesspy.systemd import scope, unitfile
from rootlesspy.systemd import service as services

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

_TARGET = "default.target"
_OLDEST = 252
_CONTAINER = "Container"
_LIMIT_BYTES = 1024 * 1024


def unit_path(paths: Paths, name: str) -> str:
    """Return where the unit file of the container with this name is, if it has one."""
    return unitfile.path(paths.config, service.unit_name(name))


def is_installed(paths: Paths, found: ContainerRecord) -> bool:
    """Say whether this very container has a unit file."""
    text = _read(unit_path(paths, found.name))
    return text is not None and unitfile.extension(text).get(_CONTAINER) == found.id


def is_enabled(paths: Paths, found: ContainerRecord) -> bool:
    """Say whether this container starts with the session: its unit is wanted by some target."""
    if not is_installed(paths, found):
        return False
    directory = os.path.dirname(unit_path(paths, found.name))
    name = service.unit_name(found.name)
    wanting = (each for each in os.listdir(directory) if each.endswith((".wants", ".requires")))
    return any(os.path.lexists(f"{directory}/{each}/{name}") for each in wanting)


def text_of(paths: Paths, found: ContainerRecord) -> str:
    """Return the unit file of a container, for the user manager that is there."""
    try:
        bus = buses.connect(_runtime_dir(paths))
    except Unsupported:
        return _render(paths, found, _OLDEST)
    try:
        return _render(paths, found, services.version(bus))
    finally:
        bus.close()


def enable(paths: Paths, found: ContainerRecord) -> None:
    """Write the unit file of a container and have it started with the session.

    Raises UsageError for a container that is removed when it ends, Conflict for a unit of that name
    that is not rp's, Unsupported.
    """
    if found.remove:
        raise UsageError(f"container {found.name} is removed when it ends (--rm)")
    name = service.unit_name(found.name)
    bus = buses.connect(_runtime_dir(paths))
    try:
        _install(paths, found, _render(paths, found, services.version(bus)))
        # A transient one that failed would hide the file.
        services.reset_failed(bus, name)
        try:
            bus.call("EnableUnitFiles", "asbb", [name], False, True)
        except buses.BusError as error:
            raise _explain(error, paths, found) from error
        bus.call("Reload")
    finally:
        bus.close()


def disable(paths: Paths, found: ContainerRecord, *, delete: bool) -> None:
    """Have a container no longer started with the session; delete: remove its unit file too.

    Raises NotFound for a container without unit file, Unsupported.
    """
    if not is_installed(paths, found):
        raise NotFound(f"container {found.name} has no unit file", hint=f"rp enable {found.name}")
    bus = buses.connect(_runtime_dir(paths))
    try:
        bus.call("DisableUnitFiles", "asb", [service.unit_name(found.name)], False)
        if delete:
            os.unlink(unit_path(paths, found.name))
        bus.call("Reload")
    finally:
        bus.close()


def start(paths: Paths, found: ContainerRecord) -> None:
    """Start a container's installed unit and wait until it is ready, unless it runs already."""
    if record.is_locked(paths.container(found.id)):
        return
    name = service.unit_name(found.name)
    bus = buses.connect(_runtime_dir(paths))
    try:
        services.wait(bus, name, services.start(bus, name))
    finally:
        bus.close()


def stop(paths: Paths, found: ContainerRecord) -> None:
    """Stop a container's unit and wait until it is down; one that is not there is no harm."""
    name = service.unit_name(found.name)
    bus = buses.connect(_runtime_dir(paths))
    try:
        services.wait(bus, name, services.stop(bus, name))
    except NotFound:
        return
    finally:
        bus.close()


def refresh(paths: Paths, found: ContainerRecord) -> bool:
    """Write the unit file again after its container changed; False when it has none."""
    if not is_installed(paths, found):
        return False
    bus = buses.connect(_runtime_dir(paths))
    try:
        _install(paths, found, _render(paths, found, services.version(bus)))
        bus.call("Reload")
    finally:
        bus.close()
    return True


def forget(paths: Paths, found: ContainerRecord) -> bool:
    """Remove the unit file of a container that is being removed; False when it has none.

    Without a user manager too: then the links are removed by hand.
    """
    if not is_installed(paths, found):
        return False
    try:
        disable(paths, found, delete=True)
    except Unsupported:
        _unlink_all(unit_path(paths, found.name))
    return True


def _render(paths: Paths, found: ContainerRecord, version: int) -> str:
    name = service.unit_name(found.name)
    return unitfile.render(
        service.of(found, paths),
        version=version,
        header=(
            "Written by rp enable, and again when the container changes.",
            f"Changes of your own belong in a drop-in: systemctl --user edit {name}",
        ),
        wanted_by=(_TARGET,),
        extension={_CONTAINER: found.id},
    )


def _install(paths: Paths, found: ContainerRecord, text: str) -> None:
    """Write the unit file, unless it says the same already."""
    path = unit_path(paths, found.name)
    present = _read(path)
    if present == text:
        return
    if present is not None and _CONTAINER not in unitfile.extension(present):
        raise Conflict(f"{path} is not a unit of rp's", hint=f"mv {path} {path}.old")
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # systemctl says so when others may not read a unit; rp's umask is 077.
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LIMIT_BYTES)
    except OSError:
        return None


def _unlink_all(path: str) -> None:
    directory, name = os.path.split(path)
    for each in os.listdir(directory):
        if each.endswith((".wants", ".requires")) and os.path.lexists(f"{directory}/{each}/{name}"):
            os.unlink(f"{directory}/{each}/{name}")
    os.unlink(path)


def _runtime_dir(paths: Paths) -> str:
    return os.path.dirname(paths.require_runtime())


def _explain(error: buses.BusError, paths: Paths, found: ContainerRecord) -> Exception:
    """Say that the user manager does not see the file, when that is so."""
    path = unit_path(paths, found.name)
    if error.name.endswith(("NoSuchUnit", "FileNotFound")):
        return Unsupported(
            f"the user manager does not read {os.path.dirname(path)}",
            hint="its XDG_CONFIG_HOME is another: systemctl --user show-environment",
        )
    return scope.explain(error, os.path.basename(path))
