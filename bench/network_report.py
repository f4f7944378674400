"""The figures of bench.network as a table and a drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, END = "<!-- bench-network -->", "<!-- /bench-network -->"
_WAYS = {"in": "another host → container", "out": "container → another host",
         "between": "container → container"}  # fmt: skip
_KINDS = {
    "tcp": ("TCP", "Gbit/s"),
    "udp": ("UDP received", "Gbit/s"),
    "tcp latency": ("TCP there and back", "µs"),
    "udp latency": ("UDP there and back", "µs"),
    "connect": ("connect, there and back", "µs"),
}
_LABEL, _BAR, _NUMBER, _ROW, _GAP = 170, 360, 80, 18, 26
_OURS, _PEERS, _INK = "#2f6f9f", "#a9b4bd", "#1f2328"


class Report(NamedTuple):
    """What was measured: medians by measure and contestant."""

    date: str
    machine: dict[str, Any]
    mtu: dict[str, str]
    medians: dict[str, dict[str, float]]
    notes: tuple[str, ...]


def table(report: Report) -> str:
    """Return the figures as Markdown, a row per measure."""
    names = list(report.mtu)
    lines = [f"| | | {' | '.join(names)} |", f"| --- | --- |{' ---: |' * len(names)}"]
    for way, way_text in _WAYS.items():
        for kind, (kind_text, unit) in _KINDS.items():
            found = report.medians.get(f"{kind} {way}", {})
            if found:
                cells = [_shown(found.get(name)) for name in names]
                lines.append(f"| {way_text} | {kind_text}, {unit} | {' | '.join(cells)} |")
    lines.append(f"| MTU | | {' | '.join(report.mtu[name] for name in names)} |")
    facts = report.machine
    lines += [
        "",
        (
            f"Medians. {report.date}, {facts['cpus']} CPUs, Linux {facts['kernel']}, podman "
            f"{facts['podman']}, iperf3 with one stream (UDP: {1400} bytes a datagram, as many as "
            "go), in the namespace rig, the other host at the other end of a veth pair; load "
            f"average {facts['load_average_before']} before, {facts['load_average_after']} after. "
            "`python3 -m bench.network` measures again."
        ),
        *(f"{each}." for each in report.notes),
    ]
    return "\n".join(lines)


def svg(report: Report) -> str:
    """Return a drawing with a block of bars per measure."""
    parts: list[str] = []
    top = 10
    for way, way_text in _WAYS.items():
        for kind, (kind_text, unit) in _KINDS.items():
            found = report.medians.get(f"{kind} {way}", {})
            if not found:
                continue
            top += _GAP
            title = f"{way_text}: {kind_text}, {unit}"
            parts.append(f'<text x="10" y="{top - 6}" font-weight="bold">{title}</text>')
            most = max(found.values())
            for name, value in found.items():
                parts += _bar(name, value, most, top)
                top += _ROW
    width, height = _LABEL + _BAR + _NUMBER, top + 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12" fill="{_INK}">'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def insert(document: Path, text: str) -> bool:
    """Put the table between its markers in a document; say whether it has them."""
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return False
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return True


def _bar(name: str, value: float, most: float, top: int) -> list[str]:
    length = _BAR * value / most if most else 0
    colour = _OURS if name.startswith("rp ") else _PEERS
    return [
        f'<text x="{_LABEL - 8}" y="{top + 13}" text-anchor="end">{name}</text>',
        (
            f'<rect x="{_LABEL}" y="{top + 3}" width="{length:.1f}" height="{_ROW - 6}" '
            f'fill="{colour}"/>'
        ),
        f'<text x="{_LABEL + length + 6:.1f}" y="{top + 13}">{_shown(value)}</text>',
    ]


def _shown(value: float | None) -> str:
    if value is None:
        return "–"  # noqa: RUF001 a missing figure is written so
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
