"""Arithmetic of id maps: --uidmap's lines and auto's ranges become maps to ids of the host.

An ordinary user's ids in order are podman's intermediate namespace: 0 is the user, 1… are the
subordinate ids in the order of /etc/subuid.  Pure; sources: podman-run(1), --uidmap and --userns,
user_namespaces(7).
"""

from __future__ import annotations

import os

from rootlesspy.engine import idmap
from rootlesspy.engine.inputs import id_values
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import userns
from rootlesspy.linux.userns import IdMapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rootlesspy.engine.idmap import Ranges
    from rootlesspy.engine.inputs.id_values import MapLine

    Mappings = tuple[IdMapping, ...]
    # First and one past the last.
    Span = tuple[int, int]


def explicit(lines: Sequence[MapLine], own: Mappings, option: str) -> Mappings:
    """Return the map that lines ask for, own being the caller's ids in order (host-map).

    Raises UsageError for ids that the caller does not have, overlaps, and more than the kernel
    takes; no line at all is the host-map.
    """
    found: list[IdMapping] = []
    fills = False
    for line in lines:
        for piece in _of_host(line, own, option) if line.of_host else [_plain(line)]:
            if line.extends:
                fills = fills or not found
                found = [part for each in found for part in _without(each, piece)]
            found.append(piece)
    if not found:
        return own
    if fills:
        found += _rest(found, own)
    host = [part for each in found for part in _to_host(each, own, option)]
    return checked(host, option)


def texts(found: Mappings, own: Mappings) -> list[str]:
    """Write a map as --uidmap takes it, CONTAINER_ID:ID:AMOUNT of the caller's ids in order.

    What is not among them (/etc/subuid has changed) stays an id of the host, with @ before it.
    """
    written: list[str] = []
    pieces: list[IdMapping] = []
    for each in found:
        line = id_values.MapLine(*each, of_host=True, extends=False, kinds="ug")
        try:
            pieces += _of_host(line, own, "")
        except UsageError:
            written.append(f"{each.container_id}:@{each.host_id}:{each.size}")
    return [f"{e.container_id}:{e.host_id}:{e.size}" for e in _joined(pieces)] + written


def laid_out(
    size: int, forced: Sequence[MapLine], free: Sequence[Span], own: Mappings, option: str
) -> Mappings | None:
    """Return a map of container ids 0 to size - 1 to free ids of the host; None if they run out.

    forced: lines that are to be in it (auto's uidmapping), of ids in order.  The free ids are
    taken from the end, where the users of other containers mostly are not; in one piece if they
    can be.
    """
    kept = [part for line in forced for part in _to_host(_plain(line), own, option)]
    wanted = minus([(0, size)], [(e.container_id, e.container_id + e.size) for e in kept])
    left = minus(free, [(each.host_id, each.host_id + each.size) for each in kept])
    count = sum(end - start for start, end in wanted)
    pieces = _taken(left, count)
    if pieces is None:
        return None
    return checked(kept + _paired(wanted, pieces), option)


def spans(ranges: Ranges) -> list[Span]:
    """Return subordinate ranges as spans."""
    return [(start, start + count) for start, count in ranges]


def minus(whole: Sequence[Span], taken: Iterable[Span]) -> list[Span]:
    """Return what is in whole and not in taken, in order."""
    found = sorted(whole)
    for first, last in taken:
        found = [
            part
            for start, end in found
            for part in ((start, min(end, first)), (max(start, last), end))
            if part[0] < part[1]
        ]
    return found


def checked(found: Iterable[IdMapping], option: str) -> Mappings:
    """Return lines in order, neighbours joined.

    Raises UsageError for what the kernel would refuse with EINVAL alone: overlaps, too many lines;
    and for a map without id 0, as which rp prepares the container.
    """
    ordered = sorted(found)
    for one, other in zip(ordered, ordered[1:], strict=False):  # noqa: RUF007 no itertools
        if other.container_id < one.container_id + one.size:
            raise UsageError(f"{option}: id {other.container_id} of the container is mapped twice")
    lines = _joined(ordered)
    by_host = sorted(lines, key=lambda line: line.host_id)
    for one, other in zip(by_host, by_host[1:], strict=False):  # noqa: RUF007 no itertools
        if other.host_id < one.host_id + one.size:
            raise UsageError(f"{option}: id {other.host_id} of the host is mapped twice")
    if not userns.fits(tuple(lines)):
        raise UsageError(
            f"{option}: {len(lines)} lines are more than the kernel takes: "
            f"{userns.MOST_LINES - 1}, and less than a page of text",
            hint="neighbouring ids become one line: CONTAINER_ID:ID:AMOUNT",
        )
    if idmap.to_host(tuple(lines), 0) is None:
        raise UsageError(
            f"{option}: id 0 of the container is not mapped",
            hint=f"rp prepares the container as its root: add {option} 0:1, say",
        )
    return tuple(lines)


def _plain(line: MapLine) -> IdMapping:
    return IdMapping(line.container_id, line.from_id, line.size)


def _of_host(line: MapLine, own: Mappings, option: str) -> list[IdMapping]:
    """Return a line of host ids as lines of ids in order."""
    inverse = [IdMapping(each.host_id, each.container_id, each.size) for each in own]
    found, missing = _through(_plain(line), inverse)
    if missing is not None:
        raise UsageError(
            f"{option}: id {missing} of the host is not yours",
            hint=f"yours are {os.getuid()} and those of your lines in /etc/subuid",
        )
    return found


def _to_host(piece: IdMapping, own: Mappings, option: str) -> list[IdMapping]:
    """Return a line of ids in order as lines of host ids."""
    found, missing = _through(piece, own)
    if missing is not None:
        count = sum(each.size for each in own)
        raise UsageError(
            f"{option}: you have no id number {missing}, but 0 (yourself) to {count - 1}",
            hint="more subordinate ids, as root: usermod --add-subuids FIRST-LAST "
            f"--add-subgids FIRST-LAST {idmap.user_name()}",
        )
    return found


def _through(piece: IdMapping, own: Sequence[IdMapping]) -> tuple[list[IdMapping], int | None]:
    """Return a line whose ids are mapped once more by own, and the first that own does not have."""
    found: list[IdMapping] = []
    done = 0
    while done < piece.size:
        number = piece.host_id + done
        within = next((e for e in own if e.container_id <= number < e.container_id + e.size), None)
        if within is None:
            return found, number
        offset = number - within.container_id
        amount = min(piece.size - done, within.size - offset)
        found.append(IdMapping(piece.container_id + done, within.host_id + offset, amount))
        done += amount
    return found, None


def _without(line: IdMapping, new: IdMapping) -> list[IdMapping]:
    """Return what is left of a line where a new one takes its container ids or its own ids."""
    cuts = [
        (new.container_id - line.container_id, new.container_id - line.container_id + new.size),
        (new.host_id - line.host_id, new.host_id - line.host_id + new.size),
    ]
    return [
        IdMapping(line.container_id + start, line.host_id + start, end - start)
        for start, end in minus([(0, line.size)], cuts)
    ]


def _rest(found: Sequence[IdMapping], own: Mappings) -> list[IdMapping]:
    """Return lines for all ids in order that are not in found: container ids from 0 on."""
    left = minus(
        [(each.container_id, each.container_id + each.size) for each in own],
        [(each.host_id, each.host_id + each.size) for each in found],
    )
    inside = [(each.container_id, each.container_id + each.size) for each in found]
    return _paired(minus([(0, 2**32 - 1)], inside), left)


def _paired(inside: Sequence[Span], outside: Sequence[Span]) -> list[IdMapping]:
    """Return lines from container ids to other ids, each in order, until either runs out."""
    lines = []
    containers, others = list(inside), list(outside)
    while containers and others:
        (start, end), (first, last) = containers.pop(0), others.pop(0)
        size = min(end - start, last - first)
        lines.append(IdMapping(start, first, size))
        if start + size < end:
            containers.insert(0, (start + size, end))
        if first + size < last:
            others.insert(0, (first + size, last))
    return lines


def _taken(free: Sequence[Span], count: int) -> list[Span] | None:
    """Return count ids of free, from its end; None when there are not as many."""
    for start, end in sorted(free, reverse=True):
        if end - start >= count:
            return [(end - count, end)] if count else []
    found: list[Span] = []
    for start, end in sorted(free, reverse=True):
        amount = min(count, end - start)
        found.append((end - amount, end))
        count -= amount
        if not count:
            return found
    return None


def _joined(lines: Iterable[IdMapping]) -> list[IdMapping]:
    """Return lines with those made one that continue the line before them."""
    joined: list[IdMapping] = []
    for each in lines:
        last = joined[-1] if joined else None
        if (
            last is not None
            and each.container_id == last.container_id + last.size
            and each.host_id == last.host_id + last.size
        ):
            joined[-1] = last._replace(size=last.size + each.size)
        else:
            joined.append(each)
    return joined
