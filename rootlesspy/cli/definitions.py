"""`rp plan`, `rp apply`, `rp delete` and `rp export-definition`: containers defined in files."""

from __future__ import annotations

import os
import sys

from rootlesspy.cli import completion, lock, output, progress, table
from rootlesspy.cli import light_typer as typer
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session
    from rootlesspy.engine.definitions.apply import Observer
    from rootlesspy.engine.definitions.definition import Definition
    from rootlesspy.engine.definitions.plan import Change, Plan, Step
    from rootlesspy.errors import Error

_CHANGES, _FAILURE = 2, 125
_DONE = {
    "create": "created",
    "change": "changed",
    "restart": "restarted",
    "start": "started",
    "remove": "removed",
}
_COLOURS = {
    "create": table.GREEN,
    "change": table.YELLOW,
    "restart": table.YELLOW,
    "start": table.GREEN,
    "remove": table.RED,
}
_FILES = typer.Argument(..., metavar="FILE...", help="Definitions: TOML files.", show_default=False)


def plan(
    context: typer.Context,
    files: list[str] = _FILES,
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", help="json.", show_default=False
    ),
    locked: bool = typer.Option(
        False, "--locked", help=lock.LOCKED_HELP, show_default=False
    ),
) -> int:  # fmt: skip
    """Show what rp apply would do; nothing is done.

    Exit code 0: nothing; 2: something; 125: a file cannot be understood.
    """
    from rootlesspy.engine.definitions import apply as engine

    if form is not None and not output.is_json(form):
        raise UsageError(f"--format {form!r}: expected json")
    session: Session = context.obj
    plans = [
        engine.compare(each, session.paths()) for each in _chosen(session, files, locked=locked)
    ]
    if form is None:
        _show(plans)
    else:
        output.print_json([_json(each, step) for each in plans for step in each.steps])
    return 0 if all(each.is_empty for each in plans) else _CHANGES


def apply(
    context: typer.Context,
    files: list[str] = _FILES,
    no_start: bool = typer.Option(
        False, "--no-start", help="Make the containers, but start none.", show_default=False
    ),
    locked: bool = typer.Option(
        False, "--locked", help=lock.LOCKED_HELP, show_default=False
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Print nothing but errors.", show_default=False
    ),
) -> int:  # fmt: skip
    """Make containers what files say, and restart only what changed.

    Containers that a file no longer has are removed: rp plan shows them. The second time nothing
    happens.
    """
    from rootlesspy.engine.definitions import apply as engine

    session: Session = context.obj
    whole = True
    for definition in _chosen(session, files, locked=locked):
        whole &= engine.ensure(
            definition,
            session.paths(),
            session.reporter,
            _observer(session, quiet=quiet),
            start=not no_start,
            make_progress=lambda: progress.make(quiet=quiet, debug=session.reporter.debug),
        )
    return 0 if whole else _FAILURE


def delete(
    context: typer.Context,
    files: list[str] = _FILES,
    volumes: bool = typer.Option(
        False, "--volumes", "-v", help="Remove the volumes that the files define too.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Stop and remove the containers that were made from files.

    The files may be gone, unless their volumes are to be removed.
    """
    from rootlesspy.engine.definitions import apply as engine
    from rootlesspy.engine.definitions import definition

    session: Session = context.obj
    whole = True
    for file in files:
        found = definition.load(file).volumes if volumes else ()
        whole &= engine.delete(
            os.path.abspath(file),
            session.paths(),
            session.reporter,
            _observer(session, quiet=False),
            volumes=tuple(each.name for each in found),
        )
    return 0 if whole else _FAILURE


def export_definition(
    context: typer.Context,
    names: list[str] = typer.Argument(
        ..., metavar="CONTAINER...", help="Names, ids or unique beginnings of ids.",
        autocompletion=completion.containers, show_default=False,
    ),
) -> int:  # fmt: skip
    """Print the definition of containers: rp apply makes the same again.

    Variables of an --env-file are printed with the others.
    """
    from rootlesspy.engine import lifecycle
    from rootlesspy.engine.definitions import definition_export

    paths = context.obj.paths()
    found = [lifecycle.get(paths, name).record for name in names]
    sys.stdout.write(definition_export.text_of(found))
    return 0


def _chosen(session: Session, files: list[str], *, locked: bool) -> list[Definition]:
    """Read definitions, with the images of their lock files where only those may be taken."""
    found = _load(files)
    return lock.pinned(session, found) if locked else found


def _load(files: list[str]) -> list[Definition]:
    """Read definitions.  Raises UsageError when two of them have the same container."""
    from rootlesspy.engine.definitions import definition

    # As they were typed, for messages; each once.
    different = {os.path.abspath(file): file for file in files}
    definitions = [definition.load(file) for file in different.values()]
    owners: dict[str, str] = {}
    for each in definitions:
        for container in each.containers:
            other = owners.setdefault(container.name, each.path)
            if other != each.path:
                raise UsageError(f"container {container.name} is in {other} and in {each.path}")
    return definitions


def _observer(session: Session, *, quiet: bool) -> Observer:
    from rootlesspy.engine.definitions.apply import Observer

    def done(step: Step) -> None:
        if not quiet:
            sys.stdout.write(f"{_DONE[step.action]} {_shown(step)}\n")
            sys.stdout.flush()

    def failed(subject: str, error: Error) -> None:
        named = subject in error.message
        message = error.message if named else f"{subject}: {error.message}"
        session.reporter.error(message, error.hint)

    return Observer(done, failed)


def _shown(step: Step) -> str:
    return step.name if step.kind == "container" else step.subject


def _show(plans: list[Plan]) -> None:
    """Print a row for each step, and one more for each further change of it."""
    rows: list[tuple[str, str, str]] = []
    colours: list[str] = []
    for step in (step for each in plans for step in each.steps):
        reasons = [_spell(change) for change in step.changes] or [step.reason]
        for index, reason in enumerate(reasons):
            rows.append(("" if index else step.action, "" if index else _shown(step), reason))
            colours.append(_COLOURS.get(step.action, ""))
    look = table.style()._replace(width=None)
    sys.stdout.write(table.render(("ACTION", "NAME", "WHY"), rows, look, paint={"ACTION": colours}))


def _spell(change: Change) -> str:
    from rootlesspy.engine.definitions import toml

    if change.hidden:
        what = "added" if change.old is None else "removed" if change.new is None else "changed"
        return f"{change.key}: {what}"
    old, new = (
        "nothing" if value is None else " ".join(toml.value(value).split())
        for value in (change.old, change.new)
    )
    return f"{change.key}: {old} → {new}"


def _json(whole: Plan, step: Step) -> dict[str, Any]:
    return {
        "Action": step.action,
        "Kind": step.kind,
        "Name": step.name,
        "File": whole.definition.path,
        "Reason": step.reason,
        "Changes": [
            {"Key": each.key, "Old": None, "New": None, "Hidden": True}
            if each.hidden
            else {"Key": each.key, "Old": each.old, "New": each.new, "Hidden": False}
            for each in step.changes
        ],
    }
