"""From times to medians, quartiles and ratios; JSON and the table of README.md."""

from __future__ import annotations

import os
import platform
import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from bench.work import Group

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


class Figure(NamedTuple):
    """What one contestant's times say, in milliseconds."""

    name: str
    median_ms: float
    lower_ms: float
    upper_ms: float
    """The quartiles: half of all times lie between them."""
    best_ms: float
    rounds: int


class Outcome(NamedTuple):
    """What one group's times say."""

    key: str
    title: str
    figures: tuple[Figure, ...]
    times_ms: dict[str, list[float]]

    def of(self, name: str) -> Figure:
        """Return the figure of a contestant."""
        return next(figure for figure in self.figures if figure.name == name)


def outcome(group: Group, times_ms: dict[str, list[float]]) -> Outcome:
    """Summarise the times of a group, in the group's order."""
    figures = tuple(_figure(each.name, times_ms[each.name]) for each in group.contestants)
    return Outcome(group.key, group.title, figures, times_ms)


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


def as_json(date: str, facts: dict[str, Any], outcomes: list[Outcome]) -> dict[str, Any]:
    """Return all that was measured, every single time included."""
    return {
        "version": 1,
        "date": date,
        "machine": facts,
        "groups": {
            each.key: {
                "title": each.title,
                "figures": [figure._asdict() for figure in each.figures],
                "times_ms": {
                    name: [round(time_ms, 2) for time_ms in times]
                    for name, times in each.times_ms.items()
                },
            }
            for each in outcomes
        },
    }


# What is typed, the group, rp's and podman's contestant in it, who else is named beside them.
_ROWS = (
    ("run --rm alpine true", "start", "rp", "podman", ()),
    (
        "run --rm --network none alpine true",
        "start",
        "rp --network none",
        "podman --network none",
        ("crun", "bwrap", "systemd-run --scope", "python3 -I -S"),
    ),
    ("ps -a, 1 container", "ps-1", "rp", "podman", ()),
    ("ps -a, {count} containers", "ps-100", "rp", "podman", ()),
    ("pull alpine", "pull-small", "rp", "podman", ("skopeo + umoci",)),
    ("pull {image}", "pull", "rp", "podman", ("skopeo + umoci",)),
    ("save {image}", "save", "rp", "podman", ()),
    ("load {image}", "load", "rp", "podman", ()),
)


def table(date: str, facts: dict[str, Any], outcomes: list[Outcome]) -> str:
    """Return the table of README.md, with the machine it is from."""
    found = {each.key: each for each in outcomes}
    lines = [
        "| | rp | podman | rp ÷ podman | beside them |",
        "| --- | --- | --- | --- | --- |",
    ]
    for typed, key, ours, theirs, others in _ROWS:
        if key in found:
            named = typed.format(count=100, image=facts.get("big_image", ""))
            lines.append(_row(named, found[key], ours, theirs, others))
    versions = ", ".join(
        f"{name} {facts[name]}" for name in ("podman", "crun", "python", "systemd") if name in facts
    )
    lines += [
        "",
        (
            f"Medians in milliseconds, in brackets the range of the middle half. {date}, "
            f"{facts['cpus']} CPUs, Linux {facts['kernel']}, {versions}, in the namespace rig; "
            "load average "
            f"{facts['load_average_before']} before, {facts['load_average_after']} after. "
            "`bench/run` measures again."
        ),
    ]
    return "\n".join(lines)


def insert(document: Path, text: str) -> bool:
    """Put the text between the markers of a document; say whether it has them."""
    if not document.exists():
        return False
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return False
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return True


def _figure(name: str, times_ms: list[float]) -> Figure:
    lower, median, upper = statistics.quantiles(times_ms, n=4, method="inclusive")
    return Figure(
        name=name,
        median_ms=round(median, 2),
        lower_ms=round(lower, 2),
        upper_ms=round(upper, 2),
        best_ms=round(min(times_ms), 2),
        rounds=len(times_ms),
    )


def _row(typed: str, found: Outcome, ours: str, theirs: str, others: tuple[str, ...]) -> str:
    rp, podman = found.of(ours), found.of(theirs)
    beside = ", ".join(f"{name} {_shown(found.of(name).median_ms)}" for name in others)
    ratio = rp.median_ms / podman.median_ms
    return f"| `{typed}` | {_spread(rp)} | {_spread(podman)} | **{ratio:.2f}** | {beside} |"


def _spread(figure: Figure) -> str:
    lower, upper = _shown(figure.lower_ms), _shown(figure.upper_ms)
    return f"{_shown(figure.median_ms)} ({lower}–{upper})"  # noqa: RUF001 a range is written so


def _shown(time_ms: float) -> str:
    return f"{time_ms:,.0f}" if time_ms >= 20 else f"{time_ms:.1f}"
