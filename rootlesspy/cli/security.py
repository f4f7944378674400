"""`rp security`: what a container could do, a score, and what would lower it."""

from __future__ import annotations

import sys

from rootlesspy.cli import completion, output, table
from rootlesspy.cli import light_typer as typer
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.report import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.engine.security.assessment import Assessment
    from rootlesspy.engine.security.findings import Finding

_EXCEEDED = 1
_BAD, _ODD = 0.35, 0.0


def security(
    context: typer.Context,
    name: str | None = typer.Argument(
        None, metavar="CONTAINER|IMAGE", help="A container, or an image with default options.",
        autocompletion=completion.containers, show_default=False,
    ),
    form: str | None = typer.Option(
        None, "--format", "-f", metavar="FORMAT", show_default=False,
        help="json, or a Go template with Name, Kind, State, Score, Level and Findings.",
    ),
    threshold: int = typer.Option(
        100, "--threshold", metavar="NUMBER", min=0, max=100, show_default=False,
        help="Exit with 1 when ten times a score is above it, 0 to 100.",
    ),
) -> int:  # fmt: skip
    """Judge what a container could do: capabilities, system calls, mounts, network, ids, limits.

    Each finding has its exposure, and the option that would lower it; the score is their sum, from
    0 to 10, with a word as systemd-analyze security has. Without a name all containers are listed.
    A running container is judged by what the kernel says of it, another one by its configuration.

    Exit code 1: a score is above --threshold. 125: there is neither a container nor such an image.
    """
    from rootlesspy.engine import lifecycle
    from rootlesspy.engine.security import assessment

    paths = context.obj.paths()
    if name is None:
        containers = [each for each in lifecycle.containers(paths) if each.state != "broken"]
        found = [assessment.of_container(paths, each) for each in containers]
        _show_all(found, form)
    elif not name:
        raise UsageError("the name is empty", hint="rp security --help")
    else:
        found = [assessment.assess(paths, name)]
        _show_one(found[0], form)
    return _EXCEEDED if any(each.score * 10 > threshold for each in found) else 0


def _show_one(found: Assessment, form: str | None) -> None:
    if form is None:
        sys.stdout.write(screen(found, table.style()))
    elif form.strip() == "json":
        output.print_json(document(found))
    else:
        from rootlesspy.cli.inspect_fields import record

        output.show_one(record(document(found)), form)


def _show_all(found: Sequence[Assessment], form: str | None) -> None:
    if form is not None:
        documents = [document(each) for each in found]
        if form.strip() == "json":
            output.print_json(documents)
            return
        from rootlesspy.cli.inspect_fields import record

        for each in documents:
            output.show_one(record(each), form)
        return
    names = ("NAME", "STATE", "SCORE", "LEVEL")
    rows = [(each.name, each.state, f"{each.score:.1f}", each.level) for each in found]
    tints = [_tint(each.score / 10) for each in found]
    paint = {"SCORE": tints, "LEVEL": tints}
    sys.stdout.write(table.render(names, rows, table.style(), cut=("NAME",), paint=paint))


def document(found: Assessment) -> dict[str, Any]:
    """Return an assessment as JSON."""
    from rootlesspy.engine.security import findings

    return {
        "Name": found.name,
        "Kind": found.kind,
        "State": found.state,
        "Score": found.score,
        "Level": found.level,
        "Findings": findings.as_json(found.findings),
    }


def screen(found: Assessment, look: table.Style) -> str:
    """Return the findings as a table, the score, and the advice, as wide as the terminal."""
    rows = [(each.check, f"{each.exposure:.1f}", each.text) for each in found.findings]
    tints = [_tint(each.badness) for each in found.findings]
    cut = ("FINDING", "CHECK")
    text = table.render(
        ("CHECK", "EXPOSURE", "FINDING"), rows, look, cut=cut, paint={"EXPOSURE": tints}
    )
    verdict = f"{found.score:.1f} {found.level}"
    if look.colour:
        verdict = f"{_tint(found.score / 10)}{verdict}\x1b[0m"
    how = {"running": ", as it runs", "": " with default options"}.get(found.state, "")
    text += f"\nOverall exposure of {found.kind} {escape(found.name)}{how}: {verdict}\n"
    advised = [each for each in found.findings if each.advice]
    if advised:
        text += "\n" + _advice(advised, look)
    return text


def _advice(advised: Sequence[Finding], look: table.Style) -> str:
    rows = [(each.check, each.advice) for each in advised]
    names = ("TO LOWER IT", "")
    return table.render(names, rows, look, cut=("",))


def _tint(badness: float) -> str:
    if badness > _BAD:
        return table.RED
    return table.YELLOW if badness > _ODD else table.GREEN
