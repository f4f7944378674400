"""What a container uses now, or had used when it ended."""

from __future__ import annotations

from rootlesspy.engine.views import stats
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootlesspy.engine.record import Container

# Keys of Usage, and what they are called in ExitRecord.usage.
_RECORDED = {
    "MemoryPeak": "memory_peak_bytes",
    "CPUUsageUSec": "cpu_usage_us",
    "CPUThrottledUSec": "cpu_throttled_us",
    "PidsPeak": "pids_peak",
    "IOReadBytes": "io_read_bytes",
    "IOWriteBytes": "io_write_bytes",
    "OOMKills": "oom_kills",
}


def document(found: Container, directory: str | None) -> dict[str, Any]:
    """Return what a container uses, or, after its end, what it had used; None is unknown.

    directory: its scope's cgroup while it runs.
    """
    ended = found.exit
    if ended is not None:
        return {
            **_no_usage(),
            "MemoryPeak": ended.memory_peak_bytes,
            "CPUUsageUSec": ended.cpu_usage_us,
            **{name: ended.usage[key] for name, key in _RECORDED.items() if key in ended.usage},
        }
    now = stats.read(directory)
    return {
        "MemoryCurrent": now.memory_current_bytes,
        "MemoryPeak": now.memory_peak_bytes,
        "CPUUsageUSec": now.cpu_us,
        "CPUThrottledUSec": now.cpu_throttled_us,
        "PidsCurrent": now.pids,
        "PidsPeak": now.pids_peak,
        "IOReadBytes": now.io_read_bytes,
        "IOWriteBytes": now.io_write_bytes,
        "OOMKills": now.oom_kills,
        "Pressure": now.pressure,
    }


def _no_usage() -> dict[str, Any]:
    names = (*_RECORDED, "MemoryCurrent", "PidsCurrent")
    return {**dict.fromkeys(names), "Pressure": {}}
