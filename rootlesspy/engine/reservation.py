"""Names of containers: each a symbolic link names/<name> to an id, made and taken atomically."""

from __future__ import annotations

import errno
import fcntl
import os

from rootlesspy.engine import names
from rootlesspy.errors import Conflict
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.paths import Paths

_NAME_ATTEMPTS = 20


def reserve(paths: Paths, name: str, container_id: str) -> None:
    """Take a name for a container.

    Raises Conflict when another one has it, or a network or pod has its unit.
    """
    for kind, there in (("network", f"{paths.networks}/%s.json"), ("pod", f"{paths.pods}/%s")):
        # rp-network-web.service is the unit of the network web.
        before, begins, rest = name.partition(f"{kind}-")
        if begins and not before and os.path.lexists(there % rest):
            raise Conflict(
                f"container name {name!r}: its unit rp-{name}.service is that of {kind} {rest}",
                hint="choose another --name",
            )
    link = f"{paths.names}/{name}"
    for _ in range(_NAME_ATTEMPTS):
        try:
            os.symlink(container_id, link)
        except FileExistsError:
            holder = _holder(link)
            if holder and os.path.lexists(paths.container(holder)):
                raise Conflict(
                    f"name {name!r} is in use by container {names.short_id(holder)}",
                    hint=f"rp rm {name}, or choose another --name",
                ) from None
            _drop_stale(paths, link, holder)
        else:
            return
    raise Conflict(f"name {name!r} cannot be reserved", hint=f"remove {link}")


def drop_stale(paths: Paths) -> None:
    """Free the names whose containers are gone: their makers or removers were killed."""
    for name in os.listdir(paths.names):
        link = f"{paths.names}/{name}"
        holder = _holder(link)
        if not (holder and os.path.lexists(paths.container(holder))):
            _drop_stale(paths, link, holder)


def free_name(paths: Paths) -> str:
    """Return a random name that is not in use now."""
    for _ in range(_NAME_ATTEMPTS):
        name = names.new_name()
        if not os.path.lexists(f"{paths.names}/{name}"):
            return name
    return f"{names.new_name()}_{os.urandom(3).hex()}"


def release_name(paths: Paths, name: str, container_id: str) -> bool:
    """Free a name if it is this container's and say whether it was."""
    link = f"{paths.names}/{name}"
    try:
        if os.readlink(link) != container_id:
            return False
        os.unlink(link)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise
        return False
    return True


def check_unit(paths: Paths, kind: str, name: str) -> None:
    """Raise Conflict when a container has the unit that a network or pod would have."""
    container = f"{kind}-{name}"
    if os.path.lexists(f"{paths.names}/{container}"):
        raise Conflict(
            f"{kind} name {name!r}: its unit rp-{container}.service is that of container "
            f"{container}",
            hint=f"choose another name, or rp rename {container}",
        )


def _holder(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _drop_stale(paths: Paths, link: str, holder: str) -> None:
    """Remove a name whose container is gone, one process at a time."""
    fd = os.open(paths.names, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _holder(link) == holder and not (holder and os.path.lexists(paths.container(holder))):
            os.unlink(link)
    except FileNotFoundError:
        return
    finally:
        os.close(fd)
