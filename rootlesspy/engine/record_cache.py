"""What the state files of many containers said, so that a listing need not read them all again.

A file in the runtime directory, which a restart of the machine empties: no power loss can leave
it wrong.  It has the content of record.json, exit.json and state.json of each container, which is
believed as long as inode and change time of the container's directory are what they were: a state
file is only ever replaced or removed, by which the kernel sets the latter, and nobody can choose
it.  (What somebody writes into one by hand, in place, is not seen here.)  A directory that changed
a moment ago is not kept, as its next change could have the same time.  Who lists writes the cache
again when much has changed.  One that is damaged, half-written, another rp's or another store's
counts for nothing.  What config.json says of mounts is kept in the same way, in a file of its own,
for the listings that show it.

It is kept in columns, each different value once, and the ids of containers as one text: 2 µs to
read for a container, whose files take 60.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import zlib
from itertools import compress, repeat

from rootlesspy.engine import record, statefile
from rootlesspy.errors import Error
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rootlesspy.engine.record import Container
    from rootlesspy.engine.statefile import Shape
    from rootlesspy.paths import Paths

    Stamp = tuple[int, int]
    """Inode and change time of a directory, in nanoseconds."""
    Seen = dict[str, Stamp]
    """What the directories of containers were when a listing looked at them."""

_SHAPES = {
    "record.json": record.RECORD,
    record.EXIT: record.EXIT_RECORD,
    "state.json": record.LIVE_STATE,
}
_MOUNTS = "mounts"
_FORMAT = 3
_ID_LENGTH = 64
_LIMIT_BYTES = 16 * 1024 * 1024
# What is written again: so many containers, and such a part of all.
_CHANGED, _CHANGED_SHARE = 32, 16
# Kernels before 6.13 and some file systems have times that stand still for up to so long.
_SETTLED_NS = 2_000_000_000


class _Mounts(NamedTuple):
    """What views.inspect_host.mount_points() says of a container."""

    mounts: list[dict[str, Any]]


class RecordCache:
    """What a listing knows of the files of containers before it reads them."""

    def __init__(
        self, paths: Paths, wanted: Iterable[str], seen: Seen, *, running: bool = False
    ) -> None:
        """Read the cache, and look which of the wanted containers are still what they were.

        seen: takes what their directories are.  running: that of listings of running containers
        alone, which is shorter.  There is none without a runtime directory.  Raises OSError.
        """
        self._store = paths.containers
        self._kept = _Kept(paths, f"listing{'-running' if running else ''}", _SHAPES)
        seen.update(_look(paths.containers, wanted))
        self._kept.compare(seen)

    def read(self, wanted: Shape, path: str) -> Any:
        """Return the content of a container's state file, as statefile.read_shape() does."""
        directory, _, name = path.rpartition("/")
        identity = directory.rpartition("/")[2]
        said = self._kept.said[name]
        if identity not in said:
            if identity in self._kept.unchanged and name == record.EXIT:
                raise FileNotFoundError(errno.ENOENT, "was not there before", path)
            said[identity] = statefile.read_shape(wanted, path)
        return said[identity]

    def known(self) -> dict[str, Container]:
        """Return those of which nothing is left to be read or done.

        They have ended, or run: what is kept of one that did is right while its lock is held.
        """
        records, ends, runs = (self._kept.said[name] for name in _SHAPES)
        unchanged = self._kept.unchanged
        ended = unchanged & ends.keys()
        fields = ((records[each], "exited", 0, ends[each].started_s, ends[each]) for each in ended)
        found = dict(zip(ended, _rows(record.Container, fields), strict=True))
        fd = _open_store(self._store)
        for each in unchanged & runs.keys() - ends.keys():
            live = runs[each]
            if live.pid and record.is_locked(each, fd):
                kept = records[each]
                found[each] = record.Container(kept, "running", live.pid, live.started_s, None)
        os.close(fd)
        return found

    def save(self, listed: list[Container]) -> None:
        """Keep what was read for the next listing, if that is much, and of sound containers alone.

        What cannot be written is done without.
        """
        if self._kept.may_save():
            sound = {each.record.id for each in listed if each.state != "broken"}
            self._kept.save(sound, self._is_unfinished)

    def _is_unfinished(self, container_id: str) -> bool:
        """Say whether the next listing needs to look at a container again."""
        found = self._kept.said["record.json"].get(container_id)
        ended = self._kept.said[record.EXIT].get(container_id)
        return (
            found is None
            or (ended is not None and (found.remove or ended.exit_code == record.LOST_EXIT_CODE))
            or os.path.lexists(f"{self._store}/{container_id}/{record.POSTSTOP}")
        )


class MountCache:
    """What is mounted into containers, for listings that show it: config.json is not small."""

    def __init__(self, paths: Paths, wanted: Iterable[str], seen: Seen) -> None:
        """Read the cache, as RecordCache(); seen: what that has looked at already."""
        self._wanted = set(wanted)
        self._kept = _Kept(paths, "listing-mounts", {_MOUNTS: statefile.shape(_Mounts)})
        seen.update(_look(paths.containers, self._wanted - seen.keys()))
        self._kept.compare({each: seen[each] for each in self._wanted})

    def get(self, container_id: str) -> list[dict[str, Any]] | None:
        """Return what is mounted into a container; None: nobody has looked yet."""
        found = self._kept.said[_MOUNTS].get(container_id)
        return None if found is None else found.mounts

    def put(self, container_id: str, mounts: list[dict[str, Any]]) -> None:
        """Take what config.json says, for save()."""
        self._kept.said[_MOUNTS][container_id] = _Mounts(mounts)

    def save(self) -> None:
        """Keep what was put for the next listing, if that is much."""
        known = self._kept.said[_MOUNTS]
        self._kept.save(self._wanted & known.keys(), lambda _id: False)


class _Kept:
    """A file with what was read of containers, and what their directories were then."""

    def __init__(self, paths: Paths, name: str, shapes: dict[str, Shape]) -> None:
        """Read the file."""
        self._path = f"{paths.runtime}/{name}"
        self._store = paths.containers
        self._shapes = shapes
        found = self._read()
        containers, *stamps = found.get("stamps", ["", [], []])
        # By C alone, as _from_columns().
        self._stamps: dict[str, Stamp] = dict(zip(_ids(containers), zip(*stamps)))  # noqa: B905 ours
        self._new: dict[str, Stamp] = {}
        self.said = {
            name: _from_columns(shape.kind, found.get(name), self._stamps)
            for name, shape in shapes.items()
        }
        """By name, then by container."""
        self.unchanged: set[str] = set()
        """Of which what was said is believed: compare()."""

    def compare(self, seen: Seen) -> None:
        """Tell the directories that have changed from the others, as they were a moment ago."""
        settled_ns = time.time_ns() - _SETTLED_NS
        changed = {each: at for each, at in seen.items() if self._stamps.get(each) != at}
        self.unchanged = seen.keys() - changed.keys()
        for identity, stamp in changed.items():
            for table in (self._stamps, *self.said.values()):
                table.pop(identity, None)
            if 0 < stamp[1] < settled_ns:
                self._new[identity] = stamp

    def may_save(self) -> bool:
        """Say whether save() has anything to do."""
        return len(self._new) >= _CHANGED

    def save(self, sound: set[str], is_unfinished: Callable[[str], bool]) -> None:
        """Write what is known of sound containers, if that is much more than before."""
        fresh = self._new.keys() & sound
        if len(fresh) < max(_CHANGED, len(sound) // _CHANGED_SHARE):
            return
        new = {each: self._new[each] for each in fresh if not is_unfinished(each)}
        stamps = {
            each: at
            for each, at in {**self._stamps, **new}.items()
            if each in sound and len(each) == _ID_LENGTH
        }
        try:
            files = {
                name: _to_columns(self.said[name], stamps, shape)
                for name, shape in self._shapes.items()
            }
            kept = {"stamps": ["".join(stamps), *zip(*stamps.values(), strict=True)], **files}
            content = json.dumps(kept, separators=(",", ":")).encode()
            _write(self._path, self._header(content) + content)
        except (OSError, Error, RecursionError):
            return

    def _read(self) -> dict[str, Any]:
        """Return what was kept; nothing of a cache that is not sound."""
        try:
            whole, _ = statefile.content(self._path, _LIMIT_BYTES)
        except OSError:
            return {}
        # Not copied: half a megabyte of new memory is 0.5 ms.
        content = memoryview(whole)[whole.find(b"\n") + 1 :]
        if not whole.startswith(self._header(content)):
            return {}
        try:
            kept: dict[str, Any] = json.loads(str(content, "utf-8"))
        except RecursionError:
            return {}
        # Of an rp that has other fields nothing is believed.
        same = all(kept[name]["names"] == shape.names for name, shape in self._shapes.items())
        return kept if same else {}

    def _header(self, content: bytes | memoryview) -> bytes:
        """Say of what it is the cache: another one has another header."""
        versions = f"{_FORMAT} {statefile.FORMAT_VERSION}"
        return f"rp {versions} {zlib.crc32(content):08x} {self._store!r}\n".encode()


def _look(store: str, wanted: Iterable[str]) -> Seen:
    """Return what the directories of containers are now; of one that is gone nothing is right."""
    seen = {}
    fd = _open_store(store)
    for identity in wanted:
        try:
            status = os.lstat(identity, dir_fd=fd)
            seen[identity] = (status.st_ino, status.st_ctime_ns)
        except OSError:
            seen[identity] = (0, 0)
    os.close(fd)
    return seen


def _open_store(path: str) -> int:
    """Open the directory of all containers: names below it are found in half the time of paths."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _write(path: str, content: bytes) -> None:
    """Write the cache in place, unless somebody else is about to: its checksum tells half of one.

    A killed writer leaves no other file than this.  Raises OSError, Error.
    """
    if len(content) > _LIMIT_BYTES:
        return
    private_directory(os.path.dirname(path))
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def _to_columns(said: dict[str, Any], kept: Iterable[str], wanted: Shape) -> dict[str, Any]:
    """Turn what files said of kept containers into columns: [values, the number of each's].

    A column without anything is that of their ids.  there: of which of the containers it is.
    """
    having = [each for each in kept if each in said]
    columns = zip(*[said[each] for each in having], strict=True)
    return {
        "names": wanted.names,
        "there": [int(each in said) for each in kept],
        "columns": [[] if list(each) == having else _column(each) for each in columns],
    }


def _column(values: Sequence[Any]) -> list[Any]:
    """Return [the different values, the number of each].

    No numbers: there is one value alone, or each is another.
    """
    # Not the values themselves: 1, 1.0 and True are equal, and lists have no hash.
    keys = values if set(map(type, values)) == {str} else list(map(repr, values))
    different = dict(zip(keys, values, strict=True))
    if not 1 < len(different) < len(values):
        return [list(different.values()), []]
    numbers = dict(zip(different, range(len(different)), strict=True))
    return [list(different.values()), [numbers[key] for key in keys]]


def _from_columns(kind: Any, found: dict[str, Any] | None, kept: Iterable[str]) -> dict[str, Any]:
    """Turn columns into NamedTuples of this kind, by container."""
    if found is None:
        return {}
    having = list(compress(kept, found["there"]))
    columns = [_values(*column) if column else having for column in found["columns"]]
    return dict(zip(having, _rows(kind, zip(*columns, strict=False)), strict=False))


def _rows(kind: Any, rows: Iterable[tuple[Any, ...]]) -> Iterable[Any]:
    """Return rows as NamedTuples of this kind."""
    # By C alone: this is what a listing of thousands does for each.
    return map(tuple.__new__, repeat(kind), rows)


def _values(different: list[Any], at: list[int]) -> Iterable[Any]:
    """Return the value of each container."""
    if at:
        return map(different.__getitem__, at)
    return different if len(different) > 1 else repeat(different[0])


def _ids(joined: str) -> list[str]:
    return [joined[at : at + _ID_LENGTH] for at in range(0, len(joined), _ID_LENGTH)]
