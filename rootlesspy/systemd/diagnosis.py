"""Why the user manager cannot be reached, each cause with its own line and cure.

Imported only once a connection has failed, and by the host checks.
"""

from __future__ import annotations

import errno
import os

from rootlesspy.errors import Unsupported

_BOOTED = "/run/systemd/system"


def explain(
    runtime_dir: str | None, number: int, *, private: bool = False, timeout_s: float = 0
) -> Unsupported:
    """Return the error to raise after connecting to the user manager failed with errno number."""
    uid = os.getuid()
    socket = f"{runtime_dir}/systemd/private" if private else f"{runtime_dir}/bus"
    if not os.path.isdir(_BOOTED):
        return Unsupported(
            "systemd is not running on this machine, so there is no user manager",
            hint="boot with systemd, or pass --cgroups=disabled to run without a scope and limits",
        )
    if runtime_dir is None:
        return Unsupported(
            "no user session: XDG_RUNTIME_DIR is not set (cron, su and sudo do that)",
            hint=f"log in, or as root: loginctl enable-linger {uid}",
        )
    owner = _owner(runtime_dir)
    if owner is None:
        return Unsupported(
            f"no user session: {runtime_dir} does not exist",
            hint=f"log in, or as root: loginctl enable-linger {uid}",
        )
    if owner != uid or number in (errno.EACCES, errno.EPERM):
        return Unsupported(
            f"{socket} belongs to uid {owner} and does not let uid {uid} in",
            hint="log in as this user (machinectl shell USER@), do not use su or sudo",
        )
    return _broken(runtime_dir, socket, number, private=private, timeout_s=timeout_s)


def _broken(
    runtime_dir: str, socket: str, number: int, *, private: bool, timeout_s: float
) -> Unsupported:
    """Tell the causes apart that remain when the runtime directory is the user's own."""
    uid = os.getuid()
    if number == errno.ETIMEDOUT:
        who = "the user manager" if private else "the user bus (dbus-daemon or dbus-broker)"
        return Unsupported(
            f"{who} does not answer on {socket} within {timeout_s:g} s",
            hint=f"as root: systemctl status user@{uid}.service",
        )
    if not os.path.exists(f"{runtime_dir}/systemd/private"):
        return Unsupported(
            f"the user manager is not running: {runtime_dir}/systemd/private does not exist",
            hint=f"as root: systemctl start user@{uid}.service && loginctl enable-linger {uid}",
        )
    if not os.path.exists(socket):
        return Unsupported(
            f"the user manager runs without a bus: {socket} does not exist",
            hint="apt install dbus-user-session, then: systemctl --user start dbus.socket",
        )
    if number == errno.ECONNREFUSED:
        return Unsupported(
            f"nobody listens on {socket}: the user manager or its bus has ended",
            hint=f"as root: systemctl restart user@{uid}.service",
        )
    return Unsupported(
        f"cannot connect to the user manager on {socket}: {os.strerror(number)}",
        hint="systemctl --user status",
    )


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None
