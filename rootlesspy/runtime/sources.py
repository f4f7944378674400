"""What a container mounts of its caller's, opened before its init is somebody else.

Runs in the container's init while it still is the caller, with all rights over the container's ids:
root of a container in which the caller's own ids are not mapped may not go through the caller's
directories.  From here on there are descriptors.
"""

from __future__ import annotations

import os

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TOP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_all(mounts: Sequence[Mapping[str, object]], volumes_directory: str = "") -> dict[str, int]:
    """Open what the spec's mounts bind: O_PATH descriptors by source.  Raises OSError.

    Links on the way to a source are the caller's own and followed, but none below
    volumes_directory: what lies there is made by rp, and a container that was given a volume, or
    the directory around it, may have put one there since the last start (GHSA-8688).
    """
    found: dict[str, int] = {}
    for entry in mounts:
        given = entry.get("options", ())
        options = given if isinstance(given, (list, tuple)) else ()
        source = str(entry.get("source", ""))
        is_bind = entry.get("type") == "bind" or "bind" in options or "rbind" in options
        if not is_bind or source in found:
            continue
        if volumes_directory and source.startswith(f"{volumes_directory}/"):
            found[source] = _open_below(volumes_directory, source)
        else:
            found[source] = os.open(source, os.O_PATH | os.O_CLOEXEC)
    return found


def _open_below(directory: str, path: str) -> int:
    """Open a directory below another one without following a link.  Raises OSError, ENOTDIR."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path[len(directory) + 1 :].split("/"):
            inner = os.open(name, _TOP, dir_fd=fd)
            os.close(fd)
            fd = inner
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, error.strerror, path) from error
    return fd
