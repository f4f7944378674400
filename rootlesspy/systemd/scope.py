"""A container's scope: start it with a process in it, look at it, stop it.

The scope holds the payload alone.  OOMPolicy stays as it is: for delegated scopes systemd's default
is `continue`, which leaves it to the payload what the kill of one process means.

Order that the caller must keep (runtime.create): request() and wait_started() while the process
still has the user's own UID (before v258 systemd moves no process of another UID out of a login
session), then cgroup.enter_payload(), and only then may the process unshare its cgroup namespace.
"""

from __future__ import annotations

import os

from rootlesspy.errors import Conflict, Error, RuntimeFailure, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.systemd.bus import SCOPE, UNIT, Bus, BusError, Property

if TYPE_CHECKING:
    from collections.abc import Sequence

START_TIMEOUT_S = 25.0

_ERROR_PREFIX = "org.freedesktop.systemd1."
_DBUS_ERROR_PREFIX = "org.freedesktop.DBus.Error."
_NOT_SET = 2**64 - 1
_SHOWN = (
    (UNIT, ("LoadState", "ActiveState", "SubState", "InvocationID")),
    (SCOPE, ("Result", "ControlGroup", "MemoryPeak", "CPUUsageNSec", "TasksCurrent")),
)


class Scope(NamedTuple):
    """What systemd knows of a scope; None where it does not know."""

    active_state: str
    sub_state: str
    invocation_id: str
    result: str
    control_group: str
    memory_peak_bytes: int | None
    cpu_usage_ns: int | None
    tasks: int | None


def request(
    bus: Bus,
    *,
    unit: str,
    description: str,
    pids: Sequence[int],
    stop_timeout_us: int,
    controller: str | None = None,
    binds_to: str | None = None,
    slice: str | None = None,
    documentation: Sequence[str] = (),
    properties: Sequence[Property] = (),
) -> int:
    """Ask for a scope with pids in it; wait_started() takes the cookie that is returned.

    With a controller (a bus name, such as bus.unique_name) `systemctl stop` signals nobody: systemd
    sends RequestStop to it, and kills the scope stop_timeout_us microseconds later.  The unit
    stays loaded, so that its result and peaks can be read, until this connection closes.
    properties come last and win.  Raises Unsupported.
    """
    wanted = [
        Property("Description", "s", description),
        Property("PIDs", "au", list(pids)),
        # Otherwise a failed scope keeps its name until somebody says reset-failed.
        Property("CollectMode", "s", "inactive-or-failed"),
        Property("TimeoutStopUSec", "t", stop_timeout_us),
    ]
    if not any(each.name.startswith("Delegate") for each in properties):
        wanted.append(Property("Delegate", "b", True))
    if not bus.private:
        # A reference to the unit belongs to a bus name, which the private socket has not.
        wanted.append(Property("AddRef", "b", True))
    if documentation:
        wanted.append(Property("Documentation", "as", list(documentation)))
    if slice is not None:
        wanted.append(Property("Slice", "s", slice))
    if controller is not None:
        wanted.append(Property("Controller", "s", controller))
    if binds_to is not None:
        # No After=: the scope's job would wait for the service to be ready, which waits for it.
        wanted.append(Property("BindsTo", "as", [binds_to]))
    return bus.send_transient_unit(unit, [*wanted, *properties])


def wait_started(bus: Bus, unit: str, cookie: int, timeout_s: float = START_TIMEOUT_S) -> None:
    """Return once systemd says that a scope that was asked for is active.

    Raises Conflict, UsageError, Unsupported or RuntimeFailure.
    """
    try:
        job = str(bus.reply(cookie)[0])
    except BusError as error:
        raise explain(error, unit) from error
    result = bus.wait_job(job, timeout_s)
    if result != "done":
        raise RuntimeFailure(
            f"systemd could not start {unit}: job {result}",
            step="scope",
            hint=f"journalctl --user --unit {unit}",
        )


def show(bus: Bus, unit: str) -> Scope | None:
    """Read the state of a scope; None when systemd does not know the unit (any more)."""
    found: dict[str, object] = {}
    for interface, names in _SHOWN:
        found.update(bus.unit_properties(unit, interface, names))
    # Asking for a unit loads it: one that has been collected is there again, but "not-found".
    if found.get("LoadState") != "loaded":
        return None
    invocation = found.get("InvocationID")
    return Scope(
        active_state=str(found.get("ActiveState", "")),
        sub_state=str(found.get("SubState", "")),
        invocation_id=invocation.hex() if isinstance(invocation, bytes) else "",
        result=str(found.get("Result", "")),
        control_group=str(found.get("ControlGroup", "")),
        memory_peak_bytes=_set(found.get("MemoryPeak")),
        cpu_usage_ns=_set(found.get("CPUUsageNSec")),
        tasks=_set(found.get("TasksCurrent")),
    )


def stop(bus: Bus, unit: str, timeout_s: float) -> bool:
    """Stop a unit and wait until it is down; False when it was not there.

    Raises Unsupported when it is not down after timeout_s seconds.
    """
    try:
        job = bus.unit_job("StopUnit", unit)
    except BusError as error:
        if error.name == f"{_ERROR_PREFIX}NoSuchUnit":
            return False
        raise explain(error, unit) from error
    bus.wait_job(job, timeout_s)
    return True


def kill(bus: Bus, unit: str, signal: int) -> bool:
    """Send a signal to every process of a unit; False when there is no such unit or process."""
    return _ask(bus, "KillUnit", "ssi", unit, "all", signal)


def freeze(bus: Bus, unit: str) -> bool:
    """Freeze every process of a unit and wait until they are; False when it was not there."""
    return _ask(bus, "FreezeUnit", "s", unit)


def thaw(bus: Bus, unit: str) -> bool:
    """Let the processes of a frozen unit go on; False when it was not there."""
    return _ask(bus, "ThawUnit", "s", unit)


def attach(bus: Bus, unit: str, group: str, pids: Sequence[int]) -> None:
    """Have systemd move processes into a cgroup below a running scope's, as /payload.

    For a caller outside the user manager's tree; inside it CLONE_INTO_CGROUP is quicker.
    """
    wait_attached(bus, unit, request_attach(bus, unit, group, pids))


def request_attach(bus: Bus, unit: str, group: str, pids: Sequence[int]) -> int:
    """Ask systemd to move processes; wait_attached() takes the cookie that is returned."""
    return bus.send("AttachProcessesToUnit", "ssau", unit, group, list(pids))


def wait_attached(bus: Bus, unit: str, cookie: int) -> None:
    """Wait until the processes are moved; raises as request() and wait_started() do."""
    try:
        bus.reply(cookie)
    except BusError as error:
        raise explain(error, unit) from error


def set_properties(bus: Bus, unit: str, properties: Sequence[Property]) -> None:
    """Change properties of a loaded unit until it ends, as `systemctl set-property --runtime`."""
    listed = [(each.name, (each.signature, each.value)) for each in properties]
    try:
        bus.call("SetUnitProperties", "sba(sv)", unit, True, listed)
    except BusError as error:
        raise explain(error, unit) from error


def explain(error: BusError, unit: str) -> Error:
    """Turn the manager's answer into the error that the user can act on."""
    name = error.name.removeprefix(_ERROR_PREFIX).removeprefix(_DBUS_ERROR_PREFIX)
    message = error.message.rstrip(".")
    if name == "UnitExists":
        return Conflict(
            f"unit {unit} already exists",
            hint=f"systemctl --user status {unit}, or choose another --name",
        )
    if name == "PropertyReadOnly":
        return Unsupported(
            f"this user manager refuses a property: {message}", hint="systemctl --user --version"
        )
    if name in ("InvalidArgs", "BadUnitSetting"):
        return UsageError(f"the user manager refuses {unit}: {message}")
    if name in ("AccessDenied", "InteractiveAuthorizationRequired"):
        return Unsupported(f"the user manager may not start {unit}: {message}")
    if name in ("ServiceUnknown", "NameHasNoOwner") or name.startswith("Spawn."):
        return Unsupported(
            "no user manager is on the user bus",
            hint=f"as root: systemctl restart user@{os.getuid()}.service",
        )
    return RuntimeFailure(f"systemd could not start {unit}: {message}", step="scope")


def _ask(bus: Bus, member: str, signature: str, *arguments: object) -> bool:
    try:
        bus.call(member, signature, *arguments)
    except BusError as error:
        if error.name in (
            f"{_ERROR_PREFIX}NoSuchUnit",
            f"{_ERROR_PREFIX}NoSuchProcess",
            f"{_DBUS_ERROR_PREFIX}UnixProcessIdUnknown",
        ):
            return False
        raise explain(error, str(arguments[0])) from error
    return True


def _set(value: object) -> int | None:
    return value if isinstance(value, int) and value != _NOT_SET else None
