"""`rp image prune`."""

from __future__ import annotations

import sys

from rootlesspy.cli import image_filter, image_rows
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.image_rows import hexadecimal
from rootlesspy.cli.question import agreed
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.store import Image

_NAMELESS = "This command removes all dangling images."
_ALL = "This command removes all images without at least one container associated with them."


def prune(
    context: typer.Context,
    everything: bool = typer.Option(
        False, "--all", "-a", help="Remove all that no container uses, not only nameless ones.",
        show_default=False,
    ),
    force: bool = typer.Option(
        False, "--force", "-f", help="Ask nothing.", show_default=False
    ),
    filters: list[str] = typer.Option(
        None, "--filter", metavar="KEY=VALUE", show_default=False,
        help="Only what fits: label, label!, until, dangling, …",
    ),
) -> int:  # fmt: skip
    """Remove images that nothing uses; print their ids."""
    from rootlesspy.engine.images import image_removal
    from rootlesspy.image.store import Store

    paths = context.obj.paths()
    asked = tuple(filters or ())
    # Before the question: a filter that cannot be is an error, whatever the answer would be.
    image_filter.matching([], asked, known=Store(paths).images())
    if not force and not agreed(_ALL if everything else _NAMELESS):
        return 0
    pruned = image_removal.prune(paths, lambda unused: chosen(unused, asked, everything=everything))
    for image in pruned.images:
        sys.stdout.write(f"{hexadecimal(image.id)}\n")
    return 0


def chosen(unused: Sequence[Image], filters: Sequence[str], *, everything: bool) -> list[Image]:
    """Return the images that are to go.  Raises UsageError."""
    lines = image_rows.lines(unused)
    explicit = any(text.startswith("dangling=") for text in filters)
    if not everything and not explicit:
        lines = [line for line in lines if not line.image.names]
    found = image_filter.matching(lines, filters, known=unused)
    return list({line.image.digest: line.image for line in found}.values())
