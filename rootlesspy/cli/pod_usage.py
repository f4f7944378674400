"""`rp pod logs`, `top` and `stats`: what the members of pods say, run and use."""

from __future__ import annotations

import os
import sys
import time

from rootlesspy.cli import light_typer as typer
from rootlesspy.cli import output, stats_rows, table
from rootlesspy.cli import top as containers_top
from rootlesspy.cli.pod_choice import flag, newest, one, value
from rootlesspy.engine.views.stats import Scopes
from rootlesspy.errors import Conflict, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootlesspy.cli.session import Session
    from rootlesspy.cli.stats_rows import Sample
    from rootlesspy.engine.pods.store import Pod
    from rootlesspy.engine.record import Container

_SHORT_ID = 12
_INTERVAL_S = 5.0
_CLEAR = "\x1b[H\x1b[2J"
_HEADER = ("POD", "CID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET IO", "BLOCK IO",
           "PIDS")  # fmt: skip
_HEADERS = {
    "CPU": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemUsageBytes": "MEM USAGE / LIMIT",
    "Mem": "MEM %", "NetIO": "NET IO", "BlockIO": "BLOCK IO", "PIDS": "PIDS", "CID": "CID",
}  # fmt: skip


def logs(
    context: typer.Context,
    name: str = typer.Argument(
        None, metavar="POD", help="Name, id or unique beginning of an id.", show_default=False
    ),
    container: list[str] = value(
        "NAME", "Of this member alone; may be repeated.", "--container", "-c"
    ),
    follow: bool = flag("Go on until the containers end.", "--follow", "-f"),
    latest: bool = flag("Of the newest pod.", "--latest", "-l"),
    since: str | None = value("TIME", "Not what is older.", "--since"),
    until: str | None = value("TIME", "Not what is newer.", "--until"),
    tail: str = typer.Option(
        "-1", "--tail", metavar="NUMBER", show_default=False, help="The last NUMBER lines of each."
    ),
    timestamps: bool = flag("Begin each line with its time.", "--timestamps", "-t"),
    with_names: bool = flag("Begin each line with the container's name.", "--names", "-n"),
    colour: bool = flag("Give each container's name a colour.", "--color"),
) -> int:
    """Show what the members of a pod have written."""
    from rootlesspy.cli import argv, hot
    from rootlesspy.engine import record
    from rootlesspy.engine.pods import store

    session: Session = context.obj
    paths = session.paths()
    pod = one(session, "logs", name, latest=latest)
    members = [each.record.id for each in store.members(paths, pod)]
    for wanted in container or ():
        if record.find(paths, wanted) not in members:
            raise NotFound(f"container {wanted} is not in pod {pod.name}")
    if container:
        members = [record.find(paths, wanted) for wanted in container]
    if not members:
        return 0
    given: dict[str, object] = {
        "names": members, "follow": follow, "since": since, "until": until, "tail": tail,
        "timestamps": timestamps, "with_names": with_names, "colour": colour,
    }  # fmt: skip
    return hot.logs(argv.Values(given), session)


def top(
    context: typer.Context,
    name: str = typer.Argument(
        None, metavar="POD", help="Name, id or unique beginning of an id.", show_default=False
    ),
    columns: list[str] = typer.Argument(
        None, metavar="[COLUMN...]", show_default=False, help="As those of rp top."
    ),
    latest: bool = flag("Of the newest pod.", "--latest", "-l"),
) -> int:
    """Show the processes of all members of a pod; rp top says what columns there are."""
    from rootlesspy.engine.pods import store

    session: Session = context.obj
    words = list(columns or ())
    if latest and name is not None:
        words.insert(0, name)
    pod = one(session, "top", None if latest else name, latest=latest)
    chosen = containers_top.columns_of(words)
    running = [each for each in store.members(session.paths(), pod) if each.pid]
    if not running:
        raise Conflict(f"pod {pod.name} has no running containers", hint=f"rp pod start {pod.name}")
    rows = []
    for each in running:
        found, scene = containers_top.look(session, each.record.id)
        rows += [tuple(column.write(process, scene) for column in chosen) for process in found]
    header = tuple(column.header for column in chosen)
    sys.stdout.write(table.render(header, rows, table.style()._replace(width=None)))
    return 0


def stats(
    context: typer.Context,
    names: list[str] = typer.Argument(
        None, metavar="POD...", show_default=False,
        help="Names, ids or unique beginnings of ids; none: all with running members.",
    ),
    everything: bool = flag("All pods.", "--all", "-a"),
    form: str | None = value("FORMAT", "json, a Go template, or table and one.", "--format"),
    latest: bool = flag("The newest pod.", "--latest", "-l"),
    no_reset: bool = flag("Write each table below the one before.", "--no-reset"),
    no_stream: bool = flag("Look once.", "--no-stream"),
) -> int:  # fmt: skip
    """Show what the running members of pods use; rp stats says what the numbers mean.

    Fields of templates: Pod, CID, Name, CPU, MemUsage, MemUsageBytes, Mem, NetIO, BlockIO, PIDS.
    """
    session: Session = context.obj
    if bool(names) + everything + latest > 1:
        raise UsageError("rp pod stats: names, --all and --latest exclude each other")
    ids = _ids(session, names, latest=latest)
    before: dict[str, Sample] = {}
    while True:
        with Scopes() as scopes:
            samples = [
                (pod, stats_rows.measure(member, before.get(member.record.id), scopes, whole=False))
                for pod, member in _members(session, ids)
            ]
        before = {each.container.record.id: each for _, each in samples}
        if not no_stream and not no_reset and form is None and os.isatty(1):
            sys.stdout.write(_CLEAR)
        _print(samples, form)
        if no_stream or (ids is not None and not samples):
            return 0
        sys.stdout.flush()
        time.sleep(_INTERVAL_S)


def _ids(session: Session, names: list[str] | None, *, latest: bool) -> list[str] | None:
    """Return the pods that were asked for; None: whatever is there at each look."""
    from rootlesspy.engine.pods import store

    if latest:
        return [newest(session).id]
    return [store.find(session.paths(), name).id for name in names] if names else None


def _members(session: Session, ids: list[str] | None) -> list[tuple[Pod, Container]]:
    from rootlesspy.engine.pods import store

    paths = session.paths()
    pods = [each for each in store.everything(paths) if ids is None or each.id in ids]
    return [(pod, each) for pod in reversed(pods) for each in store.members(paths, pod) if each.pid]


def _print(samples: list[tuple[Pod, Sample]], form: str | None) -> None:
    from rootlesspy.cli.gotemplate_functions import Record

    rows = [_row(pod, each) for pod, each in samples]
    if form is None:
        cells = [tuple(row[key] for key in _KEYS) for row in rows]
        sys.stdout.write(table.render(_HEADER, cells, table.style(), cut=("NAME",)))
        return
    output.show(form, _HEADERS, rows=lambda: [Record(row) for row in rows], json_rows=lambda: rows)


_KEYS = ("Pod", "CID", "Name", "CPU", "MemUsage", "Mem", "NetIO", "BlockIO", "PIDS")


def _row(pod: Pod, sample: Sample) -> dict[str, Any]:
    """Return the fields that podman's JSON has."""
    texts = stats_rows.row(sample, full=False)
    return {
        "CPU": texts["CPUPerc"],
        "MemUsage": texts["MemUsage"],
        "MemUsageBytes": texts["MemUsageBytes"],
        "Mem": texts["MemPerc"],
        "NetIO": texts["NetIO"],
        "BlockIO": texts["BlockIO"],
        "PIDS": texts["PIDS"],
        "Pod": pod.id[:_SHORT_ID],
        "CID": sample.container.record.id[:_SHORT_ID],
        "Name": sample.container.record.name,
    }
