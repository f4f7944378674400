"""The store as a whole: how much it has on disk, what can go, whether it is sound."""

from __future__ import annotations

import os

from rootlesspy.engine import ending, idmap, leftovers, lifecycle, volume_store, volumes
from rootlesspy.engine.images import image_removal
from rootlesspy.engine.views import disk_usage
from rootlesspy.errors import Conflict, Error, NotFound
from rootlesspy.image import fsck, layout, usage
from rootlesspy.image.store import Store
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import userns

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.record import Container
    from rootlesspy.image.fsck import Problem
    from rootlesspy.image.store import Image
    from rootlesspy.image.usage import Share
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


class Kept(NamedTuple):
    """A container and what it has written, in bytes."""

    container: Container
    size_bytes: int
    volumes: frozenset[str]


class VolumeUse(NamedTuple):
    """A volume, its bytes, and how many containers use it."""

    name: str
    size_bytes: int
    users: int


class Inventory(NamedTuple):
    """Everything that has bytes on disk."""

    images: tuple[Image, ...]
    shares: dict[str, Share]
    image_bytes: int
    """Blobs and unpacked layers, each once."""
    unused_image_bytes: int
    containers: tuple[Kept, ...]
    volumes: tuple[VolumeUse, ...]


def inventory(paths: Paths) -> Inventory:
    """Measure the store.  Raises ImageError, Error, OSError."""
    images = tuple(Store(paths).images())
    suffix = layout.maps_suffix(paths, idmap.default_maps()) if images else ""
    containers = lifecycle.containers(paths)
    written = disk_usage.written(paths, (each.record for each in containers))
    every = volumes.names(paths)
    kept = tuple(
        Kept(
            each,
            written.get(each.record.id, 0),
            # Where there is no volume no spec is looked through.
            volumes.of(paths, each) if every else frozenset(),
        )
        for each in containers
    )
    used = {each.container.record.image_id for each in kept}
    total = usage.total_bytes(paths) if os.path.isdir(paths.images) else 0
    needed = usage.needed_bytes(paths, [image for image in images if image.id in used], suffix)
    return Inventory(
        images=images,
        shares=usage.shares(paths, images, suffix),
        image_bytes=total,
        unused_image_bytes=max(total - needed, 0),
        containers=kept,
        volumes=_volumes(paths, kept, every),
    )


def prune_containers(
    paths: Paths, chosen: Callable[[Container], bool], reporter: Reporter
) -> list[str]:
    """Remove stopped containers that are chosen; return the ids of those that are gone."""
    gone = []
    for container in lifecycle.containers(paths):
        if container.state not in ("exited", "created") or not chosen(container):
            continue
        try:
            ending.remove(paths, [container.record.id], force=False, reporter=reporter)
        except (Conflict, NotFound):
            # Started or removed meanwhile.
            continue
        gone.append(container.record.id)
    ending.forget_failed(paths)
    return gone


def check(paths: Paths, *, repair: bool) -> tuple[list[Problem], list[Problem]]:
    """Check the image store; return what was wrong, and what is after the repair.

    Raises Conflict when it is to be repaired while somebody works with it, OSError.
    """
    if not os.path.isdir(paths.layers):
        return [], []
    held = layout.hold(paths, exclusive=False)
    try:
        found = fsck.Check(paths, lambda: image_removal.layers_in_use(paths)).run()
    finally:
        if held is not None:
            os.close(held)
    if not repair or not found:
        return found, found
    leftovers.sweep(paths)
    left = fsck.repair(
        paths, idmap.default_maps(), found, lambda: image_removal.layers_in_use(paths)
    )
    return found, left


def _volumes(paths: Paths, kept: tuple[Kept, ...], names: list[str]) -> tuple[VolumeUse, ...]:
    if not names:
        return ()

    def measure() -> dict[str, int]:
        return {name: disk_usage.tree_bytes(volume_store.data_path(paths, name)) for name in names}

    try:
        sizes = userns.call_in_userns(idmap.default_maps(), measure)
    except OSError as error:
        raise Error(f"cannot measure volumes: {error.strerror or error}") from error
    return tuple(
        VolumeUse(name, sizes[name], sum(name in each.volumes for each in kept)) for name in names
    )
