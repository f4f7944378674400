"""`rp volume`: create, ls, inspect, rm, prune, exists."""

from __future__ import annotations

import os
import sys

from rootlesspy import paths as places
from rootlesspy.cli import hot, output, table, volume_filter
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.cli.question import agreed
from rootlesspy.cli.removal import Removal
from rootlesspy.engine import volumes
from rootlesspy.errors import Error, NotFound, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.report import escape

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session

_HEADERS = {"Driver": "DRIVER", "Name": "VOLUME NAME", "CreatedAt": "CREATED AT"}
_FORMAT = "json, a Go template such as '{{.Name}} {{.Mountpoint}}', or table and a Go template."


def names_of(incomplete: str) -> list[str]:
    """Offer the names of volumes to the shell."""
    try:
        found = volumes.names(places.from_environment(os.environ))
    except (Error, OSError):
        return []
    return [name for name in found if name.startswith(incomplete)]


def _several() -> Any:
    return typer.Argument(
        None, metavar="VOLUME...", help="Names, or unique beginnings of names.",
        autocompletion=names_of, show_default=False,
    )  # fmt: skip


def _filters(*options: str) -> Any:
    return typer.Option(
        None, *options, metavar="KEY=VALUE", show_default=False,
        help="Only what fits: name (a regular expression), label, label!, driver, scope, opt, "
        "anonymous, dangling (true: no container uses it), since, after, until.",
    )  # fmt: skip


def create(
    context: typer.Context,
    name: str = typer.Argument("", metavar="[NAME]", help="Default: a random one."),
    driver: str = typer.Option(
        "local", "--driver", "-d", metavar="DRIVER", help="Only local.", show_default=False
    ),
    ignore: bool = typer.Option(
        False, "--ignore", help="Do not mind one that is there already.", show_default=False
    ),
    label: list[str] = typer.Option(
        None, "--label", "-l", metavar="KEY=VALUE", help="Label it.", show_default=False
    ),
    opt: list[str] = typer.Option(
        None, "--opt", "-o", metavar="KEY=VALUE", help="Refused: a volume is a directory.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Make an empty volume, and print its name.

    It is filled with what the image has there when it is mounted for the first time.
    """
    if driver != "local":
        raise Unsupported(f"--driver {driver}: only local volumes exist", hint="mount it, then -v")
    if opt:
        raise Unsupported(
            f"--opt {opt[0]}: mount options of a volume need root",
            hint="give them where it is mounted: -v NAME:PATH:ro,noexec, --tmpfs, or quotas",
        )
    session: Session = context.obj
    made = volumes.create(
        session.paths(), name, volumes.parse_labels(tuple(label or ())), ignore=ignore
    )
    sys.stdout.write(f"{made}\n")
    return 0


def ls(
    context: typer.Context,
    filters: list[str] = _filters("--filter", "-f"),
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", help=_FORMAT, show_default=False
    ),
    noheading: bool = typer.Option(
        False, "--noheading", "-n", help="Leave out the headings.", show_default=False
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Print names only.", show_default=False
    ),
) -> int:  # fmt: skip
    """List volumes."""
    if quiet and form:
        raise UsageError("--quiet and --format exclude each other", hint="rp volume ls --help")
    session: Session = context.obj
    asked = tuple(filters or ())
    every = volumes.known(session.paths(), users=bool(form) or volume_filter.ask_users(asked))
    found = volume_filter.matching(every, asked, every)
    if quiet:
        sys.stdout.write("".join(f"{each.volume.name}\n" for each in found))
    elif form:
        documents = [volume_filter.document(each) for each in found]
        output.show(
            form,
            _HEADERS,
            rows=lambda: [Record(**each) for each in documents],
            json_rows=lambda: documents,
            heading=not noheading,
        )
    else:
        cells = [(each.volume.driver, escape(each.volume.name)) for each in found]
        text = table.render(("DRIVER", "VOLUME NAME"), cells, table.style())
        sys.stdout.write(text.partition("\n")[2] if noheading else text)
    return 0


def inspect(
    context: typer.Context,
    names: list[str] = _several(),
    everything: bool = typer.Option(
        False, "--all", "-a", help="Describe all volumes.", show_default=False
    ),
    form: str | None = typer.Option(
        None, "--format", "-f", metavar="FORMAT", help=_FORMAT, show_default=False
    ),
) -> int:  # fmt: skip
    """Describe volumes, as podman volume inspect does."""
    session: Session = context.obj
    _one_way("inspect", names, everything=everything)
    code, found = 0, volumes.known(session.paths()) if everything else []
    for name in names or ():
        try:
            found.append(volumes.get(session.paths(), name))
        except Error as error:
            session.reporter.error(error.message, error.hint)
            code = error.exit_code
    documents = [volume_filter.document(each) for each in found]
    if form is None or form.strip() == "json":
        output.print_json(documents)
        return code
    for each in documents:
        if output.is_json(form):
            output.print_json_line(each)
        else:
            output.show_one(Record(**each), form)
    return code


def rm(
    context: typer.Context,
    names: list[str] = _several(),
    everything: bool = typer.Option(
        False, "--all", "-a", help="Remove all volumes.", show_default=False
    ),
    force: bool = typer.Option(
        False, "--force", "-f", show_default=False,
        help="Remove the containers that use them first; do not mind names that do not exist.",
    ),
    time: str | None = typer.Option(
        None, "--time", "-t", metavar="SECONDS", show_default=False,
        help="With --force: how long running containers may take to stop; default: none.",
    ),
) -> int:  # fmt: skip
    """Remove volumes, with all that is in them.

    Exit code 1: one did not exist; 2: one is in use; 125: anything else.
    """
    session: Session = context.obj
    _one_way("rm", names, everything=everything)
    limit_s = hot.stop_time(time)
    paths = session.paths()
    removal = Removal(session.reporter)
    for name in volumes.names(paths) if everything else names:
        try:
            gone = volumes.remove(
                paths, name, force=force, timeout_s=limit_s, reporter=session.reporter
            )
        except NotFound as error:
            if not force:
                removal.failed(error)
        except Error as error:
            removal.failed(error)
        else:
            sys.stdout.write(f"{gone}\n")
    return removal.exit_code


def prune(
    context: typer.Context,
    filters: list[str] = _filters("--filter"),
    force: bool = typer.Option(False, "--force", "-f", help="Ask nothing.", show_default=False),
) -> int:
    """Remove volumes that no container uses, with all that is in them; print their names."""
    session: Session = context.obj
    paths = session.paths()
    asked = tuple(filters or ())
    # Before the question: a filter that cannot be is an error, whatever the answer would be.
    volume_filter.matching([], asked, volumes.known(paths))
    warning = "This will remove all volumes not used by at least one container."
    if not force and not agreed(warning):
        return 0
    every = volumes.known(paths)
    for name in volumes.prune(paths, volume_filter.matching(every, asked, every)):
        sys.stdout.write(f"{name}\n")
    return 0


def exists(
    context: typer.Context,
    name: str = typer.Argument(
        ..., metavar="VOLUME", help="Its name.", autocompletion=names_of, show_default=False
    ),
) -> int:
    """Exit with 0 if there is such a volume, with 1 if there is none."""
    return 0 if name in volumes.names(context.obj.paths()) else 1


def _one_way(command: str, names: list[str] | None, *, everything: bool) -> None:
    if everything == bool(names):
        raise UsageError(
            f"rp volume {command}: name the volumes, or say --all",
            hint=f"rp volume {command} --help",
        )
