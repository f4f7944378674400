"""The tables and drawings of the benchmark."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench import figures, plot, tables
from bench.timing import timed
from bench.work import Group, Measured, Section, contestant, pair

GROUP = Group("g", "`run` <1>", (*pair("{p} ps"), contestant("crun", "crun list")), 3, 1)
ALONE = Group("h", "memory", pair("{p} ps"), 3, 1, unit="MB")
SECTION = Section("s", "Everything", (GROUP, ALONE), timed, note="As it was.")
FOUND = figures.outcome(
    GROUP, Measured({"rp": [10.0, 10.0], "podman": [40.0, 40.0], "crun": [5.0, 5.0]}, {}, {}, {})
)
FAILED = figures.outcome(ALONE, Measured({"rp": [8.25, 9.5]}, {"podman": "exit 1: no"}, {}, {}))


def test_a_table_per_section() -> None:
    assert tables.full([SECTION], [FOUND, FAILED]) == [
        "**Everything**",
        "",
        "| | rp | podman | rp ÷ podman | beside them |",
        "| --- | ---: | ---: | ---: | --- |",
        "| [`run` <1>](../bench/results/g.svg), ms | 10.0 | 40 | **0.25** (0.25–0.25) | crun 5.0 |",
        "| [memory](../bench/results/h.svg), MB | 8.9 (8.6–9.2) | failed | – |  |",
        "",
        "As it was.",
        "",
    ]


@pytest.mark.parametrize(
    ("wanted", "cell"), [(0.25, "0.25"), (0.3, "0.30"), (0.24, "0.24, missed")]
)
def test_a_goal_stands_beside_its_ratio(wanted: float, cell: str) -> None:
    section = SECTION._replace(groups=(GROUP._replace(goal=wanted), ALONE))
    found = [FOUND._replace(goal=wanted), FAILED]
    head, _, first, second = tables.full([section], found)[2:6]
    assert head == "| | rp | podman | rp ÷ podman | goal | beside them |"
    assert first.endswith(f" **0.25** (0.25–0.25) | {cell} | crun 5.0 |")
    assert second.endswith(" failed | – |  |  |")
    assert "goal" not in tables.short(found, ["g"])[0]


def test_what_could_not_be_measured_has_missed_its_goal() -> None:
    assert tables.goal(0.5, None) == "0.50, missed"


def test_sections_that_were_not_measured_are_left_out() -> None:
    assert tables.full([SECTION], []) == []


def test_the_short_table_has_the_rows_that_are_asked_for() -> None:
    assert tables.short([FAILED, FOUND], ["g", "not-measured"])[2:] == [
        "| `run` <1>, ms | 10.0 | 40 | **0.25** (0.25–0.25) |"
    ]


def test_failures_are_told_with_their_words() -> None:
    assert tables.failures([FOUND, FAILED]) == ["h: podman failed: exit 1: no"]
    assert "  h: podman failed: exit 1: no" in tables.lines(FAILED)
    together = figures.failure(GROUP, "no rig")
    assert tables.failures([together]) == ["g could not be measured: no rig"]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.04, "0.0"), (8.25, "8.2"), (19.9, "19.9"), (1234.5, "1,234")]
)
def test_as_many_digits_as_say_something(value: float, text: str) -> None:
    assert tables.shown(value) == text


def test_the_caption_names_the_machine() -> None:
    facts = figures.machine_facts(("0.1", "0.2"), {"podman": "5.4.2"})
    text = tables.caption("2026-01-02", facts)
    assert "2026-01-02" in text
    assert "podman 5.4.2" in text
    assert "load average 0.1 before, 0.2 after" in text


@pytest.mark.parametrize("outcome", [FOUND, FAILED, figures.failure(GROUP, "no")])
def test_a_drawing_is_xml_and_names_everybody(outcome: figures.Outcome) -> None:
    drawing = ElementTree.fromstring(plot.svg(outcome))
    texts = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert set(outcome.names) <= set(texts)
    assert texts.count("failed") == len(outcome.failed)
    bars = [e for e in drawing.iter("{http://www.w3.org/2000/svg}rect") if e.get("x")]
    assert len(bars) == len(outcome.figures)


def test_values_of_nothing_are_drawn_too() -> None:
    zero = figures.outcome(ALONE, Measured({"rp": [0.0], "podman": [0.0]}, {}, {}, {}))
    assert 'width="0.0"' in plot.svg(zero)
