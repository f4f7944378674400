"""How many bytes a container's files are: what it has written, and with its image."""

from __future__ import annotations

import os
from functools import partial

from rootlesspy.engine import idmap
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import userns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

# Kinds of storage that hold the image too.
_WHOLE = ("directory", "copy")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Sizes(NamedTuple):
    """Bytes, in podman's names."""

    SizeRw: int
    """What the container has written."""
    SizeRootFs: int
    """That and its image."""


def sizes(paths: Paths, kept: ContainerRecord) -> Sizes:
    """Add up the files of a container; hard links count once, sparse files in full.

    All of them are visited, as root of a user namespace, since many belong to subordinate ids.
    Raises Error.
    """
    try:
        size = userns.call_in_userns(idmap.of(kept), lambda: tree_bytes(_written(paths, kept)))
    except OSError as error:
        raise Error(f"cannot measure {kept.name}: {error.strerror or error}") from error
    image = _image_bytes(paths, kept) if kept.storage.get("kind") not in _WHOLE else 0
    return Sizes(SizeRw=size, SizeRootFs=image + size)


def all_sizes(paths: Paths, listed: Iterable[ContainerRecord]) -> dict[str, Sizes]:
    """Return id → sizes(), without those where they cannot be told."""
    kept = {each.id: each for each in listed}
    found, images = {}, {}
    for identity, size in written(paths, kept.values()).items():
        of = kept[identity]
        if of.storage.get("kind") in _WHOLE:
            found[identity] = Sizes(SizeRw=size, SizeRootFs=size)
            continue
        if of.image_id not in images:
            images[of.image_id] = _image_bytes(paths, of)
        found[identity] = Sizes(SizeRw=size, SizeRootFs=images[of.image_id] + size)
    return found


def written(paths: Paths, listed: Iterable[ContainerRecord]) -> dict[str, int]:
    """Return id → bytes that it has written, without those where that cannot be told.

    In one user namespace for all that have the same ids in it: to make one takes longer than to
    visit a few files.
    """
    places: dict[tuple[str, str], dict[str, ContainerRecord]] = {}
    for kept in listed:
        places.setdefault((kept.userns, repr(kept.id_maps)), {})[kept.id] = kept
    found: dict[str, int] = {}
    for alike in places.values():
        try:
            maps = idmap.of(next(iter(alike.values())))
            directories = {name: _written(paths, kept) for name, kept in alike.items()}
            found |= userns.call_in_userns(maps, partial(_trees_bytes, directories))
        except (Error, OSError):
            # Damaged, or without the ids that it had.
            continue
    return found


def _written(paths: Paths, kept: ContainerRecord) -> str:
    """Return where the files of a container are that are not its image's."""
    directory = paths.container(kept.id)
    whole = {"directory": str(kept.storage.get("path", "")), "copy": f"{directory}/rootfs"}
    return whole.get(str(kept.storage.get("kind")), f"{directory}/upper")


def _trees_bytes(directories: dict[str, str]) -> dict[str, int]:
    found = {}
    for name, directory in directories.items():
        try:
            found[name] = tree_bytes(directory)
        except OSError:
            # Being removed.
            continue
    return found


def tree_bytes(directory: str) -> int:
    """Add up the files below a directory, as root of a namespace with their ids.

    Nothing is below a link or a file.  Raises OSError.
    """
    try:
        levels: list[tuple[int, list[str]]] = [(os.open(directory, _DIRECTORY), [])]
    except NotADirectoryError:
        return 0
    seen: set[tuple[int, int]] = set()
    try:
        total = _bytes_in(*levels[0], seen)
        # By descriptors: the container may replace a directory by a link meanwhile.
        while levels:
            fd, below = levels[-1]
            if not below:
                os.close(levels.pop()[0])
                continue
            try:
                levels.append((os.open(below.pop(), _DIRECTORY, dir_fd=fd), []))
            except OSError:
                # Removed or replaced, or deeper than there are descriptors.
                continue
            total += _bytes_in(*levels[-1], seen)
    finally:
        for fd, _ in levels:
            os.close(fd)
    return total


def _bytes_in(fd: int, below: list[str], seen: set[tuple[int, int]]) -> int:
    """Add up the files in a directory, and add the directories in it to below."""
    total = 0
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            key = (status.st_dev, status.st_ino)
            if status.st_nlink == 1 or key not in seen:
                seen.add(key)
                total += status.st_size
    return total


def _image_bytes(paths: Paths, kept: ContainerRecord) -> int:
    from rootlesspy.image.store import Store

    try:
        return Store(paths).resolve(kept.image_id).size_bytes
    except (Error, OSError):
        # Removed by force: its layers are still there, its size is not known any more.
        return 0
