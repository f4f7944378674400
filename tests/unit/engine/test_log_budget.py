"""The bucket of records that all supervisors of a user share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine.output import journal_limit
from rootlesspy.engine.output.journal_limit import Limit
from rootlesspy.engine.output.log_budget import Budget
from rootlesspy.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path


LIMIT = Limit()
CAPACITY, RATE = 2000, 100


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
    budgets = [Budget(paths, LIMIT) for _ in range(3)]
    taken = 0
    for step in range(3000):
        clock.now = 1000.0 + step / 100
        taken += sum(each.take(1) + 2 * each.take(2) for each in budgets)
    assert taken <= 5000
    assert taken >= CAPACITY + 29 * RATE
    for each in budgets:
        each.close()


def test_what_is_spare_leaves_half_for_those_who_need_it(clock: Clock, paths: Paths) -> None:
    budget = Budget(paths, LIMIT)
    assert budget.take(int(CAPACITY / 2), spare=True)
    assert not budget.take(1, spare=True)
    assert budget.take(1)
    clock.now += 1
    assert budget.take(1, spare=True)
    budget.close()


def test_last_words_are_taken_on_credit(clock: Clock, paths: Paths) -> None:
    budget = Budget(paths, LIMIT)
    assert budget.take(int(CAPACITY))
    budget.force(int(RATE))
    clock.now += 0.9
    assert not budget.take(1)
    clock.now += 0.2
    assert budget.take(1)
    budget.close()


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff" * 16, b"\0" * 8 + b"\xff" * 8, bytes(range(1, 40 + 1))]
)
@pytest.mark.usefixtures("clock")
def test_a_damaged_or_older_state_is_a_full_bucket_or_less(paths: Paths, content: bytes) -> None:
    os.makedirs(paths.cache)
    with open(f"{paths.cache}/journal-budget", "wb") as file:
        file.write(content)
    budget = Budget(paths, LIMIT)
    assert not budget.take(int(CAPACITY) + 1)
    budget.force(1)
    budget.close()


@pytest.mark.usefixtures("clock")
def test_without_a_place_for_it_each_has_its_own(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    budget = Budget(Paths(data=str(tmp_path), runtime=None, config="/x"), LIMIT)
    assert budget.take(int(CAPACITY))
    assert not budget.take(1)
    budget.close()


def configure(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, Limit(10_000, 30), id="default"),
        pytest.param(
            {"etc/systemd/journald.conf": "[Journal]\nRateLimitBurst=500\n#RateLimitBurst=1\n"},
            Limit(500, 30), id="file",
        ),
        pytest.param(
            {
                "usr/lib/systemd/journald.conf": "RateLimitBurst=1",
                "etc/systemd/journald.conf": "RateLimitIntervalSec = 1min 30s",
                "usr/lib/systemd/journald.conf.d/50-a.conf": "RateLimitBurst=7",
                "run/systemd/journald.conf.d/60-b.conf": "RateLimitBurst=900",
                "etc/systemd/journald.conf.d/50-a.conf": "RateLimitBurst=8",
                "etc/systemd/journald.conf.d/readme": "RateLimitBurst=9",
            },
            Limit(900, 90), id="drop-ins",
        ),
        pytest.param(
            {"etc/systemd/journald.conf": "RateLimitBurst=0"}, Limit(10_000_000, 30), id="off"
        ),
        pytest.param(
            {"etc/systemd/journald.conf": "RateLimitIntervalSec=0"}, Limit(10_000_000, 30),
            id="off-too",
        ),
        pytest.param(
            {"etc/systemd/journald.conf": "RateLimitBurst=many\nRateLimitIntervalSec=a while"},
            Limit(10_000, 30), id="nonsense",
        ),
    ],
)  # fmt: skip
def test_the_limit_is_the_administrators(
    tmp_path: Path, files: dict[str, str], expected: Limit
) -> None:
    configure(tmp_path, files)
    assert journal_limit.read(str(tmp_path)) == expected


def test_the_limit_of_the_users_own_unit_counts_more(tmp_path: Path) -> None:
    configure(tmp_path, {"etc/systemd/journald.conf": "RateLimitBurst=500"})
    units = tmp_path / "run/systemd/units"
    units.mkdir(parents=True)
    unit = f"user@{os.getuid()}.service"
    (units / f"log-rate-limit-burst:{unit}").symlink_to("77")
    (units / f"log-rate-limit-interval:{unit}").symlink_to("5000000")
    assert journal_limit.read(str(tmp_path)) == Limit(77, 5)


@pytest.mark.parametrize("limit", [Limit(1, 30), Limit(40, 30), Limit(1000, 1)])
def test_any_limit_is_kept(clock: Clock, paths: Paths, limit: Limit) -> None:
    budget = Budget(paths, limit)
    taken = 0
    for step in range(1000):
        clock.now = 1000.0 + step * limit.interval_s / 1000
        taken += budget.take(1)
    assert 1 <= taken <= max(1, limit.burst / 2)
    budget.close()
