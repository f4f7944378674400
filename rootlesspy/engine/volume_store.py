"""Volumes on disk: made whole or not at all, found without following links, removed.

    volumes/<name>/_data          what is mounted; its owner and content belong to containers
                   volume.json    the rest of Volume

A volume appears under its name by one rename, still empty, and is filled once, at its first mount
(engine.volume).  Whoever fills it holds flock(2) on its directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from rootlesspy.engine import statefile
from rootlesspy.errors import Conflict, Error, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import pathrs, userns
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths

DATA = "_data"
STAGING_PREFIX = "volume-"
"""Begins the names of half-made things in the store's tmp directory, each locked by its maker."""

_FILE = "volume.json"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 5
_ANONYMOUS_LENGTH = 64
_NAME_LENGTH = 255
_LOCK_TIMEOUT_S = 600.0


class Volume(NamedTuple):
    """One volume, as volume.json has it."""

    name: str
    created_s: float
    """Seconds since the epoch."""
    labels: dict[str, str]
    driver: str = "local"
    anonymous: bool = False
    """Nobody named it: it goes with a --rm container."""
    populated: bool = False
    """It was mounted once: nothing is copied into it any more, even while it is empty."""


class Staging(NamedTuple):
    """A locked directory in the store's tmp directory."""

    path: str
    fd: int


def anonymous_name() -> str:
    """Return a name that nobody would choose, as podman and docker make them."""
    return os.urandom(_ANONYMOUS_LENGTH // 2).hex()


def data_path(paths: Paths, name: str) -> str:
    """Return the directory of a volume that is mounted into containers."""
    return f"{paths.volumes}/{name}/{DATA}"


def create(paths: Paths, volume: Volume) -> bool:
    """Make an empty volume; say False when one of this name is there already.

    Raises UsageError for a name that is none, OSError.
    """
    check_name(volume.name)
    private_directory(paths.volumes)
    for _ in range(_ATTEMPTS):
        try:
            staging = make_staging(paths)
        except FileNotFoundError:
            continue
        try:
            os.mkdir(DATA, 0o755, dir_fd=staging.fd)
            statefile.write(
                f"{staging.path}/{_FILE}", volume._asdict(), durable=not volume.anonymous
            )
            # Atomic, and refused when the name is taken: no volume is ever an empty directory.
            os.rename(staging.path, f"{paths.volumes}/{volume.name}")
        except FileNotFoundError:
            # Swept away before it was locked, when it looked like a dead process's.
            continue
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
        else:
            if not volume.anonymous:
                statefile.sync_directory(paths.volumes)
            _tell("create", volume.name)
            return True
        finally:
            discard(staging)
    raise Conflict(f"volume {volume.name} cannot be made in {paths.tmp}", hint="try again")


def open_volume(paths: Paths, name: str) -> int:
    """Return a descriptor of the directory that holds _data and volume.json.

    Raises FileNotFoundError when there is no such volume, Error when it or its _data is a link or
    otherwise no directory of this user: a container may have put that there.
    """
    check_name(name)
    parent = os.open(paths.volumes, _DIRECTORY)
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _replaced(paths, name) from error
        raise
    finally:
        os.close(parent)
    try:
        data = os.open(DATA, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        os.close(data)
    except OSError as error:
        os.close(fd)
        raise _replaced(paths, name) from error
    if os.fstat(fd).st_uid != os.getuid():
        os.close(fd)
        raise _replaced(paths, name)
    return fd


def read(paths: Paths, name: str) -> Volume:
    """Return what volume.json says.  Raises Error when it cannot be understood."""
    path = f"{paths.volumes}/{name}/{_FILE}"
    try:
        found: Volume = statefile.read_as(Volume, path)
    except (OSError, statefile.DamagedError) as error:
        text = error.message if isinstance(error, Error) else f"{path}: {error.strerror}"
        hint = f"its content is whole: see {data_path(paths, name)}"
        raise statefile.DamagedError(f"volume {name}: {text}", hint=hint) from error
    if found.name != name:
        raise statefile.DamagedError(f"volume {name}: {path} is another volume's")
    return found


def mark_populated(paths: Paths, name: str) -> None:
    """Record that the volume was mounted; keys of a later rp are kept.  Needs the lock."""
    directory = f"{paths.volumes}/{name}"
    path = f"{directory}/{_FILE}"
    for leftover in os.listdir(directory):
        # Of a process that was killed while it wrote.
        if leftover.startswith(f"{_FILE}."):
            os.unlink(f"{directory}/{leftover}")
    statefile.write(path, {**statefile.read(path), "populated": True}, durable=True)


def lock(fd: int, name: str) -> None:
    """Take the lock of a volume's directory; raise Conflict when somebody keeps it too long.

    flock(2) has no time limit of its own, so it is tried in growing steps of up to 50 ms.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    pause_s = 0.001
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Conflict(
                    f"volume {name} is being filled by another rp for {_LOCK_TIMEOUT_S:.0f} s",
                    hint="find it with: pgrep -a rp",
                ) from None
        else:
            return
        time.sleep(pause_s)
        pause_s = min(0.05, pause_s * 2)


def remove_anonymous(paths: Paths, names: tuple[str, ...], maps: IdMaps) -> None:
    """Remove a container's anonymous volumes; what is gone already or has a name is left alone.

    Raises OSError.
    """
    _remove_all(
        paths,
        [name for name in names if is_anonymous_name(name) and _has_no_name(paths, name)],
        maps,
    )


def remove(paths: Paths, name: str, maps: IdMaps) -> None:
    """Remove a volume and all that is in it; one that is gone is no harm.

    Whether a container uses it is the caller's to find out.  Raises UsageError, OSError.
    """
    check_name(name)
    _remove_all(paths, [name], maps)


def _remove_all(paths: Paths, names: list[str], maps: IdMaps) -> None:
    gone = []
    for name in names:
        staging = make_staging(paths)
        gone.append(staging)
        try:
            # Gone for everybody at once; a sweep finishes what a killed removal left.
            os.rename(f"{paths.volumes}/{name}", f"{staging.path}/{name}")
        except FileNotFoundError:
            continue
        _tell("remove", name)
    if not gone:
        return

    def remove_all() -> None:
        for staging in gone:
            for name in os.listdir(staging.fd):
                pathrs.remove_tree(staging.fd, name)

    try:
        remove_all()
    except PermissionError:
        # Files of subordinate ids: only root of a user namespace with those ids may remove them.
        userns.call_in_userns(maps, remove_all)
    finally:
        for staging in gone:
            discard(staging)


def _tell(kind: str, name: str) -> None:
    from rootlesspy.engine.output import events

    events.emit_volume(kind, name)


def is_anonymous_name(name: str) -> bool:
    """Say whether a name looks like one of anonymous_name()'s."""
    return len(name) == _ANONYMOUS_LENGTH and not name.strip("0123456789abcdef")


def make_staging(paths: Paths) -> Staging:
    """Make a locked directory for something half-made; discard() ends it.  Raises OSError."""
    private_directory(paths.tmp)
    path = f"{paths.tmp}/{STAGING_PREFIX}{os.urandom(8).hex()}"
    os.mkdir(path, 0o700)
    fd = os.open(path, _DIRECTORY)
    # At most for the moment in which a sweep looks whether it is locked.
    fcntl.flock(fd, fcntl.LOCK_EX)
    return Staging(path, fd)


def discard(staging: Staging) -> None:
    """Remove what is left of a staging directory; files of subordinate ids stay for the sweep."""
    parent, name = os.path.split(staging.path)
    parent_fd = os.open(parent, _DIRECTORY)
    try:
        pathrs.remove_tree(parent_fd, name)
    except PermissionError:
        pass
    finally:
        os.close(parent_fd)
        os.close(staging.fd)


def _has_no_name(paths: Paths, name: str) -> bool:
    try:
        return read(paths, name).anonymous
    except statefile.DamagedError:
        # Nobody gives 64 hexadecimal digits as a name.
        return os.path.lexists(f"{paths.volumes}/{name}")


def check_name(name: str) -> None:
    """Raise UsageError for a name that no volume can have."""
    plain = all(c.isascii() and (c.isalnum() or c in "_.-") for c in name)
    if not (plain and name[:1].isalnum() and len(name) <= _NAME_LENGTH):
        raise UsageError(
            f"volume name {name!r} is not made of letters, digits, '_', '.' and '-'",
            hint="it begins with a letter or digit; paths begin with / or ./",
        )


def _replaced(paths: Paths, name: str) -> Error:
    return Error(
        f"volume {name} is not what rp made: a link or a file is in its place",
        hint=f"ls -la {paths.volumes}/{name}",
    )
