"""Change the limits of a container that exists: `rp oci update`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from rootlesspy.engine.oci_runtime import cgroups, lifecycle, support
from rootlesspy.errors import UsageError
from rootlesspy.oci import validate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.engine.oci_runtime import state
    from rootlesspy.oci.runtime_spec import LinuxResources

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
    except validate.SpecError as error:
        raise UsageError(f"resources: {error}") from error
    checked: LinuxResources = document  # type: ignore[assignment]  # validate has proved it
    return checked


def _read(path: str) -> object:
    try:
        if path == "-":
            return support.without_nulls(json.load(sys.stdin))
        with open(path, encoding="utf-8") as file:
            return support.without_nulls(json.load(file))
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
    cgroups.update(where, cgroups.translate(where, asked), environment)
