"""`rp inspect` for typer; what it does is in inspect.py."""

from __future__ import annotations

from rootlesspy.cli import argv, completion, hot
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.light_typer import Help, table_options

_PANELS = ("Options",)
_FORMAT = (
    "json (default), or a Go template such as '{{.State.Status}}', '{{json .Config}}' or "
    "'{{range .Mounts}}{{.Source}} {{end}}'."
)
_LATEST = "Describe the newest container instead of a named one."
_SIZE = "Add SizeRw, the bytes that a container has written, and SizeRootFs, with its image."
HELPS = {
    "names": Help("", "NAME...", "Containers and images: names, ids or unique beginnings of ids."),
    "format": Help("Options", "FORMAT", _FORMAT),
    "latest": Help("Options", "", _LATEST),
    "size": Help("Options", "", _SIZE),
    "type": Help(
        "Options", "TYPE", "container, image, or all (default): a container, else an image."
    ),
}


@table_options(argv.INSPECT, HELPS, _PANELS)
def inspect(context: typer.Context, **_options: object) -> int:
    """Describe containers and images in every detail.

    Prints a JSON array with the keys of podman inspect. Of a container that runs, limits and usage
    are what its cgroup says now; of one that has ended, the peaks and totals of its exit record.

    Exit code 125: a name is neither a container nor an image; the others are printed.
    """
    return hot.inspect(argv.Values(context.params), context.obj)


def container_inspect(
    context: typer.Context,
    names: list[str] = typer.Argument(
        None, metavar="CONTAINER...", help="Names, ids or unique beginnings of ids.",
        autocompletion=completion.containers, show_default=False,
    ),
    form: str | None = typer.Option(
        None, "--format", "-f", metavar="FORMAT", help=_FORMAT, show_default=False
    ),
    latest: bool = typer.Option(
        False, "--latest", "-l", help=_LATEST, show_default=False
    ),
    size: bool = typer.Option(False, "--size", "-s", help=_SIZE, show_default=False),
) -> int:  # fmt: skip
    """Describe containers in every detail.

    As rp inspect --type container.
    """
    given: dict[str, object] = {
        "names": names,
        "format": form,
        "latest": latest,
        "size": size,
        "type": "container",
    }
    return hot.inspect(argv.Values(given), context.obj)
