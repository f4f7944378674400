"""A container's scope: start it with a process in it, look at it, stop it.

The scope holds the payload alone.  With Delegate=yes its cgroup is ours to divide, and a cgroup
with enabled controllers must hold no process itself, so the payload lives in the sub-cgroup
`payload`.  OOMPolicy stays as it is: for delegated scopes systemd's default is `continue`.

Order that the caller must keep (runtime.create): start() while the process still has the user's own
UID (before v258 systemd moves no process of another UID out of a login session), then
enter_payload(), and only then may the process unshare its cgroup namespace.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.errors import Conflict, Error, RuntimeFailure, Unsupported, UsageError
from rootlesspy.systemd.bus import SCOPE, UNIT, Bus, BusError, Property

if TYPE_CHECKING:
    from collections.abc import Sequence

PAYLOAD = "payload"
START_TIMEOUT_S = 25.0

_ERROR_PREFIX = "org.freedesktop.systemd1."
_DBUS_ERROR_PREFIX = "org.freedesktop.DBus.Error."
_NOT_SET = 2**64 - 1
_SHOWN = (
    (UNIT, ("ActiveState", "SubState", "InvocationID")),
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


class Usage(NamedTuple):
    """What a cgroup has used so far; None where its controller is not delegated."""

    memory_peak_bytes: int | None
    cpu_usage_us: int | None
    pids_peak: int | None
    oom_kills: int | None


def start(
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
    timeout_s: float = START_TIMEOUT_S,
) -> None:
    """Start the scope with pids in it and return once systemd says that it is active.

    With a controller (a bus name, such as bus.unique_name) `systemctl stop` signals nobody: systemd
    sends RequestStop to it, and kills the scope stop_timeout_us microseconds later.  The unit
    stays loaded, so that its result and peaks can be read, until this connection closes.
    properties come last and win.  Raises Conflict, UsageError, Unsupported or RuntimeFailure.
    """
    wanted = [
        Property("Description", "s", description),
        Property("PIDs", "au", list(pids)),
        Property("Delegate", "b", True),
        # Otherwise a failed scope keeps its name until somebody says reset-failed.
        Property("CollectMode", "s", "inactive-or-failed"),
        Property("TimeoutStopUSec", "t", stop_timeout_us),
    ]
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
    try:
        job = bus.start_transient_unit(unit, [*wanted, *properties])
    except BusError as error:
        raise _explain(error, unit) from error
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
    if "Result" not in found:
        return None
    invocation = found.get("InvocationID")
    return Scope(
        active_state=str(found.get("ActiveState", "")),
        sub_state=str(found.get("SubState", "")),
        invocation_id=invocation.hex() if isinstance(invocation, bytes) else "",
        result=str(found["Result"]),
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
        job = bus.stop_unit(unit)
    except BusError as error:
        if error.name == f"{_ERROR_PREFIX}NoSuchUnit":
            return False
        raise _explain(error, unit) from error
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


def attach(bus: Bus, unit: str, pids: Sequence[int]) -> None:
    """Have systemd move processes into the payload of a running scope.

    For a caller outside the user manager's tree; inside it CLONE_INTO_CGROUP is quicker.
    """
    try:
        bus.call("AttachProcessesToUnit", "ssau", unit, PAYLOAD, list(pids))
    except BusError as error:
        raise _explain(error, unit) from error


def set_properties(bus: Bus, unit: str, properties: Sequence[Property]) -> None:
    """Change properties of a loaded unit until it ends, as `systemctl set-property --runtime`."""
    listed = [(each.name, (each.signature, each.value)) for each in properties]
    try:
        bus.call("SetUnitProperties", "sba(sv)", unit, True, listed)
    except BusError as error:
        raise _explain(error, unit) from error


def control_group(pid: int) -> str:
    """Return the cgroup v2 path of a process, as its "0::" line says (cgroups(7))."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.startswith("0::"):
                return line[3:].rstrip("\n")
    raise Unsupported("this machine has no cgroup v2", hint="boot with systemd 252 or newer")


def enter_payload(directory: str, pid: int) -> str:
    """Move a process of the scope whose cgroup is directory into its payload sub-cgroup.

    Return the sub-cgroup's path; raises RuntimeFailure.
    """
    payload = f"{directory}/{PAYLOAD}"
    try:
        os.makedirs(payload, exist_ok=True)
        fd = os.open(f"{payload}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % pid)
        finally:
            os.close(fd)
    except OSError as error:
        raise RuntimeFailure(
            f"cannot move the container into {payload}: {error.strerror}",
            step="cgroup",
            errno=error.errno or 0,
            path=payload,
        ) from error
    return payload


class Meter:
    """Reads what a scope's cgroup uses, and remembers it beyond the cgroup's end.

    systemd removes the cgroup as soon as its last process is gone, which races with whoever wants
    to know how it ended.  So the files are opened early, and the supervisor polls fileno() for
    POLLPRI: the kernel counts an OOM kill, and wakes the poller, before the victim dies.
    """

    def __init__(self, directory: str) -> None:
        self._fds = {
            name: fd
            for name in ("memory.events", "memory.peak", "cpu.stat", "pids.peak")
            if (fd := _open(f"{directory}/{name}")) is not None
        }
        self.usage = Usage(None, None, None, None)
        self.read()

    def fileno(self) -> int:
        """Return the descriptor to poll for POLLPRI; -1 without the memory controller."""
        return self._fds.get("memory.events", -1)

    def read(self) -> Usage:
        """Read again; what cannot be read any more keeps its last value."""
        new = Usage(
            memory_peak_bytes=_first_number(self._text("memory.peak")),
            cpu_usage_us=_keyed_number(self._text("cpu.stat"), "usage_usec"),
            pids_peak=_first_number(self._text("pids.peak")),
            oom_kills=_keyed_number(self._text("memory.events"), "oom_kill"),
        )
        self.usage = Usage._make(
            old if fresh is None else fresh for old, fresh in zip(self.usage, new, strict=True)
        )
        return self.usage

    def close(self) -> None:
        """Close the files; doing it twice is harmless."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}

    def _text(self, name: str) -> str:
        fd = self._fds.get(name)
        if fd is None:
            return ""
        try:
            return os.pread(fd, 4096, 0).decode("ascii", "replace")
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            # The cgroup has been removed.
            return ""


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
        raise _explain(error, str(arguments[0])) from error
    return True


def _explain(error: BusError, unit: str) -> Error:
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
    if name in ("ServiceUnknown", "NameHasNoOwner"):
        return Unsupported(
            "no user manager is on the user bus",
            hint=f"as root: systemctl restart user@{os.getuid()}.service",
        )
    return RuntimeFailure(f"systemd could not start {unit}: {message}", step="scope")


def _set(value: object) -> int | None:
    return value if isinstance(value, int) and value != _NOT_SET else None


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _first_number(text: str) -> int | None:
    word = text.strip()
    return int(word) if word.isdigit() else None


def _keyed_number(text: str, key: str) -> int | None:
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == key and number.isdigit():
            return int(number)
    return None
