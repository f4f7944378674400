"""From a container's record to its service."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rootlesspy.engine import record, unit_templates
from rootlesspy.engine.supervision import service
from rootlesspy.paths import Paths

PATHS = Paths(data="/home/a/data/rootlesspy", runtime="/run/user/1/rootlesspy", config="/home/a/c")
ID = "0123456789ab" * 5 + "0123"
RECORD = record._unknown(ID)._replace(name="web", image="alpine", stop_timeout_s=7)


@pytest.mark.parametrize(
    ("restart", "expected"),
    [
        ("no", ("no", None)),
        ("always", ("always", None)),
        ("unless-stopped", ("always", None)),
        ("on-failure", ("on-failure", None)),
        ("on-failure:0", ("on-failure", None)),
        ("on-failure:1", ("on-failure", 2)),
        ("on-failure:5", ("on-failure", 6)),
    ],
)
def test_policy_is_the_units_own(restart: str, expected: tuple[str, int | None]) -> None:
    assert service.policy(restart) == expected


def test_service_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/opt/bin:/usr/bin")
    found = service.of(RECORD, PATHS)
    assert found.name == "rp-web.service"
    assert found.command[-2:] == ("supervise", ID)
    assert found.stop_timeout_us == 17_000_000
    assert found.environment[:3] == (
        "XDG_DATA_HOME=/home/a/data",
        "XDG_CONFIG_HOME=/home/a/c",
        "PATH=/opt/bin:/usr/bin",
    )
    assert found.keep_failed
    assert not service.of(RECORD._replace(remove=True), PATHS).keep_failed


def test_program_is_the_running_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "rp"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["./rp", "run"])
    assert service.of(RECORD, PATHS).command[0] == str(program)


def test_program_of_a_module_is_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/src/rootlesspy/__main__.py"])
    found = service.of(RECORD, PATHS)
    assert found.command[:4] == (sys.executable, "-P", "-m", "rootlesspy")
    assert any(each.startswith("PYTHONPATH=/") for each in found.environment)


def test_containers_of_a_definition_wait_for_each_other() -> None:
    record = RECORD._replace(request={"requires": ["db"], "wants": ["mail"], "after": ["db", "x"]})
    assert service.of(RECORD, PATHS).dependencies == ()
    assert service.of(record, PATHS).dependencies == (
        ("After", ("rp-db.service", "rp-mail.service", "rp-x.service")),
        ("Requires", ("rp-db.service",)),
        ("Wants", ("rp-mail.service",)),
    )


UNITS = Path(__file__).resolve().parents[3] / "units"


def test_units_of_the_package_are_those_of_the_command() -> None:
    """For the oldest manager that is supported: what newer ones add is not in them."""
    texts = unit_templates.texts(("/usr/bin/rp",), (), 252)
    assert texts == {path.name: path.read_text(encoding="utf-8") for path in UNITS.glob("rp*")}
    assert '"supervise" "%i"' in texts["rp@.service"]
