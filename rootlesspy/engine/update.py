"""Change the limits and the restart policy of a container, now and for its next start.

What a running one is held by is its scope's properties, which change by SetUnitProperties, and its
service's Restart=, which changes by a drop-in beside the transient unit: systemd removes it
together with the unit.  What is kept is config.json and the record, each replaced whole.
"""

from __future__ import annotations

import os

from rootlesspy.engine import autostart, limits, names, record, statefile
from rootlesspy.engine.supervision import job, service
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.systemd import bus as buses
from rootlesspy.systemd import cgroup, scope, unitfile
from rootlesspy.systemd import service as services
from rootlesspy.systemd.bus import UNIT, Property
from rootlesspy.systemd.values import INFINITY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.oci.runtime_spec import LinuxResources, Spec
    from rootlesspy.paths import Paths
    from rootlesspy.systemd.bus import Bus

_CPU_PERIOD_US = 100_000
_DROP_IN = "50-rp-update.conf"
# What takes a limit away again; everything else goes back to no limit.
_DEFAULTS = {"MemoryLow": 0, "AllowedCPUs": b"", "AllowedMemoryNodes": b""}


class Change(NamedTuple):
    """What `rp update` was asked; None: as it is.  0 takes a limit away, as in podman."""

    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    """Memory and swap together; -1: unlimited swap."""
    memory_reservation_bytes: int | None = None
    cpu_quota_us: int | None = None
    """Microseconds of CPU per second of time."""
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids_limit: int | None = None
    """-1: unlimited."""
    blkio_weight: int | None = None
    restart: str | None = None


def update(paths: Paths, text: str, change: Change) -> str:
    """Change a container and return its id; nothing is kept when a running one cannot be changed.

    Raises NotFound, UsageError, Unsupported for a limit that would not hold here, RuntimeFailure.
    """
    container_id = record.find(paths, text)
    directory = paths.container(container_id)
    found = record.load_record(directory)
    spec = job.load_spec(directory)
    before = spec["linux"].get("resources", {})
    after = merged(before, change)
    changed = found._replace(
        default_limits=found.default_limits if change.pids_limit is None else [],
        restart=found.restart if change.restart is None else change.restart,
    )
    _check(found, change)
    if after != before:
        _set_limits(paths, found, changed, before, after)
        spec["linux"]["resources"] = after
        _write_spec(f"{directory}/config.json", spec)
    if changed != found:
        statefile.write(f"{directory}/record.json", changed._asdict(), durable=True)
    if changed.restart != found.restart:
        _set_restart(paths, changed)
    return container_id


def merged(before: LinuxResources, change: Change) -> LinuxResources:
    """Return the limits after a change; a part that is left without any is left out."""
    quota = change.cpu_quota_us
    parts: dict[str, dict[str, object]] = {
        "memory": {
            "limit": change.memory_bytes,
            "swap": change.memory_swap_bytes,
            "reservation": change.memory_reservation_bytes,
        },
        "cpu": {
            "quota": None if quota is None else quota * _CPU_PERIOD_US // 1_000_000,
            "period": None if quota is None else _CPU_PERIOD_US if quota else 0,
            "shares": change.cpu_shares,
            "cpus": change.cpuset_cpus,
            "mems": change.cpuset_mems,
        },
        "blockIO": {"weight": change.blkio_weight},
        "pids": {"limit": change.pids_limit},
    }
    if change.memory_bytes == 0 and change.memory_swap_bytes is None:
        # The limit of both together means nothing without the one of memory.
        parts["memory"]["swap"] = 0
    result: dict[str, object] = dict(before)
    for name, wanted in parts.items():
        present = result.get(name)
        part = {**(present if isinstance(present, dict) else {})}
        part.update((key, value) for key, value in wanted.items() if value is not None)
        kept = {key: value for key, value in part.items() if value}
        if kept:
            result[name] = kept
        else:
            result.pop(name, None)
    return result  # type: ignore[return-value]  # the parts above are its parts


def difference(before: limits.Plan, after: limits.Plan) -> tuple[Property, ...]:
    """Return the properties that make what `before` holds into what `after` holds."""
    names = {each.name for each in after.properties}
    gone = {each.name: each for each in before.properties if each.name not in names}
    reset = [
        each._replace(value=_DEFAULTS.get(each.name, [] if "(" in each.signature else INFINITY))
        for each in gone.values()
    ]
    return (*reset, *(each for each in after.properties if each not in before.properties))


def _check(found: ContainerRecord, change: Change) -> None:
    if change.restart not in (None, "no") and found.remove:
        raise UsageError(f"--restart={change.restart}: container {found.name} was made with --rm")
    limited = any(value is not None for value in change._replace(restart=None))
    if limited and not found.unit:
        raise UsageError("limits need a scope: they do not go with --cgroups=disabled")


def _set_limits(
    paths: Paths,
    found: ContainerRecord,
    changed: ContainerRecord,
    before: LinuxResources,
    after: LinuxResources,
) -> None:
    """Check the new limits against this machine and give them to the scope, if there is one."""
    host = limits.host()
    new = limits.plan(
        after,
        changed.properties,
        host=host,
        ignore_missing=changed.ignore_missing_limits,
        defaults=frozenset(changed.default_limits),
    )
    old = limits.plan(before, found.properties, host=host, ignore_missing=True)
    if not record.is_locked(paths.container(found.id)):
        return
    bus = buses.connect(os.path.dirname(paths.require_runtime()))
    try:
        shown = scope.show(bus, found.unit)
        if shown is not None and shown.active_state == "active":
            scope.set_properties(bus, found.unit, difference(old, new))
            if new.affinity != old.affinity:
                _set_affinity(shown.control_group, new.affinity or host.cpus)
    finally:
        bus.close()


def _set_affinity(control_group: str, cpus: frozenset[int]) -> None:
    """Hold every thread of a scope to CPUs; those that it starts later inherit them."""
    for parent, _, files in os.walk(cgroup.directory(control_group)):
        if "cgroup.threads" not in files:
            continue
        with open(f"{parent}/cgroup.threads", encoding="ascii") as file:
            threads = [int(line) for line in file]
        for thread in threads:
            try:
                os.sched_setaffinity(thread, cpus)
            except ProcessLookupError:
                continue


def _set_restart(paths: Paths, changed: ContainerRecord) -> None:
    """Give the new policy to the installed unit, and to the transient one that is loaded."""
    autostart.refresh(paths, changed)
    try:
        bus = buses.connect(os.path.dirname(paths.require_runtime()))
    except Unsupported:
        # Then no service runs either.
        return
    try:
        name = names.service(changed.name)
        shown = bus.unit_properties(name, UNIT, ("FragmentPath", "Transient"))
        fragment = shown.get("FragmentPath")
        if shown.get("Transient") is True and isinstance(fragment, str) and fragment:
            _write_drop_in(bus, f"{fragment}.d", changed, paths)
    finally:
        bus.close()


def _write_drop_in(bus: Bus, directory: str, changed: ContainerRecord, paths: Paths) -> None:
    text = unitfile.drop_in(
        service.of(changed, paths), version=services.version(bus), keys=("Restart", "StartLimit")
    )
    os.makedirs(directory, 0o755, exist_ok=True)
    _replace(f"{directory}/{_DROP_IN}", text)
    bus.call("Reload")


def _write_spec(path: str, spec: Spec | Mapping[str, object]) -> None:
    _replace(path, json.dumps(spec, separators=(",", ":")))


def _replace(path: str, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        statefile.sync_directory(os.path.dirname(path))
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
