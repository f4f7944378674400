"""`rp ps` for typer, and `rp rm`."""

from __future__ import annotations

from rootlesspy.cli import argv, hot
from rootlesspy.cli.light_typer import Help, table_options
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.cli import light_typer as typer

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

RM_HELPS = {
    "names": Help("Which", "CONTAINER...", "Names, ids or unique beginnings of ids."),
    "all": Help("Which", "", "Remove all containers."),
    "cidfile": Help("Which", "FILE", "Read the container's id from a file."),
    "depend": Help("Which", "", "Remove those that share its namespaces too."),
    "filter": Help("Which", "KEY=VALUE", "Those that fit, as in rp ps."),
    "ignore": Help("Which", "", "Do not mind names that do not exist."),
    "latest": Help("Which", "", "The newest one."),
    "force": Help("How", "", "Kill running containers first."),
    "time": Help(
        "How",
        "SECONDS",
        "With --force: stop running ones, and kill them only after this time.",
    ),
    "volumes": Help("How", "", "Remove their anonymous volumes too."),
}


@table_options(argv.PS, HELPS, _PANELS)
def ps(context: typer.Context, **_options: object) -> int:
    """List containers."""
    return hot.ps(argv.Values(context.params), context.obj)


@table_options(argv.RM, RM_HELPS, _PANELS)
def rm(context: typer.Context, **_options: object) -> int:
    """Remove containers.

    Exit code 1: one did not exist; 2: one is running; 125: anything else.
    """
    return hot.remove(argv.Values(context.params), context.obj)
