"""One small JSON file per thing: written to a temporary name and renamed, never half there.

Read with a size limit; whatever is wrong with a file is a Damaged error that names it, so that one
damaged object leaves all others usable (SECURITY.md D1, D2).
"""

from __future__ import annotations

import json
import os

from rootlesspy.errors import Error

FORMAT_VERSION = 1
_LIMIT_BYTES = 4 * 1024 * 1024


class DamagedError(Error):
    """A state file cannot be understood."""


def write(path: str, value: dict[str, object], *, durable: bool) -> None:
    """Write value with the format version; durable: it and its name survive a power loss.

    Raises OSError; the old content stays whole.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    encoded = json.dumps({"version": FORMAT_VERSION, **value}, separators=(",", ":")).encode()
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(encoded)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        _remove(temporary)
        raise
    if durable:
        sync_directory(os.path.dirname(path))


def read(path: str) -> dict[str, object]:
    """Return the content of a state file.

    Raises FileNotFoundError, OSError, DamagedError (also for a newer format version).
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags)
    try:
        size = os.fstat(fd).st_size
        content = os.read(fd, _LIMIT_BYTES) if size <= _LIMIT_BYTES else b""
    finally:
        os.close(fd)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged", hint="remove the object with rp rm -f") from error
    if not isinstance(value, dict) or not isinstance(value.get("version"), int):
        raise DamagedError(f"{path} is damaged", hint="remove the object with rp rm -f")
    if value["version"] > FORMAT_VERSION:
        raise DamagedError(
            f"{path} was written by a newer rp (format {value['version']})", hint="upgrade rp"
        )
    return value


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
