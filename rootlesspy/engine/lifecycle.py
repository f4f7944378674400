"""What users do with containers that exist: list, start, stop, signal, pause and remove them."""

from __future__ import annotations

import os
import signal as signals
import time
from typing import TYPE_CHECKING

from rootlesspy.engine import record
from rootlesspy.engine.supervision import control
from rootlesspy.errors import Conflict, Error, NotFound

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.record import Container
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter
    from rootlesspy.systemd.bus import Bus

_KILL_TIMEOUT_S = 10.0
# What a supervisor needs beyond the stop timeout to record the end and to clean up.
_STOP_MARGIN_S = 10.0
_POLL_S = 0.1
_BRIEF_S = 0.02


def containers(paths: Paths) -> list[Container]:
    """Return all containers, newest first; what killed commands left is removed on the way."""
    from rootlesspy.engine import storage

    storage.sweep(paths)
    found = (record.load(paths, container_id) for container_id in record.ids(paths))
    return sorted(
        (each for each in found if each is not None),
        key=lambda each: each.record.created_s,
        reverse=True,
    )


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
    if found.state == "running" or not {"requires", "wants"} & found.record.request.keys():
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
        end, _, connection = detached.begin(paths, found.record, lock_fd, reporter)
    except detached.StartError as error:
        raise error.cause from error
    try:
        return attach.Client(
            end,
            0,
            interactive=interactive and found.record.interactive,
            detach_keys=detach_keys,
            reporter=reporter,
            forwards=forwards,
        ).run()
    finally:
        connection.close()
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
    _tell("attach", found)
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


def stop(
    paths: Paths, text: str, timeout_s: float | None, reporter: Reporter, reason: str = "stop"
) -> bool:
    """Stop a container: its stop signal, SIGKILL after timeout_s (None: its own timeout).

    Say whether it ran.  Raises Error when it does not end.
    """
    found = get(paths, text)
    limit_s = found.record.stop_timeout_s if timeout_s is None else timeout_s
    end = _supervisor(paths, found)
    if end is None:
        return _stop_unattended(paths, found, reporter)
    try:
        thaw(paths, found)
        reporter.step(f"stop {found.record.name}")
        control.tell(end, "stop", timeout_s=limit_s, reason=reason)
        _await_end(end, found, limit_s + _STOP_MARGIN_S)
    finally:
        end.close()
    _tell("stop", found)
    ended = record.wait_unlocked(paths.container(found.record.id), _STOP_MARGIN_S)
    _call_off_restart(paths, found)
    return ended


def restart(paths: Paths, text: str, timeout_s: float | None, reporter: Reporter) -> None:
    """Stop a container, if it runs, and start it.  Raises Error as stop() and start()."""
    stop(paths, text, timeout_s, reporter)
    start(paths, text, reporter)
    _tell("restart", get(paths, text))


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
    _tell("kill", found, signal=number)


def wait(paths: Paths, text: str) -> int:
    """Wait until a container is not running and return its exit code; -1: nobody saw its end."""
    found = get(paths, text)
    directory = paths.container(found.record.id)
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
    _tell("pause", found)


def unpause(paths: Paths, text: str) -> None:
    """Let the processes of a paused container go on.  Raises Conflict, Unsupported."""
    found = get(paths, text)
    if found.state != "running" or not is_paused(paths, found):
        raise Conflict(f"container {found.record.name} is not paused")
    _on_scope(paths, found, freeze=False)
    _tell("unpause", found)


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


def remove(
    paths: Paths,
    names: list[str],
    *,
    force: bool,
    reporter: Reporter,
    volumes: bool = False,
    timeout_s: float | None = None,
) -> None:
    """Remove containers by name, id or unique id prefix; force ends running ones first.

    volumes: their anonymous volumes too.  timeout_s: how long forced ones may take to stop; None:
    they are killed at once.

    Raises NotFound, Conflict for a running one without force.
    """
    from rootlesspy.engine import storage

    for name in names:
        container_id = record.find(paths, name)
        found = record.load(paths, container_id)
        if found is None or found.state == "broken":
            _remove_broken(paths, container_id, force=force)
            continue
        if found.state == "running" or record.is_locked(paths.container(container_id)):
            if not force:
                raise Conflict(
                    f"container {found.record.name} is running",
                    hint=f"stop it first, or: rp rm -f {found.record.name}",
                )
            _end(paths, found, timeout_s, reporter)
        _call_off_restart(paths, found)
        lock_fd = _lock_to_remove(paths, found)
        if lock_fd is not None:
            # First: a unit that starts a container which is gone would fail at each login.
            _forget_unit(paths, found, reporter)
            storage.remove(paths, found.record, volumes=volumes)
            os.close(lock_fd)
            _forget_service(paths, found)


def _tell(kind: str, found: Container, **attributes: object) -> None:
    from rootlesspy.engine.output import events

    events.emit(kind, found.record, **attributes)


def _call_off_restart(paths: Paths, found: Container) -> bool:
    """Stop the service of a container that has ended, should systemd start it again; say whether.

    It may have ended by itself just before it was asked to.
    """
    from rootlesspy.engine.supervision import service
    from rootlesspy.systemd import bus, scope

    if found.record.restart == "no":
        return False
    name = service.unit_name(found.record.name)
    try:
        connection = _bus(paths)
    except Error:
        # Without a manager nobody restarts it.
        return False
    try:
        state = connection.unit_properties(name, bus.UNIT, ("ActiveState",)).get("ActiveState")
        limit_s = found.record.stop_timeout_s + _STOP_MARGIN_S
        return state not in ("inactive", "failed") and scope.stop(connection, name, limit_s)
    finally:
        connection.close()


def _forget_unit(paths: Paths, found: Container, reporter: Reporter) -> None:
    """Remove the unit file of a container that is removed, and say so."""
    from rootlesspy.engine import autostart

    if autostart.forget(paths, found.record):
        reporter.notice(f"the unit file of container {found.record.name} is removed too")


def _forget_service(paths: Paths, found: Container) -> None:
    """Take a failed service of a removed container out of systemd's list."""
    from rootlesspy.engine.supervision import service
    from rootlesspy.systemd import service as unit

    if found.exit is None or found.exit.exit_code == 0:
        return
    try:
        connection = _bus(paths)
        try:
            unit.reset_failed(connection, service.unit_name(found.record.name))
        finally:
            connection.close()
    except Error:
        # Without a manager there is no list.
        return


def _lock_to_start(paths: Paths, text: str) -> tuple[Container, int | None]:
    """Take a container's lock; None when it runs already.  Raises Conflict when it is busy."""
    found = get(paths, text)
    directory = paths.container(found.record.id)
    try:
        lock_fd = record.lock(directory)
    except FileNotFoundError:
        raise NotFound(f"no container with name or id {text!r}") from None
    if lock_fd is not None:
        return get(paths, text), lock_fd
    if found.state == "running":
        if is_paused(paths, found):
            name = found.record.name
            raise Conflict(f"container {name} is paused", hint=f"rp unpause {name}")
        return found, None
    raise Conflict(f"container {found.record.name} is being started, stopped or removed")


def _lock_to_remove(paths: Paths, found: Container) -> int | None:
    """Take the lock of a container that is to go; None when it is gone.

    Raises Conflict when somebody started it meanwhile.
    """
    try:
        lock_fd = record.lock(paths.container(found.record.id))
    except FileNotFoundError:
        return None
    if lock_fd is None:
        raise Conflict(f"container {found.record.name} was started meanwhile")
    return lock_fd


def _supervisor(paths: Paths, found: Container) -> socket.socket | None:
    """Connect to a container's supervisor, which may only be about to listen.

    None: nobody holds the container, or whoever does so is no supervisor.
    """
    directory = paths.container(found.record.id)
    limit_s = time.monotonic() + _STOP_MARGIN_S
    while True:
        end = control.connect(paths, found.record.id)
        if end is not None or not record.is_locked(directory) or time.monotonic() > limit_s:
            return end
        time.sleep(_BRIEF_S)


def _stop_unattended(paths: Paths, found: Container, reporter: Reporter) -> bool:
    """Stop a container without a supervisor that answers: it has ended, most likely."""
    directory = paths.container(found.record.id)
    if not record.is_locked(directory):
        return _call_off_restart(paths, found)
    _kill(paths, found, reporter)
    return True


def _await_end(end: socket.socket, found: Container, limit_s: float) -> None:
    end.settimeout(limit_s)
    try:
        while control.receive(end) is not None:
            pass
    except TimeoutError:
        raise Error(
            f"container {found.record.name} does not end",
            hint="a process in uninterruptible sleep? see: ps -eo pid,stat,wchan,cmd",
        ) from None


def _end(paths: Paths, found: Container, timeout_s: float | None, reporter: Reporter) -> None:
    """End a running container, politely when there is time."""
    if timeout_s:
        stop(paths, found.record.id, timeout_s, reporter)
        return
    end = _supervisor(paths, found)
    if end is None:
        _kill(paths, found, reporter)
        return
    try:
        thaw(paths, found)
        control.tell(end, "stop", timeout_s=0, reason="kill")
        _await_end(end, found, _KILL_TIMEOUT_S)
    finally:
        end.close()
    record.wait_unlocked(paths.container(found.record.id), _KILL_TIMEOUT_S)


def _kill(paths: Paths, found: Container, reporter: Reporter) -> None:
    """Kill a container and wait until its supervisor has cleaned up.

    Raises Error when that does not happen in time.
    """
    from rootlesspy.engine import storage

    reporter.step(f"kill {found.record.name}")
    directory = paths.container(found.record.id)
    storage.kill_payload(directory)
    if not record.wait_unlocked(directory, _KILL_TIMEOUT_S):
        raise Error(
            f"container {found.record.name} does not end",
            hint="a process in uninterruptible sleep? see: ps -eo pid,stat,wchan,cmd",
        )


def _on_scope(paths: Paths, found: Container, *, freeze: bool) -> None:
    """Freeze or thaw the container's scope."""
    from rootlesspy.systemd import scope

    connection = _bus(paths)
    live = record.live_state(paths.container(found.record.id))
    try:
        if live is None or not live.unit:
            raise Conflict(f"container {found.record.name} has no scope: --cgroups=disabled")
        (scope.freeze if freeze else scope.thaw)(connection, live.unit)
    finally:
        connection.close()


def _bus(paths: Paths) -> Bus:
    from rootlesspy.systemd import bus

    return bus.connect(os.path.dirname(paths.require_runtime()))


def _remove_broken(paths: Paths, container_id: str, *, force: bool) -> None:
    from rootlesspy.engine import storage

    if not force:
        raise Conflict(
            f"container {container_id[:12]} is damaged", hint=f"rp rm -f {container_id[:12]}"
        )
    storage.remove_damaged(paths, container_id)
