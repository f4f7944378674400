"""Limits: what they become, and what is refused where it would do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.engine import limits
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.systemd.values import INFINITY

if TYPE_CHECKING:
    from rootlesspy.oci.runtime_spec import LinuxResources

EVERYTHING = frozenset({"cpu", "cpuset", "io", "memory", "pids"})
MIB = 1 << 20


def machine(*delegated: str, offered: frozenset[str] = EVERYTHING) -> limits.Host:
    """Describe a machine with CPUs 0 to 3."""
    return limits.Host(
        offered=offered, delegated=frozenset(delegated), cpus=frozenset({0, 1, 2, 3})
    )


FULL = machine(*EVERYTHING)
USUAL = machine("cpu", "memory", "pids")
RIG = machine(offered=frozenset())


def made(resources: LinuxResources, *assignments: str) -> dict[str, object]:
    """Return the properties as a dict, on a machine that can do everything."""
    plan = limits.plan(resources, assignments, host=FULL)
    assert plan.notices == ()
    assert plan.affinity is None
    return {each.name: each.value for each in plan.properties}


@pytest.mark.parametrize(
    ("resources", "properties"),
    [
        ({}, {}),
        (
            {"memory": {"limit": 100 * MIB}},
            {"MemoryMax": 100 * MIB, "MemorySwapMax": 100 * MIB},
        ),
        (
            {"memory": {"limit": 100 * MIB, "swap": 100 * MIB}},
            {"MemoryMax": 100 * MIB, "MemorySwapMax": 0},
        ),
        (
            {"memory": {"limit": 100 * MIB, "swap": 150 * MIB}},
            {"MemoryMax": 100 * MIB, "MemorySwapMax": 50 * MIB},
        ),
        (
            {"memory": {"limit": 100 * MIB, "swap": -1}},
            {"MemoryMax": 100 * MIB, "MemorySwapMax": INFINITY},
        ),
        ({"memory": {"reservation": 5 * MIB}}, {"MemoryLow": 5 * MIB}),
        ({"cpu": {"quota": 50_000, "period": 100_000}}, {"CPUQuotaPerSecUSec": 500_000}),
        ({"cpu": {"quota": 12_345, "period": 100_000}}, {"CPUQuotaPerSecUSec": 130_000}),
        (
            {"cpu": {"quota": 10_000, "period": 20_000}},
            {"CPUQuotaPerSecUSec": 500_000, "CPUQuotaPeriodUSec": 20_000},
        ),
        ({"cpu": {"shares": 1024}}, {"CPUWeight": 100}),
        ({"cpu": {"idle": 1, "shares": 1024}}, {"CPUWeight": 0}),
        (
            {"cpu": {"cpus": "1,3", "mems": "0"}},
            {"AllowedCPUs": b"\n", "AllowedMemoryNodes": b"\1"},
        ),
        ({"pids": {"limit": 2048}}, {"TasksMax": 2048}),
        ({"pids": {"limit": -1}}, {"TasksMax": INFINITY}),
        ({"blockIO": {"weight": 10}}, {"IOWeight": 1}),
        ({"blockIO": {"weight": 1000}}, {"IOWeight": 10_000}),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}]}},
            {"IOReadBandwidthMax": [("/dev/block/8:0", 5)]},
        ),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 1000}]}},
            {"IODeviceWeight": [("/dev/block/8:0", 10_000)]},
        ),
    ],
)
def test_resources_become_properties(
    resources: LinuxResources, properties: dict[str, object]
) -> None:
    assert made(resources) == properties


@pytest.mark.parametrize(("shares", "weight"), [(1, 1), (2, 1), (1024, 100), (262_144, 10_000)])
def test_cpu_shares_meet_the_weights_at_both_ends_and_the_default(shares: int, weight: int) -> None:
    assert limits.cpu_weight(shares) == weight


@given(st.integers(1, 300_000))
def test_more_shares_never_weigh_less(shares: int) -> None:
    assert 1 <= limits.cpu_weight(shares) <= limits.cpu_weight(shares + 1) <= 10_000


def test_assignments_come_last_and_win() -> None:
    plan = limits.plan({"memory": {"limit": MIB}}, ["MemoryMax=2M"], host=FULL)
    assert [each.value for each in plan.properties if each.name == "MemoryMax"] == [MIB, 2 * MIB]


@pytest.mark.parametrize(
    ("resources", "assignments", "named"),
    [
        ({"memory": {"limit": MIB}}, [], "MemoryMax (--memory)"),
        ({"cpu": {"quota": 1000, "period": 100_000}}, [], "CPUQuotaPerSecUSec (--cpus)"),
        ({"pids": {"limit": 64}}, [], "TasksMax (--pids-limit)"),
        ({"cpu": {"mems": "0"}}, [], "AllowedMemoryNodes"),
        ({}, ["IOWeight=5"], "IOWeight"),
        ({}, ["MemoryHigh=50%"], "MemoryHighScale"),
    ],
)
def test_a_limit_without_its_controller_is_refused(
    resources: LinuxResources, assignments: list[str], named: str
) -> None:
    with pytest.raises(Unsupported) as caught:
        limits.plan(resources, assignments, host=machine())
    assert caught.value.message.startswith(f"{named} cannot be enforced")
    assert limits.DROP_IN in str(caught.value.hint)
    assert "Delegate=cpu cpuset io memory pids" in str(caught.value.hint)
    plan = limits.plan(resources, assignments, host=machine(), ignore_missing=True)
    assert plan.properties
    assert len(plan.notices) == 1
    assert named in plan.notices[0]


def test_a_kernel_without_the_controller_is_not_cured_by_the_drop_in() -> None:
    with pytest.raises(Unsupported, match="no memory controller here") as caught:
        limits.plan({"memory": {"limit": MIB}}, [], host=RIG)
    assert limits.DROP_IN not in str(caught.value.hint)


def test_what_needs_roots_bpf_is_refused_even_with_all_controllers() -> None:
    with pytest.raises(Unsupported, match="IPAddressDeny cannot be enforced by a user manager"):
        limits.plan({}, ["IPAddressDeny=any"], host=FULL)


def test_the_default_number_of_processes_is_set_but_refuses_nothing() -> None:
    plan = limits.plan({"pids": {"limit": 2048}}, [], host=RIG, defaults=frozenset({"TasksMax"}))
    assert [(each.name, each.value) for each in plan.properties] == [("TasksMax", 2048)]
    assert plan.notices == ()


def test_taking_a_limit_away_needs_no_controller() -> None:
    plan = limits.plan({"pids": {"limit": -1}}, ["MemoryMax=infinity"], host=RIG)
    assert len(plan.properties) == 2


@pytest.mark.parametrize(
    ("resources", "assignments"),
    [({"cpu": {"cpus": "1-2"}}, []), ({}, ["AllowedCPUs=1-2"])],
)
def test_cpus_fall_back_to_affinity_with_a_notice(
    resources: LinuxResources, assignments: list[str]
) -> None:
    plan = limits.plan(resources, assignments, host=USUAL)
    assert plan.affinity == frozenset({1, 2})
    assert len(plan.notices) == 1
    assert limits.DROP_IN in plan.notices[0]


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ({"memory": {"swap": MIB}}, "needs a limit of memory"),
        ({"memory": {"limit": 2 * MIB, "swap": MIB}}, "counts both together"),
        ({"cpu": {"cpus": "0,7"}}, "CPU 7 is not on this machine"),
        ({"cpu": {"cpus": "0-x"}}, "cpuset"),
    ],
)
def test_nonsense_is_refused(resources: LinuxResources, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        limits.plan(resources, [], host=FULL)


def test_affinity_to_no_existing_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="no CPU"):
        limits.plan({}, ["AllowedCPUs=8-9"], host=USUAL)


@pytest.mark.parametrize("key", ["unified", "hugepageLimits", "rdma", "network"])
def test_what_systemd_cannot_do_is_refused(key: str) -> None:
    resources: LinuxResources = {key: {}}  # type: ignore[misc]  # each is a key of it
    with pytest.raises(Unsupported, match=key):
        limits.plan(resources, [], host=FULL)
    limits.plan(resources, [], host=FULL, ignore_missing=True)


def test_host_can_be_read_anywhere() -> None:
    found = limits.host()
    assert found.cpus
    assert found.delegated <= found.offered or not found.delegated
