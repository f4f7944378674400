"""`rp history` and `rp image tree`: what an image is made of."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime

from rootlesspy.cli import completion, human, output, table
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.cli.image_rows import hexadecimal
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.report import escape

if TYPE_CHECKING:
    from rootlesspy.image.ancestry import Node, Step
    from rootlesspy.image.store import Image
    from rootlesspy.paths import Paths

_HEADERS = {"CreatedBy": "CREATED BY", "ID": "ID", "CreatedAt": "CREATED AT"}
_COLUMNS = ("ID", "Created", "CreatedBy", "Size", "Comment")
_MISSING = "<missing>"
_SHORT_ID = 12
_SHORT_COMMAND = 45


def history(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="IMAGE", help="A name, an id or the beginning of an id.",
        autocompletion=completion.images, show_default=False,
    ),
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", show_default=False,
        help="json, a Go template, or table and a Go template.",
    ),
    human_readable: bool = typer.Option(
        True, "--human/--no-human", "-H", help="Sizes and times for people.",
    ),
    no_trunc: bool = typer.Option(
        False, "--no-trunc", help="Do not shorten ids and commands.", show_default=False
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Print ids only.", show_default=False
    ),
) -> int:  # fmt: skip
    """Show the steps that made an image, the newest first."""
    from rootlesspy.image import ancestry

    image, images, paths, suffix = _known(context, name)
    steps = ancestry.history(paths, image, images, suffix)
    if form and output.is_json(form):
        sys.stdout.write(json.dumps([_json(step) for step in steps]) + "\n")
        return 0
    rows = [_row(step, full=no_trunc, readable=human_readable) for step in steps]
    if quiet:
        sys.stdout.write("".join(f"{row['ID']}\n" for row in rows))
    elif form:
        output.show(form, _HEADERS, rows=lambda: rows, json_rows=list)
    else:
        titles = tuple(_HEADERS.get(column, column.upper()) for column in _COLUMNS)
        cells = [tuple(str(row[column]) for column in _COLUMNS) for row in rows]
        look = table.style()
        if no_trunc:
            look = look._replace(width=None)
        sys.stdout.write(table.render(titles, cells, look, cut=("CREATED BY", "COMMENT")))
    return 0


def tree(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="IMAGE", help="A name, an id or the beginning of an id.",
        autocompletion=completion.images, show_default=False,
    ),
    what_requires: bool = typer.Option(
        False, "--whatrequires", help="Show what stands on the image instead.", show_default=False
    ),
) -> int:  # fmt: skip
    """Show the layers of an image and which images end with each."""
    from rootlesspy.image import ancestry

    image, images, paths, suffix = _known(context, name)
    find = ancestry.descendants if what_requires else ancestry.stack
    nodes = find(paths, image, images, suffix)
    lines = [
        f"Image ID: {hexadecimal(image.id)[:_SHORT_ID]}",
        f"Tags:     [{escape(' '.join(image.names))}]",
        f"Size:     {human.size(image.size_bytes, digits=4, gap='')}",
        "Image Layers" if nodes else "No Image Layers",
    ]
    for number, node in enumerate(nodes, start=1):
        lines.append(_branch(node, is_last=number == len(nodes)))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _known(context: typer.Context, name: str) -> tuple[Image, list[Image], Paths, str]:
    """Return the image, all images, and where their layers are.  Raises NotFound, ImageError."""
    from rootlesspy.engine import idmap
    from rootlesspy.image import layout
    from rootlesspy.image.store import Store

    paths = context.obj.paths()
    store = Store(paths)
    image = store.resolve(name)
    return image, store.images(), paths, layout.maps_suffix(paths, idmap.default_maps())


def _branch(node: Node, *, is_last: bool) -> str:
    size = human.size(node.size_bytes, digits=4, gap="")
    tops = f" Top Layer of: [{escape(' '.join(node.names))}]" if node.names else ""
    stem = "└──" if is_last else "├──"
    return f"{stem} ID: {hexadecimal(node.chain_id)[:_SHORT_ID]} Size: {size:>7}{tops}"


def _row(step: Step, *, full: bool, readable: bool) -> Record:
    image_id = hexadecimal(step.image.id) if step.image else _MISSING
    command = step.created_by
    if not full:
        image_id = image_id[:_SHORT_ID]
        if len(command) > _SHORT_COMMAND:
            command = f"{command[: _SHORT_COMMAND - 3]}..."
    since = human.ago(step.created_s, time.time())
    at = _rfc3339(step.created_s)
    return Record(
        ID=image_id,
        Created=since if readable else at,
        CreatedAt=at,
        CreatedSince=since,
        CreatedBy=command,
        Size=human.size(step.size_bytes, gap="") if readable else str(step.size_bytes),
        Comment=step.comment,
        Tags=list(step.image.names) if step.image else [],
    )


def _json(step: Step) -> dict[str, Any]:
    """Return one element as podman writes it: empty members are left out."""
    written: dict[str, Any] = {"id": hexadecimal(step.image.id) if step.image else _MISSING}
    written["created"] = _rfc3339(step.created_s)
    if step.created_by:
        written["CreatedBy"] = step.created_by
    if step.image and step.image.names:
        written["tags"] = list(step.image.names)
    written["size"] = step.size_bytes
    if step.comment:
        written["comment"] = step.comment
    # podman writes it twice, and scripts read either.
    return {**written, "Created": written["created"]}


def _rfc3339(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
