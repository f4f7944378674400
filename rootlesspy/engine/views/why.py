"""What explains how a container is, or how its last run ended: gathered, not yet put into words.

Asked are the container's own files, its log, and systemd about its service; whatever does not
answer is left out, since this is what people look at when something is broken.
"""

from __future__ import annotations

import os

from rootlesspy.engine import names, record, statefile
from rootlesspy.engine.output import logs
from rootlesspy.engine.views import inspect, restarts, stats, usage
from rootlesspy.errors import Error, NotFound
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import procfs
from rootlesspy.systemd import linger

if TYPE_CHECKING:
    from rootlesspy.engine.record import Container
    from rootlesspy.engine.supervision.healthcheck import Health
    from rootlesspy.paths import Paths

LOG_LINES = 10
_SIGKILL = 9


class Service(NamedTuple):
    """What systemd says of the container's service."""

    name: str
    active: str
    """ActiveState and SubState, such as failed/failed or activating/auto-restart."""
    result: str
    """success, exit-code, signal, timeout, start-limit-hit, oom-kill…"""
    restarts: int


class Explanation(NamedTuple):
    """The facts about one container."""

    found: Container
    kind: str
    """running, paused, created, broken, lost, start (it did not start), oom, or how it ended:
    stop, timeout, kill, systemctl, shutdown, unhealthy, signal (somebody else's), exit."""
    memory_limit_bytes: int | None
    memory_peak_bytes: int | None
    oom_kills: int
    service: Service | None
    health: Health | None
    rebooted: bool
    """This is another boot than the one that it ran in."""
    lingers: bool
    """The user manager stays after logout."""
    log: list[str]


def explain(paths: Paths, text: str) -> Explanation:
    """Gather the facts about a container; raises NotFound, Conflict for an ambiguous id."""
    container_id = record.find(paths, text)
    found = record.load(paths, container_id)
    if found is None:
        raise NotFound(f"no container with name or id {text!r}", hint="rp ps -a lists them")
    known = inspect.facts(paths, found)
    used = usage.document(found, known.directory)
    rebooted, live_service = _last_run(paths.container(container_id))
    limit = known.spec.get("linux", {}).get("resources", {}).get("memory", {}).get("limit")
    if known.directory is not None:
        limit = stats.limits(known.directory).memory_bytes or limit
    return Explanation(
        found=found,
        kind=_kind(found, paused=known.paused),
        memory_limit_bytes=limit,
        memory_peak_bytes=used["MemoryPeak"],
        oom_kills=used["OOMKills"] or 0,
        service=_service(paths, found, live_service),
        health=known.health,
        rebooted=rebooted,
        lingers=linger.is_on(),
        log=logs.tail(paths, found.record, LOG_LINES) if found.state != "broken" else [],
    )


def _kind(found: Container, *, paused: bool) -> str:
    ended = found.exit
    if ended is None:
        return "paused" if paused else found.state
    if ended.exit_code == record.LOST_EXIT_CODE:
        return "lost"
    if ended.oom_killed and ended.signal in (0, _SIGKILL) and ended.exit_code == 128 + _SIGKILL:
        return "oom"
    return ended.reason or ("signal" if ended.signal else "exit")


def _last_run(directory: str) -> tuple[bool, str]:
    """Return whether the last run was in another boot, and its service."""
    try:
        live = record.live_state(directory)
    except (statefile.DamagedError, OSError):
        live = None
    if live is None:
        return False, ""
    return live.boot_id != procfs.boot_id(), live.service


def _service(paths: Paths, found: Container, live_name: str) -> Service | None:
    """Ask systemd about the service; None when it does not know it, or does not answer."""
    from rootlesspy.systemd import bus

    name = live_name or names.service(found.record.name)
    try:
        connection = bus.connect(os.path.dirname(paths.require_runtime()))
    except Error:
        return None
    try:
        unit = connection.unit_properties(name, bus.UNIT, ("LoadState", "ActiveState", "SubState"))
        own = connection.unit_properties(name, bus.SERVICE, ("Result", "NRestarts"))
    except Error:
        return None
    finally:
        connection.close()
    if unit.get("LoadState") in (None, "not-found"):
        return None
    number = own.get("NRestarts")
    return Service(
        name=name,
        active=f"{unit.get('ActiveState')}/{unit.get('SubState')}",
        result=str(own.get("Result", "")),
        restarts=restarts.capped(number, found.record.restart) if isinstance(number, int) else 0,
    )
