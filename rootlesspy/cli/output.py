"""`--format` of listing commands: JSON, Go templates and tables of templates."""

from __future__ import annotations

import os
import sys

from rootlesspy import light_json
from rootlesspy.cli import table
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.report import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rootlesspy.cli.gotemplate_functions import Record


def show(
    form: str,
    headers: Mapping[str, str],
    *,
    rows: Callable[[], Sequence[Record]],
    json_rows: Callable[[], Sequence[object]],
    heading: bool = True,
) -> None:
    """Print rows as --format says: json, table TEMPLATE, or TEMPLATE; raises UsageError.

    json is an array of all; {{json .}}, as every template, a line for each.
    """
    if form.strip() == "json":
        print_json(json_rows())
        return
    if is_json(form):
        for each in json_rows():
            print_json_line(each)
        return
    from rootlesspy.cli import gotemplate, gotemplate_parse

    template = _normalise(form)
    if form.startswith("table "):
        columns = _columns(template.removeprefix("table ").strip(" "))
        _show_table(rows(), columns, headers, heading=heading)
    elif gotemplate_parse.is_of_list(template):
        sys.stdout.write(gotemplate.render(template, list(rows()), clean=_cleaner()))
    else:
        for row in rows():
            show_one(row, template)


def show_one(data: Mapping[str, object], form: str) -> None:
    """Print one thing as a template says, and a line end."""
    from rootlesspy.cli import gotemplate

    sys.stdout.write(gotemplate.render(_normalise(form), data, clean=_cleaner()) + "\n")


def is_json(form: str) -> bool:
    """Say whether --format asks for JSON, in the ways podman takes it."""
    return form.strip() in ("json", "{{json .}}", "{{ json . }}", "{{ json .}}", "{{json . }}")


def print_json(value: object) -> None:
    """Print indented JSON; names that are no text stay escaped, so that it is always valid."""
    sys.stdout.write(light_json.indented(value, "  "))
    sys.stdout.write("\n")


def print_json_line(value: object) -> None:
    """Print JSON as one line, as {{json .}} does."""
    sys.stdout.write(json.dumps(value, separators=(",", ":")) + "\n")


def heading_of(field: str) -> str:
    """Make a column heading of a field's name: RepoTags becomes REPO TAGS."""
    words = ""
    for index, character in enumerate(field):
        if character.isupper() and index and not field[index - 1].isupper():
            words += " "
        words += character
    return words.upper()


def _show_table(
    rows: Sequence[Record], template: str, headers: Mapping[str, str], *, heading: bool
) -> None:
    from rootlesspy.cli import gotemplate

    fields = rows[0] if rows else headers
    titles = gotemplate.Record({name: headers.get(name) or heading_of(name) for name in fields})
    lines = [gotemplate.render(template, row, clean=_one_line).split("\t") for row in rows]
    names = gotemplate.render(template, titles).split("\t")
    columns = max(map(len, [names, *lines]))
    header, *cells = ((*line, *[""] * (columns - len(line))) for line in (names, *lines))
    look = table.style()._replace(width=None)
    sys.stdout.write(table.render(header, cells, look, heading=heading))


def _normalise(form: str) -> str:
    """Replace the \\t and \\n that shells hand over as two characters, as podman does."""
    return form.replace("\\t", "\t").replace("\\n", "\n")


def _columns(template: str) -> str:
    """Let what a space parts in a table's template be columns too, as podman does."""
    return "}}".join(
        before.replace(" ", "\t") + opened + action
        for before, opened, action in (part.partition("{{") for part in template.split("}}"))
    )


def _one_line(text: str) -> str:
    return text.replace("\t", " ").replace("\n", " ")


def _cleaner() -> Callable[[str], str]:
    """On a terminal, make control characters of images visible; elsewhere let them pass."""
    return _escape_lines if os.isatty(1) else str


def _escape_lines(text: str) -> str:
    return "\n".join(
        "\t".join(escape(cell) for cell in line.split("\t")) for line in text.split("\n")
    )
