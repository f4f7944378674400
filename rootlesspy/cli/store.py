"""`rp system df`, `rp system prune` and `rp fsck`."""

from __future__ import annotations

import sys
import time

from rootlesspy.cli import human, image_prune, image_rows, moment, output, table
from rootlesspy.cli import light_typer as typer
from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.cli.image_rows import hexadecimal
from rootlesspy.cli.question import agreed
from rootlesspy.engine.inputs.values import has_control
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootlesspy.engine.images.store_care import Inventory
    from rootlesspy.engine.record import Container

    _Test = Callable[[Container], bool]

_SHORT_ID = 12
_COLUMNS = ("Type", "Total", "Active", "Size", "Reclaimable")


def df(
    context: typer.Context,
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", help="json or a Go template.", show_default=False
    ),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="List everything.", show_default=False
    ),
) -> int:  # fmt: skip
    """Show how much images, containers and volumes have on disk."""
    from rootlesspy.engine.images import store_care

    if form and verbose:
        raise UsageError("--format and --verbose exclude each other")
    found = store_care.inventory(context.obj.paths())
    if verbose:
        _show_all(found)
        return 0
    rows = _summary(found)
    if form:
        output.show(form, {}, rows=lambda: rows, json_rows=lambda: [dict(row) for row in rows])
        return 0
    cells = [tuple(str(row[column]) for column in _COLUMNS) for row in rows]
    titles = tuple(column.upper() for column in _COLUMNS)
    sys.stdout.write(table.render(titles, cells, table.style()._replace(width=None)))
    return 0


def prune(
    context: typer.Context,
    everything: bool = typer.Option(
        False, "--all", "-a", help="Remove all unused images, not only nameless ones.",
        show_default=False,
    ),
    force: bool = typer.Option(
        False, "--force", "-f", help="Ask nothing.", show_default=False
    ),
    filters: list[str] = typer.Option(
        None, "--filter", metavar="KEY=VALUE", show_default=False, help="label, label! or until.",
    ),
    volumes: bool = typer.Option(
        False, "--volumes", help="Remove unused volumes too, with all that is in them.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Remove what is not used: stopped containers, images, and with --volumes volumes."""
    from rootlesspy.engine import volumes as local_volumes
    from rootlesspy.engine.images import image_removal, store_care

    session = context.obj
    paths = session.paths()
    asked = tuple(filters or ())
    fits = _container_filter(asked)
    if volumes and asked:
        raise UsageError("--volumes and --filter exclude each other")
    if not force and not agreed(_warning(everything=everything, volumes=volumes)):
        return 0
    before = _total(store_care.inventory(paths))
    _told("Containers", store_care.prune_containers(paths, fits, session.reporter))
    if volumes:
        _told("Volumes", local_volumes.prune(paths))
    pruned = image_removal.prune(
        paths, lambda unused: image_prune.chosen(unused, asked, everything=everything)
    )
    _told("Images", [hexadecimal(image.id) for image in pruned.images])
    freed = max(before - _total(store_care.inventory(paths)), 0)
    sys.stdout.write(f"Total reclaimed space: {human.size(freed, digits=4, gap='')}\n")
    return 0


def fsck(
    context: typer.Context,
    repair: bool = typer.Option(
        False, "--repair", "-r", help="Remove what is damaged, half-made or needed by nobody.",
        show_default=False,
    ),
    quiet: bool = typer.Option(
        False, "--quiet", "-q", help="Print nothing.", show_default=False
    ),
) -> int:  # fmt: skip
    """Check the image store: every digest, what is missing, what nobody needs.

    Exit code 0: nothing is wrong, or all was cured; 1: something is. What was damaged comes back
    with the next rp pull.
    """
    from rootlesspy.engine.images import store_care

    found, left = store_care.check(context.obj.paths(), repair=repair)
    if quiet:
        return 1 if left else 0
    for problem in found:
        size = f" ({human.size(problem.free_bytes)})" if problem.free_bytes else ""
        sys.stdout.write(f"{problem.kind} {escape(problem.name)}: {escape(problem.why)}{size}\n")
    if repair and found:
        sys.stdout.write(f"{len(found) - len(left)} cured, {len(left)} left\n")
        for problem in left:
            sys.stdout.write(f"left: {problem.kind} {escape(problem.name)}: {problem.why}\n")
    if left:
        cure = "rp pull what is missing" if repair else "rp fsck --repair"
        context.obj.reporter.notice(f"the image store is not sound; cure: {cure}")
    return 1 if left else 0


def _summary(found: Inventory) -> list[Record]:
    used = {each.container.record.image_id for each in found.containers}
    ids = {image.id for image in found.images}
    resting = [each for each in found.containers if each.container.state != "running"]
    free = [each for each in found.volumes if not each.users]
    return [
        _row("Images", len(ids), len(ids & used), found.image_bytes, found.unused_image_bytes),
        _row(
            "Containers",
            len(found.containers),
            len(found.containers) - len(resting),
            sum(each.size_bytes for each in found.containers),
            sum(each.size_bytes for each in resting),
        ),
        _row(
            "Local Volumes",
            len(found.volumes),
            len(found.volumes) - len(free),
            sum(each.size_bytes for each in found.volumes),
            sum(each.size_bytes for each in free),
        ),
    ]


def _row(kind: str, total: int, active: int, size: int, reclaimable: int) -> Record:
    percent = 100 * reclaimable // size if size else 0
    return Record(
        Type=kind,
        Total=total,
        Active=active,
        RawSize=size,
        RawReclaimable=reclaimable,
        TotalCount=total,
        Size=_size(size),
        Reclaimable=f"{_size(reclaimable)} ({percent}%)",
    )


def _show_all(found: Inventory) -> None:
    now_s = time.time()
    users: dict[str, int] = {}
    for each in found.containers:
        users[each.container.record.image_id] = users.get(each.container.record.image_id, 0) + 1
    images = [
        (
            line.repository,
            line.tag,
            line.short_id(full=False),
            human.duration(now_s - line.image.created_s),
            _size(line.image.size_bytes),
            _size(found.shares[line.image.id].shared_bytes),
            _size(found.shares[line.image.id].unique_bytes),
            str(users.get(line.image.id, 0)),
        )
        for line in image_rows.lines(found.images)
    ]
    containers = [
        (
            each.container.record.id[:_SHORT_ID],
            hexadecimal(each.container.record.image_id)[:_SHORT_ID],
            " ".join(each.container.record.command),
            str(len(each.volumes)),
            _size(each.size_bytes),
            human.duration(now_s - each.container.record.created_s),
            each.container.state,
            each.container.record.name,
        )
        for each in found.containers
    ]
    volumes = [(each.name, str(each.users), _size(each.size_bytes)) for each in found.volumes]
    _section(
        "Images space usage",
        ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE",
         "CONTAINERS"),
        images,
    )  # fmt: skip
    _section(
        "\nContainers space usage",
        ("CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"),
        containers,
    )
    _section("\nLocal Volumes space usage", ("VOLUME NAME", "LINKS", "SIZE"), volumes)


def _section(title: str, names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    look = table.style()._replace(width=None)
    sys.stdout.write(f"{title}:\n\n{table.render(names, rows, look)}")


def _container_filter(filters: Sequence[str]) -> _Test:
    """Return a test for containers.  Raises UsageError."""
    tests: list[_Test] = []
    for text in filters:
        key, equals, value = text.partition("=")
        if key.endswith("!"):
            tests.append(_label(value, wanted=False))
        elif equals and key == "label":
            tests.append(_label(value, wanted=True))
        elif equals and key == "until" and not has_control(value):
            tests.append(_older(moment.parse_moment(value, "--filter until")))
        else:
            raise UsageError(
                f"--filter {text!r}: expected KEY=VALUE", hint="keys: label, label!, until"
            )
    return lambda container: all(test(container) for test in tests)


def _label(value: str, *, wanted: bool) -> _Test:
    key, equals, text = value.partition("=")

    def fits(container: Container) -> bool:
        known = container.record.labels
        return wanted is (key in known and (not equals or known[key] == text))

    return fits


def _older(than_s: float) -> _Test:
    return lambda container: container.record.created_s < than_s


def _warning(*, everything: bool, volumes: bool) -> str:
    lines = ["This command removes:", "\t- all stopped containers"]
    if volumes:
        lines.append("\t- all volumes not used by at least one container")
    unused = "without at least one container associated to them"
    lines.append(f"\t- all images {unused}" if everything else "\t- all dangling images")
    return "\n".join(lines) + "\n"


def _told(title: str, names: Sequence[str]) -> None:
    if names:
        sys.stdout.write(f"Deleted {title}\n" + "".join(f"{name}\n" for name in names))


def _total(found: Inventory) -> int:
    return (
        found.image_bytes
        + sum(each.size_bytes for each in found.containers)
        + sum(each.size_bytes for each in found.volumes)
    )


def _size(size_bytes: int) -> str:
    return human.size(size_bytes, digits=4, gap="")
