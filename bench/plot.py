"""Draw a group as an SVG: a bar per contestant to its median, a line over the middle half."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.figures import Figure, Outcome

_LABEL, _BAR, _NUMBER = 200, 400, 90
_ROW, _TOP, _BOTTOM = 26, 36, 10
_OURS, _PEERS, _INK = "#2f6f9f", "#a9b4bd", "#1f2328"
_UNITS = {"ms": "milliseconds"}


def svg(outcome: Outcome) -> str:
    """Return the drawing of one group, with a word where a contestant failed."""
    longest = max((figure.upper for figure in outcome.figures), default=0) or 1
    width = _LABEL + _BAR + _NUMBER
    height = _TOP + _ROW * len(outcome.names) + _BOTTOM
    title = f"{outcome.title.replace('`', '')}, {_UNITS.get(outcome.unit, outcome.unit)}"
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="sans-serif" font-size="13" fill="{_INK}">'
        ),
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="22" font-weight="bold">{_escaped(title)}</text>',
    ]
    for index, name in enumerate(outcome.names):
        top = _TOP + index * _ROW
        parts.append(_text(_LABEL - 8, top, name, ' text-anchor="end"'))
        figure = outcome.of(name)
        if figure is None:
            parts.append(_text(_LABEL + 6, top, "failed"))
        else:
            parts += _bar(figure, top, _BAR / longest)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(figure: Figure, top: int, scale: float) -> list[str]:
    """Return bar, line and number of one contestant; `scale` is in pixels per unit."""
    colour = _OURS if figure.name.startswith("rp") else _PEERS
    median, lower, upper = (scale * value for value in (figure.median, figure.lower, figure.upper))
    number = f"{figure.median:,.0f}" if figure.median >= 20 else f"{figure.median:.1f}"
    return [
        (
            f'<rect x="{_LABEL}" y="{top + 4}" width="{median:.1f}" height="{_ROW - 8}" '
            f'fill="{colour}"/>'
        ),
        f'<path d="M{_LABEL + lower:.1f} {top + _ROW / 2}H{_LABEL + upper:.1f}" stroke="{_INK}"/>',
        _text(_LABEL + upper + 6, top, number),
    ]


def _text(left: float, top: int, text: str, attributes: str = "") -> str:
    return f'<text x="{left:.1f}" y="{top + _ROW / 2 + 4:.1f}"{attributes}>{_escaped(text)}</text>'


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
