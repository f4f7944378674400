"""The bucket of records that all supervisors of a user share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine.log_budget import CAPACITY, RATE, Budget
from rootlesspy.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.monotonic", made)
    return made


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(data=str(tmp_path), runtime=None, config="/x")


def test_no_thirty_seconds_give_out_more_than_half_of_what_journald_allows(
    clock: Clock, paths: Paths
) -> None:
    budgets = [Budget(paths) for _ in range(3)]
    taken = 0
    for step in range(3000):
        clock.now = 1000.0 + step / 100
        taken += sum(each.take(1) + 2 * each.take(2) for each in budgets)
    assert taken <= 5000
    assert taken >= CAPACITY + 29 * RATE
    for each in budgets:
        each.close()


def test_what_is_spare_leaves_half_for_those_who_need_it(clock: Clock, paths: Paths) -> None:
    budget = Budget(paths)
    assert budget.take(int(CAPACITY / 2), spare=True)
    assert not budget.take(1, spare=True)
    assert budget.take(1)
    clock.now += 1
    assert budget.take(1, spare=True)
    budget.close()


def test_last_words_are_taken_on_credit(clock: Clock, paths: Paths) -> None:
    budget = Budget(paths)
    assert budget.take(int(CAPACITY))
    budget.force(int(RATE))
    clock.now += 0.9
    assert not budget.take(1)
    clock.now += 0.2
    assert budget.take(1)
    budget.close()


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff" * 16, b"\0" * 8 + b"\xff" * 8, os.urandom(40)]
)
@pytest.mark.usefixtures("clock")
def test_a_damaged_or_older_state_is_a_full_bucket_or_less(paths: Paths, content: bytes) -> None:
    os.makedirs(paths.cache)
    with open(f"{paths.cache}/journal-budget", "wb") as file:
        file.write(content)
    budget = Budget(paths)
    assert not budget.take(int(CAPACITY) + 1)
    budget.force(1)
    budget.close()


@pytest.mark.usefixtures("clock")
def test_without_a_place_for_it_each_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    budget = Budget(Paths(data=str(tmp_path), runtime=None, config="/x"))
    assert budget.take(int(CAPACITY))
    assert not budget.take(1)
    budget.close()
