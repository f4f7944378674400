"""From an OCI spec's limits and `--property` to systemd properties, or a refusal.

systemd accepts a limit whose controller is not delegated to the user manager and then does nothing
about it.  Here that is an error with its cure, never silence: a container does not run without a
limit that was asked for, unless --ignore-missing-limits says so.  Two exceptions: CPUs can be held
by affinity instead (with a notice), and a default limit is not something that was asked for.

Pure but for host().  What goes where follows crun and podman:

    memory.limit          MemoryMax
    memory.swap           MemorySwapMax = swap - limit, since OCI counts memory and swap together;
                          not given: as much swap as memory, podman's default
    memory.reservation    MemoryLow
    cpu.quota/period      CPUQuotaPerSecUSec, rounded up to whole percents as runc does: systemd 252
                          cuts the rest off at daemon-reload (12.5 % became 12 %)
    cpu.shares            CPUWeight, see cpu_weight()
    cpu.cpus, cpu.mems    AllowedCPUs, AllowedMemoryNodes
    pids.limit            TasksMax
    blockIO               IOWeight, IODeviceWeight, IO{Read,Write}{Bandwidth,IOPS}Max
"""

from __future__ import annotations

import math
import os

from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.systemd import cgroup, values
from rootlesspy.systemd.bus import Property
from rootlesspy.systemd.values import INFINITY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.oci.runtime_spec import LinuxBlockIO, LinuxCPU, LinuxMemory, LinuxResources

DROP_IN = "/etc/systemd/system/user@.service.d/rootlesspy.conf"
_CURE = (
    f"as root: put [Service] Delegate=cpu cpuset io memory pids into {DROP_IN}, "
    "then systemctl daemon-reload and log in afresh"
)

_QUOTA_STEP_US = 10_000
_DEFAULT_PERIOD_US = 100_000
_FLAGS = {
    "MemoryMax": "--memory",
    "MemorySwapMax": "--memory-swap",
    "MemoryLow": "--memory-reservation",
    "CPUQuotaPerSecUSec": "--cpus",
    "CPUWeight": "--cpu-shares",
    "AllowedCPUs": "--cpuset-cpus",
    "TasksMax": "--pids-limit",
}


class Host(NamedTuple):
    """What this machine can enforce."""

    offered: frozenset[str]
    """Controllers that the kernel's cgroup v2 tree has."""
    delegated: frozenset[str]
    """Those of them that the user manager was given."""
    cpus: frozenset[int]


class Plan(NamedTuple):
    """What to hand to systemd, and what to do besides."""

    properties: tuple[Property, ...]
    affinity: frozenset[int] | None
    """CPUs for sched_setaffinity of the payload, where cpuset is missing."""
    notices: tuple[str, ...]


def host() -> Host:
    """Read what this machine's cgroup tree and the caller's user manager offer."""
    mounted = cgroup.mount_point()
    try:
        with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
            cpus = values.cpus(file.read())
    except OSError:
        cpus = frozenset(range(os.cpu_count() or 1))
    return Host(
        offered=cgroup.controllers(mounted),
        delegated=cgroup.controllers(cgroup.manager_directory(os.getuid())),
        cpus=cpus,
    )


def plan(
    resources: LinuxResources,
    assignments: Sequence[str],
    *,
    host: Host,
    ignore_missing: bool = False,
    defaults: frozenset[str] = frozenset(),
) -> Plan:
    """Turn limits and KEY=VALUE assignments into properties, or refuse.

    defaults names properties (TasksMax) that nobody asked for: they are set, but are no reason to
    refuse.  Raises UsageError for a limit that makes no sense, Unsupported for one that this
    machine would not enforce.
    """
    wanted = [
        *_memory(resources.get("memory", {})),
        *_cpu(resources.get("cpu", {}), host),
        *_pids(resources.get("pids", {"limit": 0})["limit"]),
        *_block_io(resources.get("blockIO", {})),
    ]
    refused = [key for key in ("hugepageLimits", "rdma", "network", "unified") if key in resources]
    if refused and not ignore_missing:
        raise Unsupported(f"linux.resources.{refused[0]} has no counterpart in systemd")
    for assignment in assignments:
        from rootlesspy.systemd import properties

        wanted += properties.parse_assignment(assignment)
    missing = [
        each
        for each in wanted
        if each.name not in defaults
        and (needed := cgroup.controller_of(each)) is not None
        and needed not in host.delegated
    ]
    held = [each for each in missing if each.name == "AllowedCPUs"]
    refusable = [each for each in missing if each.name != "AllowedCPUs"]
    if refusable and not ignore_missing:
        raise _refusal(refusable, host)
    notices = [_notice(refusable)] if refusable else []
    affinity = None
    if held:
        affinity = unmask(held[-1].value) & host.cpus
        if not affinity:
            raise UsageError("AllowedCPUs names no CPU of this machine")
        notices.append(
            "the cpuset controller is not delegated: CPUs are held by affinity, which the "
            f"container can change ({_CURE})"
        )
    return Plan(properties=tuple(wanted), affinity=affinity, notices=tuple(notices))


def cpu_weight(shares: int) -> int:
    """Convert cgroup v1 shares (2..262144) to a cgroup v2 weight (1..10000).

    ceil(10^((l*l + 125*l)/612 - 7/34)) with l = log2(shares), the formula of runc 1.3.2 and crun
    1.23: it takes 2 to 1, 1024 to 100 and 262144 to 10000, the lowest, default and highest of both.
    The linear one before it took 1024 to 39: --cpu-shares=1024 meant less than no flag at all.
    """
    if shares <= 2:
        return 1
    if shares >= 262_144:
        return 10_000
    exponent = math.log2(shares)
    return math.ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))


def unmask(bits: object) -> frozenset[int]:
    """Read the bit mask of AllowedCPUs back into CPU numbers."""
    number = int.from_bytes(bits, "little") if isinstance(bits, bytes) else 0
    return frozenset(index for index in range(number.bit_length()) if number >> index & 1)


def _memory(memory: LinuxMemory) -> list[Property]:
    found: list[Property] = []
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if limit > 0:
        found.append(Property("MemoryMax", "t", limit))
    if swap > 0 and limit <= 0:
        raise UsageError(
            "a limit of memory and swap needs a limit of memory", hint="add --memory=SIZE"
        )
    if 0 < swap < limit:
        raise UsageError(
            f"--memory-swap={swap} is less than --memory={limit}: it counts both together"
        )
    if swap < 0:
        found.append(Property("MemorySwapMax", "t", INFINITY))
    elif limit > 0:
        found.append(Property("MemorySwapMax", "t", swap - limit if swap else limit))
    if memory.get("reservation", 0) > 0:
        found.append(Property("MemoryLow", "t", memory["reservation"]))
    return found


def _cpu(cpu: LinuxCPU, host: Host) -> list[Property]:
    found: list[Property] = []
    quota, period = cpu.get("quota", 0), cpu.get("period", 0) or _DEFAULT_PERIOD_US
    if quota > 0:
        per_second = quota * 1_000_000 // period
        rounded = -(-per_second // _QUOTA_STEP_US) * _QUOTA_STEP_US
        found.append(Property("CPUQuotaPerSecUSec", "t", rounded))
        if period != _DEFAULT_PERIOD_US:
            found.append(Property("CPUQuotaPeriodUSec", "t", period))
    if cpu.get("idle", 0):
        found.append(Property("CPUWeight", "t", 0))
    elif cpu.get("shares", 0) > 0:
        found.append(Property("CPUWeight", "t", cpu_weight(cpu["shares"])))
    if cpu.get("cpus"):
        found.append(Property("AllowedCPUs", "ay", values.mask(_existing(cpu["cpus"], host))))
    if cpu.get("mems"):
        found.append(Property("AllowedMemoryNodes", "ay", values.mask(_indexes(cpu["mems"]))))
    return found


def _indexes(text: str) -> frozenset[int]:
    try:
        return values.cpus(text)
    except ValueError as error:
        raise UsageError(f"cpuset {text}: {error}") from error


def _existing(text: str, host: Host) -> frozenset[int]:
    """Parse CPUs and refuse one that is not there: the kernel would silently allow all instead."""
    wanted = _indexes(text)
    absent = sorted(wanted - host.cpus)
    if absent:
        have = ",".join(str(cpu) for cpu in sorted(host.cpus))
        raise UsageError(f"--cpuset-cpus={text}: CPU {absent[0]} is not on this machine ({have})")
    return wanted


def _pids(limit: int) -> list[Property]:
    if limit == 0:
        return []
    return [Property("TasksMax", "t", limit if limit > 0 else INFINITY)]


def _block_io(block: LinuxBlockIO) -> list[Property]:
    found: list[Property] = []
    if block.get("weight", 0) > 0:
        found.append(Property("IOWeight", "t", io_weight(block["weight"])))
    for device in block.get("weightDevice", []):
        if device.get("weight", 0) > 0:
            pair = (_node(device["major"], device["minor"]), io_weight(device["weight"]))
            found.append(Property("IODeviceWeight", "a(st)", [pair]))
    for name, listed in (
        ("IOReadBandwidthMax", block.get("throttleReadBpsDevice", [])),
        ("IOWriteBandwidthMax", block.get("throttleWriteBpsDevice", [])),
        ("IOReadIOPSMax", block.get("throttleReadIOPSDevice", [])),
        ("IOWriteIOPSMax", block.get("throttleWriteIOPSDevice", [])),
    ):
        for entry in listed:
            pair = (_node(entry["major"], entry["minor"]), entry["rate"])
            found.append(Property(name, "a(st)", [pair]))
    return found


def io_weight(weight: int) -> int:
    """Convert a blkio weight (10..1000) to 1..10000, linearly as crun does."""
    return max(1, min(10_000, 1 + (weight - 10) * 9999 // 990))


def _node(major: int, minor: int) -> str:
    return f"/dev/block/{major}:{minor}"


def _name(item: Property) -> str:
    flag = _FLAGS.get(item.name)
    return f"{item.name} ({flag})" if flag else item.name


def _notice(missing: Sequence[Property]) -> str:
    listed = ", ".join(dict.fromkeys(_name(each) for each in missing))
    needed = sorted({cgroup.controller_of(each) or "" for each in missing})
    return f"set but not enforced, for want of controllers ({', '.join(needed)}): {listed}"


def _refusal(missing: Sequence[Property], host: Host) -> Unsupported:
    """Say which limit cannot be enforced, why, and what cures it."""
    item = missing[0]
    needed = cgroup.controller_of(item) or ""
    if needed.startswith("bpf-"):
        return Unsupported(
            f"{item.name} cannot be enforced by a user manager: it needs root's BPF rights",
            hint="leave it out, or run without it by --ignore-missing-limits",
        )
    if needed not in host.offered:
        return Unsupported(
            f"{_name(item)} cannot be enforced: cgroup v2 has no {needed} controller here",
            hint="boot with systemd.unified_cgroup_hierarchy=1, or pass --ignore-missing-limits",
        )
    return Unsupported(
        f"{_name(item)} cannot be enforced: the {needed} controller is not delegated to users",
        hint=f"{_CURE}; or pass --ignore-missing-limits",
    )
