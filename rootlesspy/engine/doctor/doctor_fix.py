"""`rp doctor --fix`: what a user may repair for himself, nothing that could lose anything."""

from __future__ import annotations

import os
import time

from rootlesspy.engine.doctor import doctor
from rootlesspy.errors import Error, Unsupported
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.systemd import bus, logind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.engine.doctor.doctor import Machine, Report

_BUS_TIMEOUT_S = 5.0


class Attempt(NamedTuple):
    """One thing that was tried."""

    check: str
    done: bool
    message: str


def repair(environment: Mapping[str, str], report: Report) -> list[Attempt]:
    """Try to repair whatever in a report a user can; say what was done and what was not."""
    machine = doctor.machine_of(environment)
    attempts = []
    for name, finding in report.items():
        repairer = REPAIRS.get(finding.own)
        if repairer is None:
            continue
        try:
            attempts.append(Attempt(name, done=True, message=repairer(machine)))
        except (Error, OSError) as error:
            attempts.append(Attempt(name, done=False, message=str(error)))
    return attempts


def _linger(_machine: Machine) -> str:
    logind.enable_linger()
    return "your user manager stays when you log out"


def _start_bus(machine: Machine) -> str:
    """Have the user manager, by its private socket, make the bus socket again."""
    directory = machine.runtime_dir
    connection = bus.connect(directory, private=True)
    try:
        # It believes that the socket whose file is gone still listens: stopped first.
        connection.call("StopUnit", "ss", "dbus.socket", "replace")
        connection.call("RestartUnit", "ss", "dbus.socket", "replace")
    finally:
        connection.close()
    deadline_s = time.monotonic() + _BUS_TIMEOUT_S
    while not os.path.exists(f"{directory}/bus"):
        if time.monotonic() > deadline_s:
            raise Unsupported(f"dbus.socket was started, but made no {directory}/bus")
        time.sleep(0.05)
    return "dbus.socket was started again"


def _private_runtime(machine: Machine) -> str:
    return _close(machine.runtime_dir or "")


def _private_store(machine: Machine) -> str:
    return _close(machine.paths.data if machine.paths else "")


def _forget_overlay(machine: Machine) -> str:
    path = f"{machine.paths.cache}/overlay.json" if machine.paths else ""
    os.unlink(path)
    return f"{path} was removed"


def _close(path: str) -> str:
    os.chmod(path, 0o700)
    return f"{path} is closed to others"


REPAIRS = {
    "linger": _linger,
    "start-bus": _start_bus,
    "private-runtime": _private_runtime,
    "private-store": _private_store,
    "forget-overlay": _forget_overlay,
}
