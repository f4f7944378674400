"""docs/catalogue.md is what the tests' markers and docs/catalogue.toml say."""

from __future__ import annotations

import pytest
from rig import rows

TABLE = """
[[section]]
title = "A. First"
rows = [
  ["CVE-1-1°, other name", "it breaks"],
  ["B2", "a | b", "no such machine"],
]
"""
TESTS = """
import pytest

pytestmark = pytest.mark.row("b2", "refused")

@pytest.mark.parametrize("x", [
    pytest.param(1, marks=pytest.mark.row("Other-Name", "mounts inside")),
])
def test_one(x): ...

class TestMany:
    @pytest.mark.row("CVE-1-1", "mounts inside")
    @pytest.mark.row("nowhere", "?")
    def test_two(self): ...
"""


def test_the_document_is_up_to_date() -> None:
    sections = rows.table(rows.TABLE.read_text("utf-8"))
    written = rows.render(sections, rows.all_markers())
    assert rows.DOCUMENT.read_text("utf-8") == written, "run tests/rig/rows.py"


def test_no_marker_names_a_row_that_is_not_there() -> None:
    sections = rows.table(rows.TABLE.read_text("utf-8"))
    assert rows.unknown(sections, rows.all_markers()) == []


def test_markers_are_found_wherever_they_are() -> None:
    found = rows.markers(TESTS, "t.py")
    assert [(each.id, each.test) for each in found] == [
        ("b2", "t.py"),
        ("Other-Name", "t.py::test_one"),
        ("CVE-1-1", "t.py::TestMany::test_two"),
        ("nowhere", "t.py::TestMany::test_two"),
    ]


def test_rows_say_what_happens_and_where() -> None:
    sections = rows.table(TABLE)
    found = rows.markers(TESTS, "t.py")
    text = rows.render(sections, found)
    assert (
        "1-1°, other name | it breaks | mounts inside | `t.py::TestMany::test_two`<br>`t.p" in text
    )
    assert "| B2 | a \\| b | refused | `t.py` |" in text
    assert "2 of 2 rows" in text
    assert rows.unknown(sections, found) == ["t.py::TestMany::test_two: nowhere"]


def test_what_is_not_tested_is_shown() -> None:
    text = rows.render(rows.table(TABLE), [])
    assert "| it breaks | **not tested**: no test yet |" in text
    assert "**not tested**: no such machine" in text


@pytest.mark.parametrize("call", ['row("P1")', 'row("P1", f"{x}")', "row(1, 2)", "row(x, 'y')"])
def test_a_marker_that_cannot_be_read_is_refused(call: str) -> None:
    with pytest.raises(rows.RowError, match=r"t\.py:2"):
        rows.markers(f"import pytest\n@pytest.mark.{call}\ndef test(): ...", "t.py")


def test_an_id_of_two_rows_is_refused() -> None:
    with pytest.raises(rows.RowError, match="b2"):
        rows.table(TABLE.replace("other name", "b-2"))
