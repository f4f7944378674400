"""Containers that wait for others: what they require or want is started first.

Installed units have Requires= and Wants=; transient ones cannot (systemd.service.start_transient),
so that whoever starts one does what systemd would.
"""

from __future__ import annotations

from rootlesspy.engine import record
from rootlesspy.errors import Error, NotFound
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


def names(found: ContainerRecord, relation: str) -> tuple[str, ...]:
    """Return the names that a container's requires, wants or after has."""
    recorded = found.request.get(relation)
    return tuple(map(str, recorded)) if isinstance(recorded, list) else ()


def needed(paths: Paths, found: ContainerRecord) -> tuple[ContainerRecord, ...]:
    """Return what a container requires or wants, and what those do, as far as it exists."""
    known = {found.name: found}
    waiting = [found]
    while waiting:
        asking = waiting.pop()
        for name in (*names(asking, "requires"), *names(asking, "wants")):
            try:
                other = known.get(name) or _find(paths, name)
            except NotFound:
                continue
            if name not in known:
                known[name] = other
                waiting.append(other)
    return tuple(known.values())[1:]


def start_first(
    paths: Paths, found: ContainerRecord, start: Callable[[str], object], reporter: Reporter
) -> None:
    """Start what a container requires or wants, and what those do, in order, where it does not run.

    start: starts one container, by its id.  Raises Error when a required one does not start; of a
    wanted one that is a notice.
    """
    _start_first(paths, found, start, reporter, {found.name})


def _start_first(
    paths: Paths,
    found: ContainerRecord,
    start: Callable[[str], object],
    reporter: Reporter,
    seen: set[str],
) -> None:
    for relation in ("requires", "wants"):
        for name in names(found, relation):
            if name in seen:
                continue
            seen.add(name)
            try:
                other = _find(paths, name)
                _start_first(paths, other, start, reporter, seen)
                start(other.id)
            except Error as error:
                message = f"container {found.name} {relation} {name}: {error.message}"
                if relation == "requires":
                    raise Error(message, hint=error.hint) from error
                reporter.notice(message)


def _find(paths: Paths, name: str) -> ContainerRecord:
    found = record.load(paths, record.find(paths, name))
    if found is None:
        raise NotFound(f"no container with name or id {name!r}")
    return found.record
