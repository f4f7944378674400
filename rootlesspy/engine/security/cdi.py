"""Devices that files describe: the Container Device Interface, version 1.1.

A file says of a kind of device (VENDOR/CLASS) which devices there are and what each changes in a
container.  This module finds the files and the devices; `cdi_edits` carries out what they say.
Later directories win over earlier ones; two files of one directory that both have a device are in
conflict.  Source: cncf-tags/container-device-interface, SPEC.md.

The only module that imports yaml (Debian: python3-yaml), which JSON files do without.
"""

from __future__ import annotations

import json
import os

from rootlesspy.errors import NotFound, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rootlesspy.paths import Paths

_MAX_BYTES = 4 << 20
_SYSTEM = ("/etc/cdi", "/var/run/cdi")
_SHOWN = 8


class Description(NamedTuple):
    """What one file says of one device."""

    path: str
    edits: tuple[Mapping[str, Any], ...]
    """containerEdits: the file's for all its devices, then the device's own."""


class Registry(NamedTuple):
    """All devices that the files describe."""

    directories: tuple[str, ...]
    devices: dict[str, Description]
    """Qualified name → its description."""
    conflicts: dict[str, tuple[str, str]]
    """Qualified name → two files that both describe it."""
    unread: dict[str, str]
    """File → why it could not be read."""


def directories(paths: Paths) -> tuple[str, ...]:
    """Return where CDI files are looked for, the later the stronger."""
    return (*_SYSTEM, f"{paths.config}/cdi")


def find(names: Iterable[str], places: tuple[str, ...]) -> list[Description]:
    """Return the descriptions of devices.  Raises NotFound, Unsupported, UsageError."""
    registry = read(places)
    return [_find(name, registry) for name in names]


def read(places: tuple[str, ...]) -> Registry:
    """Read all files; those that cannot be read are noted."""
    registry = Registry(places, {}, {}, {})
    for place in places:
        found: dict[str, Description] = {}
        for path in _files(place):
            try:
                described = list(_devices(path, _load(path)))
            except (UsageError, Unsupported) as error:
                registry.unread[path] = error.message
                continue
            except OSError as error:
                registry.unread[path] = error.strerror or str(error)
                continue
            for name, description in described:
                if name in found:
                    registry.conflicts[name] = (found[name].path, path)
                found[name] = description
        registry.devices.update(found)
        # What a later directory says alone settles a conflict of an earlier one.
        for name in found:
            first = registry.conflicts.get(name)
            if first is not None and not first[0].startswith(f"{place}/"):
                del registry.conflicts[name]
    return registry


def _find(name: str, registry: Registry) -> Description:
    if name in registry.conflicts:
        first, second = registry.conflicts[name]
        raise UsageError(f"--device {name} is described twice: in {first} and in {second}")
    if name in registry.devices:
        return registry.devices[name]
    known = sorted(registry.devices)
    told = ", ".join(known[:_SHOWN]) + (", …" if len(known) > _SHOWN else "")
    hint = f"known: {told or 'none'}; looked in {', '.join(registry.directories)}"
    for path, reason in registry.unread.items():
        hint += f"; not read: {path}: {reason}"
    if name.startswith("nvidia.com/") and not known and not registry.unread:
        hint += "; as root: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    raise NotFound(f"--device {name}: no CDI file describes it", hint=hint)


def _files(directory: str) -> list[str]:
    """Return the paths of a directory's files in their order; none when it does not exist."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [f"{directory}/{each}" for each in names if each.endswith((".json", ".yaml", ".yml"))]


def _load(path: str) -> object:
    # O_NONBLOCK: a FIFO must not hang the command.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise UsageError(f"is larger than {_MAX_BYTES} bytes")
    if path.endswith(".json"):
        try:
            document: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"is not JSON: {error}") from error
        return document
    return _yaml(text)


def _yaml(text: bytes) -> object:
    try:
        import yaml
    except ImportError:
        raise Unsupported("needs python3-yaml (apt install python3-yaml)") from None
    try:
        document: object = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"is not YAML: {first}") from error
    return document


def _devices(path: str, document: object) -> Iterator[tuple[str, Description]]:
    """Yield the devices of one file by their qualified names.  Raises UsageError."""
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise UsageError("has no kind")
    version, devices = document.get("cdiVersion"), document.get("devices")
    if not isinstance(version, str) or version.split(".")[0] not in ("0", "1"):
        raise UsageError(f"has the version {version!r}, which is not known")
    if not isinstance(devices, list):
        raise UsageError("has no devices")
    common = _edits(document)
    for device in devices:
        if not isinstance(device, dict) or not isinstance(device.get("name"), str):
            raise UsageError("has a device without a name")
        name = f"{document['kind']}={device['name']}"
        yield name, Description(path, (common, _edits(device)))


def _edits(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    edits = holder.get("containerEdits") or {}
    if not isinstance(edits, dict):
        raise UsageError("has containerEdits that are no object")
    return edits
