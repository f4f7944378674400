"""Checking the image store: every digest, what is missing, what nobody needs; and curing it.

Blobs and documents are compared with their digests.  Unpacked layers were verified when they were
made and belong to the user alone; of them only the description is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os

from rootlesspy.errors import Conflict, ImageError
from rootlesspy.image import layout, locks, removal, usage
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rootlesspy.image.layout import IndexEntry
    from rootlesspy.linux.userns import IdMaps
    from rootlesspy.paths import Paths

_CHUNK = 1 << 20
_INDEX, _IMAGE, _LIST, _BLOB, _LAYER, _ORPHAN, _HALF_MADE = (
    "index", "image", "list", "blob", "layer", "orphan", "half-made",
)  # fmt: skip


class Problem(NamedTuple):
    """Something wrong: what kind of thing, which one, why; and how large what can be freed is."""

    kind: str
    name: str
    why: str
    free_bytes: int = 0


class Check:
    """One look at the store, which the caller holds against removals."""

    def __init__(self, paths: Paths, in_use: Callable[[], Collection[str]]) -> None:
        """in_use returns the layer directories that containers stand on."""
        self._paths = paths
        self._in_use = in_use
        self._blobs: dict[str, str] = {}
        self._diff_ids: set[str] = set()
        self._wanted: set[str] = set()
        """Diff IDs that need not be unpacked: those of images in manifest lists."""

    def run(self) -> list[Problem]:
        """Return all problems.  Raises OSError."""
        try:
            entries = layout.read_index(self._paths)
        except ImageError as error:
            return [Problem(_INDEX, "index.json", error.message)]
        problems = []
        for entry in {entry["digest"]: entry for entry in entries}.values():
            why = self._image(entry)
            if why is not None:
                problems.append(Problem(_IMAGE, entry["digest"], why))
        for entry in layout.read_lists(self._paths):
            why = self._list(entry)
            if why is not None:
                problems.append(Problem(_LIST, entry["digest"], why))
        return [*problems, *self._blob_problems(), *self._layer_problems(), *self._half_made()]

    def _image(self, entry: IndexEntry) -> str | None:
        """Note what an image needs; return what is wrong with its documents."""
        name = entry.get("annotations", {}).get(image_spec.REF_NAME) or entry["digest"]
        self._blobs[entry["digest"]] = name
        try:
            manifest = image_spec.parse_manifest(self._document(entry["digest"]))
            self._blobs[manifest.config.digest] = name
            config = image_spec.parse_config(self._document(manifest.config.digest))
        except ImageError as error:
            return error.message
        except image_spec.MalformedError as error:
            return str(error)
        for layer in manifest.layers:
            self._blobs[layer.digest] = name
        self._diff_ids.update(config["rootfs"]["diff_ids"])
        return None

    def _list(self, entry: IndexEntry) -> str | None:
        """Note what a manifest list needs; return what is wrong with its documents."""
        name = entry.get("annotations", {}).get(image_spec.REF_NAME) or entry["digest"]
        self._blobs[entry["digest"]] = name
        try:
            self._document(entry["digest"])
            for each in removal.listed_images(self._paths, entry):
                self._wanted.update(each.diff_ids)
                for digest in each.blobs:
                    self._blobs.setdefault(digest, name)
        except ImageError as error:
            return error.message
        except image_spec.MalformedError as error:
            return str(error)
        return None

    def _document(self, digest: str) -> bytes:
        data = layout.read_blob(self._paths, digest)
        algorithm = digest.partition(":")[0]
        if f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}" != digest:
            raise ImageError(f"document {digest} is another one")
        return data

    def _blob_problems(self) -> list[Problem]:
        problems = []
        present = set(removal.listed(f"{self._paths.images}/blobs"))
        for digest in sorted(present):
            size = os.path.getsize(layout.blob_path(self._paths, digest))
            if digest not in self._blobs:
                problems.append(Problem(_ORPHAN, digest, "no image needs it", size))
            elif not _has_content(layout.blob_path(self._paths, digest), digest):
                owner = self._blobs[digest]
                problems.append(Problem(_BLOB, digest, f"damaged, of {owner}", size))
        for digest, owner in self._blobs.items():
            if digest not in present:
                problems.append(Problem(_BLOB, digest, f"missing, of {owner}"))
        return problems

    def _layer_problems(self) -> list[Problem]:
        problems = []
        used = {os.path.dirname(path) for path in self._in_use()}
        sizes = usage.layers_bytes(self._paths)
        for path, size in sizes.items():
            algorithm = os.path.basename(os.path.dirname(path)).partition("-")[0]
            diff_id = f"{algorithm}:{os.path.basename(path)}"
            why = _layer_fault(path, diff_id)
            if why is not None:
                problems.append(Problem(_LAYER, path, why, size))
            elif diff_id not in self._diff_ids | self._wanted and path not in used:
                problems.append(Problem(_ORPHAN, path, "no image needs it", size))
        unpacked = {
            f"{os.path.basename(os.path.dirname(path))}:{os.path.basename(path)}" for path in sizes
        }
        missing = sorted(self._diff_ids - unpacked)
        return [*problems, *(Problem(_LAYER, diff_id, "not unpacked") for diff_id in missing)]

    def _half_made(self) -> list[Problem]:
        return [
            Problem(_HALF_MADE, path, "its maker is gone") for path in locks.abandoned(self._paths)
        ]


def repair(
    paths: Paths, maps: IdMaps, problems: list[Problem], in_use: Callable[[], Collection[str]]
) -> list[Problem]:
    """Cure what can be cured; return what is left, which pulling again cures.

    Images whose documents are damaged leave the list; damaged blobs are removed, so that the next
    pull fetches them; orphans and half-made things are freed; a damaged index is put aside and made
    again, without the names.  Raises Conflict while somebody works with the store, OSError.
    """
    held = layout.hold(paths, exclusive=True)
    if held is None:
        raise Conflict("somebody pulls an image or starts a container now", hint="try again")
    try:
        damaged = {problem.name for problem in problems if problem.kind in (_IMAGE, _LIST)}
        if any(problem.kind == _INDEX for problem in problems):
            _make_index(paths)
        if damaged:
            for update in (layout.update_index, layout.update_lists):
                update(
                    paths,
                    lambda entries: [entry for entry in entries if entry["digest"] not in damaged],
                )
        used = {os.path.dirname(path) for path in in_use()}
        for problem in problems:
            if problem.kind == _BLOB:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(layout.blob_path(paths, problem.name))
            elif (
                problem.kind == _LAYER and problem.name not in used and os.path.isdir(problem.name)
            ):
                removal.remove_layer(paths, problem.name)
    finally:
        os.close(held)
    removal.collect(paths, in_use)
    locks.sweep(paths, maps)
    return Check(paths, in_use).run()


def _make_index(paths: Paths) -> None:
    """List again what can be read of the images, without names, which only the index knew."""
    path = f"{paths.images}/index.json"
    os.replace(path, f"{path}.bad")
    found: list[IndexEntry] = []
    for digest in removal.listed(f"{paths.images}/blobs"):
        try:
            if os.path.getsize(layout.blob_path(paths, digest)) > image_spec.MAX_DOCUMENT_BYTES:
                continue
            data = layout.read_blob(paths, digest)
            manifest = image_spec.parse_manifest(data)
            image_spec.parse_config(layout.read_blob(paths, manifest.config.digest))
        except (ImageError, image_spec.MalformedError, OSError):
            continue
        found.append({"mediaType": manifest.media_type, "digest": digest, "size": len(data)})
    layout.update_index(paths, lambda entries: [*entries, *found])


def _layer_fault(path: str, diff_id: str) -> str | None:
    try:
        description = json.loads(layout.read_file(f"{path}/layer.json"))
        if description["diff_id"] != diff_id:
            return "it says that it is another layer"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "its description is damaged"
    if not any(os.path.isdir(f"{path}/{name}") for name in ("diff", "opaque")):
        return "its files are missing"
    return None


def _has_content(path: str, digest: str) -> bool:
    algorithm, _, encoded = digest.partition(":")
    hashed = hashlib.new(algorithm)
    try:
        with open(path, "rb", buffering=0) as file:
            while data := file.read(_CHUNK):
                hashed.update(data)
    except OSError:
        return False
    return hashed.hexdigest() == encoded
