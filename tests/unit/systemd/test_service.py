"""A service as settings, and as what goes over the bus."""

from __future__ import annotations

import pytest

from rootlesspy.systemd import service
from rootlesspy.systemd.service import Service
from rootlesspy.systemd.values import INFINITY

PLAIN = Service(name="rp-x.service", description="Container x", command=("/bin/rp", "supervise"))


def properties(of: Service, version: int = 257) -> dict[str, object]:
    listed = service.properties(of, version)
    found = {each.name: each.value for each in listed}
    assert len(found) == len(listed)
    return found


def test_command_is_path_argv_and_failure_counts() -> None:
    command = properties(PLAIN)["ExecStart"]
    assert command == [("/bin/rp", ["/bin/rp", "supervise"], False)]


def test_without_restart_nothing_is_said_about_limits() -> None:
    names = properties(PLAIN)
    assert names["Restart"] == "no"
    assert not [name for name in names if name.startswith(("StartLimit", "RestartSec"))]


def test_restarts_without_end_turn_systemds_limit_off() -> None:
    names = properties(PLAIN._replace(restart="always"))
    assert names["StartLimitIntervalUSec"] == 0
    assert "StartLimitBurst" not in names


def test_an_always_restarted_one_has_a_way_out() -> None:
    """Also one whose policy is another, for a drop-in may say always."""
    for restart in ("no", "always"):
        names = properties(PLAIN._replace(restart=restart))
        assert names["RestartPreventExitStatus"] == ([], [15])


def test_restarts_are_counted_for_ever() -> None:
    names = properties(PLAIN._replace(restart="on-failure", start_limit_burst=4))
    assert (names["StartLimitBurst"], names["StartLimitIntervalUSec"]) == (4, INFINITY)


@pytest.mark.parametrize(("version", "knows"), [(252, False), (253, False), (254, True)])
def test_growing_delays_are_for_managers_that_know_them(version: int, knows: bool) -> None:
    growing = PLAIN._replace(restart="always", restart_steps=8, restart_max_delay_us=60_000_000)
    assert ("RestartSteps" in properties(growing, version)) is knows
    assert ("RestartMaxDelayUSec" in properties(growing, version)) is knows
    assert properties(growing, version)["RestartUSec"] == (100_000 if knows else 1_000_000)


@pytest.mark.parametrize(("keep", "mode"), [(True, "inactive"), (False, "inactive-or-failed")])
def test_what_failed_stays_to_be_looked_at(keep: bool, mode: str) -> None:
    assert properties(PLAIN._replace(keep_failed=keep))["CollectMode"] == mode


def test_values_are_not_escaped_for_the_bus() -> None:
    odd = '%h $x "y" \\ z'
    names = properties(PLAIN._replace(description=odd, environment=(f"A={odd}",)))
    assert names["Description"] == odd
    assert names["Environment"] == [f"A={odd}"]
