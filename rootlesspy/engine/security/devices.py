"""Check what --device names before a container is made of it."""

from __future__ import annotations

import os
import stat

from rootlesspy.errors import Error, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootlesspy.engine.inputs.request import Device
    from rootlesspy.report import Reporter

_ACCESS = {"r": os.R_OK, "w": os.W_OK, "m": 0}


def check(devices: Iterable[Device], reporter: Reporter) -> None:
    """Refuse what is no device; say so when the caller may not use it, as the payload then can't.

    Raises Error, UsageError.
    """
    for device in devices:
        try:
            found = os.stat(device.host)
        except OSError as error:
            raise Error(f"--device {device.host}: {error.strerror}") from error
        mode = found.st_mode
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISCHR(mode) and not stat.S_ISBLK(mode):
            raise UsageError(
                f"--device {device.host} is not a device",
                hint=f"for a file: --volume {device.host}:{device.container}",
            )
        wanted = sum(_ACCESS[each] for each in device.access)
        if not os.access(device.host, wanted):
            reporter.notice(
                f"--device {device.host}: you may not open it, so the container cannot: it belongs "
                f"to {_owner(found)}, mode {stat.S_IMODE(mode):04o}"
            )


def _owner(found: os.stat_result) -> str:
    import grp
    import pwd

    try:
        user = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        user = str(found.st_uid)
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return f"{user}:{group}"
