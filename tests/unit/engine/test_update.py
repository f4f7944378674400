"""What `rp update` makes of limits, without a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from rootlesspy.engine import limits, update
from rootlesspy.engine.update import Change
from rootlesspy.systemd.values import INFINITY

if TYPE_CHECKING:
    from rootlesspy.oci.runtime_spec import LinuxResources

ALL = limits.Host(
    offered=frozenset(("cpu", "memory", "pids", "io", "cpuset")),
    delegated=frozenset(("cpu", "memory", "pids", "io", "cpuset")),
    cpus=frozenset(range(4)),
)


def plan(resources: object) -> limits.Plan:
    return limits.plan(cast("LinuxResources", resources), [], host=ALL)


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ({}, Change(memory_bytes=10), {"memory": {"limit": 10}}),
        ({"memory": {"limit": 10}}, Change(memory_bytes=0), {}),
        (
            {"memory": {"limit": 10, "swap": 30}},
            Change(memory_bytes=20),
            {"memory": {"limit": 20, "swap": 30}},
        ),
        ({"memory": {"limit": 10, "swap": 30}}, Change(memory_bytes=0), {}),
        (
            {"memory": {"limit": 10}},
            Change(memory_swap_bytes=-1),
            {"memory": {"limit": 10, "swap": -1}},
        ),
        (
            {"cpu": {"quota": 50_000, "period": 100_000, "cpus": "0"}},
            Change(cpu_quota_us=2_000_000),
            {"cpu": {"quota": 200_000, "period": 100_000, "cpus": "0"}},
        ),
        (
            {"cpu": {"quota": 50_000, "period": 100_000, "cpus": "0"}},
            Change(cpu_quota_us=0),
            {"cpu": {"cpus": "0"}},
        ),
        ({"pids": {"limit": 2048}}, Change(pids_limit=-1), {"pids": {"limit": -1}}),
        ({"pids": {"limit": 5}}, Change(blkio_weight=10, restart="always"),
         {"pids": {"limit": 5}, "blockIO": {"weight": 10}}),
        ({"rdma": {"x": {}}, "cpu": {}}, Change(), {"rdma": {"x": {}}}),
    ],
)  # fmt: skip
def test_limits_are_merged(before: object, change: Change, after: object) -> None:
    kept = repr(before)
    assert update.merged(cast("LinuxResources", before), change) == after
    assert repr(before) == kept


def test_only_what_differs_is_set() -> None:
    before = plan({"memory": {"limit": 10 << 20}, "pids": {"limit": 7}})
    after = plan({"memory": {"limit": 20 << 20}, "pids": {"limit": 7}})
    found = {each.name: each.value for each in update.difference(before, after)}
    assert found == {"MemoryMax": 20 << 20, "MemorySwapMax": 20 << 20}


def test_what_is_gone_is_taken_away() -> None:
    before = plan(
        {
            "memory": {"limit": 9, "reservation": 5},
            "cpu": {"quota": 1000, "shares": 2, "cpus": "0-1"},
            "blockIO": {"weight": 10},
        }
    )
    found = {each.name: each.value for each in update.difference(before, plan({}))}
    assert found == {
        "MemoryMax": INFINITY,
        "MemorySwapMax": INFINITY,
        "MemoryLow": 0,
        "CPUQuotaPerSecUSec": INFINITY,
        "CPUWeight": INFINITY,
        "AllowedCPUs": b"",
        "IOWeight": INFINITY,
    }
