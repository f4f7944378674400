"""Health checks with a clock of the test's own: when they are due, and what their results mean."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.engine import statefile
from rootlesspy.engine.supervision import healthcheck
from rootlesspy.engine.supervision.healthcheck import Config, Entry, Health, Monitor, Startup
from rootlesspy.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

START_S = 1000.0
ARGV = ("/bin/check",)


def monitor(**changes: object) -> Monitor:
    """Return a monitor of a container that started at START_S; its wall clock stands still."""
    return Monitor(Config(argv=ARGV, **changes), START_S, wall=lambda: 5.0)  # type: ignore[arg-type]


def check(of: Monitor, exit_code: int, now_s: float, *, takes_s: float = 0.0) -> str:
    """Run the check that is due and hand in its result."""
    assert of.begin(now_s) is not None
    return of.finished(exit_code, b"", now_s + takes_s)


def test_the_first_check_comes_at_once_then_one_each_interval_after_the_end() -> None:
    of = monitor(interval_s=30)
    assert of.timeout_ms(START_S) == 0
    assert of.begin(START_S) == ARGV
    assert of.begin(START_S) is None
    of.finished(0, b"", START_S + 7)
    assert of.timeout_ms(START_S + 7) == 30_000
    assert of.begin(START_S + 36.9) is None
    assert of.begin(START_S + 37) == ARGV


def test_the_poll_sleeps_no_less_than_it_takes() -> None:
    of = monitor(interval_s=30)
    check(of, 0, START_S)
    assert of.timeout_ms(START_S + 29.9995) == 1
    assert of.timeout_ms(START_S + 31) == 0


def test_a_disabled_interval_leaves_checks_to_whoever_asks() -> None:
    of = monitor(interval_s=0)
    assert of.timeout_ms(START_S) == -1
    assert of.begin(START_S + 9999) is None
    of.request(START_S + 10_000)
    check(of, 0, START_S + 10_000)
    assert of.health.status == "healthy"
    assert of.timeout_ms(START_S + 10_001) == -1


def test_a_request_during_a_check_starts_no_second_one() -> None:
    of = monitor()
    assert of.begin(START_S)
    of.request(START_S + 1)
    assert of.begin(START_S + 1) is None
    of.finished(0, b"", START_S + 2)
    assert of.begin(START_S + 3) is None


def test_retries_make_it_unhealthy_and_one_success_healthy_again() -> None:
    of = monitor(retries=3, interval_s=10)
    seen = []
    for number, code in enumerate((1, 1, 0, 2, 3, 4, 5, 0)):
        check(of, code, START_S + 10 * number)
        seen.append((of.health.status, of.health.failing_streak))
    assert seen == [
        ("starting", 1),
        ("starting", 2),
        ("healthy", 0),
        ("healthy", 1),
        ("healthy", 2),
        ("unhealthy", 3),
        ("unhealthy", 4),
        ("healthy", 0),
    ]


@pytest.mark.parametrize("action", ["kill", "restart", "stop"])
def test_the_action_comes_with_the_change_alone(action: str) -> None:
    of = monitor(retries=2, interval_s=1, on_failure=action)
    codes = (1, 1, 1, 0, 1, 1)
    actions = [check(of, code, START_S + number) for number, code in enumerate(codes)]
    assert actions == ["", action, "", "", "", action]


def test_no_action_is_none() -> None:
    assert check(monitor(retries=1), 1, START_S) == ""


def test_failures_of_the_start_period_do_not_count_until_the_first_success() -> None:
    of = monitor(retries=1, start_period_s=60, start_interval_s=5, interval_s=30)
    check(of, 1, START_S)
    assert of.health._replace(log=()) == Health("starting", 0)
    assert of.timeout_ms(START_S) == 5_000
    # Begun within the period, ended after it: it does not count (docker goes by the beginning).
    check(of, 1, START_S + 59, takes_s=2)
    assert of.health.failing_streak == 0
    assert of.timeout_ms(START_S + 61) == 30_000
    check(of, 1, START_S + 91)
    assert of.health.status == "unhealthy"


def test_a_success_ends_the_start_period() -> None:
    of = monitor(retries=1, start_period_s=60, start_interval_s=5, interval_s=30)
    check(of, 0, START_S)
    assert of.timeout_ms(START_S) == 30_000
    check(of, 1, START_S + 30)
    assert of.health.status == "unhealthy"


def test_a_check_that_takes_too_long_is_a_failure_that_says_so() -> None:
    of = monitor(retries=1, timeout_s=2.5, on_failure="kill")
    assert not of.is_overdue(START_S + 99)
    of.begin(START_S)
    assert of.timeout_ms(START_S) == 2_500
    assert of.is_running()
    assert not of.is_overdue(START_S + 2.4)
    assert of.is_overdue(START_S + 2.5)
    assert of.timed_out(START_S + 2.5) == "kill"
    assert not of.is_running()
    assert of.health.log == (Entry(5.0, 5.0, -1, "health check timed out after 2.5 s"),)


def test_a_check_of_a_paused_container_is_none() -> None:
    of = monitor(retries=1, interval_s=30)
    of.abandon(START_S + 1)
    assert of.begin(START_S + 30) is None
    assert of.begin(START_S + 31) == ARGV
    of.abandon(START_S + 40)
    assert of.finished(1, b"", START_S + 41) == ""
    assert of.health == Health()
    assert of.timeout_ms(START_S + 40) == 30_000


def test_a_result_that_nobody_waits_for_is_ignored() -> None:
    of = monitor(retries=1)
    assert of.finished(1, b"late", START_S) == ""
    assert of.health == Health()


def test_the_log_keeps_the_last_entries_and_the_beginning_of_their_output() -> None:
    of = monitor(interval_s=1, max_log_count=2, max_log_size=4)
    for number in range(4):
        of.begin(START_S + number)
        of.finished(0, f"{number}äöüß\n".encode(), START_S + number)
    assert [entry.output for entry in of.health.log] == ["2äöü", "3äöü"]
    assert of.output_limit_bytes == 16


def test_the_log_has_an_end_even_when_it_was_asked_to_have_none() -> None:
    of = monitor(interval_s=1, max_log_count=0, max_log_size=0)
    for number in range(60):
        of.begin(START_S + number)
        of.finished(0, b"x" * 100_000, START_S + number)
    assert len(of.health.log) == 50
    assert {len(entry.output) for entry in of.health.log} == {65536}
    assert of.output_limit_bytes == 65536


def test_output_that_is_no_text_is_kept_as_far_as_possible() -> None:
    of = monitor()
    of.begin(START_S)
    of.finished(0, b"\xff ok\n\n", START_S)
    assert of.health.log[0].output == "\ufffd ok\n"


def test_the_startup_check_runs_until_it_has_passed_often_enough() -> None:
    startup = Startup(("/bin/up",), interval_s=1, timeout_s=9, retries=0, successes=2)
    of = monitor(interval_s=30, timeout_s=3, retries=1, startup=startup)
    for number, code in enumerate((1, 0, 1, 0, 0)):
        assert of.begin(START_S + number) == ("/bin/up",)
        assert of.timeout_ms(START_S + number) == 9_000
        assert of.finished(code, b"", START_S + number) == ""
        assert of.health._replace(log=()) == Health("starting", 0)
    assert of.timeout_ms(START_S + 4) == 30_000
    assert of.begin(START_S + 34) == ARGV


def test_a_startup_check_that_never_passes_restarts_the_container() -> None:
    startup = Startup(("/bin/up",), interval_s=1, timeout_s=9, retries=2, successes=0)
    of = monitor(startup=startup, on_failure="none")
    assert [check(of, 1, START_S + number) for number in range(4)] == ["", "restart", "", "restart"]


@given(
    codes=st.lists(st.integers(0, 3), max_size=40),
    retries=st.integers(1, 5),
    period_s=st.integers(0, 20),
)
def test_status_follows_from_the_results(codes: list[int], retries: int, period_s: int) -> None:
    """The same rules, told backwards: from the whole list of results at once."""
    of = monitor(interval_s=1, start_interval_s=1, retries=retries, start_period_s=period_s)
    for number, code in enumerate(codes):
        check(of, code, START_S + number)
        done = codes[: number + 1]
        first_success = done.index(0) if 0 in done else len(done)
        counted = [
            each
            for index, each in enumerate(done)
            if each == 0 or index > first_success or index >= period_s
        ]
        streak = next((n for n, each in enumerate(reversed(counted)) if not each), len(counted))
        assert of.health.failing_streak == streak
        expected = "unhealthy" if streak >= retries else "healthy" if 0 in done else "starting"
        assert of.health.status == expected


@given(steps=st.lists(st.tuples(st.sampled_from("brf"), st.floats(0, 50)), max_size=60))
def test_time_never_makes_it_wake_for_nothing(steps: list[tuple[str, float]]) -> None:
    """Whenever poll returns for the monitor's sake there is something to do."""
    of, now_s = monitor(interval_s=10, timeout_s=5), START_S
    for step, passed_s in steps:
        now_s += passed_s
        if step == "b":
            of.begin(now_s)
        elif step == "r":
            of.request(now_s)
        else:
            of.finished(0, b"", now_s)
        wait_ms = of.timeout_ms(now_s)
        assert wait_ms >= 0
        later_s = now_s + wait_ms / 1000 + 1e-6
        assert of.is_overdue(later_s) or of.begin(later_s) is not None
        if of.is_overdue(later_s):
            of.timed_out(later_s)


def test_health_survives_the_disk(tmp_path: Path) -> None:
    paths = Paths(data=os.fspath(tmp_path), runtime=None, config="")
    directory = tmp_path / "containers" / "abc"
    directory.mkdir(parents=True)
    assert healthcheck.read(paths, "abc") is None
    health = Health("unhealthy", 4, (Entry(1.5, 2.5, 1, "no\n"), Entry(3.0, 4.0, -1, "")))
    healthcheck.write(os.fspath(directory), health)
    assert healthcheck.read(paths, "abc") == health


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"version": 1}',
        '{"version": 1, "status": "healthy", "failing_streak": "x", "log": []}',
        '{"version": 1, "status": "healthy", "failing_streak": 0, "log": 7}',
        '{"version": 1, "status": "healthy", "failing_streak": 0, "log": [1]}',
        '{"version": 1, "status": "healthy", "failing_streak": 0, "log": [[1, 2]]}',
        '{"version": 1, "status": "healthy", "failing_streak": 0, "log": [["a", 2, 0, ""]]}',
        '{"version": 1, "status": "healthy", "failing_streak": 0, "log": [[1, 2, null, ""]]}',
    ],
)
def test_a_damaged_file_is_an_error_of_ours(tmp_path: Path, content: str) -> None:
    paths = Paths(data=os.fspath(tmp_path), runtime=None, config="")
    directory = tmp_path / "containers" / "abc"
    directory.mkdir(parents=True)
    (directory / "health.json").write_text(content)
    with pytest.raises(statefile.DamagedError):
        healthcheck.read(paths, "abc")


def test_a_damaged_record_is_an_error_of_ours() -> None:
    with pytest.raises(statefile.DamagedError):
        healthcheck.config_of({"Test": ["CMD"]})
    with pytest.raises(statefile.DamagedError):
        healthcheck.config_of({"Test": ["CMD", "x"], "Interval": "30s"})
