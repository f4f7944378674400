"""What start, stop, kill and the like have in common: which containers, and what is printed.

Hot: no typer.  Each container that is done is printed as it was named; what failed is told, the
others are still done, and the exit code is 125, as podman's.
"""

from __future__ import annotations

import sys

from rootlesspy.engine import lifecycle
from rootlesspy.errors import Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootlesspy.cli.session import Session
    from rootlesspy.engine.record import Container

_FAILURE = 125


def chosen(
    session: Session,
    command: str,
    names: Sequence[str],
    *,
    everything: bool = False,
    latest: bool = False,
    filters: Sequence[str] = (),
    cidfiles: Sequence[str] = (),
    states: Sequence[str] = (),
    has_all: bool = True,
) -> list[str]:
    """Return the containers that a command is for, as they were named, or the ids of --all.

    states: in which --all and --filter look for them; none: in any.  has_all: the command has
    --all.  Raises UsageError when none or more than one way of naming them was used.
    """
    ways = bool(names or cidfiles) + everything + latest + (bool(filters) and not everything)
    if ways != 1:
        raise UsageError(
            f"rp {command}: name the containers, or say {'--all or ' if has_all else ''}--latest",
            hint=f"rp {command} --help",
        )
    if names or cidfiles:
        return [*names, *(_read_cidfile(path) for path in cidfiles)]
    found = lifecycle.containers(session.paths())
    if latest:
        if not found:
            raise NotFound("there are no containers", hint="rp run alpine")
        return [found[0].record.id]
    if filters:
        from rootlesspy.cli.ps_filter import matching

        found = matching(found, tuple(filters), session.paths())
    return [each.record.id for each in found if not states or each.state in states]


def one(session: Session, command: str, names: Sequence[str], *, latest: bool) -> str:
    """Return the one container that a command is for.  Raises UsageError."""
    found = chosen(session, command, names, latest=latest, has_all=False)
    if len(found) != 1:
        raise UsageError(f"rp {command} takes one container", hint=f"rp {command} --help")
    return found[0]


def each(
    session: Session,
    names: Sequence[str],
    action: Callable[[str], object],
    *,
    ignore_missing: bool = False,
    show: Callable[[str, object], str | None] = lambda name, _result: name,
) -> int:
    """Do something to each container, and print what show makes of its result."""
    code = 0
    for name in names:
        try:
            line = show(name, action(name))
        except NotFound as error:
            if not ignore_missing:
                session.reporter.error(error.message, error.hint)
                code = _FAILURE
        except Error as error:
            session.reporter.error(error.message, error.hint)
            code = _FAILURE
        else:
            if line is not None:
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
    return code


def is_stopped(container: Container) -> bool:
    """Say whether a container could be started."""
    return container.state in ("created", "exited")


def _read_cidfile(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline(256).strip()
    except OSError as error:
        raise Error(f"--cidfile {path}: {error.strerror}") from error
