"""`rp healthcheck run`: a container's health check, now."""

from __future__ import annotations

import sys

from rootlesspy.cli import completion
from rootlesspy.cli import light_typer as typer


def run(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="CONTAINER", help="Name, id or unique beginning of an id.",
        autocompletion=completion.containers, show_default=False,
    ),
) -> int:  # fmt: skip
    """Run a container's health check now.

    It counts like every other: ps, inspect and events show what came of it.  Prints `unhealthy`
    when it fails.  Exit code 0: the check passed; 1: it failed; 125: it could not be made.
    """
    from rootlesspy.engine.supervision import healthcheck

    if healthcheck.check_now(context.obj.paths(), name) == 0:
        return 0
    # Of this one check: it may take several for the container to be unhealthy (podman).
    sys.stdout.write(f"{healthcheck.UNHEALTHY}\n")
    return 1
