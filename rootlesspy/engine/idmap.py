"""Which ids of the host a container gets: policy over /etc/subuid and /etc/subgid.

host-map: container 0 is the user, 1… are the subordinate ids in order.  keep-id: the user keeps the
own uid (or the one asked for) inside, and container 0 is the first subordinate id.  Without
subordinate ids only one id is mapped.  Sources: user_namespaces(7), subuid(5), podman-run(1).
"""

from __future__ import annotations

import os

from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.linux import userns
from rootlesspy.linux.userns import IdMapping, IdMaps

_ID_MAXIMUM = 2**32 - 2


def default_maps() -> IdMaps:
    """Return the host-map of the calling user, a single id where there are no subordinate ones."""
    return maps_for("host-map")


def maps_for(mode: str) -> IdMaps:
    """Return the maps of a --userns mode.

    Raises UsageError for an odd mode, Unsupported where keep-id lacks subordinate ids.
    """
    uids, gids = _ranges("/etc/subuid"), _ranges("/etc/subgid")
    if mode == "host-map":
        if not uids or not gids:
            return IdMaps((IdMapping(0, os.getuid(), 1),), (IdMapping(0, os.getgid(), 1),))
        return IdMaps(_host_map(os.getuid(), uids), _host_map(os.getgid(), gids))
    kept_uid, kept_gid = _kept(mode)
    if not uids or not gids:
        raise Unsupported(
            f"--userns={mode}: /etc/subuid and /etc/subgid have no line for {user_name()}",
            hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "
            f"{user_name()}",
        )
    return IdMaps(
        _keep_id(os.getuid(), kept_uid, uids, mode), _keep_id(os.getgid(), kept_gid, gids, mode)
    )


def default_user(mode: str) -> str:
    """Return who the payload is when nobody said so; "" leaves it to the image.

    With keep-id it is the kept user, as podman has it.
    """
    return "" if mode == "host-map" else "{}:{}".format(*_kept(mode))


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
    """Say whether root of the container is the caller's own uid."""
    return any(each.container_id == 0 and each.host_id == os.getuid() for each in maps.uids)


def to_host(mappings: tuple[IdMapping, ...], container_id: int) -> int | None:
    """Return the host's id of a container's id, or None when it is not mapped."""
    for each in mappings:
        if each.container_id <= container_id < each.container_id + each.size:
            return each.host_id + container_id - each.container_id
    return None


def _ranges(path: str) -> tuple[tuple[int, int], ...]:
    return userns.subordinate_ranges(path, user_name(), os.getuid())


def _host_map(own: int, ranges: tuple[tuple[int, int], ...]) -> tuple[IdMapping, ...]:
    mappings = [IdMapping(0, own, 1)]
    following = 1
    for start, count in ranges:
        mappings.append(IdMapping(following, start, count))
        following += count
    return tuple(mappings)


def _keep_id(
    own: int, kept: int, ranges: tuple[tuple[int, int], ...], mode: str
) -> tuple[IdMapping, ...]:
    """Lay the subordinate ranges around the kept id."""
    mappings = []
    following = 0
    for first, count in ranges:
        start, left = first, count
        while left:
            if following == kept:
                following += 1
            # Up to the kept id, or all that is left of the range.
            room = kept - following if following < kept else left
            size = min(left, room)
            mappings.append(IdMapping(following, start, size))
            following, start, left = following + size, start + size, left - size
    if following < kept:
        raise Unsupported(
            f"--userns={mode}: id {kept} lies beyond the {following} subordinate ids",
            hint="grant more in /etc/subuid and /etc/subgid, or keep-id:uid=1000,gid=1000",
        )
    mappings.append(IdMapping(kept, own, 1))
    return tuple(sorted(mappings))


def _kept(mode: str) -> tuple[int, int]:
    name, _, options = mode.partition(":")
    kept = {"uid": os.getuid(), "gid": os.getgid()}
    for option in options.split(",") if options else ():
        key, _, value = option.partition("=")
        if key not in kept or not (value.isascii() and value.isdigit()):
            raise UsageError(f"--userns={mode}: {option!r} is not uid=N or gid=N")
        kept[key] = int(value)
    if name != "keep-id" or max(kept.values()) > _ID_MAXIMUM:
        raise UsageError(f"--userns={mode} is not host-map or keep-id[:uid=N,gid=N]")
    return kept["uid"], kept["gid"]
