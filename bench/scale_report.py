"""The figures of bench.scale as Markdown and as drawings: lines over the number of containers."""

from __future__ import annotations

import operator
import statistics
from typing import Any, NamedTuple

from bench import tables

MARKERS = ("<!-- bench-scale -->", "<!-- /bench-scale -->")
_COMMANDS = ("ps", "ps -a", "inspect", "exec", "logs", "stats", "images", "create", "start",
             "stop", "rm", "run", "run -d", "rm -f", "ps -a --format json", "stats, of all",
             "system df", "volume ls", "network ls", "pod ps")  # fmt: skip
_SERVERS = ("systemd --user", "dbus-daemon", "journald", "pid 1")
_GOAL = 0.60
"""Of starting so many at once, ours ÷ podman's."""
_WINDOW = 25
_COLOURS = {"rp": "#2f6f9f", "podman": "#a9b4bd"}
_INK = "#1f2328"
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 300, 60, 36, 90, 40


class Line(NamedTuple):
    """One contestant's points, in the order of x."""

    name: str
    points: tuple[tuple[float, float], ...]


def lines(program: str, stopped: int, running: int, times: dict[str, Any]) -> str:
    """Say in a line what each command took."""
    shown = "  ".join(f"{name} {_cell(each)}" for name, each in times.items())
    failed = "".join(
        f"\n  {name}: {each['failed']}" for name, each in times.items() if "failed" in each
    )
    return f"{program}, {stopped} stopped, {running} running: {shown}{failed}"


def table(report: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    found = {
        (each["program"], each["stopped"], each["running"]): each for each in report["commands"]
    }
    columns = sorted(found, key=lambda key: (key[0] != "rp", key[1], key[2]))
    # Without rp's, the only program's.
    ours = [key for key in columns if key[0] == "rp"] or columns
    heads = [f"{program} {stopped:,} + {running}" for program, stopped, running in columns]
    written = [
        f"| command | {' | '.join(heads)} | rp, most ÷ 1 + 1 |",
        f"| --- |{' ---: |' * (len(columns) + 1)}",
    ]
    for name in _COMMANDS:
        cells = [_cell(found[key]["times"].get(name)) for key in columns]
        written.append(f"| `{name}` | {' | '.join(cells)} | {_growth(found[ours[-1]], name)} |")
    facts = report["machine"]
    return "\n".join(
        [
            *_bursts(report),
            *written,
            "",
            (
                "Stopped + running containers; median milliseconds of processor time of the "
                "command, in brackets from its start to its end. The last column: the latter, by "
                "turns with one running and one stopped container in another store, the median "
                f"and the middle half of the ratios. {report['date']}, "
                f"{facts['cpus']} CPUs, Linux {facts['kernel']}, podman {facts['podman']}, in the "
                f"namespace rig; load average {facts['load_average_before']} before, "
                f"{facts['load_average_after']} after. "
                "`PYTHONPATH=tests python3 -m bench.scale` measures again."
            ),
            "",
            *_starts(report),
            *_memory(report),
            *_profile(report),
        ]
    )


def drawings(report: dict[str, Any]) -> dict[str, str]:
    """Return drawings by name: start rate and memory over the number running."""
    rates = [Line(name, tuple(_rates(report, name))) for name in report["starts"]]
    sizes = [
        Line(name, tuple((each["running"], _total_mb(each)) for each in read))
        for name, read in report["memory"].items()
    ]
    return {
        "starts": _svg("containers started per second, over the number running", rates),
        "memory": _svg("memory beside the payloads, MB, over the number running", sizes),
    }


def burst_line(program: str, burst: dict[str, Any]) -> str:
    """Say in a line what starting so many took."""
    return (
        f"{program}: {burst['started']} in {burst['took_s']:.1f} s, "
        f"{burst['start_cpu_ms']['all']:.0f} ms of processor time each" + _failures(burst["failed"])
    )


def _bursts(report: dict[str, Any]) -> list[str]:
    """Return the table of starting so many at once, with rp ÷ podman if both did."""
    bursts = report["bursts"]
    if not bursts:
        return []
    titles = {"all": "processor time of the machine for each, ms"}
    titles |= {server: f"of them {server}, ms" for server in _SERVERS}
    took = f"{report['burst']} `run -d` at once, until all run, s"
    rows = {
        took: [[each["took_s"] for each in of] for of in bursts.values()],
        **{
            title: [[each["start_cpu_ms"][kind] for each in of] for of in bursts.values()]
            for kind, title in titles.items()
        },
    }
    both = len(bursts) == 2
    written = [
        f"| | {' | '.join(bursts)} |{' rp ÷ podman | goal |' if both else ''}",
        f"| --- |{' ---: |' * (len(bursts) + both)}{' --- |' if both else ''}",
    ]
    for title, values in rows.items():
        medians = [statistics.median(each) for each in values]
        cells = [f"{median:.1f}" if median < 10 else f"{median:,.0f}" for median in medians]
        if both:
            ratio = medians[0] / medians[1] if medians[1] else None
            cells.append(_NONE if ratio is None else f"**{ratio:.2f}**")
            cells.append(tables.goal(_GOAL if title == took else None, ratio))
        written.append(f"| {title} | {' | '.join(cells)} |")
    failed = [
        f"{name}: {len(each['failed'])} did not start ({each['failed'][0]})."
        for name, all_of in bursts.items()
        for each in all_of
        if each["failed"]
    ]
    rounds = max((len(each) for each in bursts.values()), default=0)
    return [*written, "", " ".join([f"Medians of {rounds}, by turns.", *failed]), ""]


def _starts(report: dict[str, Any]) -> list[str]:
    written = []
    for name, starts in report["starts"].items():
        rates = _rates(report, name)
        if rates:
            first, last = rates[0], rates[-1]
            written.append(
                f"- {name}: {len(starts) + 1} running, started with four at a time: "
                f"{first[1]:.1f} a second at first, {last[1]:.1f} at the end"
                + _failures(report["failed"].get(name, []))
                + "."
            )
    return written


def _failures(failed: list[str]) -> str:
    return f"; {len(failed)} did not start ({failed[0]})" if failed else ""


def _memory(report: dict[str, Any]) -> list[str]:
    written = []
    for name, read in report["memory"].items():
        last = read[-1]
        kinds = ("supervisor", "pasta") if name == "rp" else ("conmon", "pasta")
        each = [
            f"{kind} {total / count:.1f} MB"
            for kind in kinds
            for count, total in [last["pss_mb"].get(kind, [0, 0])]
            if count
        ]
        written.append(
            f"- {name}, memory of one of {last['running']} containers (PSS): {', '.join(each)}."
        )
    return written


def _profile(report: dict[str, Any]) -> list[str]:
    """Say who computed while containers were started: at first and at the end."""
    written = []
    for name, read in report["memory"].items():
        parts = [each["start_cpu_ms"] for each in read if "start_cpu_ms" in each]
        if not parts:
            continue
        shown = "; ".join(
            f"{when} {part['all']:.0f} ms, of them "
            + ", ".join(f"{server} {part[server]:.0f}" for server in _SERVERS)
            for when, part in (("at first", parts[0]), ("at the end", parts[-1]))
        )
        written.append(f"- {name}, processor time of the whole machine for one start: {shown}.")
    return written


def _rates(report: dict[str, Any], name: str) -> list[tuple[float, float]]:
    """Return starts per second over windows of so many starts."""
    at = [0.0, *sorted(each[0] for each in report["starts"][name])]
    return [
        (end + 1, _WINDOW / (at[end] - at[end - _WINDOW]))
        for end in range(_WINDOW, len(at), _WINDOW)
        if at[end] > at[end - _WINDOW]
    ]


def _total_mb(read: dict[str, Any]) -> float:
    kinds = ("supervisor", "pasta", "conmon")
    return sum(float(read["pss_mb"].get(kind, [0, 0])[1]) for kind in kinds)


_NONE = "–"  # noqa: RUF001 a missing figure is written so


def _cpu(times: dict[str, Any] | None) -> float:
    return statistics.median(times["cpu_ms"]) if times and times["cpu_ms"] else 0.0


def _cell(times: dict[str, Any] | None) -> str:
    if not times or not times["cpu_ms"]:
        return _NONE
    return f"{_cpu(times):,.0f} ({statistics.median(times['wall_ms']):,.0f})"


def _growth(measured: dict[str, Any], name: str) -> str:
    """Say how many times as long a command takes as beside one container, by turns."""
    ours, alone = (measured.get(store, {}).get(name) for store in ("times", "alone"))
    if not ours or not alone or len(ours["wall_ms"]) != len(alone["wall_ms"]):
        return _NONE
    ratios = sorted(map(operator.truediv, ours["wall_ms"], alone["wall_ms"]))
    count = len(ratios)
    lower, upper = ratios[count // 4], ratios[count * 3 // 4]
    spread = f"{lower:.1f}–{upper:.1f}"  # noqa: RUF001 a range is written so
    return f"{statistics.median(ratios):.1f} ({spread})"


def _svg(title: str, drawn: list[Line]) -> str:
    """Return a drawing of lines with their axes."""
    points = [point for line in drawn for point in line.points]
    most_x = max((x for x, _ in points), default=1) or 1
    most_y = max((y for _, y in points), default=1) or 1
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    floor = _TOP + down
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            f'font-family="sans-serif" font-size="12" fill="{_INK}">'
        ),
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="10" y="20" font-weight="bold">{title}</text>',
        f'<path d="M{_LEFT} {_TOP}V{floor}H{_LEFT + across}" fill="none" stroke="{_INK}"/>',
    ]
    for share in (0, 0.5, 1):
        y, x = floor - down * share, _LEFT + across * share
        parts += [
            f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{most_y * share:,.1f}</text>',
            f'<text x="{x:.0f}" y="{floor + 18}" text-anchor="middle">{most_x * share:,.0f}</text>',
        ]
    for line in drawn:
        placed = [(_LEFT + across * x / most_x, floor - down * y / most_y) for x, y in line.points]
        if not placed:
            continue
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        colour = _COLOURS.get(line.name, _INK)
        parts += [
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
            f'<text x="{placed[-1][0] + 6:.0f}" y="{placed[-1][1] + 4:.0f}">{line.name}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
