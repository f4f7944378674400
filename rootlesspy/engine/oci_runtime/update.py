"""Change the limits of a container that exists: `rp oci update`."""

from __future__ import annotations

import json
import sys

from rootlesspy.engine.oci_runtime import cgroups, lifecycle, state
from rootlesspy.errors import Conflict, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.oci import checks, validate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.oci.runtime_spec import LinuxMemory, LinuxResources

_NUMBERS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-idle": ("cpu", "idle"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "pids-limit": ("pids", "limit"),
}
_TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}


def resources(file: str, numbers: Mapping[str, int], texts: Mapping[str, str]) -> LinuxResources:
    """Return what a file (- for stdin) or else the flags ask for.  Raises UsageError."""
    found: dict[str, dict[str, object]] = {}
    if file:
        document = _read(file)
    else:
        for table, given in ((_NUMBERS, numbers), (_TEXTS, texts)):
            for name, value in given.items():
                if value != "":
                    group, key = table[name]
                    found.setdefault(group, {})[key] = value
        document = found
    try:
        validate.resources(document)
    except checks.SpecError as error:
        raise UsageError(f"resources: {error}") from error
    checked: LinuxResources = document  # type: ignore[assignment]  # validate has proved it
    return checked


def _read(path: str) -> object:
    try:
        if path == "-":
            return state.without_nulls(json.load(sys.stdin))
        with open(path, encoding="utf-8") as file:
            return state.without_nulls(json.load(file))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from error


def update(
    place: state.Place,
    container_id: str,
    asked: LinuxResources,
    environment: Mapping[str, str],
) -> None:
    """Change what is asked, leave the rest.  Raises NotFound, Unsupported, UsageError."""
    directory, container = place.load(container_id)
    where = lifecycle.placed(container)
    if container.status(directory) == "stopped":
        raise UsageError("container not running")
    _check_usage(container, asked.get("memory", {}))
    cgroups.update(where, cgroups.translate(where, asked), environment)


def _check_usage(container: state.Container, memory: LinuxMemory) -> None:
    """Refuse a limit below what is in use, where that is to be checked (config-linux.md)."""
    limit = memory.get("limit", 0)
    if not memory.get("checkBeforeUpdate") or limit <= 0 or not container.cgroup_path:
        return
    try:
        with open(f"{container.limited_path()}/memory.current", encoding="ascii") as file:
            current = int(file.read())
    except FileNotFoundError:
        # Without the controller the limit is refused for that.
        return
    if current > limit:
        raise Conflict(f"memory.limit {limit} is below what the container uses: {current}")
