"""Containers in the namespaces of others: --network container:NAME, --ipc, --pid, --uts, --userns.

A namespace belongs to a user namespace, and only its members have rights over it: whoever shares
one is born in that user namespace too, with its id maps.  What a container shares is in its record,
kind by kind, with who provides it: container:ID, pod:ID or ns:PATH.  Providers hold no list of
those who share with them but links in their directory, which count while the container exists.
"""

from __future__ import annotations

import os

from rootlesspy.engine import record
from rootlesspy.engine.inputs.constants import KEEP_GROUPS
from rootlesspy.engine.record import SHARERS
from rootlesspy.errors import Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

_OPTIONS = {
    "ipc": "--ipc",
    "network": "--network",
    "pid": "--pid",
    "user": "--userns",
    "uts": "--uts",
}


class Provider(NamedTuple):
    """Who a namespace comes from."""

    kind: str
    """container, pod or ns."""
    name: str
    """An id, or a path."""


def resolve(request: RunRequest, paths: Paths, reporter: Reporter) -> RunRequest:
    """Find the containers whose namespaces are shared, and take over their id maps.

    Raises NotFound, Conflict for an ambiguous id, UsageError for what does not go together.
    """
    from rootlesspy.engine.pods import membership

    asked = {
        "ipc": request.ipc,
        "pid": request.pid,
        "uts": request.uts,
        "user": request.userns if request.userns.startswith(("container:", "ns:")) else "",
    }
    found = {kind: _provider(paths, text, kind) for kind, text in asked.items() if ":" in text}
    network = request.network
    if network.driver in ("container", "ns"):
        provider = _provider(paths, f"{network.driver}:{network.options[0]}", "network")
        found["network"] = provider
        request = request._replace(network=network._replace(options=(provider.name,)))
    if request.pod:
        request = membership.join(paths, request, found, reporter)
    _refuse_settings(request, found)
    if found and "user" not in found:
        found["user"] = next(iter(found.values()))
    listed = tuple((kind, f"{each.kind}:{each.name}") for kind, each in found.items())
    return _with_maps(paths, request._replace(shares=listed), found)


def provider_of(text: str) -> Provider:
    """Read what a record has."""
    kind, _, name = text.partition(":")
    return Provider(kind, name)


def containers_needed(found: ContainerRecord) -> tuple[str, ...]:
    """Return the ids of the containers without which this one cannot start."""
    providers = dict.fromkeys(found.shares.values())
    return tuple(each.name for each in map(provider_of, providers) if each.kind == "container")


def start_needed(paths: Paths, request: RunRequest, reporter: Reporter) -> None:
    """Start the containers whose namespaces are shared, where they do not run, as podman does."""
    from rootlesspy.engine import lifecycle

    for text in dict.fromkeys(dict(request.shares).values()):
        provider = provider_of(text)
        if provider.kind == "container":
            lifecycle.start(paths, provider.name, reporter)


def enlist(paths: Paths, found: ContainerRecord) -> None:
    """Note with every provider that this container shares with it.  Raises OSError."""
    if found.pod:
        from rootlesspy.engine.pods import store

        store.enlist(paths, store.find(paths, found.pod), found.id)
    for text in dict.fromkeys(found.shares.values()):
        provider = provider_of(text)
        if provider.kind == "container":
            directory = f"{paths.container(provider.name)}/{SHARERS}"
            os.makedirs(directory, mode=0o700, exist_ok=True)
            os.symlink(f"../../{found.id}", f"{directory}/{found.id}")


def sharers(paths: Paths, container_id: str) -> tuple[str, ...]:
    """Return the ids of the containers that share a namespace of this one."""
    try:
        listed = os.listdir(f"{paths.container(container_id)}/{SHARERS}")
    except OSError:
        return ()
    return tuple(each for each in sorted(listed) if os.path.lexists(paths.container(each)))


def with_sharers(paths: Paths, names: list[str]) -> list[str]:
    """Return containers and, before each, the ids of all that share its namespaces."""
    found: dict[str, None] = {}
    for name in names:
        try:
            container_id = record.find(paths, name)
        except Error:
            # Told by whoever removes it.
            container_id = ""
        others = sharers(paths, container_id) if container_id else ()
        found |= dict.fromkeys((*with_sharers(paths, list(others)), name))
    return list(found)


def refuse_removal(paths: Paths, found: ContainerRecord) -> None:
    """Raise Error while other containers share namespaces of this one, as podman does."""
    others = sharers(paths, found.id)
    if not others:
        return
    names = []
    for each in others:
        loaded = record.load(paths, each)
        names.append(each[:12] if loaded is None else loaded.record.name)
    raise Error(
        f"container {found.name} has its namespaces shared by {', '.join(names)}",
        hint=f"rp rm -f {' '.join(names)}; or all of them: rp rm --depend -f {found.name}",
    )


def etc_directory(paths: Paths, found: ContainerRecord) -> str:
    """Return where the hosts and resolv.conf of a shared network are; "" when it is its own."""
    text = found.shares.get("network", "")
    provider = provider_of(text)
    return paths.container_runtime(provider.name) if provider.kind in ("container", "pod") else ""


def _provider(paths: Paths, text: str, kind: str) -> Provider:
    provider = provider_of(text)
    if provider.kind == "container":
        provider = provider._replace(name=record.find(paths, provider.name))
        other = record.load(paths, provider.name)
        if other is not None:
            _refuse_provider(other.record, text, kind)
        return provider
    if not os.path.exists(provider.name):
        raise NotFound(f"{_OPTIONS[kind]} {text}: there is no {provider.name}")
    return provider


def _refuse_provider(other: ContainerRecord, text: str, kind: str) -> None:
    """Raise UsageError where a container has nothing to share: the host's, or one kept private."""
    mode = other.request.get(kind)
    option = _OPTIONS[kind]
    if kind == "ipc" and mode in ("private", "none"):
        raise UsageError(
            f"{option} {text}: container {other.name} was made with --ipc={mode}",
            hint="make it with --ipc=shareable",
        )
    if mode == "host" or (kind == "network" and other.network.get("driver") == "host"):
        raise UsageError(
            f"{option} {text}: container {other.name} has the host's", hint=f"{option}=host"
        )


def _with_maps(paths: Paths, request: RunRequest, found: dict[str, Provider]) -> RunRequest:
    """Return the request with the id maps of the provider."""
    if KEEP_GROUPS in request.group_add and found:
        raise UsageError(f"--group-add={KEEP_GROUPS} needs a user namespace of its own")
    if found.get("user", Provider("", "")).kind == "ns":
        from rootlesspy.engine.pods import namespaces

        if request.userns.startswith("ns:"):
            id_maps = namespaces.maps_of(found["user"].name)
            return request._replace(userns="private", id_maps=id_maps)
    for provider in found.values():
        if provider.kind == "container":
            other = record.load(paths, provider.name)
            if other is None:
                raise NotFound(f"container {provider.name[:12]} was removed meanwhile")
            asked = request.userns
            if asked not in ("host-map", other.record.userns) and "container:" not in asked:
                raise UsageError(
                    f"--userns={asked}: namespaces are shared with container "
                    f"{other.record.name}, which has {other.record.userns}",
                )
            id_maps = tuple(tuple(tuple(line) for line in ids) for ids in other.record.id_maps)
            return request._replace(userns=other.record.userns, id_maps=id_maps)
    return request


def _refuse_settings(request: RunRequest, found: dict[str, Provider]) -> None:
    """Refuse what would change the network of somebody else; as podman."""
    if "network" not in found:
        return
    mode = f"--network {found['network'].kind}"
    if found["network"].kind == "pod":
        mode = "--pod"
    for option, given in (("--dns", request.dns), ("--dns-search", request.dns_search),
                          ("--dns-option", request.dns_options),
                          ("--add-host", request.add_hosts)):  # fmt: skip
        if given and found["network"].kind != "ns":
            raise UsageError(
                f"{option} and {mode} exclude each other: the files are shared",
                hint=f"give {option} to the other one",
            )
