"""Fixtures and rules for all tests.

`rig` is a machine with a user manager: this one where the tests run as an ordinary user who has
one, else the namespace rig. RP_RIG_SUITE=bookworm chooses the other Debian; RP_RIG=NAME uses
(and keeps) the rig of that name, which saves the boot. With RP_MUST_WORK=1 a skipped test is a
failed one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from rig import install, instance, location, machine, recipe
from rig.effort import SEEN, effort, nightly

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# Time is never asserted: a busy machine is no defect. Each commit tries the same examples, so that
# what one run has seen holds for the next; others are tried at night.
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=not nightly(),
)
settings.load_profile("default")

_LIMIT_S = 600
_MUST_WORK = os.environ.get("RP_MUST_WORK") == "1"


@pytest.fixture(scope="session")
def rig() -> Iterator[machine.Machine]:
    """Return a machine with a user manager and the project installed on it."""
    if user_manager_is_reachable():
        yield machine.Machine(machine.DirectDoor(uid=os.geteuid()))
        return
    if os.geteuid() != 0:
        pytest.skip("neither a user manager (systemctl --user) nor root for the namespace rig")
    suite = os.environ.get("RP_RIG_SUITE", recipe.SUITES[0])
    kept = os.environ.get("RP_RIG")
    name = kept or f"pytest-{os.getpid()}"
    try:
        running = instance.up(name, suite, print, owner_pid=0 if kept else os.getpid())
    except location.RigError as error:
        pytest.skip(str(error))
    try:
        install.sync(running)
        yield machine.Machine(machine.RigDoor(running))
    finally:
        if not kept:
            instance.down(name)


def user_manager_is_reachable() -> bool:
    """Tell whether this process belongs to an ordinary user whose user manager answers."""
    if os.geteuid() == 0 or shutil.which("systemctl") is None:
        return False
    argv = ["systemctl", "--user", "show", "--property=Version"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by the directory that they are in; leave what is for the night to the night."""
    at_night = [item for item in items if item.get_closest_marker("nightly")]
    if at_night and not nightly():
        config.hook.pytest_deselected(items=at_night)
        items[:] = [item for item in items if item not in at_night]
    for item in items:
        for stage in ("namespace", "vm", "packaging"):
            if f"/tests/{stage}/" in os.fspath(item.path):
                item.add_marker(stage)
        if item.get_closest_marker("root_only") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that does not end by itself (what it needs may take its time to be made)."""
    marker = item.get_closest_marker("limit")
    limit_s = (marker.args[0] if marker else _LIMIT_S) * effort(1, 5)

    def give_up(_number: int, _frame: object) -> None:
        raise AssertionError(f"still running after {limit_s} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what was skipped where everything has to work."""
    report = yield
    if _MUST_WORK and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although RP_MUST_WORK=1: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Repeat how much of its samples the nightly run has seen."""
    if not nightly():
        return
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.getreports(kind)]
    lines = [line for each in reports for line in each.capstdout.splitlines()]
    terminalreporter.section("seen in this night")
    for line in sorted({line for line in lines if line.startswith(SEEN)}):
        terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail modules that skip themselves where everything has to work."""
    report = yield
    if _MUST_WORK and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped although RP_MUST_WORK=1: {report.longrepr}"
    return report
