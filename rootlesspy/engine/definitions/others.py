"""What a definition made besides containers and volumes: its pods and networks, to be removed."""

from __future__ import annotations

from rootlesspy.engine.definitions.plan import NETWORK, POD
from rootlesspy.engine.inputs.request import LABEL_FILE
from rootlesspy.engine.networks import management
from rootlesspy.engine.networks import store as networks
from rootlesspy.engine.pods import actions
from rootlesspy.engine.pods import store as pods
from rootlesspy.errors import Conflict
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


class Part(NamedTuple):
    """A pod or a network."""

    kind: str
    name: str


def of(paths: Paths, path: str) -> list[Part]:
    """Return the pods and networks made from the definition at a path, in the order of removing."""
    found = [
        Part(POD, each.name)
        for each in pods.everything(paths)
        if each.labels.get(LABEL_FILE) == path
    ]
    found += [
        Part(NETWORK, each.name)
        for each in networks.all_networks(paths)
        if each.labels.get(LABEL_FILE) == path
    ]
    return found


def remove(paths: Paths, part: Part, reporter: Reporter) -> bool:
    """Remove it unless others are in it, which is told; say whether it is gone.  Raises Error."""
    if part.kind == POD:
        pod = pods.find(paths, part.name)
        members = [each.record.name for each in pods.members(paths, pod)]
        if members:
            reporter.notice(f"pod {pod.name} stays: {', '.join(members)} are in it")
            return False
        actions.remove(paths, pod, reporter, force=False)
        return True
    try:
        management.remove(paths, part.name, reporter)
    except Conflict as error:
        reporter.notice(f"it stays: {error.message}")
        return False
    return True
