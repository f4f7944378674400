"""Plain tables: columns wide enough for what is in them, cut to fit a terminal, never wrapped.

Used by hot commands, so without rich (60 ms).
"""

from __future__ import annotations

import os

from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
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
    names: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    look: Style,
    *,
    heading: bool = True,
    cut: tuple[str, ...] = (),
    cut_front: tuple[str, ...] = (),
    paint: dict[str, list[str]] | None = None,
) -> str:
    """Return the table as text.

    cut: names of the columns that may be shortened; cut_front: those among them that lose their
    beginning, as the end of an image's name says more.  paint: escape sequences of a column's
    cells, in the order of the rows.
    """
    columns = [_escaped(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
    widths = [
        max(cell_width(name) if heading else 0, _widest(column))
        for name, column in zip(names, columns, strict=True)
    ]
    if look.width is not None:
        _fit(widths, names, cut, look.width)
        columns = [
            _cut(column, width, front=name in cut_front)
            for name, column, width in zip(names, columns, widths, strict=True)
        ]
    fields = []
    for index, (name, width) in enumerate(zip(names, widths, strict=True)):
        # The last column is not padded: trailing blanks would wrap on a narrow terminal.
        padding = 0 if index == len(names) - 1 else width
        sequences = (paint or {}).get(name) if look.colour else None
        if sequences is None and "".join(columns[index]).isascii():
            fields.append(f"%-{padding}s")
        else:
            fields.append("%s")
            columns[index] = _pad(columns[index], padding, sequences)
    row = _GAP.join(fields)
    lines = [(row % cells).rstrip() + "\n" for cells in zip(*columns, strict=True)]
    if heading:
        line = _GAP.join(name.ljust(width) for name, width in zip(names, widths, strict=True))
        line = f"{BOLD}{line.rstrip()}{_PLAIN}" if look.colour else line.rstrip()
        lines.insert(0, f"{line}\n")
    return "".join(lines)


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


def _escaped(column: tuple[str, ...]) -> list[str]:
    # Looked at together: of thousands of rows hardly one has anything to escape.
    whole = "".join(column)
    if whole.isascii() and whole.isprintable():
        return list(column)
    return [escape(cell) for cell in column]


def _widest(column: list[str]) -> int:
    if "".join(column).isascii():
        return max(map(len, column), default=0)
    return max(map(cell_width, column))


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


def _cut(cells: list[str], width: int, *, front: bool) -> list[str]:
    if _widest(cells) <= width:
        return cells
    return [
        cell if cell.isascii() and len(cell) <= width else shorten(cell, width, front=front)
        for cell in cells
    ]


def _pad(cells: list[str], width: int, sequences: list[str] | None) -> list[str]:
    """Fill cells with blanks up to a width, and paint those that have a sequence."""
    return [
        f"{sequence}{cell}{_PLAIN if sequence else ''}{' ' * (width - cell_width(cell))}"
        for cell, sequence in zip(cells, sequences or [""] * len(cells), strict=True)
    ]
