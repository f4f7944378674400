"""What is kept of each container of `rp oci`: one directory below --root.

    ROOT/ID/state.json    this record      ROOT/ID/config.json   the bundle's, as it was at create
    ROOT/ID/start         init listens here until it is started

The directory is locked by whoever makes or removes the container; one without state.json is
half-made.  The status is never written down: the kernel is asked (runtime-spec runtime.md "State").
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.engine import statefile
from rootlesspy.errors import Conflict, NotFound, RuntimeFailure, Unsupported, UsageError
from rootlesspy.linux import pathrs, procfs
from rootlesspy.systemd import cgroup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.oci.runtime_spec import Spec

_ID = re.compile(r"[A-Za-z0-9_+.-]{1,1024}")


class Container(NamedTuple):
    """One container as state.json has it."""

    id: str
    pid: int
    pid_start: int
    boot_id: str
    oci_version: str
    bundle: str
    rootfs: str
    created: str
    owner: str
    annotations: dict[str, str]
    cgroup_manager: str
    """systemd, cgroupfs, or empty: it is in the cgroup that it was made from."""
    cgroup_path: str
    """Directory of the cgroup that holds its processes; empty without one."""
    unit: str

    def status(self, directory: str) -> str:
        """Return created, running, paused or stopped."""
        if self.boot_id != procfs.boot_id() or not procfs.is_alive(self.pid, self.pid_start):
            return "stopped"
        if os.path.exists(f"{directory}/start"):
            return "created"
        if self.cgroup_path and cgroup.is_frozen(self.pid):
            return "paused"
        return "running"


class Place:
    """The directory of all containers, and that of one."""

    def __init__(self, root: str) -> None:
        self.root = root

    def directory(self, container_id: str) -> str:
        """Return the directory of one container.  Raises UsageError for an impossible id."""
        if not _ID.fullmatch(container_id) or container_id in (".", ".."):
            raise UsageError(f"invalid container ID format: {container_id}")
        return os.path.join(self.root, container_id)

    def make(self, container_id: str) -> tuple[str, int]:
        """Make a container's directory; return it with the descriptor that holds its lock.

        Raises Conflict when the id is taken, OSError.
        """
        directory = self.directory(container_id)
        os.makedirs(self.root, 0o700, exist_ok=True)
        _refuse_open(self.root)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            held = lock(directory)
            if held < 0 or os.path.exists(f"{directory}/state.json"):
                raise Conflict("container with given ID already exists") from None
            # Half-made by a process that was killed.
            return directory, held
        return directory, lock(directory)

    def load(self, container_id: str) -> tuple[str, Container]:
        """Return a container's directory and record.  Raises NotFound, DamagedError."""
        directory = self.directory(container_id)
        try:
            fields = statefile.read(f"{directory}/state.json")
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"container {container_id!r}: container does not exist") from None
        fields.pop("version", None)
        try:
            return directory, Container(**fields)  # type: ignore[arg-type]  # as it was written
        except TypeError as error:
            raise statefile.DamagedError(f"{directory}/state.json: {error}") from error

    def config(self, directory: str) -> Spec:
        """Return the config.json that a container was made from.  Raises RuntimeFailure."""
        try:
            with open(f"{directory}/config.json", encoding="utf-8") as file:
                spec: Spec = json.load(file)
        except (OSError, ValueError) as error:
            raise RuntimeFailure(f"{directory}/config.json: {error}", step="state") from error
        return spec

    def all(self) -> list[tuple[str, Container]]:
        """Return every container, by id; half-made and damaged ones are left out."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            try:
                found.append(self.load(name))
            except (NotFound, statefile.DamagedError, UsageError):
                continue
        return found

    def remove(self, container_id: str) -> None:
        """Remove a container's directory; none is fine."""
        if not os.path.isdir(self.root):
            return
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            pathrs.remove_tree(fd, os.path.basename(self.directory(container_id)))
        finally:
            os.close(fd)


def save(directory: str, container: Container) -> None:
    """Write a container's record."""
    statefile.write(f"{directory}/state.json", container._asdict(), durable=False)


def default_root(environment: Mapping[str, str]) -> str:
    """Return where containers are without --root.  Raises Unsupported."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if not runtime.startswith("/"):
        runtime = f"/run/user/{os.getuid()}"
    if not os.path.isdir(runtime):
        raise Unsupported(
            "no runtime directory: XDG_RUNTIME_DIR is not set", hint="pass --root DIR"
        )
    return f"{runtime}/rootlesspy/oci"


def shown(container: Container, status: str) -> dict[str, object]:
    """Return a container's state as engines and hooks read it."""
    return {
        "ociVersion": container.oci_version,
        "id": container.id,
        "pid": 0 if status == "stopped" else container.pid,
        "status": status,
        "bundle": container.bundle,
        "rootfs": container.rootfs,
        "created": container.created,
        "owner": container.owner,
        **({"annotations": container.annotations} if container.annotations else {}),
    }


def for_hooks(container: Container, status: str) -> dict[str, object]:
    """Return the state that the specification gives to hooks, and to nobody else."""
    kept = ("ociVersion", "id", "status", "pid", "bundle", "annotations")
    whole = shown(container, status)
    return {key: whole[key] for key in kept if key in whole}


def lock(directory: str) -> int:
    """Lock a directory; return the descriptor, -1 when somebody else holds it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    return fd


def _refuse_open(root: str) -> None:
    status = os.stat(root)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise Unsupported(f"{root} is writable for others, or somebody else's")
