"""What the state files of many containers said, so that a listing need not read them all again.

A file in the runtime directory, which a restart of the machine empties: no power loss can leave
it wrong.  It has the content of record.json, exit.json and state.json of each container, which is
believed as long as inode and change time of the container's directory are what they were: a state
file is only ever replaced or removed, by which the kernel sets the latter, and nobody can choose
it.  (What somebody writes into one by hand, in place, is not seen here.)  A directory that changed
a moment ago is not kept, as its next change could have the same time.  Who lists writes the cache
again when much has changed.  One that is damaged, half-written, another rp's or another store's
counts for nothing.

It is kept in columns, each different value once: 3 µs to read for a container, whose files take 60.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import zlib
from itertools import repeat

from rootlesspy.engine import record, statefile
from rootlesspy.errors import Error
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rootlesspy.engine.record import Container
    from rootlesspy.engine.statefile import Shape
    from rootlesspy.paths import Paths

    Stamp = tuple[int, int]
    """Inode and change time of a directory, in nanoseconds."""

_SHAPES = {
    "record.json": record.RECORD,
    record.EXIT: record.EXIT_RECORD,
    "state.json": record.LIVE_STATE,
}
_FORMAT = 1
_LIMIT_BYTES = 16 * 1024 * 1024
# What is written again: so many containers, and such a part of all.
_CHANGED, _CHANGED_SHARE = 32, 8
# Kernels before 6.13 and some file systems have times that stand still for up to so long.
_SETTLED_NS = 2_000_000_000


class RecordCache:
    """What a listing knows of the files of containers before it reads them."""

    def __init__(self, paths: Paths, wanted: Iterable[str], *, running: bool = False) -> None:
        """Read the cache, and look which of the wanted containers are still what they were.

        running: that of listings of running containers alone, which is shorter.  There is none
        without a runtime directory.  Raises OSError.
        """
        self._path = f"{paths.runtime}/listing{'-running' if running else ''}"
        self._store = paths.containers
        kept = self._read()
        stamps = kept.get("stamps", [[], [], []])
        self._stamps: dict[str, Stamp] = dict(zip(stamps[0], zip(*stamps[1:])))  # noqa: B905 ours
        self._said = {name: _from_columns(name, kept.get(name)) for name in _SHAPES}
        self._unchanged: set[str] = set()
        self._new: dict[str, Stamp] = {}
        self._look(wanted)

    def read(self, wanted: Shape, path: str) -> Any:
        """Return the content of a container's state file, as statefile.read_shape() does."""
        directory, _, name = path.rpartition("/")
        identity = directory.rpartition("/")[2]
        said = self._said[name]
        if identity not in said:
            if identity in self._unchanged and name == record.EXIT:
                raise FileNotFoundError(errno.ENOENT, "was not there before", path)
            said[identity] = statefile.read_shape(wanted, path)
        return said[identity]

    def ended(self) -> dict[str, Container]:
        """Return those that are known to have ended, with nothing left to be done for them."""
        records, exits = self._said["record.json"], self._said[record.EXIT]
        return {
            each: record.Container(records[each], "exited", 0, exits[each].started_s, exits[each])
            for each in self._unchanged & exits.keys()
        }

    def save(self, sound: set[str]) -> None:
        """Keep what was read for the next listing, if that is much, and of these containers alone.

        What cannot be written is done without.
        """
        if len(self._new) < max(_CHANGED, len(sound) // _CHANGED_SHARE):
            return
        new = {each: stamp for each, stamp in self._new.items() if not self._is_unfinished(each)}
        stamps = {each: at for each, at in {**self._stamps, **new}.items() if each in sound}
        try:
            files = {
                name: _to_columns({each: said[each] for each in said if each in stamps}, shape)
                for name, shape in _SHAPES.items()
                for said in [self._said[name]]
            }
            kept = {"stamps": [list(stamps), *zip(*stamps.values(), strict=True)], **files}
            content = json.dumps(kept, separators=(",", ":")).encode()
            _write(self._path, self._header(content) + content)
        except (OSError, Error, RecursionError):
            return

    def _look(self, wanted: Iterable[str]) -> None:
        """Tell the directories that have changed from the others."""
        settled_ns = time.time_ns() - _SETTLED_NS
        # Names below it are found in half the time of whole paths.
        fd = os.open(self._store, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for identity in wanted:
            try:
                status = os.stat(identity, dir_fd=fd, follow_symlinks=False)
                stamp = (status.st_ino, status.st_ctime_ns)
            except OSError:
                stamp = (0, 0)
            if self._stamps.get(identity) == stamp:
                self._unchanged.add(identity)
                continue
            for table in (self._stamps, *self._said.values()):
                table.pop(identity, None)
            if 0 < stamp[1] < settled_ns:
                self._new[identity] = stamp
        os.close(fd)

    def _is_unfinished(self, container_id: str) -> bool:
        """Say whether the next listing needs to look at a container again."""
        found = self._said["record.json"].get(container_id)
        ended = self._said[record.EXIT].get(container_id)
        return (
            found is None
            or (ended is not None and (found.remove or ended.exit_code == record.LOST_EXIT_CODE))
            or os.path.lexists(f"{self._store}/{container_id}/{record.POSTSTOP}")
        )

    def _read(self) -> dict[str, Any]:
        """Return what was kept; nothing of a cache that is not sound."""
        try:
            whole, _ = statefile.content(self._path, _LIMIT_BYTES)
        except OSError:
            return {}
        header, newline, content = whole.partition(b"\n")
        if header + newline != self._header(content):
            return {}
        try:
            kept: dict[str, Any] = json.loads(content.decode())
        except RecursionError:
            return {}
        # Of an rp that has other fields nothing is believed.
        same = all(kept[name]["names"] == shape.names for name, shape in _SHAPES.items())
        return kept if same else {}

    def _header(self, content: bytes) -> bytes:
        """Say of what it is the cache: another one has another header."""
        versions = f"{_FORMAT} {statefile.FORMAT_VERSION}"
        return f"rp {versions} {zlib.crc32(content):08x} {self._store!r}\n".encode()


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


def _to_columns(said: dict[str, Any], wanted: Shape) -> dict[str, Any]:
    """Turn what files said into columns: [values, the number of each container's]."""
    return {
        "names": wanted.names,
        "containers": list(said),
        "columns": [_column(each) for each in zip(*said.values(), strict=True)],
    }


def _column(values: Sequence[Any]) -> list[Any]:
    """Return [the different values, the number of each; nothing if there is one value alone]."""
    numbers: dict[str, int] = {}
    different: list[Any] = []
    at = []
    for value in values:
        # Not the value itself: 1, 1.0 and True are equal, and lists have no hash.
        number = numbers.setdefault(repr(value), len(different))
        if number == len(different):
            different.append(value)
        at.append(number)
    return [different, at if len(different) > 1 else []]


def _from_columns(name: str, found: dict[str, Any] | None) -> dict[str, Any]:
    """Turn columns into what files of this name said, by container."""
    if found is None:
        return {}
    columns = (
        map(different.__getitem__, at) if at else repeat(different[0])
        for different, at in found["columns"]
    )
    # By C alone: this is what a listing of thousands does for each.
    rows = zip(*columns, strict=False)
    values = map(tuple.__new__, repeat(_SHAPES[name].kind), rows)
    return dict(zip(found["containers"], values, strict=False))
