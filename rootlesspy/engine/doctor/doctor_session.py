"""Checks of the user's session: runtime directory, user manager, linger, journal."""

from __future__ import annotations

import os
import stat
from shutil import which

from rootlesspy.engine.doctor.doctor import (
    FAILED,
    OK,
    WARNING,
    Check,
    Finding,
    Machine,
    Report,
    command_for_root,
    skipped,
)
from rootlesspy.errors import Error
from rootlesspy.systemd import bus
from rootlesspy.systemd import linger as linger_file

_SYSTEMD = 252
_JOURNALS = ("/var/log/journal", "/run/log/journal")


def session(machine: Machine, _report: Report) -> Finding:
    """See whether there is a runtime directory that is the user's own and private."""
    if machine.problem is not None:
        return Finding(FAILED, machine.problem.message, cure=machine.problem.hint or "")
    directory = machine.runtime_dir
    try:
        if machine.paths is not None:
            machine.paths.require_runtime()
        status = os.stat(directory or "")
    except Error as error:
        return Finding(
            FAILED, error.message, cure=error.hint or "", root=command_for_root(error.hint)
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        return Finding(
            WARNING,
            f"{directory} may be entered by others",
            cure=f"chmod 700 {directory}",
            own="private-runtime",
        )
    return Finding(OK, f"XDG_RUNTIME_DIR is {directory}")


def user_manager(machine: Machine, report: Report) -> Finding:
    """Ask the user manager for its version, by the same bus as rp run."""
    directory = machine.runtime_dir
    # A wrong XDG_RUNTIME_DIR alone says nothing about the manager.
    if (directory is None or not os.path.isdir(directory)) and (
        missing := skipped(report, "systemd", "session")
    ):
        return missing
    try:
        connection = bus.connect(directory)
    except Error as error:
        bus_is_missing = not os.path.exists(f"{directory}/bus")
        has_manager = os.path.exists(f"{directory}/systemd/private")
        return Finding(
            FAILED,
            error.message,
            cure=error.hint or "",
            root="" if bus_is_missing and has_manager else command_for_root(error.hint),
            packages=() if _has_dbus_unit() else ("dbus-user-session",),
            own="start-bus" if bus_is_missing and has_manager else "",
        )
    try:
        version = connection.manager_property("Version")
    finally:
        connection.close()
    number = "".join(character if character.isdigit() else " " for character in version).split()
    if number and int(number[0]) < _SYSTEMD:
        return Finding(WARNING, f"systemd {version} is older than {_SYSTEMD}", cure="upgrade it")
    return Finding(OK, f"systemd {version} answers on {directory}/bus")


def linger(_machine: Machine, _report: Report) -> Finding:
    """See whether the user manager stays when the user logs out."""
    if linger_file.is_on():
        return Finding(OK, "the user manager stays when you log out")
    return Finding(
        WARNING,
        "containers end when you log out",
        cure="loginctl enable-linger",
        root=f"loginctl enable-linger {os.getuid()}",
        own="linger",
    )


def journal(_machine: Machine, _report: Report) -> Finding:
    """See whether the user may read what the journal keeps of containers, and whether it lasts."""
    if not os.path.exists("/run/systemd/journal/socket"):
        return Finding(
            WARNING,
            "the journal does not run: logs are files",
            cure="as root: start it",
            root="systemctl start systemd-journald.socket systemd-journald.service",
        )
    persistent, volatile = (f"{each}/{_machine_id()}" for each in _JOURNALS)
    cure = "as root: keep the journal on disk, which gives each user a part of it"
    root = "mkdir -p /var/log/journal; systemctl restart systemd-journald; journalctl --flush"
    if os.path.isdir(persistent):
        own = f"{persistent}/user-{os.getuid()}.journal"
        if os.path.exists(own) and not os.access(own, os.R_OK):
            return Finding(
                WARNING,
                f"{own} cannot be read: rp logs shows nothing",
                cure="as root: give you the right to read your journal",
                root=f"setfacl -m u:{os.getuid()}:r {own}",
                packages=() if which("setfacl") else ("acl",),
            )
        return Finding(OK, "the journal lasts, and yours can be read")
    if os.access(f"{volatile}/system.journal", os.R_OK):
        return Finding(WARNING, "the journal is lost at the next boot", cure=cure, root=root)
    # Without persistent storage nothing is split by user (journald.conf(5), SplitMode=).
    return Finding(WARNING, "there is no journal that you can read", cure=cure, root=root)


def _machine_id() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


def _has_dbus_unit() -> bool:
    return any(
        os.path.exists(f"{directory}/systemd/user/dbus.socket")
        for directory in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
    )


CHECKS = (
    Check(
        "session", "the runtime directory holds sockets and files of running containers", session
    ),
    Check("user-manager", "a container is a unit of your systemd", user_manager),
    Check("linger", "containers that go on after logout and start at boot", linger),
    Check("journal", "rp logs, journalctl --user", journal),
)
