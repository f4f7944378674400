"""`rp ps`: which containers there are.  Hot: neither typer nor rich is imported for the table."""

from __future__ import annotations

import sys
import time

from rootlesspy.cli import human, ps_facts, table
from rootlesspy.cli.ps_filter import matching
from rootlesspy.engine import lifecycle
from rootlesspy.engine.inputs.values import parse_choice, parse_integer
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.cli.argv import Values
    from rootlesspy.cli.session import Session
    from rootlesspy.engine.record import Container
    from rootlesspy.engine.record_cache import Seen
    from rootlesspy.engine.views.disk_usage import Sizes

_SHORT_ID = 12
_COMMAND_WIDTH = 17
_HEADER = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
_SIZE_HEADER = ("SIZE",)
_POD_HEADER = ("POD ID", "PODNAME")
_NAMESPACES_HEADER = (
    "CONTAINER ID", "NAMES", "PID", "CGROUPNS", "IPC", "MNT", "NET", "PIDNS", "USERNS", "UTS",
)  # fmt: skip
_CUT = ("IMAGE", "COMMAND", "PORTS", "NAMES")
_SORT = ("command", "created", "id", "image", "names", "runningfor", "size", "status")
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def show(given: Values, session: Session) -> None:
    """Print the containers that were asked for; with --watch again and again, until Ctrl-C."""
    interval = given.value("watch")
    if interval is None:
        _show_once(given, session)
        return
    interval_s = parse_integer(interval, "--watch", 1, 2**31 - 1)
    while True:
        sys.stdout.write(_CLEAR)
        _show_once(given, session)
        sys.stdout.flush()
        time.sleep(interval_s)


def _show_once(given: Values, session: Session) -> None:
    now_s = time.time()
    paths = session.paths()
    seen: Seen = {}
    containers = lifecycle.containers(paths, running=_only_running(given), seen=seen)
    everything = ps_facts.with_pauses(containers)
    facts = ps_facts.Facts(paths, everything, seen)
    found = _selected(given, everything, facts)
    template = given.value("format")
    full, heading = given.flag("no_trunc"), not given.flag("noheading")
    if template:
        from rootlesspy.cli import output, ps_rows

        size = given.flag("size")
        output.show(
            template,
            ps_rows.HEADERS,
            rows=lambda: [ps_rows.row(each, now_s, facts, full=full) for each in found],
            json_rows=lambda: [ps_rows.json_row(each, now_s, facts, size=size) for each in found],
            heading=heading,
        )
        facts.keep()
    elif given.flag("quiet"):
        ids = (container.record.id[: None if full else _SHORT_ID] for container in found)
        sys.stdout.write("".join(f"{each}\n" for each in ids))
    elif given.flag("namespaces"):
        sys.stdout.write(_namespaces_table(found, facts, heading=heading, full=full))
    else:
        sys.stdout.write(_table(found, now_s, given, facts))


def command_text(container: Container, *, full: bool) -> str:
    """Return the command as one text, cut as podman cuts it."""
    text = " ".join(container.record.command)
    if full or len(text) <= _COMMAND_WIDTH:
        return text
    return f"{text[:_COMMAND_WIDTH]}..."


def status_text(container: Container, now_s: float, health: str = "") -> str:
    """Say in what state a container is, since when, and how healthy."""
    suffix = f" ({health})" if health else ""
    if container.state == "running":
        return f"Up {human.duration(now_s - container.started_s)}{suffix}"
    if container.state == "exited" and container.exit is not None:
        ended = container.exit
        when = f" {human.ago(ended.finished_s, now_s)}" if ended.finished_s else ""
        return f"Exited ({ended.exit_code}){when}"
    return f"{container.state.capitalize()}{suffix}"


def size_text(sizes: Sizes) -> str:
    """Write the size of a container and, as podman calls it, its virtual size."""
    written = human.size(sizes.SizeRw, gap="")
    return f"{written} (virtual {human.size(sizes.SizeRootFs, gap='')})"


def ports_text(ports: list[list[object]]) -> str:
    """Write published ports as podman does, neighbours as one range."""
    if not ports:
        return ""
    merged: list[list[object]] = []
    for address, host, inner, protocol in ports:
        last = merged[-1] if merged else None
        if (
            last is not None
            and [last[0], last[3]] == [address, protocol]
            and isinstance(host, int)
            and isinstance(inner, int)
            and [last[1], last[2]] == [host - _length(last), inner - _length(last)]
        ):
            last[4] = _length(last) + 1
        else:
            merged.append([address, host, inner, protocol, 1])
    return ", ".join(_port_text(each) for each in merged)


def _selected(given: Values, containers: list[Container], facts: ps_facts.Facts) -> list[Container]:
    filters = given.values("filter")
    last = _last(given)
    found = containers
    if not _shows_all(given):
        found = [container for container in containers if container.state == "running"]
    found = matching(found, filters, facts.paths, containers)
    found.sort(key=lambda container: container.record.created_s)
    if last is not None:
        found = found[len(found) - min(last, len(found)) :]
    order = parse_choice(given.value("sort") or "created", "--sort", _SORT)
    if order == "size":
        found.sort(key=lambda container: facts.sizes(container).SizeRw)
    elif order not in ("created", "runningfor"):
        found.sort(key=lambda container: _sort_key(container, order))
    return found


def _shows_all(given: Values) -> bool:
    """Say whether containers are shown that do not run."""
    wants_states = any(each.startswith("status=") for each in given.values("filter"))
    return given.flag("all") or _last(given) is not None or wants_states


def _only_running(given: Values) -> bool:
    """Say whether nothing is to be known of containers that do not run."""
    # One that has ended may say since when, or before, others are wanted.
    names_others = any(each.startswith(("before=", "since=")) for each in given.values("filter"))
    return not (names_others or _shows_all(given))


def _last(given: Values) -> int | None:
    text = given.value("last")
    if given.flag("latest"):
        if text is not None:
            raise UsageError("--last and --latest exclude each other")
        return 1
    number = None if text is None else parse_integer(text, "--last", -1, 2**31 - 1)
    return None if number == -1 else number


def _sort_key(container: Container, order: str) -> str:
    record = container.record
    keys = {
        "command": " ".join(record.command),
        "id": record.id,
        "image": record.image,
        "names": record.name,
        "status": container.state,
    }
    return keys[order]


def _table(found: list[Container], now_s: float, given: Values, facts: ps_facts.Facts) -> str:
    full, with_size, with_pod = (given.flag(each) for each in ("no_trunc", "size", "pod"))
    header = _HEADER + (_SIZE_HEADER if with_size else ()) + (_POD_HEADER if with_pod else ())
    rows: list[tuple[str, ...]] = []
    length = None if full else _SHORT_ID
    for container in found:
        record = container.record
        cells: tuple[str, ...] = (
            record.id[:length],
            record.image,
            command_text(container, full=full),
            human.ago(record.created_s, now_s),
            status_text(container, now_s, facts.health(container)),
            ports_text(facts.ports(container)),
            record.name,
        )
        if with_size:
            cells += (size_text(facts.sizes(container)),)
        if with_pod:
            cells += (record.pod[:length], facts.pod_name(container))
        rows.append(cells)
    look = _style(full=full)
    paint = {"STATUS": [_colour(container) for container in found]} if look.colour else None
    return table.render(
        header,
        rows,
        look,
        heading=not given.flag("noheading"),
        cut=_CUT,
        cut_front=("IMAGE",),
        paint=paint,
    )


def _namespaces_table(
    found: list[Container], facts: ps_facts.Facts, *, heading: bool, full: bool
) -> str:
    rows = [
        (
            container.record.id[: None if full else _SHORT_ID],
            container.record.name,
            str(container.pid),
            *facts.namespaces(container).values(),
        )
        for container in found
    ]
    return table.render(_NAMESPACES_HEADER, rows, _style(full=full), heading=heading)


def _style(*, full: bool) -> table.Style:
    look = table.style()
    return look._replace(width=None) if full else look


def _colour(container: Container) -> str:
    if container.state == "running":
        return table.GREEN
    if container.state == "paused":
        return table.YELLOW
    if container.state == "broken" or (container.exit and container.exit.exit_code != 0):
        return table.RED
    return ""


def _length(port: list[object]) -> int:
    length = port[4]
    return length if isinstance(length, int) else 1


def _port_text(port: list[object]) -> str:
    address, host, inner, protocol, length = port
    name = f"[{address}]" if ":" in str(address) else str(address or "0.0.0.0")  # noqa: S104 text
    if isinstance(length, int) and isinstance(host, int) and isinstance(inner, int) and length > 1:
        last = length - 1
        return f"{name}:{host}-{host + last}->{inner}-{inner + last}/{protocol}"
    return f"{name}:{host}->{inner}/{protocol}"
