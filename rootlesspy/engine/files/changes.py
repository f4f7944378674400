"""What the files of a container, or the layers of an image, change in what lies below them.

Overlay's upper directory says it by itself, so that unchanged files are not looked at; whatever has
no such directory is compared file by file.  Order and letters are docker's and podman's: A added,
C changed, D deleted, directories before their content.
"""

from __future__ import annotations

import os
import stat

from rootlesspy.engine.files import layered
from rootlesspy.engine.files.layered import Entry, Stack
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDED, CHANGED, DELETED = "A", "C", "D"
# A directory on the way to what may have changed, of a complete tree: layers name it as well.
SAME = ""


class Layers(NamedTuple):
    """Directories whose files are seen, top first, and how their whiteouts are written."""

    directories: tuple[str, ...]
    marks: str

    def open(self) -> list[int]:
        """Open the directories; the descriptors are the caller's."""
        return [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in self.directories]


class Change(NamedTuple):
    """One changed file."""

    kind: str
    path: str
    entry: Entry
    """The file, or of a deleted one the whiteout; dir_fd -1: there is none."""
    opaque: bool = False
    """A directory that hides what the layers below have under its name."""
    incidental: bool = False
    """A directory with the owner and mode that it had: only its content has changed."""


class Pair(Stack):
    """A stack above another one, walked together; what only the lower one has is shown as gone.

    complete: the upper one has all files, not only changed ones.
    """

    def __init__(self, upper: Stack, below: Stack, *, complete: bool) -> None:
        super().__init__(())
        self.upper = upper
        self.below = below
        self._complete = complete
        # For each directory on the way: whether anything of the lower stack shows through.
        self._opaque = [complete]

    def close(self) -> None:
        """Give the descriptors back."""
        self.upper.close()
        self.below.close()

    def entries(self) -> dict[str, tuple[os.stat_result, int]]:
        """Return the files of both; those that are gone have -1 for their layer."""
        found = self.upper.entries()
        if self._opaque[-1]:
            for name, (status, _) in self.below.entries().items():
                found.setdefault(name, (status, -1))
        return found

    def fd_of(self, layer: int) -> int:
        """Return the descriptor of the current directory in a layer, -1 for what is gone."""
        return self.upper.fd_of(layer) if layer >= 0 else -1

    def down(self, name: str) -> None:
        """Enter a directory in both."""
        self.upper.down(name)
        self.below.down(name)
        self._opaque.append(self._opaque[-1] or self.upper.is_opaque())

    def up(self) -> None:
        """Leave a directory in both."""
        self.upper.up()
        self.below.up()
        self._opaque.pop()


def between(upper: Layers, below: Layers, *, complete: bool) -> Iterator[Change]:
    """Yield what upper changes in below, in order; each is to be used before the next one.

    Raises OSError.
    """
    upper_fds, below_fds = upper.open(), below.open()
    # Marks are looked at below, where they say something; complete ones show what is left.
    raw = Stack(upper_fds, upper.marks, show_marks=not complete)
    pair = Pair(raw, Stack(below_fds, below.marks), complete=complete)
    try:
        for entry in layered.walk(pair, lambda each: each.dir_fd >= 0):
            change = _change(pair, entry, upper.marks, complete=complete)
            if change is not None:
                yield change
    finally:
        pair.close()
        for fd in (*upper_fds, *below_fds):
            os.close(fd)


def listed(found: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Group (letter, path) as --format json shows them."""
    groups = {"changed": CHANGED, "added": ADDED, "deleted": DELETED}
    grouped = {name: [path for kind, path in found if kind == groups[name]] for name in groups}
    return {name: paths for name, paths in grouped.items() if paths}


def _change(pair: Pair, entry: Entry, marks: str, *, complete: bool) -> Change | None:
    if entry.dir_fd < 0:
        return Change(DELETED, entry.path, entry)
    if not complete:
        gone = layered.whiteout_of(entry.name, entry.status, entry.dir_fd, marks)
        if gone is not None:
            if not gone or pair.below.exists(gone) is None:
                return None
            parent = entry.path[: -len(entry.name)]
            return Change(DELETED, parent + gone, entry)
    before = pair.below.exists(entry.name)
    if before is None:
        return Change(ADDED, entry.path, entry)
    if complete and _is_same(before, entry.status):
        return Change(SAME, entry.path, entry) if entry.is_directory() else None
    if not (entry.is_directory() and stat.S_ISDIR(before.st_mode)):
        return Change(CHANGED, entry.path, entry)
    opaque = not complete and layered.is_opaque_entry(entry, marks)
    incidental = not opaque and _owner_and_mode(before) == _owner_and_mode(entry.status)
    return Change(CHANGED, entry.path, entry, opaque, incidental)


def _owner_and_mode(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_uid, status.st_gid, status.st_mode


def _is_same(before: os.stat_result, now: os.stat_result) -> bool:
    """Compare what stat(2) tells; the size of a directory says nothing."""
    fields = ("st_mode", "st_uid", "st_gid", "st_rdev", "st_mtime_ns")
    if any(getattr(before, name) != getattr(now, name) for name in fields):
        return False
    return stat.S_ISDIR(now.st_mode) or before.st_size == now.st_size
