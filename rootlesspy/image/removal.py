"""Removing images: the name at once, the content when nobody works with the store.

References are counted by scanning, never by counters: a blob or layer goes when no entry of
index.json leads to it.  What a running pull prevents from going is collected by the next removal.
"""

from __future__ import annotations

import os

from rootlesspy.errors import Conflict, Error, ImageError
from rootlesspy.image import layout, locks
from rootlesspy.image.reference import is_image_id
from rootlesspy.image.store import Image, Removal, find_typed
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux.userns import IdMapping, IdMaps
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rootlesspy.image.layout import IndexEntry
    from rootlesspy.paths import Paths


def remove(
    paths: Paths, image: Image, text: str, *, force: bool, in_use: Callable[[], Collection[str]]
) -> Removal:
    """Remove what text means, which is image; see Store.remove().

    Raises Conflict, ImageError, OSError.
    """
    untagged: list[str] = []

    def without(entries: list[IndexEntry]) -> list[IndexEntry]:
        name = _name_meant(entries, text)
        own = [entry for entry in entries if entry["digest"] == image.digest]
        if name is not None and len(own) > 1 and not force:
            gone = [name]
        else:
            if name is None and len(own) > 1 and not force:
                raise Conflict(
                    f"image {text} has several names: {', '.join(image.names)}",
                    hint=f"rp rmi {' '.join(image.names)}, or rp rmi -f {text}",
                )
            gone = own
        untagged.extend(
            entry["annotations"][image_spec.REF_NAME]
            for entry in gone
            if image_spec.REF_NAME in entry.get("annotations", {})
        )
        return [entry for entry in entries if entry not in gone]

    layout.update_index(paths, without)
    collect(paths, in_use)
    left = {entry["digest"] for entry in layout.read_index(paths)}
    return Removal(tuple(untagged), None if image.digest in left else image.id)


def collect(paths: Paths, in_use: Callable[[], Collection[str]]) -> None:
    """Remove every blob and layer that neither a listed image nor a container needs.

    Does nothing while somebody pulls an image or starts a container.  Raises ImageError when the
    index is damaged: then nothing is removed.
    """
    held = layout.hold(paths, exclusive=True)
    if held is None:
        return
    try:
        blobs, diff_ids = _needed(paths)
        used = {os.path.dirname(path) for path in in_use()}
        for digest in listed(f"{paths.images}/blobs"):
            if digest not in blobs:
                os.unlink(layout.blob_path(paths, digest))
        for variant in _directories(paths.layers):
            algorithm = variant.partition("-")[0]
            for encoded in _directories(f"{paths.layers}/{variant}"):
                path = f"{paths.layers}/{variant}/{encoded}"
                if f"{algorithm}:{encoded}" not in diff_ids and path not in used:
                    remove_layer(paths, path)
    finally:
        os.close(held)


def _name_meant(entries: list[IndexEntry], text: str) -> IndexEntry | None:
    return None if is_image_id(text) else find_typed(entries, text)


def _needed(paths: Paths) -> tuple[set[str], set[str]]:
    """Return the digests and diff IDs that listed images need.

    Raises ImageError: an image that cannot be read might need anything.
    """
    blobs: set[str] = set()
    diff_ids: set[str] = set()
    for entry in layout.read_index(paths):
        blobs.add(entry["digest"])
        try:
            manifest = image_spec.parse_manifest(layout.read_blob(paths, entry["digest"]))
            config = image_spec.parse_config(layout.read_blob(paths, manifest.config.digest))
        except image_spec.MalformedError as error:
            raise ImageError(f"blob of image {entry['digest']} is damaged: {error}") from error
        blobs.add(manifest.config.digest)
        blobs.update(layer.digest for layer in manifest.layers)
        diff_ids.update(config["rootfs"]["diff_ids"])
    for entry in layout.read_lists(paths):
        blobs.add(entry["digest"])
        for each in listed_images(paths, entry):
            blobs.update(each.blobs)
            diff_ids.update(each.diff_ids)
    return blobs, diff_ids


class ListedImage(NamedTuple):
    """An image of a manifest list that is here: what it needs."""

    blobs: tuple[str, ...]
    diff_ids: tuple[str, ...]


def listed_images(paths: Paths, entry: IndexEntry) -> list[ListedImage]:
    """Return what the images of a manifest list need that are here.

    Raises ImageError for a damaged one: it might need anything.
    """
    try:
        found = image_spec.parse_index(layout.read_blob(paths, entry["digest"]))
        return [
            _listed_image(paths, each.digest)
            for each in found
            if os.path.exists(layout.blob_path(paths, each.digest))
        ]
    except image_spec.MalformedError as error:
        raise ImageError(f"blob of list {entry['digest']} is damaged: {error}") from error


def _listed_image(paths: Paths, digest: str) -> ListedImage:
    manifest = image_spec.parse_any_manifest(layout.read_blob(paths, digest))
    blobs = (digest, manifest.config.digest, *(layer.digest for layer in manifest.layers))
    try:
        config = image_spec.parse_config(layout.read_blob(paths, manifest.config.digest))
    except image_spec.MalformedError:
        # An artifact's configuration says nothing of layers.
        return ListedImage(blobs, ())
    return ListedImage(blobs, tuple(config["rootfs"]["diff_ids"]))


def remove_layer(paths: Paths, path: str) -> None:
    """Take a layer out of sight in one step, then remove its tree."""
    maps = _maps_of(path)
    item = locks.new_item(paths)
    os.rename(path, f"{item.path}/layer")
    try:
        locks.remove_item(paths, item, maps)
    except OSError as error:
        raise Error(
            f"cannot remove {item.path}: {error.strerror}",
            hint="the ids of its files may have left /etc/subuid; as root: rm -r " + item.path,
        ) from error


def _maps_of(path: str) -> IdMaps:
    """Return the id maps that a layer was unpacked with, as its description says."""
    own = IdMaps((IdMapping(0, os.getuid(), 1),), (IdMapping(0, os.getgid(), 1),))
    try:
        text = json.loads(layout.read_file(f"{path}/layer.json"))["maps"]
        uids, gids = (
            tuple(IdMapping(*map(int, each.split(":"))) for each in part.split(","))
            for part in text.split(" ")
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return own
    return IdMaps(uids, gids)


def listed(directory: str) -> list[str]:
    """Return the digests of the blobs that are there; anything else is left alone."""
    found = [
        f"{algorithm}:{encoded}"
        for algorithm in _directories(directory)
        for encoded in _names(f"{directory}/{algorithm}")
    ]
    return [digest for digest in found if image_spec.is_digest(digest)]


def _directories(directory: str) -> list[str]:
    return [name for name in _names(directory) if os.path.isdir(f"{directory}/{name}")]


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
