"""How much the image store has on disk, and which images share it."""

from __future__ import annotations

import os

from rootlesspy.image import layout
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.store import Image
    from rootlesspy.paths import Paths


class Share(NamedTuple):
    """The bytes of an image's layers: those that other images have too, and those only it has."""

    shared_bytes: int
    unique_bytes: int


def blobs_bytes(paths: Paths) -> int:
    """Return what the blobs take on disk."""
    total = 0
    for directory in _directories(f"{paths.images}/blobs"):
        with os.scandir(directory) as entries:
            total += sum(_allocated(entry) for entry in entries)
    return total


def layers_bytes(paths: Paths) -> dict[str, int]:
    """Return the size of the files of each unpacked layer, by its directory."""
    found = {}
    for variant in _directories(paths.layers):
        for path in _directories(variant):
            try:
                found[path] = int(json.loads(layout.read_file(f"{path}/layer.json"))["size_bytes"])
            except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
                found[path] = 0
    return found


def total_bytes(paths: Paths) -> int:
    """Return what blobs and unpacked layers take."""
    return blobs_bytes(paths) + sum(layers_bytes(paths).values())


def needed_bytes(paths: Paths, images: Sequence[Image], suffix: str) -> int:
    """Return what the blobs and layers of some images take, each once.  Raises ImageError."""
    blobs: set[str] = set()
    diff_ids: set[str] = set()
    for image in images:
        manifest = image_spec.parse_manifest(layout.read_blob(paths, image.digest))
        blobs.update((image.digest, image.id, *(layer.digest for layer in manifest.layers)))
        diff_ids.update(image.diff_ids)
    total = sum(layout.layer_size(paths, diff_id, suffix) for diff_id in diff_ids)
    for digest in blobs:
        try:
            total += os.stat(layout.blob_path(paths, digest)).st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def shares(paths: Paths, images: Sequence[Image], suffix: str) -> dict[str, Share]:
    """Return the share of each image, by its id; suffix is that of the layers' id maps."""
    owners: dict[str, set[str]] = {}
    for image in images:
        for diff_id in image.diff_ids:
            owners.setdefault(diff_id, set()).add(image.id)
    found = {}
    for image in images:
        shared = unique = 0
        for diff_id in dict.fromkeys(image.diff_ids):
            size = layout.layer_size(paths, diff_id, suffix)
            if len(owners[diff_id]) > 1:
                shared += size
            else:
                unique += size
        found[image.id] = Share(shared, unique)
    return found


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _allocated(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except FileNotFoundError:
        return 0
