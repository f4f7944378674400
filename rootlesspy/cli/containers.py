"""`rp ps` for typer, and `rp rm`."""

# ruff: noqa: B008, UP045
# typer 0.7 knows neither Annotated nor X | None.

from __future__ import annotations

import sys
from typing import Optional

import typer

from rootlesspy.cli import argv, completion, hot
from rootlesspy.cli.click_command import Help, table_options
from rootlesspy.cli.removal import Removal
from rootlesspy.errors import Error, NotFound, UsageError

_PANELS = ("Which", "How")
HELPS = {
    "all": Help("Which", "", "Show all containers, not only running ones."),
    "external": Help("Which", "", "Accepted for scripts: there are no others than rp's."),
    "filter": Help(
        "Which",
        "KEY=VALUE",
        "Show what fits: name, id (a regular expression or beginning), status (created, running, "
        "paused, exited), label=KEY[=VALUE], label!=KEY[=VALUE], ancestor=IMAGE, exited=CODE, "
        "before=CONTAINER, since=CONTAINER, until=TIME, volume=NAME or PATH, network=DRIVER, "
        "health (starting, healthy, unhealthy, none), restart-policy, command=PATTERN.",
    ),
    "last": Help("Which", "NUMBER", "Show the newest NUMBER, in any state."),
    "latest": Help("Which", "", "Show the newest one, in any state."),
    "format": Help(
        "How",
        "FORMAT",
        "json, a Go template, or table and a Go template. Besides podman's fields: Health, "
        "MemoryPeak, CPUTime, Throttled, PidsPeak, IORead, IOWrite and OOMKills, also of "
        "containers that have ended.",
    ),
    "namespaces": Help("How", "", "Show the numbers of the namespaces."),
    "no_trunc": Help("How", "", "Do not shorten ids and commands."),
    "noheading": Help("How", "", "Leave out the headings."),
    "pod": Help("How", "", "Add the pod's id and name."),
    "quiet": Help("How", "", "Print ids only."),
    "size": Help("How", "", "Add the bytes that each has written, and with its image."),
    "sort": Help(
        "How",
        "COLUMN",
        "command, created (default), id, image, names, runningfor, size or status.",
    ),
    "sync": Help("How", "", "Accepted for scripts: what is shown is always the present state."),
    "watch": Help("How", "SECONDS", "Show the list again every SECONDS, until Ctrl-C."),
}


@table_options(argv.PS, HELPS, _PANELS)
def ps(context: typer.Context, **_options: object) -> int:
    """List containers."""
    return hot.ps(argv.Values(context.params), context.obj)


def rm(
    context: typer.Context,
    names: list[str] = typer.Argument(
        None, metavar="CONTAINER...", help="Names, ids or unique beginnings of ids.",
        autocompletion=completion.containers, show_default=False,
    ),
    everything: bool = typer.Option(
        False, "--all", "-a", help="Remove all containers.", show_default=False
    ),
    depend: bool = typer.Option(
        False, "--depend", show_default=False,
        help="Remove those that share its namespaces too.",
    ),
    cidfile: list[str] = typer.Option(
        None, "--cidfile", metavar="FILE", help="Read the container's id from a file.",
        show_default=False,
    ),
    filters: list[str] = typer.Option(
        None, "--filter", metavar="KEY=VALUE", help="Those that fit, as in rp ps.",
        show_default=False,
    ),
    force: bool = typer.Option(
        False, "--force", "-f", help="Kill running containers first.", show_default=False
    ),
    ignore: bool = typer.Option(
        False, "--ignore", "-i", help="Do not mind names that do not exist.", show_default=False
    ),
    latest: bool = typer.Option(
        False, "--latest", "-l", help="The newest one.", show_default=False
    ),
    volumes: bool = typer.Option(
        False, "--volumes", "-v", help="Remove their anonymous volumes too.", show_default=False
    ),
    time: Optional[str] = typer.Option(
        None, "--time", "-t", metavar="SECONDS", show_default=False,
        help="With --force: stop running ones, and kill them only after this time.",
    ),
) -> int:  # fmt: skip
    """Remove containers.

    Exit code 1: one did not exist; 2: one is running; 125: anything else.
    """
    from rootlesspy.cli import operations
    from rootlesspy.engine import ending

    session = context.obj
    paths = session.paths()
    chosen = operations.chosen(
        session, "rm", names or (), everything=everything, latest=latest, filters=filters or (),
        cidfiles=cidfile or (),
    )  # fmt: skip
    if depend:
        from rootlesspy.engine.pods import sharing

        chosen = sharing.with_sharers(paths, chosen)
    if time is not None and not force:
        raise UsageError("rp rm: --time needs --force", hint="rp rm --help")
    limit_s = hot.stop_time(time)
    removal = Removal(session.reporter)
    for name in chosen:
        try:
            ending.remove(
                paths, [name], force=force, reporter=session.reporter, volumes=volumes,
                timeout_s=limit_s,
            )  # fmt: skip
        except NotFound as error:
            # With --force podman takes "is not there" for "is gone".
            if not (ignore or force):
                removal.failed(error)
        except Error as error:
            removal.failed(error)
        else:
            sys.stdout.write(f"{name}\n")
    return removal.exit_code
