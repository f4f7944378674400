"""`rp logs` for typer; what it does is in logs.py."""

from __future__ import annotations

from rootlesspy.cli import argv, hot
from rootlesspy.cli.light_typer import Help, table_options
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.cli import light_typer as typer

_PANELS = ("Options",)
HELPS = {
    "names": Help("", "CONTAINER...", "Names, ids or unique beginnings of ids."),
    "colour": Help("Options", "", "Give each container's name a colour."),
    "follow": Help("Options", "", "Go on until the containers end."),
    "latest": Help("Options", "", "Of the newest container."),
    "since": Help("Options", "TIME", "Not what is older: 10m, 2026-11-21T08:00:00 or 1700000000."),
    "tail": Help("Options", "NUMBER", "The last NUMBER lines of each; -1 or all: all (default)."),
    "timestamps": Help("Options", "", "Begin each line with its time."),
    "until": Help(
        "Options", "TIME", "Not what is newer; a duration counts from now on, with a minus back."
    ),
    "with_names": Help(
        "Options", "", "Of several containers, begin each line with its name instead of its id."
    ),
}


@table_options(argv.LOGS, HELPS, _PANELS)
def logs(context: typer.Context, **_options: object) -> int:
    """Show what containers have written to stdout and stderr.

    Bytes come out as they went in, stdout to stdout and stderr to stderr.
    journalctl --user -u rp-NAME.scope shows the same lines of containers with the journald driver.
    """
    return hot.logs(argv.Values(context.params), context.obj)
