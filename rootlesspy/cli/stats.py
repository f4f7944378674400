"""`rp stats`: what containers use now, once or as a table that is drawn again and again."""

from __future__ import annotations

import os
import sys
import time

from rootlesspy.cli import completion, operations, output, stats_rows, table
from rootlesspy.cli import light_typer as typer
from rootlesspy.engine.views.stats import Scopes
from rootlesspy.errors import NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session
    from rootlesspy.cli.stats_rows import Sample
    from rootlesspy.engine.record import Container

_MAX_INTERVAL_S = 86400.0
_CUT = ("NAME",)
_TEXT_COLUMNS = 2
# What a narrow terminal goes without, the first first: a cut number would be a wrong one.
_DISPENSABLE = ("AVG CPU %", "CPU TIME", "MEM %", "BLOCK IO", "NET IO", "ID", "PIDS")
_GAP = 2


def stats(
    context: typer.Context,
    names: list[str] = typer.Argument(
        None, metavar="CONTAINER...", show_default=False,
        help="Names, ids or unique beginnings of ids; none: all that run.",
        autocompletion=completion.containers,
    ),
    everything: bool = typer.Option(
        False, "--all", "-a", help="Show containers that do not run, too.", show_default=False
    ),
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", show_default=False,
        help="json, a Go template, or table and a Go template.",
    ),
    interval: float = typer.Option(
        5, "--interval", "-i", metavar="SECONDS", help="Time between two looks."
    ),
    latest: bool = typer.Option(
        False, "--latest", "-l", help="Show the newest container.", show_default=False
    ),
    no_reset: bool = typer.Option(
        False, "--no-reset", help="Write each table below the one before.", show_default=False
    ),
    no_stream: bool = typer.Option(
        False, "--no-stream", help="Look once; CPU % is then the average since the start.",
        show_default=False,
    ),
    no_trunc: bool = typer.Option(
        False, "--no-trunc", help="Do not shorten ids.", show_default=False
    ),
) -> int:  # fmt: skip
    """Show what containers use: CPU, memory, network, disk and processes.

    The numbers are those of the container's cgroup. "--" stands for what this machine does not
    count for you: memory and disk need the controllers memory and io to be delegated to users
    (rp doctor tells), and a container with --network=host has no network of its own.

    Fields of templates are podman's: ID, Name, CPUPerc, MemUsage, MemPerc, NetIO, BlockIO, PIDs,
    AVGCPU, CPUNano, MemUsageBytes, MemLimit and others; MemPeak, SwapUsage, Throttled, OOMKills
    and Pressure (cpu, memory and io: percent of the last 10 s that somebody waited) are rp's own.
    """
    session = context.obj
    if not 0 < interval <= _MAX_INTERVAL_S:
        raise UsageError(f"--interval {interval:g}: expected a time in seconds greater than 0")
    ids = _ids(session, list(names or ()), everything=everything, latest=latest)
    view = _View(session, ids, everything=everything, form=form, full=no_trunc)
    if no_stream:
        view.write()
    elif form is None and not no_reset and os.isatty(1):
        view.live(interval)
    else:
        _repeat(view, interval)
    return 0


def _ids(
    session: Session, names: list[str], *, everything: bool, latest: bool
) -> tuple[str, ...] | None:
    """Return the ids that were asked for; None: whatever is there at each look."""
    from rootlesspy.engine import record

    if not (names or latest):
        return None
    if everything:
        raise UsageError("--all and containers exclude each other")
    chosen = operations.chosen(session, "stats", names, latest=latest)
    return tuple(record.find(session.paths(), name) for name in chosen)


def _repeat(view: _View, interval_s: float) -> None:
    """Write again and again, until Ctrl-C or until none of the named containers is left."""
    while view.write():
        sys.stdout.flush()
        time.sleep(interval_s)


def _fitting(rows: list[tuple[str, ...]], width: int) -> list[int]:
    """Return the numbers of the columns that fit into a terminal whole."""
    widths = [max(map(len, column)) for column in zip(stats_rows.HEADER, *rows, strict=True)]
    shown = list(range(len(widths)))
    for name in _DISPENSABLE:
        if sum(widths[number] + _GAP for number in shown) - _GAP <= width:
            break
        shown.remove(stats_rows.HEADER.index(name))
    return shown


class _View:
    """One run of the command: looks at containers and remembers the last look."""

    def __init__(
        self,
        session: Session,
        ids: tuple[str, ...] | None,
        *,
        everything: bool,
        form: str | None,
        full: bool,
    ) -> None:
        self._session = session
        self._ids = ids
        self._everything = everything
        self._form = form
        self._full = full
        self._before: dict[str, Sample] = {}

    def look(self) -> list[Sample]:
        """Measure the containers, in the order of their making."""
        # Templates alone have fields beyond the columns.
        whole = self._form is not None and not output.is_json(self._form)
        with Scopes() as scopes:
            samples = [
                stats_rows.measure(found, self._before.get(found.record.id), scopes, whole=whole)
                for found in self._containers()
            ]
        self._before = {each.container.record.id: each for each in samples}
        return samples

    def write(self) -> bool:
        """Print one look; say whether there is more to come."""
        samples = self.look()
        form = self._form
        if form is None:
            cells = [stats_rows.cells(each, full=self._full) for each in samples]
            look = table.style()
            sys.stdout.write(table.render(stats_rows.HEADER, cells, look, cut=_CUT))
        elif output.is_json(form) and form.strip() != "json":
            for each in samples:
                output.print_json_line(stats_rows.struct(each))
        else:
            output.show(
                form,
                stats_rows.HEADERS,
                rows=lambda: [stats_rows.row(each, full=self._full) for each in samples],
                json_rows=lambda: [stats_rows.json_row(each) for each in samples],
            )
        return self._ids is None or any(each.container.pid for each in samples)

    def live(self, interval_s: float) -> None:
        """Draw the table in place until Ctrl-C; without rich's thread."""
        from rich.live import Live

        samples = self.look()
        with Live(auto_refresh=False) as live:
            live.update(self._drawn(samples, live.console.width), refresh=True)
            while self._ids is None or any(each.container.pid for each in samples):
                time.sleep(interval_s)
                samples = self.look()
                live.update(self._drawn(samples, live.console.width), refresh=True)

    def _drawn(self, samples: list[Sample], width: int) -> Any:
        from rich.table import Table
        from rich.text import Text

        rows = [stats_rows.cells(each, full=self._full) for each in samples]
        shown = _fitting(rows, width)
        drawn = Table(box=None, pad_edge=False, header_style="bold")
        for number in shown:
            justify: Any = "left" if number < _TEXT_COLUMNS else "right"
            drawn.add_column(stats_rows.HEADER[number], justify=justify, no_wrap=True)
        for each, cells in zip(samples, rows, strict=True):
            styles = stats_rows.styles(each)
            drawn.add_row(*(Text(cells[number], style=styles[number]) for number in shown))
        return drawn

    def _containers(self) -> list[Container]:
        from rootlesspy.engine import lifecycle, record

        paths = self._session.paths()
        if self._ids is None:
            found = reversed(lifecycle.containers(paths, running=not self._everything))
            return [each for each in found if self._everything or each.pid]
        named = [record.load(paths, identity) for identity in self._ids]
        if not self._before and None in named:
            raise NotFound("a container was removed meanwhile", hint="rp ps -a lists them")
        return [each for each in named if each is not None]
