"""`rp diff`, `rp export` and `rp commit`."""

from __future__ import annotations

import os
import sys

from rootlesspy.cli import completion, output
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.image_rows import hexadecimal
from rootlesspy.engine.inputs.values import parse_choice
from rootlesspy.errors import Error, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import escape

if TYPE_CHECKING:
    from collections.abc import Sequence


def diff(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="NAME", help="A container or an image.", show_default=False,
        autocompletion=completion.containers,
    ),
    other: str | None = typer.Argument(
        None, metavar="[OTHER]", show_default=False,
        help="Another one to compare with, instead of what lies below.",
    ),
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", show_default=False, help="json."
    ),
) -> int:  # fmt: skip
    """Show which files a container or an image has added (A), changed (C) and deleted (D)."""
    from rootlesspy.engine.files import changes
    from rootlesspy.engine.files.diff import diff as compare

    if form is not None and not output.is_json(form):
        raise UsageError(f"--format {form!r}: only json is known", hint="rp diff --format json")
    found = compare(context.obj.paths(), name, other)
    if form is not None:
        output.print_json(changes.listed(found))
    elif os.isatty(1):
        sys.stdout.write("".join(f"{kind} {escape(path)}\n" for kind, path in found))
    else:
        text = "".join(f"{kind} {path}\n" for kind, path in found)
        sys.stdout.flush()
        # File names are bytes, whatever the locale says.
        sys.stdout.buffer.write(os.fsencode(text))
        sys.stdout.buffer.flush()
    return 0


def export(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="CONTAINER", help="Its name, id or unique beginning of an id.",
        autocompletion=completion.containers, show_default=False,
    ),
    path: str | None = typer.Option(
        None, "--output", "-o", metavar="FILE", show_default=False,
        help="Write there instead of to stdout.",
    ),
) -> int:  # fmt: skip
    """Write all files of a container, without its volumes, as a tar archive."""
    from rootlesspy.engine.files import export as exporting

    paths = context.obj.paths()
    if path is not None:
        exporting.export_to_file(paths, name, path)
        return 0
    if os.isatty(1):
        raise UsageError(
            "rp export: a tar archive is not written to a terminal", hint="-o FILE, or redirect it"
        )
    exporting.export(paths, name, 1)
    return 0


def commit(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="CONTAINER", help="Its name, id or unique beginning of an id.",
        autocompletion=completion.containers, show_default=False,
    ),
    image: str | None = typer.Argument(
        None, metavar="[IMAGE]", show_default=False,
        help="A name; without a registry it is localhost/IMAGE.",
    ),
    author: str = typer.Option(
        "", "--author", "-a", metavar="TEXT", show_default=False, help="Who made it."
    ),
    changes: list[str] = typer.Option(
        None, "--change", "-c", metavar="INSTRUCTION", show_default=False,
        help="CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR.",
    ),
    message: str = typer.Option(
        "", "--message", "-m", metavar="TEXT", show_default=False, help="Comment in the history."
    ),
    form: str = typer.Option(
        "oci", "--format", "-f", metavar="FORMAT", help="Kind of manifest: oci or docker."
    ),
    pause: bool = typer.Option(
        False, "--pause", "-p", show_default=False, help="Freeze the container meanwhile."
    ),
    squash: bool = typer.Option(
        False, "--squash", "-s", show_default=False,
        help="Put all files into one layer, without the image's own ones below it.",
    ),
    id_file: str | None = typer.Option(
        None, "--iidfile", metavar="FILE", show_default=False, help="Write the image's id there."
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", show_default=False, help="Do not show progress."
    ),
) -> int:  # fmt: skip
    """Make an image of what a container has written, running or not; print its id."""
    from rootlesspy.cli import progress
    from rootlesspy.engine.files import commit as committing

    parse_choice(form, "--format", ("oci", "docker"))
    session = context.obj
    request = committing.Request(
        name=image,
        author=author,
        message=message,
        changes=_all(changes),
        pause=pause,
        squash=squash,
        docker=form == "docker",
    )
    shown = progress.make(quiet=quiet, debug=session.reporter.debug)
    made = committing.commit(session.paths(), name, request, shown, session.reporter)
    if id_file is not None:
        _write(id_file, hexadecimal(made.id))
    sys.stdout.write(f"{hexadecimal(made.id)}\n")
    return 0


def _all(texts: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(texts or ())


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise Error(f"--iidfile {path}: {error.strerror}") from error
