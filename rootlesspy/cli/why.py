"""`rp why`: one screen that explains how a container is, or how its last run ended."""

from __future__ import annotations

import sys
import time

from rootlesspy.cli import completion, operations, output, table, why_words
from rootlesspy.cli import light_typer as typer
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.report import colours, escape

if TYPE_CHECKING:
    from rootlesspy.cli.why_words import Words
    from rootlesspy.engine.views.why import Explanation

_LABEL_CELLS = 9
_PLAIN = "\x1b[0m"


def why(
    context: typer.Context,
    container: str | None = typer.Argument(
        None, metavar="CONTAINER", help="Name, id or unique beginning of an id.",
        autocompletion=completion.containers, show_default=False,
    ),
    form: str | None = typer.Option(
        None, "--format", "-f", metavar="FORMAT", show_default=False,
        help="json, or a Go template with Name, Id, State, Kind, Headline, Cause, Memory, "
        "Service, Health, Log and Next.",
    ),
    latest: bool = typer.Option(
        False, "--latest", "-l", help="The newest container; no CONTAINER is given then.",
        show_default=False,
    ),
) -> int:  # fmt: skip
    """Explain how a container ended, why it did not start, or how it is.

    Who or what ended it (its own command, a signal, rp stop, systemctl, a logout, the memory
    limit, a failed health check), after which time, what systemd and the last health checks say,
    the last lines of its log, and what to do next.
    """
    from rootlesspy.engine.views import why as engine

    session = context.obj
    names = [] if container is None else [container]
    name = operations.one(session, "why", names, latest=latest)
    facts = engine.explain(session.paths(), name)
    words = why_words.put(facts, time.time())
    if form is None:
        sys.stdout.write(_screen(facts, words, colour=colours(1)))
    elif form.strip() == "json":
        output.print_json(_document(facts, words))
    else:
        from rootlesspy.cli.inspect_fields import record

        output.show_one(record(_document(facts, words)), form)
    return 0


def _screen(facts: Explanation, words: Words, *, colour: bool) -> str:
    sections = (
        ("Cause", words.cause),
        ("Memory", words.memory),
        ("Service", words.service),
        ("Health", words.health),
        ("Log", tuple(facts.log)),
        ("Next", words.next),
    )
    tint = {"good": table.GREEN, "bad": table.RED, "odd": table.YELLOW}[words.mood]
    headline = escape(words.headline)
    lines = [f"{tint}{headline}{_PLAIN}" if colour else headline]
    for label, texts in sections:
        for number, text in enumerate(texts):
            title = (label if number == 0 else "").ljust(_LABEL_CELLS)
            shown = f"{table.BOLD}{title}{_PLAIN}" if colour and number == 0 else title
            lines.append(f"{shown}{escape(text)}".rstrip())
    return "".join(f"{line}\n" for line in lines)


def _document(facts: Explanation, words: Words) -> dict[str, Any]:
    service, health, kept = facts.service, facts.health, facts.found.record
    return {
        "Name": kept.name,
        "Id": kept.id,
        "State": "paused" if facts.kind == "paused" else facts.found.state,
        "Kind": facts.kind,
        "Headline": words.headline,
        "Cause": list(words.cause),
        "Memory": {
            "Limit": facts.memory_limit_bytes,
            "Peak": facts.memory_peak_bytes,
            "OOMKills": facts.oom_kills,
        },
        "Service": None if service is None else {
            "Name": service.name,
            "Active": service.active,
            "Result": service.result,
            "Restarts": service.restarts,
        },
        "Health": None if health is None else {
            "Status": health.status,
            "FailingStreak": health.failing_streak,
        },
        "Log": facts.log,
        "Next": list(words.next),
    }  # fmt: skip
