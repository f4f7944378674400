"""Figures, ratios and documents of the benchmark."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import figures
from bench.work import Group, Measured, contestant, pair

if TYPE_CHECKING:
    from pathlib import Path

GROUP = Group("g", "`run`", (*pair("{p} ps"), contestant("crun", "crun list")), 3, 1)
ALL = {"rp": [1.0, 2.0, 4.0], "podman": [2.0, 4.0, 4.0], "crun": [1.0, 1.0, 1.0]}
values = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=30)


def test_medians_quartiles_and_the_best() -> None:
    found = figures.outcome(GROUP, Measured(ALL, {}, {"rp": [5.0, 7.0]}, {}))
    assert found.of("rp") == figures.Figure("rp", 2.0, 1.5, 3.0, 1.0, 3, 6.0)
    assert found.of("crun") == figures.Figure("crun", 1.0, 1.0, 1.0, 1.0, 3, None)
    assert [figure.name for figure in found.figures] == ["rp", "podman", "crun"]


def test_a_ratio_is_of_rounds_not_of_medians() -> None:
    found = figures.outcome(GROUP, Measured(ALL, {}, {}, {}))
    assert found.ratio == figures.Ratio(0.5, 0.5, 0.75)


def test_who_failed_has_no_figure_and_is_told_of() -> None:
    found = figures.outcome(
        GROUP, Measured({"rp": [1.0], "crun": []}, {"podman": "exit 1"}, {}, {})
    )
    assert found.failed == {"podman": "exit 1", "crun": "no value"}
    assert found.of("podman") is None
    assert found.ratio is None
    assert [figure.name for figure in found.figures] == ["rp"]


def test_a_group_that_could_not_be_measured() -> None:
    found = figures.failure(GROUP, "no registry")
    assert found.failed == dict.fromkeys(("rp", "podman", "crun"), "no registry")
    assert found.figures == ()
    assert found.ratio is None


def test_nothing_is_divided_by_zero() -> None:
    assert figures.ratio([0.0, 0.0], [0.0, 0.0]) is None
    assert figures.ratio([0.0, 1.0], [0.0, 2.0]) == figures.Ratio(0.5, 0.5, 0.5)


@given(values, values)
def test_quartiles_enclose_the_median(ours: list[float], theirs: list[float]) -> None:
    found = figures.ratio(ours, theirs)
    assert found is not None
    assert found.lower <= found.median <= found.upper
    median, lower, upper = figures.quartiles(ours)
    assert min(ours) <= lower <= median <= upper <= max(ours)


def test_json_has_every_value_and_every_failure() -> None:
    found = figures.outcome(
        GROUP, Measured({"rp": [1.234], "crun": [2.0]}, {"podman": "no"}, {}, {})
    )
    content = json.loads(json.dumps(figures.as_json("2026-01-02", {"cpus": 2}, [found])))
    assert content["machine"] == {"cpus": 2}
    group = content["groups"]["g"]
    assert group["values"] == {"rp": [1.23], "crun": [2.0]}
    assert group["failed"] == {"podman": "no"}
    assert group["unit"] == "ms"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n", True),
        ("a\n<!-- bench -->\nold\n", False),
        ("a\n", False),
    ],
)
def test_the_table_is_put_between_its_markers(tmp_path: Path, text: str, expected: bool) -> None:
    document = tmp_path / "README.md"
    document.write_text(text, encoding="utf-8")
    assert figures.insert(document, "new") is expected
    assert document.read_text(encoding="utf-8") == text.replace("old" if expected else "\0", "new")


def test_a_document_that_is_not_there(tmp_path: Path) -> None:
    assert not figures.insert(tmp_path / "none", "new")
