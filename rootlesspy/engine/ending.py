"""How containers end when their users want it: stopped, started again, removed."""

from __future__ import annotations

import os
import time

from rootlesspy.engine import lifecycle, record
from rootlesspy.engine.supervision import control
from rootlesspy.errors import Conflict, Error
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from rootlesspy.engine.record import Container
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_KILL_TIMEOUT_S = 10.0
# What a supervisor needs beyond the stop timeout to record the end and to clean up.
_STOP_MARGIN_S = 10.0
_BRIEF_S = 0.02


def stop(
    paths: Paths, text: str, timeout_s: float | None, reporter: Reporter, reason: str = "stop"
) -> bool:
    """Stop a container: its stop signal, SIGKILL after timeout_s (None: its own timeout).

    Say whether it ran.  Raises Error when it does not end.
    """
    found = lifecycle.get(paths, text)
    limit_s = found.record.stop_timeout_s if timeout_s is None else timeout_s
    end = _supervisor(paths, found)
    if end is None:
        return _stop_unattended(paths, found, reporter)
    try:
        lifecycle.thaw(paths, found)
        reporter.step(f"stop {found.record.name}")
        control.tell(end, "stop", timeout_s=limit_s, reason=reason)
        _await_end(end, found, limit_s + _STOP_MARGIN_S)
    finally:
        end.close()
    lifecycle.tell("stop", found)
    ended = record.wait_unlocked(paths.container(found.record.id), _STOP_MARGIN_S)
    _call_off_restart(paths, found)
    return ended


def restart(paths: Paths, text: str, timeout_s: float | None, reporter: Reporter) -> None:
    """Stop a container, if it runs, and start it.  Raises Error as stop() and start()."""
    stop(paths, text, timeout_s, reporter)
    lifecycle.start(paths, text, reporter)
    lifecycle.tell("restart", lifecycle.get(paths, text))


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
        storage.refuse_mounts(paths, container_id, found.record.name if found else name)
        if found is None or found.state == "broken":
            _remove_broken(paths, container_id, force=force)
            continue
        if found.state == "running" or record.is_locked(paths.container(container_id)):
            if not force and not record.has_left(paths, container_id):
                raise Conflict(
                    f"container {found.record.name} is running",
                    hint=f"stop it first, or: rp rm -f {found.record.name}",
                )
            _refuse_while_shared(paths, found)
            if force:
                _end(paths, found, timeout_s, reporter)
        _refuse_while_shared(paths, found)
        _call_off_restart(paths, found)
        lock_fd = _lock_to_remove(paths, found)
        if lock_fd is not None:
            # First: a unit that starts a container which is gone would fail at each login.
            _forget_unit(paths, found, reporter)
            storage.remove(paths, found.record, volumes=volumes)
            os.close(lock_fd)
            _forget_service(paths, found)


def _refuse_while_shared(paths: Paths, found: Container) -> None:
    """Raise Error while other containers share namespaces of this one, as podman does."""
    if os.path.lexists(f"{paths.container(found.record.id)}/{record.SHARERS}"):
        from rootlesspy.engine.pods import sharing

        sharing.refuse_removal(paths, found.record)


def _call_off_restart(paths: Paths, found: Container) -> bool:
    """Stop the service of a container that has ended, should systemd start it again; say whether.

    It may have ended by itself just before it was asked to.
    """
    from rootlesspy.engine import names
    from rootlesspy.systemd import bus, scope

    if found.record.restart == "no":
        return False
    name = names.service(found.record.name)
    try:
        connection = lifecycle.user_bus(paths)
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
    from rootlesspy.engine import names

    name = names.service(found.record.name)
    has_failed = found.exit is not None and found.exit.exit_code != 0
    # One that was killed before the payload ran has no exit record.
    if has_failed or name in _transient_units(paths):
        _reset_failed(paths, [name])


def forget_failed(paths: Paths) -> None:
    """Take failed services out of systemd's list whose owners are gone.

    What removed the owners was killed before it came to that.
    """
    left = []
    for unit in _transient_units(paths):
        name, is_service, _ = unit.removeprefix("rp-").partition(".service")
        owners = (
            f"{paths.names}/{name}",
            f"{paths.networks}/{name.removeprefix('network-')}.json",
            f"{paths.pods}/{name.removeprefix('pod-')}",
        )
        if is_service and not any(map(os.path.lexists, owners)):
            left.append(unit)
    if left:
        _reset_failed(paths, left)


def _transient_units(paths: Paths) -> list[str]:
    """Return rp's units that are loaded without a unit file; systemd keeps one for each."""
    if paths.runtime is None:
        return []
    try:
        listed = os.listdir(f"{os.path.dirname(paths.runtime)}/systemd/transient")
    except OSError:
        return []
    return [name for name in listed if name.startswith("rp-")]


def _reset_failed(paths: Paths, units: list[str]) -> None:
    from rootlesspy.systemd import service

    try:
        connection = lifecycle.user_bus(paths)
        try:
            for unit in units:
                service.reset_failed(connection, unit)
        finally:
            connection.close()
    except Error:
        # Without a manager there is no list.
        return


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
        lifecycle.thaw(paths, found)
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


def _remove_broken(paths: Paths, container_id: str, *, force: bool) -> None:
    from rootlesspy.engine import storage

    if not force:
        raise Conflict(
            f"container {container_id[:12]} is damaged", hint=f"rp rm -f {container_id[:12]}"
        )
    storage.remove_damaged(paths, container_id)
