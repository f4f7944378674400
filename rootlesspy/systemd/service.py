"""A container's service: what holds its supervisor, as a transient unit or as a file.

`settings` is the one source of both: `properties` writes it for the bus, `unitfile.render` as text.
The service holds the supervisor and the network helper; the payload is in the scope beside it,
which is bound to it.  Restarting is systemd's: `Restart=` and `StartLimit*=`, no code of ours.

A service that failed stays in `systemctl --user status` until it is started again or forgotten
(`reset_failed`), for why it failed is what people ask; one that leaves nothing (`keep_failed`
False) goes away at once.

Manuals: systemd.service(5), systemd.unit(5), systemd.exec(5), systemd.kill(5).
"""

from __future__ import annotations

import time

from rootlesspy.errors import Conflict, Error, NotFound, RuntimeFailure, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.systemd import scope
from rootlesspy.systemd.bus import BusError, Property
from rootlesspy.systemd.values import INFINITY, signal_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.systemd.bus import Bus

UNIT, SERVICE = "Unit", "Service"
TEXT, WORDS, SPAN, NUMBER, COMMAND = "s", "as", "t", "u", "a(sasb)"
ASSIGNMENTS, SIGNALS, FLAG = "assignments", "(aiai)", "b"

# A job waits for the payload to begin (Type=notify): systemd's own DefaultTimeoutStartSec, twice.
START_TIMEOUT_S = 180.0

_FIXED_DELAY_US = 1_000_000

_OLDEST = 252

_LEAVING_TIMEOUT_S = 5.0
_POLL_S = 0.02

_NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"


class Service(NamedTuple):
    """One container's service, before anything is escaped."""

    name: str
    """rp-NAME.service."""
    description: str
    command: tuple[str, ...]
    """Absolute program and arguments; no `$` after the program, see properties()."""
    documentation: tuple[str, ...] = ()
    restart: str = "no"
    """As Restart= spells it: no, on-failure, always."""
    restart_delay_us: int = 100_000
    restart_steps: int = 0
    """In how many restarts the delay grows to the longest; 0: it does not.  From v254 on."""
    restart_max_delay_us: int = INFINITY
    start_limit_burst: int | None = None
    """How many starts within the interval; None: any number."""
    start_limit_interval_us: int = INFINITY
    start_timeout_us: int = 90_000_000
    stop_timeout_us: int = 90_000_000
    environment: tuple[str, ...] = ()
    """KEY=VALUE each."""
    identifier: str = ""
    """SYSLOG_IDENTIFIER of what the supervisor itself prints."""
    keep_failed: bool = True
    dependencies: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """After=, Requires=, Wants=… and the units that each names; of installed units alone."""
    stored_fds: int = 0
    """How many descriptors systemd keeps for it while it is restarted."""
    admits_others: bool = False
    """Processes that systemd has not forked may join it and speak for it (scope.attach)."""


class Setting(NamedTuple):
    """One line of the unit, in the words of its manual page."""

    section: str
    key: str
    kind: str
    """TEXT, WORDS, SPAN (microseconds), NUMBER, COMMAND, ASSIGNMENTS, SIGNALS or FLAG."""
    value: str | int | tuple[str, ...]
    since: int = 0
    """The version of systemd that brought it, where that is later than 252."""
    until: int = 2**31
    """The last version that it is for."""


def settings(service: Service, version: int) -> tuple[Setting, ...]:
    """List what makes the unit for a manager of this version."""
    listed = [
        Setting(UNIT, "Description", TEXT, service.description),
        Setting(UNIT, "CollectMode", TEXT, _collect_mode(service)),
        Setting(SERVICE, "Type", TEXT, "notify"),
        Setting(SERVICE, "NotifyAccess", TEXT, "all" if service.admits_others else "main"),
        Setting(SERVICE, "ExecStart", COMMAND, service.command),
        Setting(SERVICE, "Restart", TEXT, service.restart),
        # How a supervisor ends that was asked to: engine.supervision.service.end_as_asked.
        Setting(SERVICE, "RestartPreventExitStatus", SIGNALS, ("SIGTERM",)),
        Setting(SERVICE, "TimeoutStartSec", SPAN, service.start_timeout_us),
        Setting(SERVICE, "TimeoutStopSec", SPAN, service.stop_timeout_us),
        # SIGTERM to the supervisor alone: the network helper has to outlive the payload.
        Setting(SERVICE, "KillMode", TEXT, "mixed"),
        # The supervisor starts a network helper that was killed again.
        Setting(SERVICE, "OOMPolicy", TEXT, "continue"),
    ]
    listed += [Setting(UNIT, key, WORDS, units) for key, units in service.dependencies]
    if service.documentation:
        listed.insert(1, Setting(UNIT, "Documentation", WORDS, service.documentation))
    if service.restart != "no":
        listed += _restart_settings(service)
    if service.environment:
        listed.append(Setting(SERVICE, "Environment", ASSIGNMENTS, service.environment))
    if service.admits_others:
        listed.append(Setting(SERVICE, "Delegate", FLAG, 1))
    if service.stored_fds:
        listed.append(Setting(SERVICE, "FileDescriptorStoreMax", NUMBER, service.stored_fds))
    if service.identifier:
        listed.append(Setting(SERVICE, "SyslogIdentifier", TEXT, service.identifier))
    return tuple(each for each in listed if each.since <= version <= each.until)


def properties(service: Service, version: int) -> tuple[Property, ...]:
    """Write the settings for StartTransientUnit of a manager of this version.

    Raises UsageError for a `$` in an argument: systemd takes it for a variable in what came over
    the bus, but doubled when it reads its own transient file again (tried on 257).
    """
    if any("$" in word for word in service.command[1:]):
        raise UsageError(f"the command of {service.name} holds a $, which systemd would replace")
    return tuple(_property(each) for each in settings(service, version))


def version(bus: Bus) -> int:
    """Ask the manager for its version: 257 of "257.9-1~deb13u1"."""
    digits = ""
    for character in bus.manager_property("Version"):
        if not character.isdigit():
            break
        digits += character
    return int(digits or "0")


def request_transient(bus: Bus, service: Service) -> int:
    """Ask for the start of a transient service; enqueued() takes the cookie that is returned.

    What is left of a failed one of this name is forgotten first.  Raises UsageError, Unsupported.
    """
    _forget_failed(bus, service.name)
    # Without its dependencies: systemd keeps every unit that a loaded one names, and a transient
    # one that was kept cannot be made again.
    bare = service._replace(dependencies=())
    # Which restarts there are depends on the version, and nothing else does.
    known = _OLDEST if service.restart == "no" else version(bus)
    return bus.send_transient_unit(service.name, properties(bare, known))


def request_start(bus: Bus, unit: str) -> int:
    """Ask for the start of an installed unit; enqueued() takes the cookie that is returned.

    Starts by hand do not count against the limit of restarts.
    """
    _forget_failed(bus, unit)
    return bus.send_unit_job("StartUnit", unit)


def enqueued(bus: Bus, unit: str, cookie: int) -> str:
    """Return the job, for wait(), of a start that was asked for.

    Raises Conflict when a transient one is active or installed, NotFound, UsageError, Unsupported
    or RuntimeFailure.
    """
    try:
        return str(bus.reply(cookie)[0])
    except BusError as error:
        raise _explain(error, unit) from error


def enqueued_when_free(bus: Bus, service: Service, cookie: int) -> str:
    """Return the job as enqueued(), for a transient one whose name may be that of one about to end.

    It is asked for again until that has ended; one that systemd is about to restart is stopped.
    """
    deadline = time.monotonic() + _LEAVING_TIMEOUT_S
    while True:
        try:
            return enqueued(bus, service.name, cookie)
        except Conflict:
            if time.monotonic() > deadline:
                raise
        if is_restarting(bus, service.name):
            bus.wait_job(stop(bus, service.name), START_TIMEOUT_S)
        time.sleep(_POLL_S)
        cookie = request_transient(bus, service)


def start_transient(bus: Bus, service: Service) -> str:
    """Enqueue the start of a transient service; return its job for wait(); raises as enqueued()."""
    return enqueued(bus, service.name, request_transient(bus, service))


def start(bus: Bus, unit: str) -> str:
    """Enqueue the start of an installed unit; return its job for wait(); raises as enqueued()."""
    return enqueued(bus, unit, request_start(bus, unit))


def restart(bus: Bus, unit: str) -> str:
    """Enqueue the restart of an installed or running unit; as start()."""
    reset_failed(bus, unit)
    return _enqueue(bus, "RestartUnit", unit)


def stop(bus: Bus, unit: str) -> str:
    """Enqueue the stop of a unit and return its job for wait(); as start().

    A restart that is due is called off.
    """
    return _enqueue(bus, "StopUnit", unit)


def is_restarting(bus: Bus, unit: str) -> bool:
    """Say whether a unit ended and systemd is about to start it again."""
    # From v254 on there is auto-restart-queued too.
    return _state(bus, unit, "SubState").startswith("auto-restart")


def is_over(bus: Bus, unit: str) -> bool:
    """Say whether systemd has nothing more to do with a unit unless it is told to."""
    return _state(bus, unit, "ActiveState") in ("", "inactive", "failed")


def await_over(bus: Bus, unit: str) -> None:
    """Wait, 5 s at most, until a unit that is about to end has ended; not for its restart."""
    deadline = time.monotonic() + _LEAVING_TIMEOUT_S
    while not (is_over(bus, unit) or is_restarting(bus, unit)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _state(bus: Bus, unit: str, name: str) -> str:
    found = bus.unit_properties(unit, "org.freedesktop.systemd1.Unit", (name,))
    return str(found.get(name, ""))


def wait(bus: Bus, unit: str, job: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait for a job; raises RuntimeFailure when it failed, Unsupported when it takes too long."""
    result = bus.wait_job(job, timeout_s)
    if result != "done":
        raise not_started(unit, result)


def not_started(unit: str, result: str) -> RuntimeFailure:
    """Return the error of a start whose job had another result than "done"."""
    return RuntimeFailure(
        f"systemd could not start {unit}: job {result}",
        step="service",
        hint=f"journalctl --user --unit {unit}",
    )


def reset_failed(bus: Bus, unit: str) -> None:
    """Forget that a unit failed, and how often it was started; no unit, no harm."""
    try:
        bus.call("ResetFailedUnit", "s", unit)
    except BusError as error:
        if error.name != _NO_SUCH_UNIT:
            raise scope.explain(error, unit) from error


def _forget_failed(bus: Bus, unit: str) -> None:
    """As reset_failed(), before a call whose answer is waited for: what hinders it hinders that."""
    bus.tell("ResetFailedUnit", "s", unit)


def _enqueue(bus: Bus, member: str, unit: str) -> str:
    try:
        return bus.unit_job(member, unit)
    except BusError as error:
        raise _explain(error, unit) from error


def _explain(error: BusError, unit: str) -> Error:
    if error.name == _NO_SUCH_UNIT:
        return NotFound(f"systemd knows no unit {unit}", hint=f"systemctl --user status {unit}")
    if error.name == "org.freedesktop.systemd1.UnitMasked":
        return Unsupported(f"unit {unit} is masked", hint=f"systemctl --user unmask {unit}")
    return scope.explain(error, unit)


def _collect_mode(service: Service) -> str:
    return "inactive" if service.keep_failed else "inactive-or-failed"


def _restart_settings(service: Service) -> Sequence[Setting]:
    listed = [Setting(SERVICE, "RestartSec", SPAN, service.restart_delay_us)]
    if service.restart_steps:
        # Where delays cannot grow, a container that cannot start must not keep a CPU busy.
        delay_us = max(service.restart_delay_us, _FIXED_DELAY_US)
        listed = [
            Setting(SERVICE, "RestartSec", SPAN, delay_us, until=253),
            Setting(SERVICE, "RestartSec", SPAN, service.restart_delay_us, since=254),
            Setting(SERVICE, "RestartSteps", NUMBER, service.restart_steps, since=254),
            Setting(SERVICE, "RestartMaxDelaySec", SPAN, service.restart_max_delay_us, since=254),
        ]
    if service.start_limit_burst is None:
        # 0 turns the limit off; systemd's default is five starts in ten seconds.
        listed.append(Setting(UNIT, "StartLimitIntervalSec", SPAN, 0))
    else:
        listed += [
            Setting(UNIT, "StartLimitBurst", NUMBER, service.start_limit_burst),
            Setting(UNIT, "StartLimitIntervalSec", SPAN, service.start_limit_interval_us),
        ]
    return listed


def _property(setting: Setting) -> Property:
    """Write one setting as the bus has it: spans in microseconds, a command as path and argv."""
    value: object = setting.value
    if setting.kind == SPAN:
        return Property(f"{setting.key.removesuffix('Sec')}USec", "t", value)
    if setting.kind == COMMAND and isinstance(value, tuple):
        return Property(setting.key, COMMAND, [(value[0], list(value), False)])
    if setting.kind == SIGNALS and isinstance(value, tuple):
        return Property(setting.key, SIGNALS, ([], [signal_number(each) for each in value]))
    if setting.kind in (WORDS, ASSIGNMENTS) and isinstance(value, tuple):
        return Property(setting.key, WORDS, list(value))
    return Property(setting.key, setting.kind, value)
