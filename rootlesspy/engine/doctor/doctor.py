"""`rp doctor`: is this machine fit for `rp run`, and if not, what would make it so?

A check looks at one thing and returns one Finding, by trying where trying is possible.  It changes
nothing, never raises, and says "skipped" where an earlier check already tells the cause, so that
one defect is one failed row.  docs/doctor.md explains each; a test holds it to CHECKS.
"""

from __future__ import annotations

import os
import shlex

from rootlesspy import paths as locations
from rootlesspy.engine import idmap
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.paths import Paths

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"


class Finding(NamedTuple):
    """What one check found."""

    status: str
    """ok, warning (rp run works, something is missing), failed (it does not), skipped."""
    message: str
    cure: str = ""
    """In words, for whoever has to do it."""
    root: str = ""
    """The cure as a shell command for root."""
    packages: tuple[str, ...] = ()
    """Debian's names of packages that are missing."""
    own: str = ""
    """What --fix can do about it: a name of engine.doctor.doctor_fix."""


class Machine(NamedTuple):
    """What the checks start from."""

    environment: Mapping[str, str]
    user: str
    paths: Paths | None
    """None: there is no home directory to put anything in."""
    problem: Error | None
    """Why the directories are not what the environment says."""

    @property
    def runtime_dir(self) -> str | None:
        """The user's own runtime directory."""
        if self.paths is None or self.paths.runtime is None:
            return None
        return os.path.dirname(self.paths.runtime)


class Check(NamedTuple):
    """One row."""

    name: str
    """Stable: scripts and docs/doctor.md refer to it."""
    why: str
    """What containers need it for."""
    look: Callable[[Machine, Report], Finding]


Report = dict[str, Finding]
"""The findings so far, by the names of their checks, in their order."""


def examine(environment: Mapping[str, str]) -> Report:
    """Make all checks and return what they found."""
    machine = machine_of(environment)
    report: Report = {}
    for check in checks():
        try:
            report[check.name] = check.look(machine, report)
        except (Error, OSError) as error:
            # Nothing that a check expects: still a row, and no reason to leave the others out.
            report[check.name] = Finding(FAILED, f"cannot be examined: {error}")
    return report


def checks() -> tuple[Check, ...]:
    """Return all checks, those first that others depend on."""
    from rootlesspy.engine.doctor import (
        doctor_ids,
        doctor_network,
        doctor_session,
        doctor_storage,
        doctor_system,
    )

    rooms = (doctor_system, doctor_session, doctor_ids, doctor_storage, doctor_network)
    return tuple(check for room in rooms for check in room.CHECKS)


def machine_of(environment: Mapping[str, str]) -> Machine:
    """Find the user's directories even where the environment is wrong about them."""
    user = idmap.user_name()
    try:
        return Machine(environment, user, locations.from_environment(environment), None)
    except Error as error:
        problem = error
    # The checks behind it are about the user's real runtime directory.
    rest = {name: text for name, text in environment.items() if name != "XDG_RUNTIME_DIR"}
    try:
        return Machine(environment, user, locations.from_environment(rest), problem)
    except Error as error:
        return Machine(environment, user, None, error)


def would_run(report: Report) -> bool:
    """Say whether `rp run` would work: no check failed."""
    return all(finding.status != FAILED for finding in report.values())


def root_command(report: Report) -> str:
    """Return one line for a root shell that does everything root has to do; "" when nothing."""
    packages = list(dict.fromkeys(name for each in report.values() for name in each.packages))
    commands = [install_command(tuple(packages))] if packages else []
    commands += (finding.root for finding in report.values() if finding.root)
    return "; ".join(dict.fromkeys(commands))


def as_root(command: str) -> str:
    """Write a root command as the user types it."""
    from shutil import which

    become = "sudo sh" if which("sudo") else "su"
    return f"{become} -c {shlex.quote(command)}"


def install_command(packages: tuple[str, ...]) -> str:
    """Return how this distribution installs packages that Debian calls so."""
    import platform

    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    families = f"{release.get('ID', '')} {release.get('ID_LIKE', '')}".split()
    for family, (command, names) in _INSTALLERS.items():
        if family in families:
            found = dict.fromkeys(names.get(name, name) for name in packages)
            return f"{command} {' '.join(found)}"
    return f"apt-get install -y {' '.join(packages)}"


def command_for_root(hint: str | None) -> str:
    """Return the command of a hint that says "as root: COMMAND"; "" when it does not."""
    return (hint or "").partition("as root: ")[2]


def skipped(report: Report, *names: str) -> Finding | None:
    """Return a skipped row when one of the named checks did not succeed, else None."""
    for name in names:
        if name in report and report[name].status in (FAILED, SKIPPED):
            return Finding(SKIPPED, f"not tried, because of {name}")
    return None


# os-release(5) ID and ID_LIKE → the command, and names that differ from Debian's.
_INSTALLERS: dict[str, tuple[str, dict[str, str]]] = {
    "debian": ("apt-get install -y", {}),
    "fedora": (
        "dnf install -y",
        {
            "uidmap": "shadow-utils-subid",
            "dbus-user-session": "dbus-broker",
            "libseccomp2": "libseccomp",
            "libsystemd0": "systemd-libs",
        },
    ),
    "suse": (
        "zypper install -y",
        {
            "uidmap": "shadow",
            "dbus-user-session": "dbus-1-daemon",
            "libseccomp2": "libseccomp2",
            "libsystemd0": "libsystemd0",
        },
    ),
    "arch": (
        "pacman -S --needed --noconfirm",
        {
            "uidmap": "shadow",
            "dbus-user-session": "dbus",
            "libseccomp2": "libseccomp",
            "libsystemd0": "systemd-libs",
        },
    ),
}
