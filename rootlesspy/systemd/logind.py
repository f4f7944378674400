"""logind, on the system bus: what a user may ask of it for himself.  Cold."""

from __future__ import annotations

import os

from rootlesspy.errors import Unsupported
from rootlesspy.light_modules import ctypes
from rootlesspy.systemd import sdbus
from rootlesspy.systemd.bus import Bus, BusError

_SOCKET = "/run/dbus/system_bus_socket"
_LOGIND = "org.freedesktop.login1"
_TIMEOUT_S = 4.0


def enable_linger() -> None:
    """Keep the caller's user manager running after logout (org.freedesktop.login1(5)).

    polkit decides whether a user may, without being asked for a password here.  Raises Unsupported.
    """
    cure = f"as root: loginctl enable-linger {os.getuid()}"
    library = sdbus.load()
    handle = sdbus.Handle()
    sdbus.check(library.sd_bus_new(ctypes.byref(handle)))
    connection = Bus(library, handle, private=False)
    try:
        number = connection.start(_SOCKET, _TIMEOUT_S)
        if number:
            reason = os.strerror(number)
            raise Unsupported(f"the system bus cannot be reached: {reason}", hint=cure)
        cookie = connection.send(
            "SetUserLinger",
            "ubb",
            os.getuid(),
            True,
            False,
            destination=_LOGIND,
            path="/org/freedesktop/login1",
            interface=f"{_LOGIND}.Manager",
        )
        connection.reply(cookie)
    except BusError as error:
        raise Unsupported(f"logind refuses to enable linger: {error.message}", hint=cure) from error
    finally:
        connection.close()
