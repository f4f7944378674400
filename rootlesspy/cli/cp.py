"""`rp cp`."""

from __future__ import annotations

import os

from rootlesspy.cli import light_typer as typer
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.engine.files.copy_place import Place


def cp(
    context: typer.Context,
    source: str = typer.Argument(
        ..., metavar="[CONTAINER:]SOURCE", show_default=False,
        help="A file or directory, SOURCE/. for its content, or - for a tar archive on stdin.",
    ),
    target: str = typer.Argument(
        ..., metavar="[CONTAINER:]TARGET", show_default=False,
        help="Where to; - writes a tar archive to stdout.",
    ),
    archive: bool = typer.Option(
        False, "--archive", "-a", show_default=False,
        help="Keep the owners of files, as the container sees them.",
    ),
    overwrite: bool = typer.Option(
        False, "--overwrite", show_default=False,
        help="Let directories replace files, and files directories.",
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", show_default=False, help="Say nothing of what was left out."
    ),
) -> int:  # fmt: skip
    """Copy files into a container, out of it, or between two.

    The container may run or not; its volumes are seen. Without --archive files belong to root of
    the container, and outside to you.
    """
    from rootlesspy.engine.files import copy_files

    first, second = parse_place(source), parse_place(target)
    if first.container is None and second.container is None:
        raise UsageError(
            f"rp cp: neither {source!r} nor {target!r} is in a container",
            hint="CONTAINER:PATH is; a path of the host that holds a colon begins with ./ or /",
        )
    if second.is_stream() and os.isatty(1):
        raise UsageError("rp cp: a tar archive is not written to a terminal", hint="redirect it")
    session = context.obj
    options = copy_files.Options(archive=archive, overwrite=overwrite)
    devices = copy_files.copy(session.paths(), first, second, options)
    if devices and not quiet:
        session.reporter.notice(f"{devices} device nodes were left out")
    return 0


def parse_place(text: str) -> Place:
    """Parse [CONTAINER:]PATH; what begins with / or . is a path of the host.  Raises UsageError."""
    from rootlesspy.engine.files.copy_place import Place

    name, colon, path = text.partition(":")
    if text.startswith(("/", ".")) or not colon:
        name, path = "", text
    if (colon and not name and text.startswith(":")) or not path or "\0" in path:
        raise UsageError(f"rp cp: {text!r} is not [CONTAINER:]PATH", hint="rp cp --help")
    return Place(name or None, path)
