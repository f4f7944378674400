"""What the user manager says of itself and of all its units: cold calls, by pystemd."""

from __future__ import annotations

from typing import Any, NamedTuple

from rootlesspy.systemd import bus


class Manager(NamedTuple):
    """What the user manager says of itself."""

    version: str
    features: tuple[str, ...]
    control_group: str


class UnitState(NamedTuple):
    """One line of `systemctl --user list-units`."""

    name: str
    description: str
    load_state: str
    active_state: str
    sub_state: str


def describe(runtime_dir: str | None) -> Manager:
    """Ask the user manager for its version and features; raises Unsupported with the diagnosis."""
    answers = bus.ask_pystemd(
        runtime_dir, lambda asked: (asked.Version, asked.Features, asked.ControlGroup)
    )
    version, features, control_group = (_decoded(each) for each in answers)
    return Manager(version=version, features=tuple(features.split()), control_group=control_group)


def list_units(runtime_dir: str | None, pattern: str) -> list[UnitState]:
    """List the loaded units whose name matches a glob; raises Unsupported with the diagnosis."""
    found = bus.ask_pystemd(
        runtime_dir, lambda asked: asked.ListUnitsByPatterns([], [pattern.encode()])
    )
    return [UnitState._make(_decoded(field) for field in unit[:5]) for unit in found]


def _decoded(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
