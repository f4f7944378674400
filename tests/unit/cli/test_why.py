"""`rp why`: the words for each way in which a container is or has ended."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from rootlesspy.cli import app, why_words
from rootlesspy.cli.session import Session
from rootlesspy.engine import record
from rootlesspy.engine.record import Container, ExitRecord
from rootlesspy.engine.supervision.healthcheck import Entry, Health
from rootlesspy.engine.views import why
from rootlesspy.engine.views.why import Explanation, Service
from rootlesspy.report import Reporter

NOW = 1_700_000_000.0
UNHEALTHY = Health(
    "unhealthy", 3, tuple(Entry(NOW - 61, NOW - 60 + n, n, f"try {n}\n\x1b[2J") for n in range(5))
)


def ended(code: int, **changes: Any) -> ExitRecord:
    usual = ExitRecord(code, NOW - 30, NOW - 90, oom_killed=False, error="")
    return usual._replace(**changes)


def facts(kind: str, exit_: ExitRecord | None = None, **changes: Any) -> Explanation:
    kept = record._unknown("ab" * 32)._replace(
        name="web", created_s=NOW - 100, image="alpine", restart=changes.pop("restart", "no")
    )
    alive = kind if kind in ("running", "created", "broken") else "running"
    state = alive if exit_ is None else "exited"
    found = Container(kept, state, 0, NOW - 90, exit_)
    usual = Explanation(
        found=found, kind=kind, memory_limit_bytes=None, memory_peak_bytes=None, oom_kills=0,
        service=None, health=None, rebooted=False, lingers=True, log=[],
    )  # fmt: skip
    return usual._replace(**changes)


@pytest.mark.parametrize(
    ("given", "headline", "mood", "cause"),
    [
        (facts("running"), "is running; it was started about a minute ago", "good", ""),
        (facts("paused"), "is paused", "odd", "rp pause"),
        (facts("created"), "was made about a minute ago and has never run", "odd", ""),
        (facts("broken"), "is damaged", "bad", ""),
        (facts("exit", ended(0)), "ended 30 seconds ago, after about a minute: exit code 0", "odd",
         "without an error"),
        (facts("exit", ended(3)), "exit code 3", "bad", "by itself with exit code 3"),
        (facts("exit", ended(127)), "exit code 127", "bad", "did not find a program"),
        (facts("exit", ended(126)), "exit code 126", "bad", "could not execute a program"),
        (facts("exit", ended(139)), "exit code 139", "bad", "for an end by SIGSEGV"),
        (facts("exit", ended(0, started_s=NOW - 30.5)), "", "odd", "has no input"),
        (facts("exit", ended(1, error="network lost: pasta died")), "", "bad", "network lost"),
        (facts("signal", ended(139, signal=11)), "killed by SIGSEGV, exit code 139", "bad",
         "Segmentation fault: its program crashed"),
        (facts("signal", ended(137, signal=9)), "killed by SIGKILL", "bad", "neither rp nor"),
        (facts("signal", ended(159, signal=31)), "killed by SIGSYS", "bad", "seccomp"),
        (facts("signal", ended(164, signal=36)), "killed by signal 36", "bad", "another process"),
        (facts("oom", ended(137, signal=9, oom_killed=True, error="out of memory: x")), "", "bad",
         "memory limit was reached"),
        (facts("start", ended(127, error="command 'x' is not found")),
         "did not start, 30 seconds ago: exit code 127", "bad", "command 'x' is not found"),
        (facts("stop", ended(143, signal=15)), "killed by SIGTERM", "odd", "rp stop sent SIGTERM"),
        (facts("timeout", ended(137, signal=9)), "", "bad", "had not ended in time"),
        (facts("kill", ended(137, signal=9)), "", "odd", "rp kill"),
        (facts("systemctl", ended(143, signal=15)), "", "odd", "stopped by systemctl"),
        (facts("shutdown", ended(143, signal=15)), "", "odd", "your last session"),
        (facts("unhealthy", ended(143, signal=15)), "", "bad", "--health-on-failure"),
        (facts("lost", ended(-1, finished_s=0)), "nobody saw how", "bad", "kill -9"),
        (facts("lost", ended(-1), rebooted=True), "", "bad", "machine was restarted"),
    ],
)  # fmt: skip
def test_causes(given: Explanation, headline: str, mood: str, cause: str) -> None:
    words = why_words.put(given, NOW)
    assert words.headline.startswith("web ")
    assert headline in words.headline
    assert words.mood == mood
    assert cause in "\n".join(words.cause)


def test_every_end_says_something() -> None:
    for kind in ("exit", "signal", "oom", "start", "stop", "timeout", "kill", "systemctl",
                 "shutdown", "unhealthy", "lost", "a reason of a newer rp"):  # fmt: skip
        for code in (-1, 0, 1, 125, 137, 255):
            for number in (0, *map(int, signal.valid_signals())):
                words = why_words.put(facts(kind, ended(code, signal=number, error="x")), NOW)
                assert words.headline
                assert words.cause
                assert words.next


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (facts("oom", ended(137), memory_limit_bytes=100_000_000, memory_peak_bytes=99_000_000,
               oom_kills=1),
         "limit 100 MB, peak 99 MB, the kernel killed a process inside for lack of memory once"),
        (facts("running", oom_kills=3),
         "the kernel killed a process inside for lack of memory 3 times"),
    ],
)  # fmt: skip
def test_memory(given: Explanation, expected: str) -> None:
    assert why_words.put(given, NOW).memory == (expected,)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (facts("exit", ended(1), restart="on-failure:2",
               service=Service("rp-web.service", "failed/failed", "exit-code", 2)),
         "rp-web.service: failed, result exit-code, --restart on-failure:2, restarted 2 times"),
        (facts("exit", ended(1),
               service=Service("rp-web.service", "activating/auto-restart", "exit-code", 1)),
         "rp-web.service: systemd is about to start it again, result exit-code, restarted once"),
        (facts("running", service=Service("rp-web.service", "active/running", "success", 0)),
         "rp-web.service: active"),
        (facts("stop", ended(143), restart="always"),
         "none is loaded; --restart always counts again from the next rp start"),
    ],
)  # fmt: skip
def test_service(given: Explanation, expected: str) -> None:
    assert why_words.put(given, NOW).service == (expected,)


def test_health() -> None:
    words = why_words.put(facts("running", health=UNHEALTHY), NOW)
    assert words.mood == "bad"
    assert words.health[0] == "unhealthy, failed 3 times in a row"
    assert words.health[1] == "56 seconds ago: exit code 4: try 4 \x1b[2J"
    assert len(words.health) == 4
    assert words.next[0] == "rp healthcheck run web"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (facts("created"), ["rp start web"]),
        (facts("created", service=Service("rp-web.service", "failed/failed", "exit-code", 0)),
         ["journalctl --user -u rp-web.service -n 20", "rp doctor", "rp start web"]),
        (facts("exit", ended(1), log=["x"]), ["rp logs web", "rp start web"]),
        (facts("exit", ended(1), service=Service("s.service", "failed/x", "start-limit-hit", 0)),
         ["systemctl --user reset-failed s.service; rp start web"]),
        (facts("shutdown", ended(143), lingers=False),
         ["loginctl enable-linger lets containers go on when you log out",
          "rp enable web starts it with your session", "rp start web"]),
        (facts("oom", ended(137)), ["rp update --memory SIZE web", "rp start web"]),
        (facts("broken"), ["rp rm -f web"]),
    ],
)  # fmt: skip
def test_next(given: Explanation, expected: list[str]) -> None:
    assert list(why_words.put(given, NOW).next) == expected


# --- from the command line --------------------------------------------------------------------


def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: Explanation,
    *words: str,
) -> str:
    monkeypatch.setattr("time.time", lambda: NOW)
    monkeypatch.setattr(why, "explain", lambda paths, name: given)
    assert app.main(["why", "web", *words], Session(Reporter(), {"HOME": "/h"})) == 0
    return capsys.readouterr().out


def test_the_screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = facts("exit", ended(3), log=["one", "evil \x1b[2J"], health=UNHEALTHY)
    lines = run(monkeypatch, capsys, given).splitlines()
    assert lines[:2] == [
        "web ended 30 seconds ago, after about a minute: exit code 3",
        "Cause    its command ended by itself with exit code 3",
    ]
    assert "Log      one" in lines
    assert "         evil \\x1b[2J" in lines
    assert not any("\x1b" in line for line in lines)


def test_json_and_templates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = facts("oom", ended(137, oom_killed=True), memory_limit_bytes=5)
    found = json.loads(run(monkeypatch, capsys, given, "--format", "json"))
    assert (found["Name"], found["Kind"], found["Memory"]["Limit"]) == ("web", "oom", 5)
    assert run(monkeypatch, capsys, given, "-f", "{{.State}} {{.Kind}} {{.Memory.Limit}}") == (
        "exited oom 5\n"
    )
