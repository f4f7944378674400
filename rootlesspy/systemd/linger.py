"""Whether the user manager, and with it every detached container, outlives the last logout.

systemd-logind keeps one file per user who lingers (loginctl(1), enable-linger); asking it over the
bus would cost a connection for what one stat(2) says.
"""

from __future__ import annotations

import os

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.paths import Paths

DIRECTORY = "/var/lib/systemd/linger"
# sd-login(3) tells by it whether logind runs: without it nobody ends the user manager.
_LOGIND = "/run/systemd/seats"


def is_on() -> bool:
    """Say whether the caller's user manager stays after logout."""
    # Imported here: passwd is read for detached containers alone.
    import pwd

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return False
    return os.path.exists(f"{DIRECTORY}/{name}")


def warning(paths: Paths) -> str | None:
    """Return what to tell once, when a detached container would end with the session.

    Once per user: a file in the cache directory remembers it until linger is on.  Never raises.
    """
    if not os.path.isdir(_LOGIND):
        return None
    marker = paths.linger_told
    try:
        if is_on():
            if os.path.exists(marker):
                os.unlink(marker)
            return None
        os.makedirs(os.path.dirname(marker), 0o700, exist_ok=True)
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        # Told already, or there is no place to remember it.
        return None
    return "containers stop when you log out; to keep them: loginctl enable-linger (told once)"
