"""`rp events`: what happened to containers, images and volumes, past and live."""

from __future__ import annotations

import os
import sys
import time

from rootlesspy.cli import light_typer as typer
from rootlesspy.cli import output
from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.engine.output import event_reader
from rootlesspy.errors import UsageError
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.output.event_reader import Event

# docker's words for podman's.
_KINDS = {"die": "died", "destroy": "remove", "delete": "remove"}


def events(
    context: typer.Context,
    filters: list[str] = typer.Option(
        None, "--filter", "-f", metavar="KEY=VALUE", show_default=False,
        help="Show what fits: container, image, volume, event, type, label.",
    ),
    form: str | None = typer.Option(
        None, "--format", metavar="FORMAT", show_default=False,
        help="json: one object per line, or a Go template.",
    ),
    since: str | None = typer.Option(
        None, "--since", metavar="TIME", show_default=False,
        help="Past events too, from then on: 10m, 2026-11-21T08:00:00 or 1700000000.",
    ),
    until: str | None = typer.Option(
        None, "--until", metavar="TIME", show_default=False,
        help="End then; a duration counts from now on, with a minus back.",
    ),
    stream: bool = typer.Option(
        True, "--stream/--no-stream", show_default=False,
        help="Go on with what happens from now on (default); --no-stream: only what has happened.",
    ),
    _no_trunc: bool = typer.Option(
        True, "--no-trunc/--trunc", show_default=False,
        help="Show whole ids (default).",
    ),
) -> int:  # fmt: skip
    """Show what happened to containers, images and volumes.

    Without --since only what happens from now on. Events are kept in the user's journal:
    journalctl SYSLOG_IDENTIFIER=rp shows them too.
    """
    context.obj.paths()
    fits = _filter(filters or ())
    show = _shower(form)
    now_s = time.time()
    since_s = _moment(since, "--since")
    until_s = _moment(until, "--until", ahead=True)
    if stream and since_s is None and until_s is not None and until_s <= now_s:
        # What is over by now: all of it.
        stream = False
    for event in event_reader.read(since_s=since_s, until_s=until_s, follow=stream):
        if fits(event):
            show(event)
            sys.stdout.flush()
    return 0


def _moment(text: str | None, option: str, *, ahead: bool = False) -> float | None:
    if text is None:
        return None
    from rootlesspy.cli import moment

    return moment.parse_moment(text, option, ahead=ahead)


def text_of(event: Event) -> str:
    """Write an event as podman does."""
    head = f"{_go_time(event.time_ns)} {event.type} {event.kind}"
    if event.type == "volume":
        return f"{head} {event.name}"
    if event.type == "image":
        return f"{head} {event.id} {event.name}"
    parts = [f"image={event.image}", f"name={event.name}"]
    if event.health_status:
        parts.append(f"health_status={event.health_status}")
    parts += [f"{key}={value}" for key, value in _attributes(event).items()]
    return f"{head} {event.id} ({', '.join(parts)})"


def json_of(event: Event) -> str:
    """Write an event with podman's field names on one line."""
    fields: dict[str, object] = {}
    if event.exit_code is not None:
        fields["ContainerExitCode"] = event.exit_code
    if event.id:
        fields["ID"] = event.id
    if event.image:
        fields["Image"] = event.image
    fields |= {
        "Name": event.name,
        "Status": event.kind,
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
        "Type": event.type,
        "Attributes": _attributes(event) or None,
    }
    if event.health_status:
        fields["HealthStatus"] = event.health_status
    return json.dumps(fields, separators=(",", ":"))


def _shower(form: str | None) -> Callable[[Event], None]:
    """Return what prints an event; raises UsageError for a bad template before the first one."""
    clean = escape if os.isatty(1) else str
    if form is None:
        return lambda event: _print(clean(text_of(event)))
    if output.is_json(form):
        return lambda event: _print(json_of(event))
    from rootlesspy.cli import gotemplate_parse

    gotemplate_parse.parse(form)
    return lambda event: output.show_one(_row(event), form)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _row(event: Event) -> Record:
    return Record(
        {
            "ID": event.id,
            "Image": event.image,
            "Name": event.name,
            "Status": event.kind,
            "Time": event.time_ns // 1_000_000_000,
            "TimeNano": event.time_ns,
            "Type": event.type,
            "ContainerExitCode": event.exit_code,
            "HealthStatus": event.health_status,
            "Attributes": _attributes(event),
        }
    )


def _attributes(event: Event) -> dict[str, str]:
    return {**event.labels, **event.attributes}


def _filter(texts: list[str] | tuple[str, ...]) -> Callable[[Event], bool]:
    """Return a test: of every key that is given one value must fit.  Raises UsageError."""
    wanted: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = "event" if key == "status" else key
        if not equals or key not in _TESTS:
            known = ", ".join(_TESTS)
            raise UsageError(f"--filter {text!r}: expected KEY=VALUE", hint=f"keys: {known}")
        wanted.setdefault(key, []).append(value)
    return lambda event: all(
        any(_TESTS[key](event, value) for value in values) for key, values in wanted.items()
    )


def _is_image(event: Event, value: str) -> bool:
    if event.type == "image":
        return event.id.startswith(value) or _names_image(event.name, value)
    return event.type == "container" and _names_image(event.image, value)


def _names_image(name: str, value: str) -> bool:
    """Say whether a full name is meant: as it is, without its tag, or its last part alone."""
    untagged = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
    return value in (name, untagged) or any(each.endswith(f"/{value}") for each in (name, untagged))


def _has_label(event: Event, value: str) -> bool:
    key, equals, text = value.partition("=")
    return key in event.labels and (not equals or event.labels[key] == text)


_TESTS: dict[str, Callable[[Event, str], bool]] = {
    "container": lambda event, value: (
        event.type == "container"
        and (event.name == value or (bool(value) and event.id.startswith(value)))
    ),
    "image": _is_image,
    "volume": lambda event, value: event.type == "volume" and event.name == value,
    "event": lambda event, value: event.kind == _KINDS.get(value, value),
    "type": lambda event, value: event.type == value,
    "label": _has_label,
}


def _go_time(time_ns: int) -> str:
    """Write a time as Go's Time.String does: 2026-11-22 00:37:35.64 +0000 UTC."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    local = time.localtime(seconds)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', local)}{fraction} {time.strftime('%z %Z', local)}"
