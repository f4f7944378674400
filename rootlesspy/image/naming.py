"""Giving images names and taking them away; the content stays where it is."""

from __future__ import annotations

from rootlesspy.errors import NotFound, UsageError
from rootlesspy.image import layout
from rootlesspy.image.reference import candidates, parse_local
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.layout import IndexEntry
    from rootlesspy.image.store import Image
    from rootlesspy.paths import Paths


def tag(paths: Paths, image: Image, names: Sequence[str]) -> list[str]:
    """Give an image more names, each taken from the image that had it; return them in full.

    Raises UsageError for what cannot be a name, NotFound when the image has gone meanwhile.
    """
    wanted = [_checked(name) for name in names]

    def change(entries: list[IndexEntry]) -> list[IndexEntry]:
        own = next((entry for entry in entries if entry["digest"] == image.digest), None)
        if own is None:
            raise NotFound(f"image {image.id} has been removed meanwhile", hint="rp images")
        for name in wanted:
            kept = (layout.SIZE, layout.INDEX_DIGEST)
            annotations = {k: v for k, v in own.get("annotations", {}).items() if k in kept}
            annotations[image_spec.REF_NAME] = name
            entries = layout.with_entry(entries, {**own, "annotations": annotations})
        return entries

    layout.update_index(paths, change)
    return wanted


def untag(paths: Paths, image: Image, names: Sequence[str]) -> list[str]:
    """Take names from an image, all of them when none is given; return those that are gone.

    It stays, if need be nameless.  Raises NotFound for a name that it does not
    have: then nothing is changed.
    """
    taken: list[str] = []

    def change(entries: list[IndexEntry]) -> list[IndexEntry]:
        own = [entry for entry in entries if entry["digest"] == image.digest]
        gone = [_own_entry(own, name) for name in names] if names else own
        known = (entry.get("annotations", {}).get(image_spec.REF_NAME) for entry in gone)
        taken.extend(name for name in known if name)
        left = [entry for entry in entries if entry not in gone]
        if own and not any(entry["digest"] == image.digest for entry in left):
            kept = (layout.SIZE, layout.INDEX_DIGEST)
            annotations = {k: v for k, v in own[0].get("annotations", {}).items() if k in kept}
            left.append({**own[0], "annotations": annotations})
        return left

    layout.update_index(paths, change)
    return taken


def _own_entry(own: list[IndexEntry], name: str) -> IndexEntry:
    for reference in candidates(name):
        for entry in own:
            if entry.get("annotations", {}).get(image_spec.REF_NAME) == str(reference):
                return entry
    raise NotFound(f"the image has no name {name}", hint="rp images")


def _checked(text: str) -> str:
    reference = parse_local(text)
    if reference.digest is not None:
        raise UsageError(f"a name that rp gives cannot hold a digest: {text}")
    return str(reference)
