"""Pods on disk: one directory each, named as the pod, so that making it reserves the name.

$XDG_DATA_HOME/rootlesspy/pods/NAME/pod.json      what was asked (Pod)
                                    members/ID    a link per container, counts while that exists
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from rootlesspy.engine import names, record, reservation, statefile
from rootlesspy.errors import Conflict, NotFound
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from rootlesspy.engine.record import Container
    from rootlesspy.paths import Paths

KINDS = {"net": "network", "ipc": "ipc", "uts": "uts", "pid": "pid"}
"""What --share names, and the spec's names of it."""
SHARED = ("ipc", "network", "uts")
"""What is shared unless something else is asked for."""


class Pod(NamedTuple):
    """What one pod is; never changes."""

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
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        raise Conflict(
            f"name {pod.name!r} is in use by a pod", hint=f"rp pod rm {pod.name}"
        ) from None
    statefile.write(f"{path}/pod.json", pod._asdict(), durable=True)


def find(paths: Paths, text: str) -> Pod:
    """Return the pod with this name, id or unique id prefix.  Raises NotFound, Conflict."""
    if "/" not in text and text and (found := _load(paths, text)) is not None:
        return found
    fitting = [each for each in everything(paths) if text and each.id.startswith(text)]
    if len(fitting) > 1:
        raise Conflict(f"pod id {text} is not unique: {len(fitting)} begin with it")
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
    """Note that a container belongs to the pod.  Raises OSError."""
    members = f"{paths.pods}/{pod.name}/members"
    os.makedirs(members, mode=0o700, exist_ok=True)
    os.symlink(paths.container(container_id), f"{members}/{container_id}")


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
    """Forget a pod without members; its runtime directory too."""
    shutil.rmtree(f"{paths.pods}/{pod.name}", ignore_errors=True)
    if paths.runtime is not None:
        shutil.rmtree(paths.container_runtime(pod.id), ignore_errors=True)


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
        value = statefile.read(f"{paths.pods}/{name}/pod.json")
        return Pod(**{field: value[field] for field in Pod._fields if field in value})  # type: ignore[arg-type]  # written by create()
    except (OSError, statefile.DamagedError, TypeError):
        return None
