"""--property assignments; what real systemd-run makes of them is in tests/namespace/test_scope."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.errors import UsageError
from rootlesspy.systemd import cgroup
from rootlesspy.systemd.bus import Property
from rootlesspy.systemd.properties import INFINITY, parse_assignment


@pytest.mark.parametrize(
    ("text", "name", "signature", "value"),
    [
        ("MemoryMax=512M", "MemoryMax", "t", 512 << 20),
        ("MemoryMax=infinity", "MemoryMax", "t", INFINITY),
        ("MemoryMax=50%", "MemoryMaxScale", "u", 2147483648),
        ("MemoryMax=", "MemoryMax", "t", INFINITY),
        ("MemoryLow=", "MemoryLow", "t", 0),
        ("CPUQuota=50%", "CPUQuotaPerSecUSec", "t", 500_000),
        ("CPUWeight=idle", "CPUWeight", "t", 0),
        ("AllowedCPUs=0,9", "AllowedCPUs", "ay", b"\x01\x02"),
        ("TimeoutStopSec=5min", "TimeoutStopUSec", "t", 300_000_000),
        ("Delegate=cpu memory", "DelegateControllers", "as", ["cpu", "memory"]),
        ("IOReadBandwidthMax=/dev/sda 1M", "IOReadBandwidthMax", "a(st)", [("/dev/sda", 10**6)]),
        ("DeviceAllow=/dev/null rw", "DeviceAllow", "a(ss)", [("/dev/null", "rw")]),
        ("IPAddressAllow=10.1.0.0/16", "IPAddressAllow", "a(iayu)", [(2, b"\n\x01\0\0", 16)]),
        ("Description=a=b", "Description", "s", "a=b"),
    ],
)
def test_assignment(text: str, name: str, signature: str, value: object) -> None:
    assert parse_assignment(text) == (Property(name, signature, value),)


@pytest.mark.parametrize("text", ["", "MemoryMax", "=1", "MemoryMax=x", "Delegate=no", "PIDs=1"])
def test_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_assignment(text)


def test_unknown_key_lists_what_may_have_been_meant() -> None:
    with pytest.raises(UsageError, match="memorymax is not a property of a scope") as caught:
        parse_assignment("memorymax=1G")
    assert "MemoryMax" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "controller"),
    [
        ("MemoryMax=1G", "memory"),
        ("MemoryMax=1%", "memory"),
        ("MemoryMax=infinity", None),
        ("MemoryPressureWatch=on", None),
        ("MemoryAccounting=yes", None),
        ("TasksMax=5", "pids"),
        ("CPUQuota=5%", "cpu"),
        ("StartupCPUWeight=5", "cpu"),
        ("AllowedCPUs=0", "cpuset"),
        ("AllowedCPUs=", None),
        ("IOWeight=5", "io"),
        ("IODeviceLatencyTargetSec=/ 5ms", "io"),
        ("DefaultMemoryLow=5", "memory"),
        ("IPAddressDeny=any", "bpf-firewall"),
        ("DeviceAllow=/dev/null r", "bpf-devices"),
        ("KillSignal=9", None),
    ],
)
def test_controller(text: str, controller: str | None) -> None:
    assert cgroup.controller_of(parse_assignment(text)[0]) == controller


@given(
    st.sampled_from(["MemoryMax", "CPUQuota", "AllowedCPUs", "After", "IPAddressDeny", "Slice"]),
    st.text(max_size=20),
)
def test_nothing_but_usage_errors_escapes(key: str, value: str) -> None:
    try:
        found = parse_assignment(f"{key}={value}")
    except UsageError:
        return
    assert all(isinstance(each, Property) for each in found)
