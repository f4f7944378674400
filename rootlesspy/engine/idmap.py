"""Which ids of the host a container gets: policy over /etc/subuid and /etc/subgid.

host-map: container 0 is the user, 1… are the subordinate ids in order.  keep-id: the user keeps the
own uid (or the one asked for) inside, and container 0 is the first subordinate id.  nomap: no id
inside is the user's, container 0… are the subordinate ids.  Without subordinate ids only one id is
mapped.  What does not follow from a mode (auto, --uidmap) is decided once, by engine.idmap_choice,
and kept with the container.  Sources: user_namespaces(7), subuid(5), podman-run(1).
"""

from __future__ import annotations

import os

from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import userns
from rootlesspy.linux.userns import IdMapping, IdMaps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    Ranges = tuple[tuple[int, int], ...]

    class Mapped(Protocol):
        """A request, a container's record or a pod."""

        @property
        def userns(self) -> str:
            """The mode."""

        @property
        def id_maps(self) -> Sequence[Sequence[Sequence[int]]]:
            """The lines of both maps where they do not follow from the mode."""


PRIVATE = "private"
"""The mode of containers with maps of their own (--uidmap)."""
_ID_MAXIMUM = 2**32 - 2
_FEW = 100


def default_maps() -> IdMaps:
    """Return the host-map of the calling user, a single id where there are no subordinate ones."""
    return maps_for("host-map")


def of(mapped: Mapped) -> IdMaps:
    """Return the maps of a container, pod or request.  Raises as maps_for()."""
    if not mapped.id_maps:
        return maps_for(mapped.userns)
    uids, gids = (
        tuple(IdMapping(line[0], line[1], line[2]) for line in lines) for lines in mapped.id_maps
    )
    return IdMaps(uids, gids)


def is_chosen_late(mapped: Mapped) -> bool:
    """Say whether engine.idmap_choice has to decide on the maps of a new container."""
    kind = mapped.userns.partition(":")[0]
    return not mapped.id_maps and kind in ("auto", PRIVATE)


def before_choice(mapped: Mapped) -> IdMaps:
    """Return the maps that an image is pulled with for a container that is still to be made."""
    return default_maps() if is_chosen_late(mapped) else of(mapped)


def maps_for(mode: str) -> IdMaps:
    """Return the maps of a --userns mode.

    Raises UsageError for an odd mode, Unsupported where keep-id or nomap lack subordinate ids.
    """
    uids, gids = ranges()
    if mode == "host-map":
        if not uids or not gids:
            return IdMaps((IdMapping(0, os.getuid(), 1),), (IdMapping(0, os.getgid(), 1),))
        return IdMaps(_host_map(os.getuid(), uids), _host_map(os.getgid(), gids))
    kept = None if mode == "nomap" else _kept(mode)
    if not uids or not gids:
        raise no_ranges(f"--userns={mode}")
    if kept is None:
        return IdMaps(_in_order(uids), _in_order(gids))
    uid, gid, size = kept
    return IdMaps(_keep_id(os.getuid(), uid, uids, size), _keep_id(os.getgid(), gid, gids, size))


def default_user(mode: str) -> str:
    """Return who the payload is when nobody said so; "" leaves it to the image.

    With keep-id it is the kept user, as podman has it.
    """
    return "{}:{}".format(*_kept(mode)) if mode.partition(":")[0] == "keep-id" else ""


def ranges() -> tuple[Ranges, Ranges]:
    """Return the caller's subordinate uids and gids as (first, count)."""
    return _ranges("/etc/subuid"), _ranges("/etc/subgid")


def no_ranges(what: str) -> Unsupported:
    """Return the error for something that needs subordinate ids where there are none."""
    return Unsupported(
        f"{what}: /etc/subuid and /etc/subgid have no line for {user_name()}",
        hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "
        f"{user_name()}",
    )


def missing_ranges_notice() -> str:
    """Return what to tell a user whose containers get a single id."""
    return (
        f"/etc/subuid and /etc/subgid have no line for {user_name()}: only uid 0 exists inside "
        "containers; cure, as root: usermod --add-subuids 100000-165535 "
        f"--add-subgids 100000-165535 {user_name()}"
    )


def user_name() -> str:
    """Return the caller's login name, or the uid where passwd has none."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def owns_root(maps: IdMaps) -> bool:
    """Say whether root of the container is the caller: the same uid and gid."""
    return to_host(maps.uids, 0) == os.getuid() and to_host(maps.gids, 0) == os.getgid()


def leaves_caller_out(maps: IdMaps) -> bool:
    """Say whether the caller's own uid or gid is nobody's inside: files of the caller are closed.

    What such a container gets of the caller's is opened before its init becomes root.
    """
    return not userns.maps_caller(maps)


def to_host(mappings: tuple[IdMapping, ...], container_id: int) -> int | None:
    """Return the host's id of a container's id, or None when it is not mapped."""
    for each in mappings:
        if each.container_id <= container_id < each.container_id + each.size:
            return each.host_id + container_id - each.container_id
    return None


def _ranges(path: str) -> Ranges:
    return userns.subordinate_ranges(path, user_name(), os.getuid())


def _host_map(own: int, ranges: Ranges) -> tuple[IdMapping, ...]:
    return (IdMapping(0, own, 1), *_in_order(ranges, 1))


def _in_order(ranges: Ranges, following: int = 0) -> tuple[IdMapping, ...]:
    """Lay ranges one after the other from an id on.

    Raises Unsupported for more than the kernel takes: a part of them would be other ids tomorrow.
    """
    mappings: list[IdMapping] = []
    if len(ranges) > _FEW and not userns.fits(tuple(IdMapping(*each, 1) for each in ranges)):
        raise Unsupported(
            f"/etc/subuid or /etc/subgid has more lines for {user_name()} than an id map can have",
            hint="as root: make fewer and longer ranges of them",
        )
    for start, count in ranges:
        mappings.append(IdMapping(following, start, count))
        following += count
    return tuple(mappings)


def _keep_id(own: int, kept: int, ranges: Ranges, most: int) -> tuple[IdMapping, ...]:
    """Lay the subordinate ranges around the kept id, most ids in all.

    A kept id beyond all of them stands alone, as with podman: ids of a directory service are large.
    """
    mappings = []
    following, rest = 0, most - 1
    for first, count in ranges:
        start, left = first, min(count, rest)
        rest -= left
        while left:
            if following == kept:
                following += 1
            # Up to the kept id, or all that is left of the range.
            room = kept - following if following < kept else left
            size = min(left, room)
            mappings.append(IdMapping(following, start, size))
            following, start, left = following + size, start + size, left - size
    mappings.append(IdMapping(kept, own, 1))
    return tuple(sorted(mappings))


def _kept(mode: str) -> tuple[int, int, int]:
    """Return the uid and gid that are the caller's inside, and how many ids there are at most."""
    name, _, options = mode.partition(":")
    kept = {"uid": os.getuid(), "gid": os.getgid(), "size": _ID_MAXIMUM}
    for option in options.split(",") if options else ():
        key, _, value = option.partition("=")
        if key not in kept or not (value.isascii() and value.isdigit()):
            raise UsageError(f"--userns={mode}: {option!r} is not uid=N, gid=N or size=N")
        kept[key] = int(value)
    if name != "keep-id" or max(kept.values()) > _ID_MAXIMUM or kept["size"] == 0:
        raise UsageError(
            f"--userns={mode} is not host-map, keep-id[:uid=N,gid=N,size=N], auto[:size=N] or nomap"
        )
    return kept["uid"], kept["gid"], kept["size"]
