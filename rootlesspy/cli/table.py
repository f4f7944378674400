"""Plain tables: columns wide enough for what is in them, cut to fit a terminal, never wrapped.

Used by hot commands, so without rich (60 ms).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.report import colours, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP = "  "
_SMALLEST = 8
"""Columns are not cut below this many cells."""

RED, GREEN, YELLOW, BOLD = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1m"
_PLAIN = "\x1b[0m"


class Style(NamedTuple):
    """How the place where a table goes wants it."""

    width: int | None = None
    """Cells of the terminal; None: nothing is cut."""
    colour: bool = False


def style(fd: int = 1) -> Style:
    """Look at the descriptor: a terminal has a width, and colours unless NO_COLOR is set."""
    if not os.isatty(fd):
        return Style()
    try:
        width = os.get_terminal_size(fd).columns
    except OSError:
        width = 0
    return Style(width=width or None, colour=colours(fd))


def render(
    header: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    look: Style,
    *,
    cut: tuple[str, ...] = (),
    cut_front: tuple[str, ...] = (),
    paint: dict[str, list[str]] | None = None,
) -> str:
    """Return the table as text; an empty header is left out.

    cut: headings of the columns that may be shortened; cut_front: those among them that lose their
    beginning, as the end of an image's name says more.  paint: escape sequences of a column's
    cells, in the order of the rows.
    """
    names = header or tuple("" for _ in (rows[0] if rows else ()))
    cells = [tuple(escape(cell) for cell in row) for row in rows]
    widths = [
        max([cell_width(name), *(cell_width(row[index]) for row in cells)])
        for index, name in enumerate(names)
    ]
    if look.width is not None:
        _fit(widths, names, cut, look.width)
        for index in (names.index(name) for name in cut_front if name in names):
            cells = [
                (*row[:index], shorten(row[index], widths[index], front=True), *row[index + 1 :])
                for row in cells
            ]
    lines = []
    if header:
        line = _line(header, widths, {})
        lines.append(f"{BOLD}{line}{_PLAIN}" if look.colour else line)
    for number, row in enumerate(cells):
        painted = {
            names.index(name): sequences[number]
            for name, sequences in (paint or {}).items()
            if look.colour and name in names
        }
        lines.append(_line(row, widths, painted))
    return "".join(f"{line}\n" for line in lines)


def cell_width(text: str) -> int:
    """Return how many cells a terminal gives to text."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )


def shorten(text: str, width: int, *, front: bool = False) -> str:
    """Cut text to a number of cells, with an ellipsis where something is missing."""
    if cell_width(text) <= width:
        return text
    kept = text[-(width - 1) :] if front else text[: width - 1]
    while cell_width(kept) > width - 1:
        kept = kept[1:] if front else kept[:-1]
    return f"…{kept}" if front else f"{kept}…"


def _fit(widths: list[int], names: tuple[str, ...], cut: tuple[str, ...], total: int) -> None:
    """Take cells from the widest of the columns that may be cut until the table fits."""
    columns = [index for index, name in enumerate(names) if name in cut]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - total
    while excess > 0 and columns:
        widest = max(columns, key=lambda index: widths[index])
        if widths[widest] <= max(_SMALLEST, cell_width(names[widest])):
            return
        widths[widest] -= 1
        excess -= 1


def _line(cells: tuple[str, ...], widths: list[int], painted: dict[int, str]) -> str:
    parts = []
    for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = shorten(cell, width)
        # The last column is not padded: trailing blanks would wrap on a narrow terminal.
        padding = "" if index == len(widths) - 1 else " " * (width - cell_width(text))
        sequence = painted.get(index, "")
        parts.append(f"{sequence}{text}{_PLAIN}{padding}" if sequence else text + padding)
    return _GAP.join(parts).rstrip()
