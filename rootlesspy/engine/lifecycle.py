"""What users do with containers that exist: find, start, attach to, signal, await and pause them.

engine.ending stops and removes them.
"""

from __future__ import annotations

import os
import time

from rootlesspy.engine import record
from rootlesspy.engine.supervision import control
from rootlesspy.errors import Conflict, Error, NotFound
from rootlesspy.light_modules import signal as signals
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.record import Container
    from rootlesspy.engine.record_cache import Seen
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.systemd.bus import Bus

# What a supervisor needs beyond the stop timeout to record the end and to clean up.
_STOP_MARGIN_S = 10.0
_POLL_S = 0.1


def containers(paths: Paths, *, running: bool = False, seen: Seen | None = None) -> list[Container]:
    """Return all containers, newest first; what killed commands left is removed on the way.

    running: those that run are enough, so that the others' files are not read.  seen: takes what
    their directories are, for views that keep more of them.
    """
    from rootlesspy.engine import leftovers

    found = leftovers.sweep(paths, running=running, seen=seen)
    return sorted(found, key=lambda each: each.record.created_s, reverse=True)


def get(paths: Paths, text: str) -> Container:
    """Return the container with this name, id or unique id prefix.

    Raises NotFound, Conflict for an ambiguous prefix, Error for a damaged one.
    """
    container_id = record.find(paths, text)
    found = record.load(paths, container_id)
    if found is None:
        raise NotFound(f"no container with name or id {text!r}", hint="rp ps -a lists them")
    if found.state == "broken":
        raise Error(f"container {text} is damaged", hint=f"rp rm -f {text}")
    return found


def start(paths: Paths, text: str, reporter: Reporter, *, alone: bool = False) -> bool:
    """Start a container as a service, and before it what it requires, unless it runs.

    alone: nothing before it.  Say whether it was started.  Raises Error with the supervisor's words
    when it does not start; the container stays.
    """
    if not alone:
        _start_others(paths, text, reporter)
    return _start_one(paths, text, reporter)


def _start_one(paths: Paths, text: str, reporter: Reporter) -> bool:
    from rootlesspy.engine.supervision import detached

    found, lock_fd = _lock_to_start(paths, text)
    if lock_fd is None:
        return False
    try:
        detached.start(paths, found.record, lock_fd, reporter)
    except detached.StartError as error:
        raise error.cause from error
    return True


def _start_others(paths: Paths, text: str, reporter: Reporter) -> None:
    """Start what a container that does not run requires or wants."""
    found = get(paths, text)
    if found.state == "running":
        return
    if found.record.shares:
        from rootlesspy.engine.pods import sharing

        for other in sharing.containers_needed(found.record):
            start(paths, other, reporter)
    if not {"requires", "wants"} & found.record.request.keys():
        return
    from rootlesspy.engine.definitions import dependencies

    dependencies.start_first(
        paths, found.record, lambda other: _start_one(paths, other, reporter), reporter
    )


def start_attached(
    paths: Paths,
    text: str,
    *,
    interactive: bool,
    detach_keys: bytes,
    reporter: Reporter,
    forwards: bool = True,
) -> int:
    """Start a container as a service, be its first client, and return its exit code."""
    from rootlesspy.engine.supervision import attach, detached
    from rootlesspy.systemd import migration

    _start_others(paths, text, reporter)
    found, lock_fd = _lock_to_start(paths, text)
    if lock_fd is None:
        return attached(
            paths,
            text,
            interactive=interactive,
            detach_keys=detach_keys,
            reporter=reporter,
            forwards=forwards,
        )
    try:
        asked = detached.begin(paths, found.record, lock_fd, reporter)
    except detached.StartError as error:
        raise error.cause from error
    try:
        end = asked.hand_over(lock_fd, reporter)
    except detached.StartError as error:
        asked.close()
        raise error.cause from error
    try:
        migration.finish()
        return attach.Client(
            end,
            0,
            interactive=interactive and found.record.interactive,
            detach_keys=detach_keys,
            reporter=reporter,
            forwards=forwards,
        ).run()
    finally:
        asked.close()
        end.close()


def attached(
    paths: Paths,
    text: str,
    *,
    interactive: bool,
    detach_keys: bytes,
    reporter: Reporter,
    forwards: bool = True,
) -> int:
    """Attach to a running container and return its exit code, 0 when the user detaches.

    Raises Conflict when it does not run.
    """
    from rootlesspy.engine.supervision import attach

    found = get(paths, text)
    end = running(paths, found)
    interactive = interactive and found.record.interactive
    control.tell(end, "attach", stdin=int(interactive))
    tell("attach", found)
    try:
        return attach.Client(
            end,
            0,
            interactive=interactive,
            detach_keys=detach_keys,
            reporter=reporter,
            forwards=forwards,
        ).run()
    finally:
        end.close()


def signal(paths: Paths, text: str, number: int) -> None:
    """Send a signal to the first process of a running container.  Raises Conflict."""
    found = get(paths, text)
    end = running(paths, found)
    try:
        if number == signals.SIGKILL:
            thaw(paths, found)
        control.tell(end, "signal", number=number, reason="kill")
        control.receive(end)
    finally:
        end.close()
    tell("kill", found, signal=number)


def wait(paths: Paths, text: str) -> int:
    """Wait until a container is not running and return its exit code; -1: nobody saw its end."""
    found = get(paths, text)
    directory = paths.container(found.record.id)
    end = control.connect(paths, found.record.id)
    while end is None and found.state == "running":
        # Who listens no more has its end still to record.
        record.wait_unlocked(directory, _POLL_S)
        found = get(paths, text)
        end = control.connect(paths, found.record.id)
    if end is not None:
        try:
            control.tell(end, "watch")
            while (message := control.receive(end)) is not None:
                if message.kind == "exited":
                    return message.number("exit_code")
        finally:
            end.close()
        record.wait_unlocked(directory, _STOP_MARGIN_S)
    ended = get(paths, text).exit
    return ended.exit_code if ended is not None else 0


def wait_for(paths: Paths, text: str, conditions: tuple[str, ...]) -> int:
    """Wait until a container is in one of these states (stopped: not running), as wait()."""
    if not {"stopped", "exited"}.isdisjoint(conditions):
        return wait(paths, text)
    found = get(paths, text)
    if found.state in conditions:
        return 0 if found.exit is None else found.exit.exit_code
    while found.state not in conditions:
        time.sleep(_POLL_S)
        found = get(paths, text)
    return 0


def pause(paths: Paths, text: str) -> None:
    """Freeze all processes of a running container.  Raises Conflict, Unsupported."""
    found = get(paths, text)
    running(paths, found).close()
    if is_paused(paths, found):
        raise Conflict(f"container {found.record.name} is already paused")
    _on_scope(paths, found, freeze=True)
    tell("pause", found)


def unpause(paths: Paths, text: str) -> None:
    """Let the processes of a paused container go on.  Raises Conflict, Unsupported."""
    found = get(paths, text)
    if found.state != "running" or not is_paused(paths, found):
        raise Conflict(f"container {found.record.name} is not paused")
    _on_scope(paths, found, freeze=False)
    tell("unpause", found)


def is_paused(paths: Paths, found: Container) -> bool:
    """Say whether systemd has frozen a running container."""
    from rootlesspy.systemd import cgroup

    live = record.live_state(paths.container(found.record.id))
    if found.state != "running" or live is None or not live.unit:
        return False
    return cgroup.is_frozen(live.pid)


def thaw(paths: Paths, found: Container) -> None:
    """Let a container go on if it is paused, so that it can end."""
    if is_paused(paths, found):
        _on_scope(paths, found, freeze=False)


def running(paths: Paths, found: Container) -> socket.socket:
    """Connect to a container's supervisor.  Raises Conflict when it does not run."""
    end = control.connect(paths, found.record.id)
    if end is None:
        name = found.record.name
        raise Conflict(
            f"container {name} is not running", hint=f"rp start {name}; rp why {name} says why"
        )
    return end


def tell(kind: str, found: Container, **attributes: object) -> None:
    """Write an event to the journal."""
    from rootlesspy.engine.output import events

    events.emit(kind, found.record, **attributes)


def _lock_to_start(paths: Paths, text: str) -> tuple[Container, int | None]:
    """Take a container's lock; None when it runs already.  Raises Conflict when it is busy."""
    found = get(paths, text)
    directory = paths.container(found.record.id)
    try:
        lock_fd = record.lock(directory)
        if lock_fd is None and record.has_left(paths, found.record.id):
            lock_fd = record.lock(directory)
    except FileNotFoundError:
        raise NotFound(f"no container with name or id {text!r}") from None
    if lock_fd is not None:
        # Not by its name, which may be another one's by now, whose lock this is not.
        return get(paths, found.record.id), lock_fd
    if found.state == "running":
        if is_paused(paths, found):
            name = found.record.name
            raise Conflict(f"container {name} is paused", hint=f"rp unpause {name}")
        return found, None
    raise Conflict(f"container {found.record.name} is being started, stopped or removed")


def _on_scope(paths: Paths, found: Container, *, freeze: bool) -> None:
    """Freeze or thaw the container's scope."""
    from rootlesspy.systemd import scope

    connection = user_bus(paths)
    live = record.live_state(paths.container(found.record.id))
    try:
        if live is None or not live.unit:
            raise Conflict(f"container {found.record.name} has no scope: --cgroups=disabled")
        (scope.freeze if freeze else scope.thaw)(connection, live.unit)
    finally:
        connection.close()


def user_bus(paths: Paths) -> Bus:
    """Connect to the user manager.  Raises Error without one."""
    from rootlesspy.systemd import bus

    return bus.connect(os.path.dirname(paths.require_runtime()))
