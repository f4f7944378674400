"""Pods on disk: one directory each, named as the pod, so that making it reserves the name.

$XDG_DATA_HOME/rootlesspy/pods/NAME/pod.json      what was asked (Pod)
                                    members/ID    a link per container, counts while that exists
"""

from __future__ import annotations

import errno
import os

from rootlesspy.engine import names, record, reservation, statefile
from rootlesspy.errors import Conflict, NotFound
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from rootlesspy.engine.record import Container
    from rootlesspy.paths import Paths

KINDS = {"net": "network", "ipc": "ipc", "uts": "uts", "pid": "pid"}
"""What --share names, and the spec's names of it."""
# Of network.ports.PortMapping.
_PORT_FIELDS = 4
SHARED = ("ipc", "network", "uts")
"""What is shared unless something else is asked for."""


class Pod(NamedTuple):
    """What one pod is; its networks alone may change."""

    id: str
    name: str
    created_s: float
    labels: dict[str, str]
    share: list[str]
    """Kinds of namespaces that the members share, of KINDS' values."""
    infra: bool
    """Its service holds namespaces; without, it is a slice alone."""
    hostname: str
    network: dict[str, object]
    """network.driver.NetworkRequest."""
    ports: list[list[object]]
    resolver: dict[str, list[object]]
    """add_hosts, dns, dns_search, dns_options, as engine.record has them."""
    userns: str
    resources: dict[str, Any]
    """Limits of all members together, as the runtime specification has them."""
    shm_size_bytes: int
    sysctls: dict[str, str]
    exit_policy: str = "continue"
    """continue: it goes on without running members."""
    ignore_missing_limits: bool = False
    id_maps: list[list[list[int]]] = []  # noqa: RUF012 - never written to
    """As engine.record has them."""

    @property
    def unit(self) -> str:
        """The service that holds its namespaces."""
        return f"rp-pod-{self.name}.service"

    @property
    def slice(self) -> str:
        """The slice of its members' scopes.

        A dash would make it a part of another slice (systemd.slice(5)), with whose limits?
        """
        escaped = self.name.replace("-", "\\x2d")
        return f"rp-pod-{escaped}.slice"


def create(paths: Paths, pod: Pod) -> None:
    """Write a new pod.  Raises Conflict when its name is in use, OSError."""
    private_directory(paths.pods)
    path = f"{paths.pods}/{pod.name}"
    if os.path.lexists(f"{paths.names}/{pod.name}"):
        raise Conflict(f"name {pod.name!r} is in use by a container")
    reservation.check_unit(paths, "pod", pod.name)
    private_directory(paths.tmp)
    made = f"{paths.tmp}/pod-{pod.id}"
    lock_fd = record.make_locked(made)
    try:
        statefile.write(f"{made}/pod.json", pod._asdict(), durable=True)
        os.rename(made, path)
        statefile.sync_directory(paths.pods)
    except OSError as error:
        _remove_tree(made)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise Conflict(
            f"name {pod.name!r} is in use by a pod", hint=f"rp pod rm {pod.name}"
        ) from None
    finally:
        os.close(lock_fd)


def find(paths: Paths, text: str) -> Pod:
    """Return the pod with this name, id or unique id prefix.  Raises NotFound, Conflict."""
    if "/" not in text and text and (found := _load(paths, text)) is not None:
        return found
    fitting = [each for each in everything(paths) if text and each.id.startswith(text)]
    if len(fitting) > 1:
        raise Conflict(f"pod id {text} is not unique: {len(fitting)} begin with it")
    if not fitting and names.is_valid(text) and os.path.isdir(f"{paths.pods}/{text}"):
        raise statefile.DamagedError(f"pod {text} is damaged", hint=f"rp pod rm -f {text}")
    if not fitting:
        raise NotFound(f"no pod with name or id {text!r}", hint="rp pod ps lists them")
    return fitting[0]


def everything(paths: Paths) -> list[Pod]:
    """Return all pods, newest first."""
    try:
        listed = os.listdir(paths.pods)
    except FileNotFoundError:
        return []
    found = (_load(paths, each) for each in listed)
    return sorted((each for each in found if each is not None), key=lambda pod: -pod.created_s)


def enlist(paths: Paths, pod: Pod, container_id: str) -> None:
    """Note that a container belongs to the pod.  Raises Conflict for one that is gone, OSError."""
    members = f"{paths.pods}/{pod.name}/members"
    try:
        # Not what is above it: a pod that was removed meanwhile would be half there again.
        os.mkdir(members, mode=0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise Conflict(f"pod {pod.name} was removed meanwhile") from None
    os.symlink(paths.container(container_id), f"{members}/{container_id}")


def delist(paths: Paths, pod_id: str, container_id: str) -> None:
    """Note that a container is gone; a pod that is gone too is no harm."""
    for pod in everything(paths):
        if pod.id == pod_id:
            try:
                os.unlink(f"{paths.pods}/{pod.name}/members/{container_id}")
            except FileNotFoundError:
                return


def members_changed_ns(paths: Paths, name: str) -> int:
    """Return when a container joined the pod of this name, left it or was renamed."""
    try:
        return os.stat(f"{paths.pods}/{name}/members").st_mtime_ns
    except FileNotFoundError:
        return 0


def note_rename(paths: Paths, pod_id: str) -> None:
    """Have whoever asks for the members' names look again."""
    for pod in everything(paths):
        if pod.id == pod_id:
            os.utime(f"{paths.pods}/{pod.name}/members")


def save(paths: Paths, pod: Pod) -> None:
    """Write a pod anew whose networks have changed.  Raises OSError."""
    statefile.write(f"{paths.pods}/{pod.name}/pod.json", pod._asdict(), durable=True)


def hold(paths: Paths, pod: Pod) -> int:
    """Lock a pod's directory, as its service does while it runs.  Raises Conflict, OSError.

    Returns the descriptor, which holds it.
    """
    fd = record.lock(f"{paths.pods}/{pod.name}")
    if fd is None:
        raise Conflict(f"pod {pod.name} is held by another service")
    return fd


def is_held(paths: Paths, name: str) -> bool:
    """Say whether the service of the pod of this name runs."""
    return record.is_locked(f"{paths.pods}/{name}")


def members(paths: Paths, pod: Pod) -> list[Container]:
    """Return the containers of a pod, oldest first."""
    try:
        listed = os.listdir(f"{paths.pods}/{pod.name}/members")
    except FileNotFoundError:
        return []
    found = (record.load(paths, each) for each in listed)
    return sorted(
        (each for each in found if each is not None and each.record.pod == pod.id),
        key=lambda each: each.record.created_s,
    )


def remove(paths: Paths, pod: Pod) -> None:
    """Forget a pod without members; its runtime directory too.  Raises OSError."""
    private_directory(paths.tmp)
    gone = f"{paths.tmp}/removed-{pod.id}"
    try:
        # At once for everybody; engine.leftovers finishes what is killed here.
        os.rename(f"{paths.pods}/{pod.name}", gone)
    except FileNotFoundError:
        pass
    if paths.runtime is not None:
        # Before what tells engine.leftovers whose it is.
        _remove_tree(paths.container_runtime(pod.id))
    _remove_tree(gone)


def remove_damaged(paths: Paths, name: str) -> bool:
    """Remove a pod whose file cannot be understood; say whether it was one.  Its members stay."""
    path = f"{paths.pods}/{name}"
    if not names.is_valid(name) or not os.path.isdir(path) or _load(paths, name) is not None:
        return False
    _remove_tree(path)
    return True


def new_name(paths: Paths) -> str:
    """Return a random name that no pod and no container has now."""
    while True:
        name = reservation.free_name(paths)
        if not os.path.lexists(f"{paths.pods}/{name}"):
            return name


def new_id() -> str:
    """Return a new id."""
    return names.new_id()


def _load(paths: Paths, name: str) -> Pod | None:
    try:
        found: Pod = statefile.read_as(Pod, f"{paths.pods}/{name}/pod.json")
    except (OSError, statefile.DamagedError):
        return None
    are_ports = all(len(each) == _PORT_FIELDS for each in found.ports)
    return found if are_ports and found.name == name else None


def _remove_tree(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
