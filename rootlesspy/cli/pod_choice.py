"""Which pods a command is for, and what the `rp pod …` commands have in common."""

from __future__ import annotations

import sys

from rootlesspy.cli import light_typer as typer
from rootlesspy.errors import Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootlesspy.cli.session import Session
    from rootlesspy.engine.pods.store import Pod

_FAILURE = 125


def names(text: str = "Names, ids or unique beginnings of ids.") -> Any:
    """Return the argument that names pods."""
    return typer.Argument(None, metavar="POD...", help=text, show_default=False)


def flag(text: str, *spellings: str) -> Any:
    """Return an option without a value."""
    return typer.Option(False, *spellings, help=text, show_default=False)


def value(metavar: str, text: str, *spellings: str) -> Any:
    """Return an option with a value, or with several."""
    return typer.Option(None, *spellings, metavar=metavar, help=text, show_default=False)


def chosen(
    session: Session,
    command: str,
    named: Sequence[str] | None,
    *,
    everything: bool = False,
    latest: bool = False,
    files: Sequence[str] | None = None,
) -> list[str]:
    """Return the pods that a command is for, as they were named.

    files: each holds an id.  Raises UsageError when none or more than one way of naming them was
    used, NotFound for the newest of none.
    """
    from rootlesspy.engine.pods import store

    if bool(named or files) + everything + latest != 1:
        raise UsageError(
            f"rp pod {command}: name the pods, or say --all or --latest", hint="rp pod ps"
        )
    if latest:
        return [newest(session).id]
    if everything:
        return [each.id for each in store.everything(session.paths())]
    return [*(named or ()), *(_read(path) for path in files or ())]


def newest(session: Session) -> Pod:
    """Return the pod that was made last.  Raises NotFound."""
    from rootlesspy.engine.pods import store

    found = store.everything(session.paths())
    if not found:
        raise NotFound("there are no pods", hint="rp pod create")
    return found[0]


def one(session: Session, command: str, name: str | None, *, latest: bool) -> Pod:
    """Return the one pod that a command is for.  Raises UsageError, NotFound."""
    from rootlesspy.engine.pods import store

    if latest == (name is not None):
        raise UsageError(f"rp pod {command}: name one pod, or say --latest", hint="rp pod ps")
    return newest(session) if name is None else store.find(session.paths(), name)


def each(
    session: Session,
    found: Sequence[str],
    do: Callable[[Pod], object],
    *,
    ignore_missing: bool = False,
) -> int:
    """Do it to every pod and print what it was called; 125 when one failed."""
    from rootlesspy.engine.pods import store

    paths, code = session.paths(), 0
    for name in found:
        try:
            do(store.find(paths, name))
        except NotFound as error:
            if not ignore_missing:
                session.reporter.error(error.message, error.hint)
                code = _FAILURE
        except Error as error:
            session.reporter.error(error.message, error.hint)
            code = _FAILURE
        else:
            sys.stdout.write(f"{name}\n")
    return code


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            found = file.readline(256).strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"--pod-id-file {path}: {error}") from error
    if not found:
        raise UsageError(f"--pod-id-file {path} is empty")
    return found
