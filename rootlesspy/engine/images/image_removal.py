"""Removing images without taking them from under a container."""

from __future__ import annotations

import os

from rootlesspy.engine import ending, idmap, lifecycle, record
from rootlesspy.engine.output import events
from rootlesspy.errors import Conflict, NotFound
from rootlesspy.image import lists, locks, usage
from rootlesspy.image.reference import candidates, is_image_id
from rootlesspy.image.store import Removal, Store
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.image.lists import ManifestList
    from rootlesspy.image.store import Image
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter


def users(paths: Paths) -> dict[str, list[str]]:
    """Return the names of the containers made from each image, by the image's id."""
    names: dict[str, list[str]] = {}
    for container in lifecycle.containers(paths):
        names.setdefault(container.record.image_id, []).append(container.record.name)
    return names


def remove(paths: Paths, text: str, *, force: bool, reporter: Reporter) -> Removal:
    """Remove an image by name or id; with force, the containers that use it first.

    A name of an image that has others only goes away itself, whoever uses the image.  Raises
    NotFound, Conflict when a container uses it.
    """
    store = Store(paths)
    if (found := lists.named(paths, text)) is not None:
        return remove_list(paths, found, text, force=force)
    image = store.resolve(text)
    names = users(paths).get(image.id, [])
    loses_one_name = len(image.names) > 1 and not is_image_id(text) and not force
    if names and not loses_one_name:
        if not force:
            raise Conflict(
                f"image {text} is in use by container {', '.join(names)}",
                hint=f"rp rm {' '.join(names)}, or rp rmi -f {text}",
            )
        ending.remove(paths, names, force=True, reporter=reporter)
    removed = store.remove(text, force=force, in_use=lambda: layers_in_use(paths))
    for name in removed.untagged:
        events.emit_image("untag", name, image.id)
    if removed.deleted is not None:
        events.emit_image("remove", image.names[0] if image.names else "", image.id)
    return removed


def remove_list(paths: Paths, found: ManifestList, text: str, *, force: bool) -> Removal:
    """Remove a manifest list by name or id; what only it needs goes with it.

    Raises Conflict for an id when it has several names and force is not given.
    """
    name = next((each for each in _full(text) if each in found.names), None)
    if len(found.names) > 1 and not force:
        if name is None:
            raise Conflict(
                f"manifest list {text} has several names: {', '.join(found.names)}",
                hint=f"rp rmi {' '.join(found.names)}, or rp rmi -f {text}",
            )
        untagged = lists.remove(paths, found, [name])
        left = True
    else:
        untagged, left = lists.remove(paths, found), False
    collect(paths)
    for each in untagged:
        events.emit_image("untag", each, found.id)
    if not left:
        events.emit_image("remove", found.names[0] if found.names else "", found.id)
    return Removal(tuple(untagged), None if left else found.id)


def _full(text: str) -> list[str]:
    return [] if is_image_id(text) else [str(each) for each in candidates(text)]


class Pruned(NamedTuple):
    """What prune() did: images that are gone, and how much their files had on disk."""

    images: tuple[Image, ...]
    freed_bytes: int


def prune(paths: Paths, chosen: Callable[[list[Image]], list[Image]]) -> Pruned:
    """Remove the images that chosen picks among those that no container uses.

    Raises ImageError, Error, OSError.
    """
    store = Store(paths)
    used = users(paths)
    named = {found.id: found for found in lists.all_lists(paths)}
    before = usage.total_bytes(paths)
    gone = []
    unused = [image for image in store.images() if image.id not in used]
    for image in chosen([*unused, *(found.as_image() for found in named.values())]):
        try:
            if image.id in named:
                lists.remove(paths, named[image.id])
            else:
                store.forget(image)
        except NotFound:
            # Somebody else was faster.
            continue
        events.emit_image("remove", image.names[0] if image.names else "", image.id)
        gone.append(image)
    collect(paths)
    if os.path.isdir(paths.tmp):
        # What killed pulls and commits left there.
        locks.sweep(paths, idmap.default_maps())
    return Pruned(tuple(gone), max(before - usage.total_bytes(paths), 0))


def collect(paths: Paths) -> None:
    """Remove what neither an image nor a container needs.  Raises ImageError, Error, OSError."""
    Store(paths).collect(lambda: layers_in_use(paths))


def layers_in_use(paths: Paths) -> set[str]:
    """Return the layer directories that any container stands on."""
    found: set[str] = set()
    for container_id in record.ids(paths):
        container = record.load(paths, container_id)
        lower = container.record.storage.get("lower") if container else None
        found.update(lower if isinstance(lower, list) else ())
    return found
