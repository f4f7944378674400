"""Containers with a unit file of their own: written, enabled, disabled, removed with them.

The file is `service.of` in text, in ~/.config/systemd/user, and belongs to rp: it is written again
when the container's policy changes, and says in a section of its own which container it is for.
What users add goes into drop-ins (`systemctl --user edit`), which rp never touches.
"""

from __future__ import annotations

import os

from rootlesspy.engine import names, record, statefile
from rootlesspy.engine.definitions import dependencies
from rootlesspy.engine.inputs.request import LABEL_HASH
from rootlesspy.engine.supervision import service
from rootlesspy.errors import Conflict, NotFound, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.systemd import bus as buses
from rootlesspy.systemd import service as services
from rootlesspy.systemd import unitfile

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths
    from rootlesspy.systemd.bus import Bus

_TARGET = "default.target"
_OLDEST = 252
_CONTAINER, _DEFINITION = "Container", "Definition"
_LIMIT_BYTES = 1024 * 1024


def unit_path(paths: Paths, name: str) -> str:
    """Return where the unit file of the container with this name is, if it has one."""
    return unitfile.path(paths.config, names.service(name))


def is_installed(paths: Paths, found: ContainerRecord) -> bool:
    """Say whether this very container has a unit file."""
    text = _read(unit_path(paths, found.name))
    return text is not None and unitfile.extension(text).get(_CONTAINER) == found.id


def is_enabled(paths: Paths, found: ContainerRecord) -> bool:
    """Say whether this container starts with the session: its unit is wanted by some target."""
    if not is_installed(paths, found):
        return False
    return bool(_links(unit_path(paths, found.name)))


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
    install(paths, found, link=True)


def install(paths: Paths, found: ContainerRecord, *, link: bool = False) -> None:
    """Write the unit files of a container and of those that it requires or wants.

    link: have it started with the session.  Raises as enable() does.
    """
    if found.remove:
        raise UsageError(f"container {found.name} is removed when it ends (--rm)")
    bus = buses.connect(_runtime_dir(paths))
    try:
        version = services.version(bus)
        for each in (found, *dependencies.needed(paths, found)):
            _install(paths, each, _render(paths, each, version))
            # A transient one that failed, or is about to end, would hide the file.
            if not record.is_locked(paths.container(each.id)):
                services.await_over(bus, names.service(each.name))
            services.reset_failed(bus, names.service(each.name))
        if link:
            _link(paths, found)
        bus.call("Reload")
        check_path(bus, os.path.dirname(unit_path(paths, found.name)))
    finally:
        bus.close()


def disable(paths: Paths, found: ContainerRecord, *, delete: bool) -> None:
    """Have a container no longer started with the session; delete: remove its unit file too.

    Raises NotFound for a container without unit file, Unsupported.
    """
    if not is_installed(paths, found):
        raise NotFound(f"container {found.name} has no unit file", hint=f"rp enable {found.name}")
    path = unit_path(paths, found.name)
    _unlink_links(path)
    if delete:
        os.unlink(path)
    bus = buses.connect(_runtime_dir(paths))
    try:
        bus.call("Reload")
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
    """Remove the unit file of a container that is being removed; False when it has none."""
    if not is_installed(paths, found):
        return False
    try:
        disable(paths, found, delete=True)
    except Unsupported:
        # No user manager that would have to know.
        return True
    return True


def write(path: str, text: str) -> None:
    """Write a unit file, whole or not at all.  Raises OSError."""
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
        statefile.sync_directory(directory)
    except BaseException:
        os.unlink(temporary)
        raise


def check_path(bus: Bus, directory: str) -> None:
    """Raise Unsupported when the user manager does not look for units where rp writes them."""
    interface = "org.freedesktop.DBus.Properties"
    cookie = bus.send("Get", "ss", buses.MANAGER, "UnitPath", interface=interface)
    searched = bus.reply(cookie)[0]
    if isinstance(searched, list) and directory not in searched:
        raise Unsupported(
            f"the user manager does not look for units in {directory}",
            hint="its XDG_CONFIG_HOME is another: systemctl --user show-environment",
        )


def _render(paths: Paths, found: ContainerRecord, version: int) -> str:
    name = names.service(found.name)
    extension = {_CONTAINER: found.id}
    if LABEL_HASH in found.labels:
        extension[_DEFINITION] = found.labels[LABEL_HASH]
    return unitfile.render(
        service.of(found, paths),
        version=version,
        header=(
            "Written by rp enable, and again when the container changes.",
            f"Changes of your own belong in a drop-in: systemctl --user edit {name}",
        ),
        wanted_by=(_TARGET,),
        extension=extension,
    )


def _install(paths: Paths, found: ContainerRecord, text: str) -> None:
    """Write the unit file, unless it says the same already."""
    path = unit_path(paths, found.name)
    present = _read(path)
    if present == text:
        return
    if present is not None and _CONTAINER not in unitfile.extension(present):
        raise Conflict(f"{path} is not a unit of rp's", hint=f"mv {path} {path}.old")
    write(path, text)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LIMIT_BYTES)
    except OSError:
        return None


def _link(paths: Paths, found: ContainerRecord) -> None:
    """Have the unit wanted, as `systemctl --user enable` does.

    By hand: the manager's own EnableUnitFiles refuses while a transient unit of that name runs.
    """
    path = unit_path(paths, found.name)
    wanted = f"{os.path.dirname(path)}/{_TARGET}.wants"
    os.makedirs(wanted, mode=0o755, exist_ok=True)
    try:
        os.symlink(path, f"{wanted}/{os.path.basename(path)}")
    except FileExistsError:
        return
    # The link, and that there is a directory for it.
    for directory in (wanted, os.path.dirname(path)):
        statefile.sync_directory(directory)


def _unlink_links(path: str) -> None:
    for link in _links(path):
        os.unlink(link)


def _links(path: str) -> list[str]:
    """Return the links by which targets want or require a unit."""
    directory, name = os.path.split(path)
    wanting = (each for each in os.listdir(directory) if each.endswith((".wants", ".requires")))
    found = (f"{directory}/{each}/{name}" for each in wanting)
    return [link for link in found if os.path.islink(link)]


def _runtime_dir(paths: Paths) -> str:
    return os.path.dirname(paths.require_runtime())
