"""`rp ps`: which containers there are.  Hot: neither typer nor rich is imported for the table."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rootlesspy.cli import human, table
from rootlesspy.cli.ps_filter import matching
from rootlesspy.engine import lifecycle
from rootlesspy.engine.values import parse_choice, parse_integer
from rootlesspy.errors import UsageError

if TYPE_CHECKING:
    from rootlesspy.cli.argv import Values
    from rootlesspy.cli.session import Session
    from rootlesspy.engine.record import Container

_SHORT_ID = 12
_COMMAND_WIDTH = 17
_HEADER = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
_CUT = ("IMAGE", "COMMAND", "PORTS", "NAMES")
_SORT = ("command", "created", "id", "image", "names", "runningfor", "status")


def show(given: Values, session: Session) -> None:
    """Print the containers that were asked for."""
    now_s = time.time()
    found = _selected(given, lifecycle.containers(session.paths()))
    template = given.value("format")
    full = given.flag("no_trunc")
    if template:
        from rootlesspy.cli import output, ps_rows

        output.show(
            template,
            ps_rows.HEADERS,
            rows=lambda: [ps_rows.row(container, now_s, full=full) for container in found],
            json_rows=lambda: [ps_rows.json_row(container, now_s) for container in found],
            heading=not given.flag("noheading"),
        )
    elif given.flag("quiet"):
        ids = (container.record.id[: None if full else _SHORT_ID] for container in found)
        sys.stdout.write("".join(f"{each}\n" for each in ids))
    else:
        heading = not given.flag("noheading")
        sys.stdout.write(_table(found, now_s, heading=heading, full=full))


def command_text(container: Container, *, full: bool) -> str:
    """Return the command as one text, cut as podman cuts it."""
    text = " ".join(container.record.command)
    if full or len(text) <= _COMMAND_WIDTH:
        return text
    return f"{text[:_COMMAND_WIDTH]}..."


def status_text(container: Container, now_s: float) -> str:
    """Say in what state a container is, and since when."""
    if container.state == "running":
        return f"Up {human.duration(now_s - container.started_s)}"
    if container.state == "exited" and container.exit is not None:
        ended = container.exit
        when = f" {human.ago(ended.finished_s, now_s)}" if ended.finished_s else ""
        return f"Exited ({ended.exit_code}){when}"
    return container.state.capitalize()


def ports_text(ports: list[list[object]]) -> str:
    """Write published ports as podman does, neighbours as one range."""
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


def _selected(given: Values, found: list[Container]) -> list[Container]:
    filters = given.values("filter")
    last = _last(given)
    everything = (
        given.flag("all") or last is not None or any(each.startswith("status=") for each in filters)
    )
    if not everything:
        found = [container for container in found if container.state == "running"]
    found = matching(found, filters)
    found.sort(key=lambda container: container.record.created_s)
    if last is not None:
        found = found[len(found) - min(last, len(found)) :]
    order = parse_choice(given.value("sort") or "created", "--sort", _SORT)
    if order not in ("created", "runningfor"):
        found.sort(key=lambda container: _sort_key(container, order))
    return found


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


def _table(found: list[Container], now_s: float, *, heading: bool, full: bool) -> str:
    rows = []
    for container in found:
        record = container.record
        rows.append(
            (
                record.id if full else record.id[:_SHORT_ID],
                record.image,
                command_text(container, full=full),
                human.ago(record.created_s, now_s),
                status_text(container, now_s),
                ports_text(record.ports),
                record.name,
            )
        )
    look = table.style()
    if full:
        look = look._replace(width=None)
    paint = {"STATUS": [_colour(container) for container in found]}
    return table.render(
        _HEADER, rows, look, heading=heading, cut=_CUT, cut_front=("IMAGE",), paint=paint
    )


def _colour(container: Container) -> str:
    if container.state == "running":
        return table.GREEN
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
