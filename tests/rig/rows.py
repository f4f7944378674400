#!/usr/bin/env python3
"""Write docs/catalogue.md: the rows of docs/catalogue.toml with the tests that hold each.

A test says so by `@pytest.mark.row(id, result)`, on itself, its class, its module (`pytestmark`) or
one of its parameters.  The tests are read, not imported.  Usage: tests/rig/rows.py
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = REPOSITORY / "docs/catalogue.toml"
DOCUMENT = REPOSITORY / "docs/catalogue.md"

_HEAD = """\
# Catalogue of attacks and faults

Known failures of container runners, and faults that one meets in the field; what happens in rp,
and the tests that show it. Written by `tests/rig/rows.py` from `docs/catalogue.toml` and the tests'
`row` markers: do not edit it by hand. ° = the advisory was read for this row. What the defaults do
not protect from is in [security.md](security.md).

"""


class RowError(Exception):
    """A marker that cannot be read; the message names its place."""


class Marker(NamedTuple):
    """One `pytest.mark.row(id, result)`; the id may be several, with ", " between them."""

    id: str
    result: str
    test: str  # path::name, or a path for a whole module


class Row(NamedTuple):
    """A row of the catalogue."""

    ids: tuple[str, ...]
    mechanism: str
    untested_because: str  # empty where tests can try it


class Section(NamedTuple):
    """A part of the catalogue."""

    title: str
    rows: tuple[Row, ...]


def table(text: str) -> tuple[Section, ...]:
    """Parse docs/catalogue.toml; raises RowError for an id that two rows have."""
    sections = []
    seen: set[str] = set()
    for section in tomllib.loads(text)["section"]:
        rows = []
        for ids, mechanism, *reason in section["rows"]:
            row = Row(tuple(ids.split(", ")), mechanism, *(reason or [""]))
            for each in map(key, row.ids):
                if each in seen:
                    raise RowError(f"{each}: two rows have it")
                seen.add(each)
            rows.append(row)
        sections.append(Section(section["title"], tuple(rows)))
    return tuple(sections)


def key(row_id: str) -> str:
    """Return what makes two spellings of an id the same."""
    return re.sub(r"[^a-z0-9]", "", row_id.casefold())


def markers(source: str, path: str) -> list[Marker]:
    """Return the markers of a test file, in its order; raises RowError."""
    found: list[Marker] = []
    _collect(ast.parse(source), path, path, found)
    return found


def _collect(node: ast.AST, path: str, owner: str, found: list[Marker]) -> None:
    """Go through a syntax tree; whatever is in or before a test belongs to it."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and owner.count("::") < 2:
        owner = f"{owner}::{node.name}"
    if isinstance(node, ast.Call) and _is_row(node.func):
        texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
        if len(texts) != 2 or len(node.args) != 2 or not all(isinstance(t, str) for t in texts):
            raise RowError(f"{path}:{node.lineno}: row() takes two literal texts")
        found.append(Marker(str(texts[0]), str(texts[1]), owner))
    for child in ast.iter_child_nodes(node):
        _collect(child, path, owner, found)


def _is_row(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and function.attr == "row"
        and isinstance(function.value, ast.Attribute)
        and function.value.attr == "mark"
    )


def all_markers(tests: Path = REPOSITORY / "tests") -> list[Marker]:
    """Return the markers of all tests."""
    found = []
    for path in sorted(tests.rglob("test_*.py")):
        found += markers(
            path.read_text(encoding="utf-8"), path.relative_to(tests.parent).as_posix()
        )
    return found


def unknown(sections: tuple[Section, ...], found: list[Marker]) -> list[str]:
    """Return the markers whose id no row has."""
    known = {key(each) for section in sections for row in section.rows for each in row.ids}
    named = ((each.test, name) for each in found for name in each.id.split(", "))
    return [f"{test}: {name}" for test, name in named if key(name) not in known]


def render(sections: tuple[Section, ...], found: list[Marker]) -> str:
    """Return the text of docs/catalogue.md."""
    by_id: dict[str, list[Marker]] = {}
    for marker in found:
        for name in marker.id.split(", "):
            by_id.setdefault(key(name), []).append(marker)
    parts, tried, total = [], 0, 0
    for section in sections:
        lines = [f"## {section.title}\n", "| row | what goes wrong | in rp | tests |",
                 "| --- | --- | --- | --- |"]  # fmt: skip
        for row in section.rows:
            held = list(
                dict.fromkeys(each for name in row.ids for each in by_id.get(key(name), []))
            )
            lines.append(_line(row, held))
            total += 1
            tried += bool(held)
        parts.append("\n".join(lines) + "\n")
    summary = f"{tried} of {total} rows are held by tests.\n\n"
    return _HEAD + summary + "\n".join(parts)


def _line(row: Row, held: list[Marker]) -> str:
    results = list(dict.fromkeys(each.result for each in held))
    tests = list(dict.fromkeys(each.test.removeprefix("tests/") for each in held))
    told = "; ".join(results) or f"**not tested**: {row.untested_because or 'no test yet'}"
    cells = (", ".join(row.ids), row.mechanism, told, "<br>".join(f"`{each}`" for each in tests))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> int:
    """Write the document; report unknown ids on stderr, with exit code 1."""
    sections = table(TABLE.read_text(encoding="utf-8"))
    found = all_markers()
    DOCUMENT.write_text(render(sections, found), encoding="utf-8")
    wrong = unknown(sections, found)
    for line in wrong:
        print(f"unknown row: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
