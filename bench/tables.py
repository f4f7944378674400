"""The tables of README.md and docs/performance.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.figures import Figure, Outcome, Ratio
    from bench.work import Section

_DRAWINGS = "../bench/results"
# A figure of another machine is worth as much as the programs' versions that are with it.
_VERSIONS = ("podman", "crun", "runc", "python", "systemd")


def short(outcomes: Sequence[Outcome], keys: Sequence[str]) -> list[str]:
    """Return the rows that tell most, in the order of the keys."""
    found = {each.key: each for each in outcomes}
    return table("rp", "podman", [found[key] for key in keys if key in found], whole=False)


def full(sections: Iterable[Section], outcomes: Sequence[Outcome]) -> list[str]:
    """Return a table for each section, with its note; each row leads to its drawing."""
    found = {each.key: each for each in outcomes}
    lines: list[str] = []
    for section in sections:
        rows = [found[group.key] for group in section.groups if group.key in found]
        if rows:
            ours, peer = (each.name for each in section.groups[0].contestants[:2])
            rows = [row._replace(title=f"[{row.title}]({_DRAWINGS}/{row.key}.svg)") for row in rows]
            lines += [f"**{section.title}**", "", *table(ours, peer, rows, whole=True), ""]
            lines += [section.note, ""] if section.note else []
    return lines


def table(ours: str, peer: str, rows: Sequence[Outcome], *, whole: bool) -> list[str]:
    """Return a table with a row per group: ours, the peer and the ratio.

    whole: and what that is meant to be, and who was beside them.
    """
    goals = any(row.goal is not None for row in rows) and whole
    beside = any(len(row.names) > 2 for row in rows) and whole
    further = [*([" goal |"] if goals else []), *([" beside them |"] if beside else [])]
    lines = [
        f"| | {ours} | {peer} | {ours} ÷ {peer} |{''.join(further)}",
        f"| --- | ---: | ---: | ---: |{' --- |' * len(further)}",
    ]
    for row in rows:
        first, second = (_figure(row, name) for name in row.names[:2])
        cells = [f"{row.title}, {row.unit}", first, second, _ratio(row.ratio)]
        if goals:
            cells.append(goal(row.goal, row.ratio.median if row.ratio else None))
        if beside:
            cells.append(", ".join(f"{name} {_alone(row, name)}" for name in row.names[2:]))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def caption(date: str, facts: dict[str, Any]) -> str:
    """Return the words below a table: what the figures are, of when and of what machine."""
    versions = "".join(f"{name} {facts[name]}, " for name in _VERSIONS if name in facts)
    return (
        f"Medians, in brackets the middle half; ratios round by round, less is better. {date}, "
        f"{facts['cpus']} CPUs, Linux {facts['kernel']}, {versions}in the namespace rig; load "
        f"average {facts['load_average_before']} before, {facts['load_average_after']} after. "
        "`bench/run` measures again."
    )


def failures(outcomes: Iterable[Outcome]) -> list[str]:
    """Return a line for each contestant that failed, one for all that failed together."""
    found: list[str] = []
    for each in outcomes:
        whys = set(each.failed.values())
        if len(whys) == 1 and len(each.failed) == len(each.names):
            found.append(f"{each.key} could not be measured: {whys.pop()}")
        else:
            found += [f"{each.key}: {name} failed: {why}" for name, why in each.failed.items()]
    return found


def lines(outcome: Outcome) -> list[str]:
    """Return a group's figures for whoever watches."""
    found = [f"{outcome.key}: {outcome.title}"]
    for figure in outcome.figures:
        cpu = "" if figure.cpu_ms is None else f", CPU {figure.cpu_ms:.0f} ms"
        found.append(
            f"  {figure.name:24} {figure.median:9.1f} {outcome.unit}   middle half "
            f"{figure.lower:.1f} to {figure.upper:.1f}, best {figure.best:.1f}, "
            f"{figure.rounds} rounds{cpu}"
        )
    if outcome.ratio:
        ratio = outcome.ratio
        found.append(f"  ratio {ratio.median:.2f} ({ratio.lower:.2f} to {ratio.upper:.2f})")
    found += [f"  {name} had a second try: {why}" for name, why in outcome.repeated.items()]
    return found + [f"  {line}" for line in failures([outcome])]


def goal(wanted: float | None, ratio: float | None) -> str:
    """Say what a ratio is meant to be at most, and whether it is more."""
    if wanted is None:
        return ""
    missed = ratio is None or round(ratio, 2) > wanted
    return f"{wanted:.2f}, missed" if missed else f"{wanted:.2f}"


def shown(value: float) -> str:
    """Return a figure with as many digits as say something."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 20 else f"{value:.1f}"


def _figure(row: Outcome, name: str) -> str:
    figure = row.of(name)
    return "failed" if figure is None else _spread(figure)


def _alone(row: Outcome, name: str) -> str:
    figure = row.of(name)
    return "failed" if figure is None else shown(figure.median)


def _spread(figure: Figure) -> str:
    lower, median, upper = (shown(each) for each in (figure.lower, figure.median, figure.upper))
    if lower == upper:
        return median
    return f"{median} ({lower}–{upper})"  # noqa: RUF001 a range is written so


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return "–"  # noqa: RUF001 what cannot be divided is written so
    spread = f"{ratio.lower:.2f}–{ratio.upper:.2f}"  # noqa: RUF001 a range is written so
    return f"**{ratio.median:.2f}** ({spread})"
