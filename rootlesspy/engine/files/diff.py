"""`rp diff`: what a container or an image changes in what it was made from.

Read from the directories of the layers, whether the container runs or not; files that its mounts
hide, and what a start makes for them, are no changes of the user's.
"""

from __future__ import annotations

from rootlesspy.engine import idmap
from rootlesspy.engine.files import changes, container_root
from rootlesspy.engine.files.changes import Layers
from rootlesspy.engine.files.layered import OVERLAY
from rootlesspy.errors import Conflict, Error, NotFound
from rootlesspy.image.store import Store
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootlesspy.engine.files.changes import Change
    from rootlesspy.engine.files.container_root import Held
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths

# What a start makes for its mounts (podman leaves out the same).
_OF_THE_RUNNER = frozenset((
    "dev", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "proc", "run",
    "run/.containerenv", "run/rp-init", "run/secrets", "sys",
))  # fmt: skip


class Files(NamedTuple):
    """The files of something: its own layer, what lies below, and the merged view."""

    upper: Layers
    below: Layers
    complete: bool
    """upper holds all files, not only changed ones."""
    maps: IdMaps
    mounts: frozenset[str] = frozenset()
    """Where the container has mounts, relative to its root."""

    def merged(self) -> Layers:
        """Return the layers that show all files."""
        if self.complete:
            return self.upper
        return Layers(self.upper.directories + self.below.directories, self.upper.marks)


def diff(paths: Paths, name: str, other: str | None = None) -> list[tuple[str, str]]:
    """Return (letter, absolute path) of each change of a container or image, in order.

    other: a container or image to compare with, rather than what lies below.  Raises NotFound,
    Conflict, Error.
    """
    held: list[Held] = []
    try:
        files = _find(paths, name, held)
        if other is None:
            if not files.below.directories and files.complete:
                raise Error(f"container {name} has no image that it could be compared with")
        else:
            below = _find(paths, other, held).merged()
            files = files._replace(upper=files.merged(), below=below, complete=True)
        found = container_root.call_with_ids(files.maps, lambda: _listed(files))
    finally:
        for each in held:
            each.release()
    if not isinstance(found, list):
        raise Error(f"the files of {name} cannot be compared")
    return [(str(kind), str(path)) for kind, path in found]


def files_of(held: Held) -> Files:
    """Return the files of a container."""
    storage = held.record.storage
    listed = storage.get("lower")
    lower = tuple(map(str, reversed(listed))) if isinstance(listed, list) else ()
    below = Layers(lower, OVERLAY)
    mounts = container_root.read_spec(held.directory).get("mounts")
    targets = frozenset(
        str(each.get("destination", "")).strip("/")
        for each in (mounts if isinstance(mounts, list) else ())
    )
    kind = str(storage["kind"])
    if kind in ("copy", "directory"):
        path = str(storage["path"]) if kind == "directory" else f"{held.directory}/rootfs"
        return Files(Layers((path,), ""), below, True, held.maps, targets)
    return Files(Layers((f"{held.directory}/upper",), kind), below, False, held.maps, targets)


def is_of_the_runner(path: str, mounts: frozenset[str]) -> bool:
    """Say whether a path is what a start makes, or one that is mounted over."""
    return path in _OF_THE_RUNNER or path in mounts


def own_changes(files: Files) -> Iterator[Change]:
    """Yield the changes of the user's; each is to be used before the next one.  Raises OSError."""
    for change in changes.between(files.upper, files.below, complete=files.complete):
        if not is_of_the_runner(change.path, files.mounts):
            yield change


def _find(paths: Paths, name: str, held: list[Held]) -> Files:
    """Return the files of a container, which is held, or else of an image."""
    try:
        held.append(container_root.hold(paths, name, tuple(held)))
        return files_of(held[-1])
    except NotFound as missing:
        return _image_files(paths, name, missing)


def _image_files(paths: Paths, name: str, missing: NotFound) -> Files:
    store = Store(paths)
    try:
        image = store.resolve(name)
    except NotFound:
        raise NotFound(
            f"no container or image {name!r} here", hint="rp ps -a and rp images list them"
        ) from missing
    maps = idmap.default_maps()
    layers = store.layers(image, maps)
    if layers is None:
        raise Conflict(f"image {name} is not unpacked for your ids", hint=f"rp pull {name}")
    top_first = tuple(reversed(layers))
    return Files(Layers(top_first[:1], OVERLAY), Layers(top_first[1:], OVERLAY), False, maps)


def _listed(files: Files) -> list[list[str]]:
    found: list[tuple[str, str, bool]] = []
    touched: set[str] = set()
    for change in changes.between(files.upper, files.below, complete=files.complete):
        if is_of_the_runner(change.path, files.mounts):
            touched.add(_parent(change.path))
        elif change.kind != changes.SAME:
            found.append((change.kind, change.path, change.incidental))
    parents = {_parent(path) for _, path, _ in found}
    return [
        [kind, f"/{path}"]
        for kind, path, incidental in found
        # Changed by what a start made in it, and by nothing else.
        if not (incidental and path in touched and path not in parents)
    ]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
