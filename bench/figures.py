"""From values to medians, quartiles and ratios, and to JSON."""

from __future__ import annotations

import os
import platform
import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.work import Group, Measured

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


class Figure(NamedTuple):
    """What one contestant's values say, in the unit of its outcome."""

    name: str
    median: float
    lower: float
    upper: float
    """The quartiles: half of all values lie between them."""
    best: float
    rounds: int
    cpu_ms: float | None = None
    """Median of user and system time, of the command and of what it waited for."""


class Ratio(NamedTuple):
    """How one contestant's values relate to another's, round by round."""

    median: float
    lower: float
    upper: float


class Outcome(NamedTuple):
    """What one group's values say; the first two contestants are set against each other."""

    key: str
    title: str
    unit: str
    names: tuple[str, ...]
    """All contestants, whether they finished or not: ours, the peer, the others."""
    figures: tuple[Figure, ...]
    values: dict[str, list[float]]
    failed: dict[str, str]
    repeated: dict[str, str]
    goal: float | None = None
    """As Group has it."""

    def of(self, name: str) -> Figure | None:
        """Return the figure of a contestant, None when it has failed."""
        return next((figure for figure in self.figures if figure.name == name), None)

    @property
    def ratio(self) -> Ratio | None:
        """Return ours ÷ the peer's."""
        if len(self.names) < 2:
            return None
        ours, theirs = self.names[:2]
        return ratio(self.values.get(ours, ()), self.values.get(theirs, ()))


def outcome(group: Group, measured: Measured) -> Outcome:
    """Summarise the values of a group, in the group's order."""
    names = tuple(each.name for each in group.contestants)
    failed = dict(measured.failed)
    for name in names:
        if not measured.values.get(name):
            failed.setdefault(name, "no value")
    figures = tuple(
        summary(name, measured.values[name], measured.cpu_ms.get(name, ()))
        for name in names
        if name not in failed
    )
    return Outcome(
        key=group.key,
        title=group.title,
        unit=group.unit,
        names=names,
        figures=figures,
        values={figure.name: measured.values[figure.name] for figure in figures},
        failed=failed,
        repeated=dict(measured.repeated),
        goal=group.goal,
    )


def failure(group: Group, why: str) -> Outcome:
    """Return the outcome of a group that could not be measured at all."""
    names = tuple(each.name for each in group.contestants)
    return Outcome(
        key=group.key,
        title=group.title,
        unit=group.unit,
        names=names,
        figures=(),
        values={},
        failed=dict.fromkeys(names, why),
        repeated={},
        goal=group.goal,
    )


def summary(name: str, values: Sequence[float], cpu_ms: Sequence[float] = ()) -> Figure:
    """Summarise the values of one contestant."""
    median, lower, upper = quartiles(values)
    return Figure(
        name=name,
        median=round(median, 2),
        lower=round(lower, 2),
        upper=round(upper, 2),
        best=round(min(values), 2),
        rounds=len(values),
        cpu_ms=round(statistics.median(cpu_ms), 2) if cpu_ms else None,
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """Divide round by round: what made a round slow was there for both. None: not to be divided."""
    pairs = [(our, their) for our, their in zip(ours, theirs, strict=False) if their > 0]
    if not pairs:
        return None
    median, lower, upper = quartiles([our / their for our, their in pairs])
    return Ratio(median=round(median, 3), lower=round(lower, 3), upper=round(upper, 3))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and the quartiles below and above it."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return median, lower, upper


def machine_facts(load: tuple[str, str], versions: dict[str, str]) -> dict[str, Any]:
    """Say what the figures were measured on: no names of hosts, no paths."""
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
        "architecture": platform.machine(),
        "load_average_before": load[0],
        "load_average_after": load[1],
        **versions,
    }


def as_json(date: str, facts: dict[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return all that was measured, every single value included."""
    return {
        "version": 2,
        "date": date,
        "machine": facts,
        "groups": {
            each.key: {
                "title": each.title,
                "unit": each.unit,
                "ratio": each.ratio._asdict() if each.ratio else None,
                "goal": each.goal,
                "figures": [figure._asdict() for figure in each.figures],
                "values": {
                    name: [round(value, 2) for value in values]
                    for name, values in each.values.items()
                },
                "failed": each.failed,
                "repeated": each.repeated,
            }
            for each in outcomes
        },
    }


def insert(document: Path, text: str, markers: tuple[str, str] = (BEGIN, END)) -> bool:
    """Put the text between the markers of a document; say whether it has them."""
    if not document.exists():
        return False
    before, begin, rest = document.read_text(encoding="utf-8").partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not (begin and end):
        return False
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    return True
