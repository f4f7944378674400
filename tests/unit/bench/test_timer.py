"""What is timed inside the rig; no time is asserted."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from bench import inside_probe, timer, timing
from bench.work import Contestant, Group

if TYPE_CHECKING:
    from pathlib import Path


TimeGroup = Callable[..., dict[str, Any]]


@pytest.fixture
def time_group(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> TimeGroup:
    """Return what times a group in this process, without waiting for the machine to settle."""
    monkeypatch.setattr(timer, "_settle", lambda _quiet_count: None)
    monkeypatch.setattr(timer, "_PAUSE_S", 0)

    def time_it(*contestants: Contestant, rounds: int = 3, warm_up: bool = True) -> Any:
        group = Group("g", "title", contestants, rounds, 30, warm_up=warm_up)
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(timing.as_json(group))))
        assert timer.main() == 0
        return json.loads(capsys.readouterr().out)

    return time_it


def test_who_fails_is_out_and_the_others_go_on(time_group: TimeGroup) -> None:
    found = time_group(
        Contestant("good", ("true",)),
        Contestant("bad", ("sh", "-c", "echo words >&2; exit 3")),
        Contestant("missing", ("/nonexistent",)),
    )
    assert len(found["values"]["good"]) == len(found["cpu_ms"]["good"]) == 3
    assert list(found["values"]) == ["good"]
    assert found["failed"]["bad"].endswith("exit 3: words")
    assert "/nonexistent" in found["failed"]["missing"]


def test_a_value_may_be_what_is_printed(time_group: TimeGroup) -> None:
    found = time_group(
        Contestant("number", ("printf", "%s\n", "noise", "2.5"), reports=True),
        Contestant("word", ("echo", "nothing"), reports=True),
        rounds=2,
    )
    assert found["values"] == {"number": [2.5, 2.5]}
    assert "no number" in found["failed"]["word"]


def test_who_fails_once_may_try_again(time_group: TimeGroup, tmp_path: Path) -> None:
    made = tmp_path / "made"
    once = f"test -e {made} || {{ touch {made}; echo busy >&2; exit 1; }}"
    found = time_group(Contestant("one", ("sh", "-c", once)))
    assert found["failed"] == {}
    assert len(found["values"]["one"]) == 3
    assert found["repeated"]["one"].endswith("busy")


def test_what_is_before_and_after_is_run_each_time(time_group: TimeGroup, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def write(word: str) -> tuple[str, ...]:
        return ("sh", "-c", f"echo {word} >>{log}")

    time_group(
        Contestant("one", write("it"), before=(write("before"),), after=(write("after"),)),
        rounds=1,
    )
    assert log.read_text(encoding="ascii").split() == ["before", "it", "after"] * 2


def test_what_was_prepared_is_taken_away_after_a_failure_too(
    time_group: TimeGroup, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    found = time_group(
        Contestant("bad", ("false",), before=(("touch", f"{made}"),), after=(("rm", f"{made}"),)),
        warm_up=False,
    )
    assert "exit 1" in found["failed"]["bad"]
    assert not made.exists()


def test_a_terminal_is_one_and_is_read() -> None:
    check = "test -t 1 && dd if=/dev/zero bs=64k count=16 2>/dev/null"
    contestant = Contestant("terminal", ("sh", "-c", check), terminal=True)
    group = Group("g", "title", (contestant,), rounds=1, limit_s=30, warm_up=False)
    done = subprocess.run(
        [sys.executable, "-I", "-S", timer.__file__],
        input=json.dumps(timing.as_json(group)),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["failed"] == {}
    assert len(found["values"]["terminal"]) == 1


def test_work_inside_is_found_by_its_name(tmp_path: Path) -> None:
    assert sorted(inside_probe.WORK) == ["cpu", "disk", "fsync", "syscalls", "tcp"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", inside_probe.__file__, "fsync", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) > 0
    assert list(tmp_path.iterdir()) == []
