"""What a definition would change: compared with the containers that there are, nothing is done.

Pure: what exists is handed in.  `engine.definitions.apply` carries a plan out.
"""

from __future__ import annotations

import graphlib
import os
from types import MappingProxyType

from rootlesspy.engine.definitions import definition_export
from rootlesspy.engine.definitions.definition import without_labels
from rootlesspy.engine.inputs.request import LABEL_FILE, LABEL_HASH
from rootlesspy.errors import Conflict, Unsupported
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from rootlesspy.engine.definitions.definition import ContainerDefinition, Definition
    from rootlesspy.engine.definitions.pod_definition import PodDefinition
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.engine.record import Container

CREATE, CHANGE, RESTART, START = "create", "change", "restart", "start"
REMOVE, NOTHING = "remove", "nothing"
CONTAINER, VOLUME, NETWORK, POD = "container", "volume", "network", "pod"
# Their values may come from an env_file, where people keep what nobody is to read.
_HIDDEN = ("env",)
NOBODY: Mapping[str, Mapping[str, str]] = MappingProxyType({})


class Change(NamedTuple):
    """One key of a container that is not what it was."""

    key: str
    old: object
    """None: it was not there."""
    new: object
    hidden: bool = False
    """The values are not to be shown."""


class Step(NamedTuple):
    """What is to be done with one container, volume or network."""

    action: str
    kind: str
    name: str
    changes: tuple[Change, ...] = ()
    reason: str = ""

    @property
    def subject(self) -> str:
        """What it is done with, in words."""
        return f"{self.kind} {self.name}"


class Plan(NamedTuple):
    """What is to be done for one definition."""

    definition: Definition
    steps: tuple[Step, ...]
    """Networks, volumes, pods, containers and pods to be removed, then the other containers in the
    order of starting."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return all(step.action == NOTHING for step in self.steps)

    def of(self, name: str) -> Step:
        """Return the step of a container of the definition."""
        found = (each for each in self.steps if each.kind == CONTAINER and each.name == name)
        return next(found)


def plan(
    definition: Definition,
    containers: Iterable[Container],
    volumes: Collection[str],
    *,
    networks: Collection[str] = (),
    pods: Mapping[str, Mapping[str, str]] = NOBODY,
    start: bool = True,
) -> Plan:
    """Compare a definition with all containers and the names of all volumes and networks.

    pods: the labels of all pods, by name.  start: containers that do not run are to be started.
    Raises Conflict for a name that belongs to a container or pod of somebody else's.
    """
    present = {each.record.name: each for each in containers}
    steps = [
        Step(NOTHING if each.name in networks else CREATE, NETWORK, each.name)
        for each in definition.networks
    ]
    steps += [
        Step(NOTHING if each.name in volumes else CREATE, VOLUME, each.name)
        for each in definition.volumes
    ]
    steps += [_compare_pod(each, pods, definition.path) for each in definition.pods]
    defined = {each.name for each in definition.containers}
    steps += [
        Step(REMOVE, CONTAINER, each.record.name, reason="not in the file any more")
        for each in reversed(owned(present.values(), definition.path))
        if each.record.name not in defined
    ]
    kept = {each.name for each in definition.pods}
    steps += [
        Step(REMOVE, POD, name, reason="not in the file any more")
        for name, labels in pods.items()
        if labels.get(LABEL_FILE) == definition.path and name not in kept
    ]
    decided: dict[str, Step] = {}
    for wanted in definition.containers:
        found = present.get(wanted.name)
        step = _compare(wanted, found, definition.path, start=start)
        if step.action == NOTHING and found is not None and found.state == "running":
            step = _disturbed(wanted, decided) or step
        decided[wanted.name] = step
    return Plan(definition, (*steps, *decided.values()))


def owned(containers: Iterable[Container], path: str) -> list[Container]:
    """Return the containers made from the definition at a path, in the order of starting."""
    found = {
        each.record.name: each for each in containers if each.record.labels.get(LABEL_FILE) == path
    }
    sorter = graphlib.TopologicalSorter(
        {
            name: [other for other in _recorded_before(each) if other in found]
            for name, each in found.items()
        }
    )
    try:
        return [found[name] for name in sorter.static_order()]
    except graphlib.CycleError:
        # Of containers that were made from different versions of the file.
        return list(found.values())


def _recorded_before(found: Container) -> list[str]:
    asked = definition_export.restore(found.record.request, found.record.name)
    return [*asked.requires, *asked.wants, *asked.after]


def _compare(
    wanted: ContainerDefinition, found: Container | None, path: str, *, start: bool
) -> Step:
    if found is None:
        return Step(CREATE, CONTAINER, wanted.name)
    labels = found.record.labels
    file = labels.get(LABEL_FILE)
    if file is None:
        raise Conflict(
            f"container {wanted.name} exists and was not made from a definition",
            hint=f"rp rm {wanted.name}, or another name in {path}",
        )
    if file != path:
        if os.path.exists(file):
            raise Conflict(
                f"container {wanted.name} belongs to the definition {file}",
                hint=f"rp delete {file}, or another name in {path}",
            )
        # The file was moved; a label cannot be changed.
        return Step(CHANGE, CONTAINER, wanted.name, (Change("file", file, path),))
    if labels.get(LABEL_HASH) != wanted.hash:
        return Step(CHANGE, CONTAINER, wanted.name, _changes(found, wanted.request))
    if start and found.state != "running" and not _has_done_its_work(found):
        return Step(START, CONTAINER, wanted.name, reason=f"it is {found.state}")
    return Step(NOTHING, CONTAINER, wanted.name)


def _compare_pod(wanted: PodDefinition, pods: Mapping[str, Mapping[str, str]], path: str) -> Step:
    """Return what is to be done with a pod; one never changes, as its members hang on it."""
    labels = pods.get(wanted.name)
    if labels is None:
        return Step(CREATE, POD, wanted.name)
    file = labels.get(LABEL_FILE)
    if file is None:
        raise Conflict(
            f"pod {wanted.name} exists and was not made from a definition",
            hint=f"rp pod rm {wanted.name}, or another name in {path}",
        )
    if file != path and os.path.exists(file):
        raise Conflict(
            f"pod {wanted.name} belongs to the definition {file}",
            hint=f"rp delete {file}, or another name in {path}",
        )
    if labels.get(LABEL_HASH) != wanted.hash:
        raise Conflict(
            f"pod {wanted.name} was made otherwise than {path} says now, and cannot be changed",
            hint=f"rp delete {file}, then rp apply {path}",
        )
    return Step(NOTHING, POD, wanted.name)


def _disturbed(wanted: ContainerDefinition, decided: Mapping[str, Step]) -> Step | None:
    """Return the restart of a container whose requirement is made anew or restarted."""
    causes = [
        name
        for name in wanted.request.requires
        if decided[name].action in (CREATE, CHANGE, RESTART)
    ]
    if not causes:
        return None
    return Step(RESTART, CONTAINER, wanted.name, reason=f"it requires {', '.join(causes)}")


def _has_done_its_work(found: Container) -> bool:
    """Say whether a container ended well, by itself, and nothing says that it runs again."""
    ended = found.exit
    return (
        ended is not None
        and ended.exit_code == 0
        and not ended.reason
        and found.record.restart not in ("always", "unless-stopped")
    )


def _changes(found: Container, wanted: RunRequest) -> tuple[Change, ...]:
    """List the keys in which a container differs from what is wanted; none when nobody knows."""
    try:
        old = _flat(definition_export.table(definition_export.request_of(found.record)))
    except Unsupported:
        return ()
    new = _flat(definition_export.table(without_labels(wanted)))
    return tuple(
        Change(".".join(path), old.get(path), new.get(path), hidden=path[0] in _HIDDEN)
        for path in {**old, **new}
        if old.get(path) != new.get(path) and path != ("pull",)
    )


def _flat(table: Mapping[str, object]) -> dict[tuple[str, ...], object]:
    """Return the values of a table and of the tables in it, each with its path."""
    found: dict[tuple[str, ...], object] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found.update({(key, *path): each for path, each in _flat(value).items()})
        else:
            found[(key,)] = value
    return found
