"""`rp top`: the processes of a container, in podman's columns or in those of ps(1)."""

from __future__ import annotations

import sys

from rootlesspy.cli import completion, operations, table, top_columns
from rootlesspy.cli import light_typer as typer
from rootlesspy.errors import Conflict
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session
    from rootlesspy.cli.top_columns import Column, Scene
    from rootlesspy.engine.views.top import Process

_DEFAULT = ("user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args")


def top(
    context: typer.Context,
    container: str = typer.Argument(
        None, metavar="CONTAINER", help="Name, id or unique beginning of an id.",
        autocompletion=completion.containers, show_default=False,
    ),
    columns: list[str] = typer.Argument(
        None, metavar="[COLUMN...]", show_default=False,
        help="Columns, or options of ps: -e, -f, -o LIST, aux.",
    ),
    latest: bool = typer.Option(
        False, "--latest", "-l", help="The newest container; no CONTAINER is given then.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Show the processes of a running container.

    Process ids, users and groups are those inside the container; columns that begin with h are
    those of the host. Nothing is run in the container or from it: the host's /proc is read.

    Columns, also separated by commas: args, capamb, capbnd, capeff, capinh, capprm, comm, etime,
    group, groups, hgroup, hgroups, hpid, huid, huser, label, nice, pcpu, pgid, pid, ppid, rgroup,
    rss, ruser, seccomp, state, stime, time, tty, uid, user, vsz; %C, %G, %P, %U, %a, %c, %g, %n,
    %p, %r, %t, %u, %x, %y and %z are short for some of them.
    """
    session = context.obj
    words = list(columns or ())
    if latest and container is not None:
        words.insert(0, container)
    names = [] if latest or container is None else [container]
    name = operations.one(session, "top", names, latest=latest)
    chosen = columns_of(words)
    found, scene = look(session, name)
    _print(chosen, found, scene)
    return 0


def columns_of(words: list[str]) -> list[Column]:
    """Return the columns that were asked for; raises UsageError."""
    if words and (words[0].startswith("-") or words[0] in ("aux", "ax", "axu", "u", "f")):
        from rootlesspy.cli import top_ps

        return top_ps.columns(words)
    names = [name for word in words for name in word.replace(" ", ",").split(",") if name]
    return [top_columns.find(name) for name in names or _DEFAULT]


def look(session: Session, name: str) -> tuple[list[Process], Scene]:
    """Return the processes of a running container, and what their names are.

    Raises NotFound, Conflict for one that does not run.
    """
    from rootlesspy.engine import lifecycle
    from rootlesspy.engine.views import top as engine

    found = lifecycle.get(session.paths(), name)
    if not found.pid:
        raise Conflict(
            f"container {found.record.name} is not running", hint=f"rp start {found.record.name}"
        )
    processes = engine.processes(found.pid)
    names = engine.names_inside(found.pid)
    return processes, top_columns.Scene(names, engine.names_of_host())


def _print(chosen: list[Column], found: list[Process], scene: Scene) -> None:
    rows = [tuple(column.write(process, scene) for column in chosen) for process in found]
    header = tuple(column.header for column in chosen)
    sys.stdout.write(table.render(header, rows, table.style()._replace(width=None)))
