"""`rp network ls` and `rp network inspect`."""

from __future__ import annotations

import sys

from rootlesspy.cli import completion, network_rows, output, table
from rootlesspy.cli import light_typer as typer
from rootlesspy.errors import NotFound
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootlesspy.cli.gotemplate_functions import Record
    from rootlesspy.network.networks import Network


def ls(
    context: typer.Context,
    filters: list[str] = typer.Option(
        None, "--filter", "-f", metavar="KEY=VALUE", show_default=False,
        help="Show what fits: name, id, label, label!, driver, dangling, until.",
    ),
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", show_default=False,
        help="json, a Go template, or table and a Go template.",
    ),
    no_trunc: bool = typer.Option(
        False, "--no-trunc", help="Do not shorten ids.", show_default=False
    ),
    noheading: bool = typer.Option(
        False, "--noheading", "-n", help="Leave out the headings.", show_default=False
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Show only the names.", show_default=False
    ),
) -> int:  # fmt: skip
    """List networks."""
    from rootlesspy.engine.networks import description, store

    paths = context.obj.paths()
    fits = network_rows.matching(filters or (), used=_used(context, filters or ()))
    found = [each for each in store.all_networks(paths) if fits(each)]
    if quiet:
        sys.stdout.write("".join(f"{each.name}\n" for each in found))
        return 0
    if form:
        output.show(
            form,
            network_rows.HEADERS,
            rows=lambda: [_row(each, full=no_trunc) for each in found],
            json_rows=lambda: [description.document(each) for each in found],
            heading=not noheading,
        )
        return 0
    cells = [(_id(each, full=no_trunc), each.name, "bridge") for each in found]
    names = tuple(network_rows.HEADERS.values())
    sys.stdout.write(table.render(names, cells, table.style(), heading=not noheading))
    return 0


def inspect(
    context: typer.Context,
    names: list[str] = typer.Argument(
        ..., metavar="NETWORK...", help="Networks, by name or id.", show_default=False,
        autocompletion=completion.networks,
    ),
    form: str | None = typer.Option(
        None, "--format", "-f", metavar="FORMAT", help="json or a Go template.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Describe networks, and who is in them, as JSON."""
    from rootlesspy.engine.networks import description, store

    session = context.obj
    paths = session.paths()
    found: list[dict[str, Any]] = []
    missing: NotFound | None = None
    for name in names:
        try:
            found.append(description.inspected(paths, store.find(paths, name)))
        except NotFound as error:
            missing = error
            session.reporter.error(error.message, error.hint)
    if form is None or output.is_json(form):
        output.print_json(found)
    else:
        for each in found:
            output.show_one(network_rows.record(each), form)
    return 0 if missing is None else missing.exit_code


def _row(network: Network, *, full: bool) -> Record:
    from rootlesspy.engine.networks import description

    row = network_rows.record(description.document(network))
    row["ID"] = _id(network, full=full)
    row["Labels"] = ",".join(f"{key}={value}" for key, value in network.labels.items())
    return row


def _id(network: Network, *, full: bool) -> str:
    return network.id if full else network.id[: network_rows.SHORT_ID]


def _used(context: typer.Context, filters: list[str] | tuple[str, ...]) -> frozenset[str]:
    """Return the networks that containers are of, where a filter asks for it."""
    if not any(text.startswith("dangling") for text in filters):
        return frozenset()
    from rootlesspy.engine.networks import management

    return management.used(context.obj.paths())
