"""Draw a group as an SVG: a bar per contestant to its median, a line over the middle half."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.figures import Outcome

_LABEL, _BAR, _NUMBER = 180, 400, 70
_ROW, _TOP, _BOTTOM = 26, 36, 10
_OURS, _PEERS, _INK = "#2f6f9f", "#a9b4bd", "#1f2328"


def svg(outcome: Outcome) -> str:
    """Return the drawing of one group."""
    longest_ms = max(figure.upper_ms for figure in outcome.figures)
    width = _LABEL + _BAR + _NUMBER
    height = _TOP + _ROW * len(outcome.figures) + _BOTTOM
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="sans-serif" font-size="13" fill="{_INK}">'
        ),
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="22" font-weight="bold">{_escaped(outcome.title)}, milliseconds</text>',
    ]
    for index, figure in enumerate(outcome.figures):
        top = _TOP + index * _ROW
        middle = top + _ROW / 2
        colour = _OURS if figure.name.split()[0] == "rp" else _PEERS
        median, lower, upper = (
            _BAR * value / longest_ms
            for value in (figure.median_ms, figure.lower_ms, figure.upper_ms)
        )
        parts += [
            (
                f'<text x="{_LABEL - 8}" y="{middle + 4:.1f}" text-anchor="end">'
                f"{_escaped(figure.name)}</text>"
            ),
            (
                f'<rect x="{_LABEL}" y="{top + 4}" width="{median:.1f}" height="{_ROW - 8}" '
                f'fill="{colour}"/>'
            ),
            f'<path d="M{_LABEL + lower:.1f} {middle}H{_LABEL + upper:.1f}" stroke="{_INK}"/>',
            (
                f'<text x="{_LABEL + upper + 6:.1f}" y="{middle + 4:.1f}">'
                f"{figure.median_ms:,.0f}</text>"
            ),
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
