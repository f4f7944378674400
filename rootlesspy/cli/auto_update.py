"""`rp auto-update`: containers follow their images."""

from __future__ import annotations

import sys

from rootlesspy.cli import light_typer as typer
from rootlesspy.cli import output, progress, table
from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.light_typing import Any

_FAILURE = 125
_HEADER = ("UNIT", "CONTAINER", "IMAGE", "POLICY", "UPDATED")
_SHORT_ID = 12


def auto_update(
    context: typer.Context,
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Say what would be updated, and do nothing.", show_default=False
    ),
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", show_default=False,
        help="json, or a Go template such as '{{.ContainerName}} {{.Updated}}'.",
    ),
    rollback: bool = typer.Option(
        True, "--rollback", show_default=False,
        help="Go back to the old image when the new one does not start (default).",
    ),
) -> int:  # fmt: skip
    """Make detached containers anew whose image has changed.

    Those with the label io.containers.autoupdate: registry compares with the image's registry,
    local with the image of that name here. Volumes stay, and so does a unit of rp enable. The timer
    rp-auto-update.timer does this once a day.

    Exit code 125: at least one could not be updated; the others were.
    """
    from rootlesspy.engine.definitions import auto_update as engine

    session = context.obj
    updater = engine.Updater(
        session.paths(),
        session.reporter,
        lambda: progress.make(quiet=False, debug=session.reporter.debug),
        dry_run=dry_run,
        rollback=rollback,
    )
    found = updater.run()
    if form:
        rows = [_row(each) for each in found]
        output.show(
            form,
            {"ContainerID": "CONTAINER ID"},
            rows=lambda: [Record(**row) for row in rows],
            json_rows=lambda: rows,
        )
    else:
        lines = [
            (each.unit, f"{each.container_id[:_SHORT_ID]} ({each.name})", each.image, each.policy,
             each.updated)
            for each in found
        ]  # fmt: skip
        sys.stdout.write(table.render(_HEADER, lines, table.style(), cut=("IMAGE",)))
    bad = (engine.FAILED, engine.ROLLED_BACK)
    return _FAILURE if any(each.updated in bad for each in found) else 0


def _row(update: Any) -> dict[str, str]:
    """Return podman's fields."""
    return {
        "Unit": update.unit,
        "Container": f"{update.container_id[:_SHORT_ID]} ({update.name})",
        "ContainerName": update.name,
        "ContainerID": update.container_id,
        "Image": update.image,
        "Policy": update.policy,
        "Updated": update.updated,
    }
