"""How images stand on each other: the stacks of layers that they share, and what made each."""

from __future__ import annotations

from rootlesspy.image import layout
from rootlesspy.image.store import parse_time
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.store import Image
    from rootlesspy.paths import Paths


class Step(NamedTuple):
    """One entry of an image's history; image is whose top layer it left, where one is here."""

    image: Image | None
    created: str
    created_s: float
    created_by: str
    size_bytes: int
    comment: str


class Node(NamedTuple):
    """A layer on its stack; chain_id names both."""

    chain_id: str
    diff_id: str
    size_bytes: int
    names: tuple[str, ...]


def history(paths: Paths, image: Image, images: Sequence[Image], suffix: str) -> list[Step]:
    """Return the steps that made an image, the newest first.

    suffix is that of the layers' id maps.
    """
    entries: list[dict[str, Any]] = list(image.config.get("history") or [])
    tops = {chain_ids(each.diff_ids)[-1]: each for each in images if each.diff_ids}
    if image.diff_ids:
        tops[chain_ids(image.diff_ids)[-1]] = image
    chain, at = chain_ids(image.diff_ids), len(image.diff_ids) - 1
    steps = []
    for entry in reversed(entries):
        is_empty = bool(entry.get("empty_layer"))
        here = at >= 0
        created = str(entry.get("created") or "")
        steps.append(
            Step(
                image=tops.get(chain[at]) if here else None,
                created=created,
                created_s=max(parse_time(created), 0.0),
                created_by=str(entry.get("created_by") or ""),
                size_bytes=(
                    layout.layer_size(paths, image.diff_ids[at], suffix)
                    if here and not is_empty
                    else 0
                ),
                comment=str(entry.get("comment") or ""),
            )
        )
        at -= 0 if is_empty else 1
    return steps


def stack(paths: Paths, image: Image, images: Sequence[Image], suffix: str) -> list[Node]:
    """Return the layers of an image, base first, with the names of the images that end there."""
    return [
        _node(paths, chain_id, diff_id, images, suffix)
        for chain_id, diff_id in zip(chain_ids(image.diff_ids), image.diff_ids, strict=True)
    ]


def descendants(paths: Paths, image: Image, images: Sequence[Image], suffix: str) -> list[Node]:
    """Return the layer that an image ends with and all that stand on it, depth first."""
    length = len(image.diff_ids)
    above = sorted(
        each.diff_ids for each in images if each.diff_ids[:length] == image.diff_ids and length
    )
    found: dict[str, Node] = {}
    for diff_ids in above:
        chain = chain_ids(diff_ids)
        for number in range(length - 1, len(diff_ids)):
            found.setdefault(
                chain[number], _node(paths, chain[number], diff_ids[number], images, suffix)
            )
    return list(found.values())


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return what names the stack up to each layer: OCI image-spec config.md, "Layer ChainID"."""
    import hashlib

    found: list[str] = []
    for diff_id in diff_ids:
        text = f"{found[-1]} {diff_id}" if found else ""
        digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else diff_id
        found.append(digest)
    return found


def _node(paths: Paths, chain_id: str, diff_id: str, images: Sequence[Image], suffix: str) -> Node:
    names = [
        name
        for each in images
        if each.diff_ids and chain_ids(each.diff_ids)[-1] == chain_id
        for name in each.names
    ]
    return Node(chain_id, diff_id, layout.layer_size(paths, diff_id, suffix), tuple(names))
