"""What the user manager says of itself and of all its units: cold calls, by pystemd."""

from __future__ import annotations

from rootlesspy.errors import Unsupported
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple
from rootlesspy.systemd import bus, sdbus

if TYPE_CHECKING:
    from collections.abc import Callable


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
    answers = _ask(runtime_dir, lambda asked: (asked.Version, asked.Features, asked.ControlGroup))
    version, features, control_group = (_decoded(each) for each in answers)
    return Manager(version=version, features=tuple(features.split()), control_group=control_group)


def list_units(runtime_dir: str | None, pattern: str) -> list[UnitState]:
    """List the loaded units whose name matches a glob; raises Unsupported with the diagnosis."""
    found = _ask(runtime_dir, lambda asked: asked.ListUnitsByPatterns([], [pattern.encode()]))
    return [UnitState._make(_decoded(field) for field in unit[:5]) for unit in found]


def _ask(runtime_dir: str | None, question: Callable[[Any], Any]) -> Any:
    """Put a question to pystemd's Manager interface; its import costs 70 ms.

    Raises Unsupported with the diagnosis.
    """
    # Ours connects in bounded time and explains itself; pystemd's waits 90 s for a frozen bus.
    bus.connect(runtime_dir).close()
    try:
        from pystemd.dbusexc import DBusBaseError
        from pystemd.dbuslib import DBusAddress
        from pystemd.systemd1 import Manager
    except ImportError as error:
        raise Unsupported(
            f"pystemd cannot be imported: {error}", hint="apt install python3-pystemd"
        ) from error
    try:
        with DBusAddress(sdbus.address(f"{runtime_dir}/bus")) as connection:
            asked = Manager(bus=connection)
            asked.load()
            return question(asked.Manager)
    except (DBusBaseError, OSError) as error:
        raise Unsupported(
            f"the user manager does not answer: {error}", hint="systemctl --user status"
        ) from error


def _decoded(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
