"""Manifest lists of the store: indexes in index.json with names, beside the images.

A list is known by an id that stays when its content changes, as podman has it; one that another
tool put into the layout has none, and is known by its digest.
"""

from __future__ import annotations

import os
import time

from rootlesspy.errors import Conflict, ImageError, NotFound, UsageError
from rootlesspy.image import layout, manifest_list, platforms
from rootlesspy.image.documents import has_digest, sha256
from rootlesspy.image.reference import candidates, is_image_id, parse_local
from rootlesspy.image.store import Image, find_typed, names_of
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootlesspy.image.layout import IndexEntry
    from rootlesspy.image.manifest_list import Document
    from rootlesspy.image.writer import Writer
    from rootlesspy.oci.image_spec import Descriptor
    from rootlesspy.paths import Paths

_MIN_ID_PREFIX = 4


class ManifestList(NamedTuple):
    """One list; id is sha256: and 64 digits."""

    id: str
    digest: str
    names: tuple[str, ...]
    created_s: float
    size_bytes: int
    data: bytes
    media_type: str

    def document(self) -> Document:
        """Return the index itself."""
        return manifest_list.parse(self.data, self.media_type)

    def entries(self) -> tuple[Descriptor, ...]:
        """Return the descriptors of its images."""
        return image_spec.parse_index(self.data, self.media_type)

    def as_image(self) -> Image:
        """Return what listings show of it: an image without platform and layers."""
        return Image(
            id=self.id,
            digest=self.digest,
            names=self.names,
            config={},
            diff_ids=(),
            size_bytes=self.size_bytes,
            created_s=self.created_s,
            platform="",
        )


def all_lists(paths: Paths) -> list[ManifestList]:
    """Return all lists; damaged ones are left out."""
    found: dict[str, ManifestList] = {}
    entries = layout.read_lists(paths)
    for entry in entries:
        if _id(entry) not in found:
            try:
                found[_id(entry)] = _load(paths, entry, entries)
            except ImageError:
                continue
    return list(found.values())


def find(paths: Paths, text: str) -> ManifestList | None:
    """Return the list that a name, digest, id or unique beginning of an id means.

    Raises UsageError for what cannot be a name, ImageError for a damaged one.
    """
    entries = layout.read_lists(paths)
    if not entries:
        return None
    if not is_image_id(text):
        entry = find_typed(entries, text)
        if entry is not None:
            return _load(paths, entry, entries)
    prefix = text.removeprefix("sha256:")
    if len(prefix) >= _MIN_ID_PREFIX:
        own = {_id(entry): entry for entry in entries if _id(entry).startswith(f"sha256:{prefix}")}
        if len(own) > 1:
            raise UsageError(f"id {prefix} is ambiguous: {', '.join(sorted(own))}")
        for entry in own.values():
            return _load(paths, entry, entries)
    return None


def named(paths: Paths, text: str) -> ManifestList | None:
    """Return what find() returns unless an image has the name."""
    found = find(paths, text)
    if found is None or is_image_id(text):
        return found
    return None if find_typed(layout.read_index(paths), text) is not None else found


def resolve(paths: Paths, text: str) -> ManifestList:
    """Return what find() returns; raise NotFound where there is none."""
    found = find(paths, text)
    if found is not None:
        return found
    entries = layout.read_index(paths)
    if not is_image_id(text) and find_typed(entries, text) is not None:
        raise UsageError(f"{text} is an image, not a manifest list", hint="rp image inspect")
    raise NotFound(f"no manifest list {text} here", hint="rp manifest create")


def chosen(found: ManifestList, platform: str | None) -> Descriptor:
    """Return the entry for a platform, this machine's when None.  Raises ImageError."""
    name = found.names[0] if found.names else found.id
    try:
        return platforms.choose_from(found.entries(), platform, f"manifest list {name}")
    except NotFound as error:
        raise ImageError(error.message, hint=error.hint) from error


def create(writer: Writer, paths: Paths, name: str, document: Document) -> ManifestList:
    """Make a list.  Raises UsageError, Conflict when an image or list has the name."""
    reference = _checked(name)
    data = _encoded(document)
    digest = sha256(data)
    writer.put_document(digest, data)
    entry: IndexEntry = {
        "mediaType": manifest_list.media_type_of(document),
        "digest": digest,
        "size": len(data),
        "annotations": {
            image_spec.REF_NAME: reference,
            layout.LIST_ID: os.urandom(32).hex(),
            layout.LIST_CREATED: str(int(time.time())),
        },
    }

    def change(entries: list[IndexEntry]) -> list[IndexEntry]:
        images = layout.read_index(paths)
        if find_typed(entries, reference) or find_typed(images, reference):
            raise Conflict(
                f"the name {reference} is in use", hint=f"--amend, or rp untag {reference}"
            )
        return [*entries, entry]

    writer.sync()
    layout.update_lists(paths, change)
    return resolve(paths, reference)


def put(writer: Writer, paths: Paths, name: str, data: bytes, media_type: str) -> ManifestList:
    """List an index as it was read elsewhere under a name, which whatever had it loses."""
    reference, digest = _checked(name), sha256(data)
    writer.put_document(digest, data)
    writer.sync()
    annotations = {
        image_spec.REF_NAME: reference,
        layout.LIST_ID: os.urandom(32).hex(),
        layout.LIST_CREATED: str(int(time.time())),
    }
    entry: IndexEntry = {
        "mediaType": media_type,
        "digest": digest,
        "size": len(data),
        "annotations": annotations,
    }
    layout.update_lists(paths, lambda entries: [*_unnamed(entries, reference), entry])
    return resolve(paths, reference)


def change(
    writer: Writer, paths: Paths, found: ManifestList, make: Callable[[Document], Document]
) -> ManifestList:
    """Replace the content of a list by what make makes of it, under the lock of the index.

    Raises NotFound when it has been removed meanwhile, what make raises, ImageError, OSError.
    """
    digests: list[str] = []

    def changed(entries: list[IndexEntry]) -> list[IndexEntry]:
        own = [entry for entry in entries if _id(entry) == found.id]
        if not own:
            raise NotFound(f"manifest list {found.id} has been removed meanwhile")
        document = make(_load(paths, own[0], entries).document())
        data = _encoded(document)
        digests.append(sha256(data))
        writer.put_document(digests[0], data)
        writer.sync()
        new: IndexEntry = {
            "mediaType": manifest_list.media_type_of(document),
            "digest": digests[0],
            "size": len(data),
        }
        # One that came from another tool gets an id now.
        stays = {layout.LIST_ID: found.id.partition(":")[2]}
        return [
            {**new, "annotations": {**entry.get("annotations", {}), **stays}}
            if _id(entry) == found.id
            else entry
            for entry in entries
        ]

    layout.update_lists(paths, changed)
    return resolve(paths, found.id)


def remove(paths: Paths, found: ManifestList, names: Sequence[str] | None = None) -> list[str]:
    """Take names from a list, the list with the last of them; all when names is None.

    Returns the names that are gone.  Its content goes by Store.collect().
    """
    gone: list[str] = []

    def without(entries: list[IndexEntry]) -> list[IndexEntry]:
        own = [entry for entry in entries if _id(entry) == found.id]
        leaving = [each for each in own if names is None or _name(each) in names]
        gone.extend(name for name in map(_name, leaving) if name)
        return [entry for entry in entries if entry not in leaving]

    layout.update_lists(paths, without)
    return gone


def tag(paths: Paths, found: ManifestList, names: Sequence[str]) -> list[str]:
    """Give a list more names, each taken from whatever had it; return them in full."""
    wanted = [_checked(name) for name in names]

    def change(entries: list[IndexEntry]) -> list[IndexEntry]:
        own = next((entry for entry in entries if _id(entry) == found.id), None)
        if own is None:
            raise NotFound(f"manifest list {found.id} has been removed meanwhile")
        for name in wanted:
            annotations = {**own.get("annotations", {}), image_spec.REF_NAME: name}
            others = [
                entry for entry in _unnamed(entries, name) if _name(entry) or _id(entry) != found.id
            ]
            entries = [*others, {**own, "annotations": annotations}]
        return entries

    layout.update_lists(paths, change)
    return wanted


def untag(paths: Paths, found: ManifestList, names: Sequence[str]) -> list[str]:
    """Take names from a list, all when none is given; it stays.  Raises NotFound."""
    wanted = [_own_name(found, name) for name in names] or list(found.names)
    layout.update_lists(
        paths,
        lambda entries: _unnamed(entries, *wanted),
    )
    return wanted


def _unnamed(entries: list[IndexEntry], *names: str) -> list[IndexEntry]:
    """Take names away; a list that loses its last one stays without."""
    kept = [entry for entry in entries if _name(entry) not in names]
    for entry in entries:
        if not any(_id(entry) == _id(each) for each in kept):
            annotations = {
                key: value
                for key, value in entry.get("annotations", {}).items()
                if key != image_spec.REF_NAME
            }
            kept.append({**entry, "annotations": annotations})
    return kept


def _own_name(found: ManifestList, text: str) -> str:
    for reference in candidates(text):
        if str(reference) in found.names:
            return str(reference)
    raise NotFound(f"the manifest list has no name {text}", hint="rp images")


def _load(paths: Paths, entry: IndexEntry, entries: list[IndexEntry]) -> ManifestList:
    data = layout.read_blob(paths, entry["digest"])
    try:
        image_spec.parse_index(data, entry["mediaType"])
        parsed = image_spec.parse_index(data)
    except image_spec.MalformedError as error:
        raise ImageError(f"blob {entry['digest']} of the store: {error}") from error
    if not has_digest(data, entry["digest"]):
        raise ImageError(f"blob {entry['digest']} of the store is another one")
    own = [each for each in entries if _id(each) == _id(entry)]
    created = entry.get("annotations", {}).get(layout.LIST_CREATED, "")
    return ManifestList(
        id=_id(entry),
        digest=entry["digest"],
        names=names_of(own, entry["digest"]),
        created_s=float(created) if created.isascii() and created.isdigit() else 0.0,
        size_bytes=len(data) + sum(each.size for each in parsed),
        data=data,
        media_type=entry["mediaType"],
    )


def _encoded(document: Document) -> bytes:
    """Return the bytes of an index; raise UsageError for texts that cannot be in one."""
    try:
        data = manifest_list.encode(document)
        image_spec.parse_index(data)
    except (UnicodeEncodeError, image_spec.MalformedError) as error:
        raise UsageError(f"an index cannot hold this: {error}") from error
    return data


def _id(entry: IndexEntry) -> str:
    text = f"sha256:{entry.get('annotations', {}).get(layout.LIST_ID, '')}"
    return text if image_spec.is_digest(text) else entry["digest"]


def _name(entry: IndexEntry) -> str:
    return entry.get("annotations", {}).get(image_spec.REF_NAME, "")


def _checked(text: str) -> str:
    reference = parse_local(text)
    if reference.digest is not None:
        raise UsageError(f"the name of a manifest list cannot hold a digest: {text}")
    return str(reference)
