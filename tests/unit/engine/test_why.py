"""Which kind of end a container had, from its files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rootlesspy.engine import record, statefile
from rootlesspy.engine.output import logs
from rootlesspy.engine.record import ExitRecord, LiveState
from rootlesspy.engine.views import why
from rootlesspy.errors import NotFound
from rootlesspy.paths import Paths

ID = "cd" * 32


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Return the paths of a user with one container, web, whose log says one line."""
    found = Paths(data=f"{tmp_path}/data", runtime=None, config=f"{tmp_path}/config")
    directory = Path(found.container(ID))
    directory.mkdir(parents=True)
    Path(found.names).mkdir()
    os.symlink(ID, f"{found.names}/web")
    kept = record._unknown(ID)._replace(name="web")
    statefile.write(f"{directory}/record.json", kept._asdict(), durable=False)
    (directory / "config.json").write_text('{"linux": {"resources": {"memory": {"limit": 7}}}}')
    monkeypatch.setattr(logs, "tail", lambda paths, of, count: ["said"][:count])
    return found


def end(paths: Paths, code: int, **changes: Any) -> why.Explanation:
    usual = ExitRecord(code, 2.0, 1.0, oom_killed=False, error="")
    record.write_exit_record(paths.container(ID), usual._replace(**changes), durable=False)
    return why.explain(paths, "web")


def test_never_run(paths: Paths) -> None:
    found = why.explain(paths, ID[:6])
    assert (found.kind, found.service, found.health, found.rebooted) == (
        "created",
        None,
        None,
        False,
    )
    assert (found.memory_limit_bytes, found.memory_peak_bytes, found.log) == (7, None, ["said"])


@pytest.mark.parametrize(
    ("code", "changes", "kind"),
    [
        (0, {}, "exit"), (3, {}, "exit"), (139, {"signal": 11}, "signal"),
        (143, {"signal": 15, "reason": "stop"}, "stop"), (127, {"reason": "start"}, "start"),
        (137, {"signal": 9, "oom_killed": True}, "oom"),
        # A shell that lives on after its child was killed returns 137 by itself.
        (137, {"oom_killed": True}, "oom"),
        (1, {"oom_killed": True}, "exit"),
        (143, {"signal": 15, "oom_killed": True, "reason": "stop"}, "stop"),
        (-1, {}, "lost"),
    ],
)  # fmt: skip
def test_kinds(paths: Paths, code: int, changes: dict[str, Any], kind: str) -> None:
    assert end(paths, code, **changes).kind == kind


def test_what_it_had_used(paths: Paths) -> None:
    found = end(paths, 137, memory_peak_bytes=6, usage={"oom_kills": 2})
    assert (found.memory_peak_bytes, found.oom_kills) == (6, 2)


def test_another_boot(paths: Paths) -> None:
    live = LiveState(1, 1, 1, 1, "another boot", 1.0, 0, 0)
    record.write_live_state(paths.container(ID), live)
    found = why.explain(paths, "web")
    assert (found.kind, found.rebooted) == ("lost", True)


def test_damaged(paths: Paths) -> None:
    (Path(paths.container(ID)) / "record.json").write_text("{")
    found = why.explain(paths, "web")
    assert (found.kind, found.log) == ("broken", [])


def test_unknown(paths: Paths) -> None:
    with pytest.raises(NotFound):
        why.explain(paths, "nobody")
