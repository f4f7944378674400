"""Id maps that are decided on when a container or pod is made: --uidmap, --subuidname, auto.

auto: a range of subordinate ids for this container alone.  No book is kept of them: what records
of containers and pods have is taken, and what a maker that still lives has reserved,

    ids/<random>    the lines of one map, locked with flock(2) until the record is written

so that a range is free again when its container is removed, and when its maker was killed.
Containers of the other modes have all ids of the user and are no obstacle.  Sources: podman-run(1).
"""

from __future__ import annotations

import fcntl
import os

from rootlesspy.engine import idmap, idmap_lines, record, statefile
from rootlesspy.engine.inputs import id_values
from rootlesspy.errors import Error, Unsupported
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import pathrs
from rootlesspy.linux.userns import IdMapping, IdMaps
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rootlesspy.engine.idmap import Ranges
    from rootlesspy.engine.idmap_lines import Mappings, Span
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.paths import Paths

_STEP = 1024
"""podman's smallest range; sizes are multiples of it, so that ranges that were freed fit again."""
_NOBODY = (b"nobody", b"nogroup")
_FILE_LIMIT = 1 << 20
_LISTS = ("etc/passwd", "etc/group")


class Choice(NamedTuple):
    """Decided maps, held for this container until its record is on disk."""

    maps: IdMaps
    path: str = ""
    fd: int = -1

    def lines(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Return the maps as RunRequest.id_maps has them."""
        return tuple(tuple(tuple(line) for line in ids) for ids in self.maps)

    def release(self) -> None:
        """Give the reservation back: the record holds the ids now, or nobody does."""
        if self.fd >= 0:
            os.unlink(self.path)
            os.close(self.fd)


def choose(paths: Paths, request: RunRequest, layers: Sequence[str], image_user: str) -> Choice:
    """Decide on the id maps of a new container; layers are its image's, base first.

    Raises UsageError for maps that cannot be, Unsupported where the user has too few ids.
    """
    if request.userns.partition(":")[0] != "auto":
        return Choice(_asked(request))
    options = id_values.parse_auto(request.userns)
    size = options.size or estimate(layers, (request.user or "", image_user))
    if not all(idmap.ranges()):
        raise idmap.no_ranges(f"--userns={request.userns}")
    directory = f"{paths.data}/ids"
    private_directory(paths.data)
    private_directory(directory)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        maps = _allotted(paths, directory, options, size)
        return _reserved(directory, maps)
    finally:
        os.close(lock)


def estimate(layers: Sequence[str], users: Sequence[str] = ()) -> int:
    """Return how many ids an image needs: more than the largest of its accounts has; as podman.

    nobody and nogroup do not count, whose ids are far above all others.
    """
    largest = 0
    for name in _LISTS:
        for layer in reversed(layers):
            content = _read(layer, name)
            if content is not None:
                largest = max([largest, *map(_number, _accounts(content))])
                break
    for user in users:
        largest = max([largest, *(_number(word.encode()) for word in user.split(":"))])
    return (largest // _STEP + 1) * _STEP


def _accounts(content: bytes) -> Iterator[bytes]:
    for line in content.split(b"\n"):
        fields = line.split(b":", 3)
        if len(fields) > 3 and fields[0] not in _NOBODY:
            yield fields[2]


def _number(field: bytes) -> int:
    """Return an id, 0 for what is none."""
    number = int(field) if field.isdigit() and len(field) <= 10 else 0
    return number if number < 2**32 - 1 else 0


def _read(layer: str, name: str) -> bytes | None:
    try:
        root_fd = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return pathrs.read_file(root_fd, name, _FILE_LIMIT)
    except OSError:
        # Not in this layer, closed to the caller, or nothing that one reads.
        return None
    finally:
        os.close(root_fd)


def _asked(request: RunRequest) -> IdMaps:
    """Return the maps of --uidmap, --gidmap, --subuidname and --subgidname.

    As podman: what is said of one kind alone counts for both.
    """
    own = idmap.default_maps()
    names = request.subuidname or request.subgidname, request.subgidname or request.subuidname
    texts = request.uidmap or request.gidmap, request.gidmap or request.uidmap
    found: list[Mappings] = []
    for index, kind in enumerate("ug"):
        option = f"--{kind}idmap"
        given = request.uidmap if kind == "u" else request.gidmap
        if names[index] and not given:
            found.append(_of_name(names[index], kind, own[index]))
            continue
        lines = [line for text in texts[index] for line in id_values.parse_id_map(text, option)]
        for_this = [line for line in lines if kind in line.kinds]
        found.append(idmap_lines.explicit(for_this, own[index], option))
    return IdMaps(*found)


def _of_name(name: str, kind: str, own: Mappings) -> Mappings:
    """Return all ids of a line of /etc/subuid or /etc/subgid, from 0 on."""
    from rootlesspy.linux import userns

    path, option = f"/etc/sub{kind}id", f"--sub{kind}idname"
    number = os.getuid() if name == idmap.user_name() else -1
    ranges = userns.subordinate_ranges(path, name, number)
    if not ranges:
        raise Unsupported(f"{option}={name}: {path} has no line for it", hint=f"cat {path}")
    mine = [(each.host_id, each.host_id + each.size) for each in own]
    if idmap_lines.minus(idmap_lines.spans(ranges), mine):
        raise Unsupported(
            f"{option}={name}: its ids are not yours",
            hint=f"newuidmap lets {idmap.user_name()} use its own lines of {path} alone",
        )
    following = 0
    found = []
    for start, count in ranges:
        found.append(IdMapping(following, start, count))
        following += count
    return idmap_lines.checked(found, option)


def _allotted(paths: Paths, directory: str, options: id_values.AutoOptions, size: int) -> IdMaps:
    """Return maps of ids that nobody else has.  Raises Unsupported when there are too few."""
    # First: who made a record meanwhile gave its reservation back after that.
    taken = [*_reservations(directory), *_recorded(paths)]
    own = idmap.default_maps()
    found: list[Mappings] = []
    for index, kind in enumerate("ug"):
        ranges = idmap.ranges()[index]
        used = [(e.host_id, e.host_id + e.size) for maps in taken for e in maps[index]]
        free = idmap_lines.minus(idmap_lines.spans(ranges), used)
        forced = options.uids if kind == "u" else options.gids
        mappings = idmap_lines.laid_out(size, forced, free, own[index], "--userns=auto")
        if mappings is None:
            raise _exhausted(kind, size, ranges, free)
        found.append(mappings)
    return IdMaps(*found)


def _exhausted(kind: str, size: int, ranges: Ranges, free: Sequence[Span]) -> Unsupported:
    path = f"/etc/sub{kind}id"
    left = sum(end - start for start, end in free)
    first, count = ranges[-1]
    name = idmap.user_name()
    total = sum(each[1] for each in ranges)
    return Unsupported(
        f"--userns=auto: {size} {kind}ids are needed, {left} of your {total} are free",
        hint=f"{'rp rm a container that has some; ' if left < total else ''}as root, in {path}: "
        f"enlarge the line {name}:{first}:{count} by {size - left} or more",
    )


def _reserved(directory: str, maps: IdMaps) -> Choice:
    path = f"{directory}/{os.urandom(8).hex()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    # Nobody else has the directory's lock now, so that none sees it without this one.
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.write(fd, "\n".join(" ".join(map(_text, ids)) for ids in maps).encode())
    return Choice(maps, path, fd)


def _text(line: IdMapping) -> str:
    return "{}:{}:{}".format(*line)


def _reservations(directory: str) -> Iterator[IdMaps]:
    """Yield what living makers have reserved; those of dead ones are removed."""
    for name in os.listdir(directory):
        path = f"{directory}/{name}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        except BlockingIOError:
            yield _parsed(os.read(fd, _FILE_LIMIT).decode("ascii"))
        finally:
            os.close(fd)


def _parsed(text: str) -> IdMaps:
    uids, gids = (
        tuple(IdMapping(*map(int, line.split(":"))) for line in ids.split())
        for ids in text.split("\n")
    )
    return IdMaps(uids, gids)


def _recorded(paths: Paths) -> Iterator[IdMaps]:
    """Yield the maps of all containers and pods that have some of their own."""
    for container_id in record.ids(paths):
        try:
            found = record.load_record(paths.container(container_id))
        except (OSError, statefile.DamagedError):
            continue
        if found.id_maps:
            yield idmap.of(found)
    from rootlesspy.engine.pods import store

    try:
        pods = store.everything(paths)
    except (Error, OSError):
        return
    for pod in pods:
        if pod.id_maps:
            yield idmap.of(pod)
