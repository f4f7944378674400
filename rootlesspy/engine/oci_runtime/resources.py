"""linux.resources as systemd properties and cgroup v2 files; what neither has is refused.

Pure.  `for_systemd` gives properties where systemd has one (by engine.limits, which also refuses a
limit whose controller is missing) and files for the rest; `for_files` gives files alone.  Device
rules are left out: in a user namespace no node can be made, and each that is there was bound by
config.json itself.  Source: runtime-spec config-linux.md, kernel Documentation cgroup-v2.rst.
"""

from __future__ import annotations

from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.engine import limits
    from rootlesspy.oci.runtime_spec import LinuxResources
    from rootlesspy.systemd.bus import Property

_ANNOTATION = "org.systemd.property."
# Settings that would change whose the scope is, or what becomes of it, and come from images.
_REFUSED_SETTINGS = frozenset(("Delegate", "DelegateControllers", "Slice", "SourcePath"))
_DEFAULT_PERIOD_US = 100_000
_DEFAULT_SHARES = 1024
# cgroup v2 file → setting of systemd; each takes the file's text, with "max" for infinity.
_SETTINGS = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "memory.zswap.max": "MemoryZSwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
    "cpuset.cpus": "AllowedCPUs",
    "cpuset.mems": "AllowedMemoryNodes",
}


class Wanted(NamedTuple):
    """What is to be set on a container's cgroup."""

    properties: tuple[Property, ...]
    files: tuple[tuple[str, str], ...]
    """(file, text) in the container's own cgroup."""

    def asked(self) -> bool:
        """Say whether there is any limit at all."""
        return bool(self.properties or self.files)


def without_defaults(resources: LinuxResources) -> LinuxResources:
    """Leave out what a new cgroup has anyway, and would need a controller to be told.

    containerd writes the kernel's default of CPU shares into every spec.
    """
    cpu = resources.get("cpu", {})
    if cpu.get("shares") != _DEFAULT_SHARES:
        return resources
    rest = cpu.copy()
    del rest["shares"]
    return {**resources, "cpu": rest}


def for_systemd(
    resources: LinuxResources, annotations: Mapping[str, str], host: limits.Host
) -> Wanted:
    """Translate for a scope.  Raises UsageError, Unsupported."""
    _refuse(resources)
    assignments = settings(annotations)
    files = _extra_files(resources)
    for key, text in resources.get("unified", {}).items():
        if key in _SETTINGS:
            assignments.append(f"{_SETTINGS[key]}={'infinity' if text == 'max' else text}")
        else:
            files.append((_file_name(key), text))
    plain: LinuxResources = {}
    for name in ("memory", "cpu", "pids", "blockIO"):
        if name in resources:
            plain[name] = resources[name]
    from rootlesspy.engine import limits

    planned = limits.plan(plain, assignments, host=host)
    if planned.affinity is not None:
        raise Unsupported(
            "AllowedCPUs cannot be enforced: the cpuset controller is not delegated to users",
            hint=f"see {limits.DROP_IN}",
        )
    return Wanted(planned.properties, tuple(files))


def settings(annotations: Mapping[str, str]) -> list[str]:
    """Return the KEY=VALUE settings of org.systemd.property.* annotations.

    Values are those of unit files once the quotes and types of GVariant are off; they are parsed
    by systemd.properties, which knows the type of each.  Raises UsageError.
    """
    found = []
    for key, value in annotations.items():
        if not key.startswith(_ANNOTATION):
            continue
        name = key.removeprefix(_ANNOTATION)
        if name in _REFUSED_SETTINGS:
            raise UsageError(f"annotation {key}: {name} is not an image's to set")
        found.append(f"{_unit_file_name(name)}={_unit_file_value(name, value)}")
    return found


def _unit_file_name(name: str) -> str:
    # runc takes the bus's name for times, systemd's documentation has the unit file's.
    return f"{name.removesuffix('USec')}Sec" if name.endswith("USec") else name


def _unit_file_value(name: str, value: str) -> str:
    text = value.strip()
    if text[:1] in "'\"" and text[-1:] == text[:1] and len(text) > 1:
        return text[1:-1]
    word, _, rest = text.partition(" ")
    if word in ("uint64", "uint32", "int32", "int64", "byte") and rest:
        text = rest.strip()
    if name.endswith("USec") and text.isdigit():
        return f"{text}us"
    return text


def for_files(resources: LinuxResources) -> Wanted:
    """Translate for a cgroup without systemd.  Raises UsageError, Unsupported."""
    _refuse(resources)
    files = [*_memory(resources), *_cpu(resources), *_block_io(resources)]
    pids = resources.get("pids", {"limit": 0})["limit"]
    if pids:
        files.append(("pids.max", _maximum(pids)))
    files += _extra_files(resources)
    files += [(_file_name(key), text) for key, text in resources.get("unified", {}).items()]
    return Wanted((), tuple(files))


def _file_name(key: str) -> str:
    if "/" in key or key.startswith((".", "cgroup.")) or "." not in key:
        raise UsageError(f"linux.resources.unified: {key!r} is not a controller's file")
    return key


def _refuse(resources: LinuxResources) -> None:
    """Refuse what only cgroup v1 has."""
    memory, cpu, block = (
        resources.get("memory", {}),
        resources.get("cpu", {}),
        resources.get("blockIO", {}),
    )
    devices = block.get("weightDevice", [])
    gone = {
        "memory.kernel": memory.get("kernel", 0) > 0,
        "memory.kernelTCP": memory.get("kernelTCP", 0) > 0,
        "memory.swappiness": "swappiness" in memory,
        "memory.disableOOMKiller": memory.get("disableOOMKiller", False),
        "cpu.realtimeRuntime": bool(cpu.get("realtimeRuntime")),
        "cpu.realtimePeriod": bool(cpu.get("realtimePeriod")),
        "blockIO.leafWeight": bool(block.get("leafWeight")),
        "blockIO.weightDevice": any(each.get("leafWeight") for each in devices),
        "network": bool(resources.get("network")),
    }
    for key, asked in gone.items():
        if asked:
            raise Unsupported(f"linux.resources.{key} is not in cgroup v2")


def _maximum(number: int) -> str:
    return "max" if number < 0 else str(number)


def _memory(resources: LinuxResources) -> list[tuple[str, str]]:
    memory = resources.get("memory", {})
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    found = []
    if limit:
        found.append(("memory.max", _maximum(limit)))
    if swap:
        if swap > 0 and (limit <= 0 or swap < limit):
            raise UsageError("linux.resources.memory.swap counts memory too: it is below the limit")
        found.append(("memory.swap.max", _maximum(swap if swap < 0 else swap - limit)))
    if memory.get("reservation"):
        found.append(("memory.low", _maximum(memory["reservation"])))
    return found


def _cpu(resources: LinuxResources) -> list[tuple[str, str]]:
    cpu = resources.get("cpu", {})
    found = []
    if cpu.get("shares"):
        from rootlesspy.engine import limits

        found.append(("cpu.weight", str(limits.cpu_weight(cpu["shares"]))))
    if cpu.get("quota") or cpu.get("period"):
        quota = cpu.get("quota", 0)
        period = cpu.get("period", 0) or _DEFAULT_PERIOD_US
        found.append(("cpu.max", f"{quota if quota > 0 else 'max'} {period}"))
    found += [(f"cpuset.{name}", cpu[name]) for name in ("cpus", "mems") if cpu.get(name)]
    if cpu.get("idle"):
        found.append(("cpu.idle", str(cpu["idle"])))
    return found


def _block_io(resources: LinuxResources) -> list[tuple[str, str]]:
    block = resources.get("blockIO", {})
    found: list[tuple[str, str]] = []
    if not block:
        return found
    from rootlesspy.engine import limits

    if block.get("weight"):
        found.append(("io.weight", f"default {limits.io_weight(block['weight'])}"))
    for device in block.get("weightDevice", []):
        if device.get("weight"):
            weight = limits.io_weight(device["weight"])
            found.append(("io.weight", f"{device['major']}:{device['minor']} {weight}"))
    for key, listed in (
        ("rbps", block.get("throttleReadBpsDevice", [])),
        ("wbps", block.get("throttleWriteBpsDevice", [])),
        ("riops", block.get("throttleReadIOPSDevice", [])),
        ("wiops", block.get("throttleWriteIOPSDevice", [])),
    ):
        found += [("io.max", f"{d['major']}:{d['minor']} {key}={d['rate']}") for d in listed]
    return found


def _extra_files(resources: LinuxResources) -> list[tuple[str, str]]:
    """Return what systemd has no property for."""
    found = []
    if resources.get("cpu", {}).get("burst"):
        found.append(("cpu.max.burst", str(resources["cpu"]["burst"])))
    found += [
        (_file_name(f"hugetlb.{page['pageSize']}.max"), str(page["limit"]))
        for page in resources.get("hugepageLimits", [])
    ]
    for device, limit in resources.get("rdma", {}).items():
        words = [
            f"{name}={limit[key]}"  # type: ignore[literal-required]  # the two keys
            for key, name in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
            if key in limit
        ]
        found.append(("rdma.max", " ".join([device, *words])))
    return found
