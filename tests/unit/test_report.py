"""What rp says on stderr."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from rootlesspy.report import Reporter

if TYPE_CHECKING:
    import pytest

LINE = re.compile(r"rp: timing: +(\d+\.\d) ms \+ *(\d+\.\d)  (.*)")


def test_steps_are_silent_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    reporter.step("one")
    reporter.done()
    assert capsys.readouterr().err == ""


def test_debug_names_each_step_before_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter(debug=True).step("say \x1b")
    assert capsys.readouterr().err == "rp: debug: say \\x1b\n"


def test_timing_of_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(began_ns=time.monotonic_ns() - 40_000_000)
    reporter.step("one")
    reporter.be("supervisor")
    reporter.step("two")
    reporter.done()
    reporter.done()
    found = [LINE.fullmatch(line) for line in capsys.readouterr().err.splitlines()]
    lines = [each.groups() for each in found if each is not None]
    names = ["rp: start Python and read the command line", "supervisor: begin", "supervisor: two"]
    assert [each[2] for each in lines] == names
    assert len(found) == 3
    at, took = float(lines[0][0]), float(lines[0][1])
    assert at == 0.0
    assert took >= 40.0
    assert float(lines[1][0]) >= took
