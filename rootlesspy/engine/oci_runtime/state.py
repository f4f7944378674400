"""What is kept of each container of `rp oci`: one directory below --root.

    ROOT/ID/state.json    this record      ROOT/ID/config.json   the bundle's, as it was at create
    ROOT/ID/start         init listens here until it is started

The directory is locked by whoever makes or removes the container; one without state.json is
half-made.  The status is never written down: the kernel is asked (runtime-spec runtime.md "State").
"""

from __future__ import annotations

import fcntl
import os

from rootlesspy.engine.oci_runtime import jsontext
from rootlesspy.errors import Conflict, Error, NotFound, RuntimeFailure, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import procfs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.oci.runtime_spec import Spec

FORMAT_VERSION = 1
_ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-")
_ID_LENGTH = 1024
_FILES = ("start", "config.json", "state.json")


class DamagedError(Error):
    """A state.json cannot be understood."""


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
        return "paused" if self._is_frozen() else "running"

    def limited_path(self) -> str:
        """Return the directory of the cgroup with its limits: the scope, whose processes are below.

        Empty without a cgroup.
        """
        above, name = os.path.split(self.cgroup_path)
        return above if self.unit and name == "payload" else self.cgroup_path

    def _is_frozen(self) -> bool:
        """Say whether its cgroup is frozen, or one above it."""
        if not self.cgroup_path:
            return False
        try:
            with open(f"{self.cgroup_path}/cgroup.events", encoding="ascii") as file:
                return "frozen 1" in file.read().splitlines()
        except OSError:
            return False


class Place:
    """The directory of all containers, and that of one."""

    def __init__(self, root: str) -> None:
        self.root = root

    def directory(self, container_id: str) -> str:
        """Return the directory of one container.  Raises UsageError for an impossible id."""
        possible = 0 < len(container_id) <= _ID_LENGTH and _ID_CHARACTERS.issuperset(container_id)
        if not possible or container_id in (".", ".."):
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
            # Half-made by a process that was killed, or whole, or just being made.
            pass
        held = lock(directory)
        if held >= 0 and not os.path.exists(f"{directory}/state.json"):
            return directory, held
        if held >= 0:
            os.close(held)
        raise Conflict("container with given ID already exists")

    def load(self, container_id: str) -> tuple[str, Container]:
        """Return a container's directory and record.  Raises NotFound, DamagedError."""
        directory = self.directory(container_id)
        path = f"{directory}/state.json"
        try:
            fields = jsontext.loads(_read(path))
            if not isinstance(fields, dict) or fields.pop("version", None) != FORMAT_VERSION:
                raise DamagedError(f"{path} is damaged, or of another rp-oci")
            return directory, Container(**fields)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound("container does not exist") from None
        except (ValueError, RecursionError, TypeError) as error:
            raise DamagedError(f"{path} is damaged: {error}") from error

    def config(self, directory: str) -> Spec:
        """Return the config.json that a container was made from.  Raises RuntimeFailure."""
        try:
            spec: Spec = without_nulls(jsontext.loads(_read(f"{directory}/config.json")))  # type: ignore[assignment]  # checked by create
        except (OSError, ValueError, RecursionError) as error:
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
            except (NotFound, DamagedError, UsageError):
                continue
        return found

    def remove(self, container_id: str) -> None:
        """Remove a container's directory; none is fine."""
        directory = self.directory(container_id)
        # state.json as the last: until then `delete` can be repeated.
        for name in _FILES:
            try:
                os.unlink(f"{directory}/{name}")
            except (FileNotFoundError, NotADirectoryError):
                continue
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError:
            # What is in it is not ours; a debris of a killed create, or somebody's own.
            _remove_tree(self.root, os.path.basename(directory))


def save(directory: str, container: Container) -> None:
    """Write a container's record: it is never there half."""
    temporary = f"{directory}/state.json.{os.getpid()}.tmp"
    with open(temporary, "x", encoding="ascii") as file:
        file.write(jsontext.dumps({"version": FORMAT_VERSION, **container._asdict()}))
    os.rename(temporary, f"{directory}/state.json")


def without_nulls(value: object) -> object:
    """Leave out keys whose value is null: encoders of Go write them for what is not there."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _remove_tree(root: str, name: str) -> None:
    from rootlesspy.linux import pathrs

    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        pathrs.remove_tree(fd, name)
    finally:
        os.close(fd)


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
    if status == "stopped":
        del whole["pid"]
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
