"""How many bytes a container's files are: what it has written, and with its image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.engine import idmap
from rootlesspy.errors import Error
from rootlesspy.linux import userns

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths


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
    kind, directory = kept.storage.get("kind"), paths.container(kept.id)
    written = {"directory": str(kept.storage.get("path", "")), "copy": f"{directory}/rootfs"}.get(
        str(kind), f"{directory}/upper"
    )
    try:
        size = userns.call_in_userns(idmap.maps_for(kept.userns), lambda: tree_bytes(written))
    except OSError as error:
        raise Error(f"cannot measure {kept.name}: {error.strerror or error}") from error
    image = _image_bytes(paths, kept) if kind not in ("directory", "copy") else 0
    return Sizes(SizeRw=size, SizeRootFs=image + size)


def tree_bytes(directory: str) -> int:
    """Add up the files below a directory, as root of a namespace with their ids."""
    # By descriptors: the container may replace a directory by a link meanwhile.
    seen: set[tuple[int, int]] = set()
    total = 0
    for _, _, names, fd in os.fwalk(directory, follow_symlinks=False):
        for name in names:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
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
