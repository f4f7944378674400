"""What one look of `rp stats` comes to: measured, compared with the look before, and written."""

from __future__ import annotations

import time

from rootlesspy.cli import gotime, human
from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.engine.views import stats
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple
from rootlesspy.report import escape

if TYPE_CHECKING:
    from rootlesspy.engine.record import Container
    from rootlesspy.engine.views.stats import Usage

UNKNOWN = "--"
HEADER = (
    "ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET IO", "BLOCK IO", "PIDS", "CPU TIME",
    "AVG CPU %",
)  # fmt: skip
HEADERS = {
    "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %", "NetIO": "NET IO",
    "BlockIO": "BLOCK IO", "PIDs": "PIDS", "PIDS": "PIDS", "AVGCPU": "AVG CPU %",
    "CPUNano": "CPU TIME", "MemUsageBytes": "MEM USAGE / LIMIT", "OOMKills": "OOM KILLS",
    "UpTime": "UP TIME",
}  # fmt: skip
_SHORT_ID = 12
_MUCH, _VERY_MUCH = 60.0, 90.0
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Sample(NamedTuple):
    """One look at one container."""

    container: Container
    usage: Usage
    network: dict[str, dict[str, int]] | None
    """None: it has none of its own."""
    cpu_percent: float | None
    """Of one CPU, since the look before; at the first look since the start."""
    average_percent: float | None
    """Since the start."""


def measure(
    found: Container, before: Sample | None, scopes: stats.Scopes, *, whole: bool = True
) -> Sample:
    """Look at a container.

    before: the look before this one; scopes: those of this one; whole: also at what row() has
    beyond the columns of the table.
    """
    scope = scopes.find(found.pid, found.record.unit) if found.pid else None
    usage = scopes.read(scope, whole=whole)
    network = None
    if found.pid and found.record.network.get("driver") not in ("host", "none"):
        network = stats.network(found.pid)
    average = _percent(usage.cpu_us, (time.time() - found.started_s) * 1e6)
    percent = average
    same_run = before is not None and before.container.pid == found.pid
    if before is not None and same_run and before.usage.cpu_us is not None and usage.cpu_us:
        elapsed_us = (usage.at_ns - before.usage.at_ns) / 1000
        percent = _percent(usage.cpu_us - before.usage.cpu_us, elapsed_us)
    return Sample(found, usage, network, percent, average)


def cells(sample: Sample, *, full: bool) -> tuple[str, ...]:
    """Return the texts of the table's columns."""
    usage, kept = sample.usage, sample.container.record
    return (
        kept.id if full else kept.id[:_SHORT_ID],
        escape(kept.name),
        _percent_text(sample.cpu_percent),
        _pair(usage.memory_bytes, usage.memory_limit_bytes),
        _percent_text(memory_percent(sample)),
        _pair(*transferred(sample)),
        _pair(usage.io_read_bytes, usage.io_write_bytes),
        UNKNOWN if usage.pids is None else str(usage.pids),
        _time(usage.cpu_us),
        _percent_text(sample.average_percent),
    )


def styles(sample: Sample) -> tuple[str, ...]:
    """Return a style of rich for each column: much is yellow, very much red."""
    memory = _style(memory_percent(sample))
    dim = "" if sample.container.pid else "dim"
    return (dim, dim, _style(sample.cpu_percent), memory, memory, *[dim] * 5)


def row(sample: Sample, *, full: bool) -> Record:
    """Return the fields that a template may use."""
    usage, kept = sample.usage, sample.container.record
    texts = dict(zip(HEADER, cells(sample, full=full), strict=True))
    plain = {name: UNKNOWN if value is None else value for name, value in struct(sample).items()}
    return Record(
        {
            **plain,
            "ID": texts["ID"],
            "Container": texts["ID"],
            "AVGCPU": texts["AVG CPU %"],
            "BlockIO": texts["BLOCK IO"],
            "CPUPerc": texts["CPU %"],
            "CPUTime": texts["CPU TIME"],
            "ContainerStats": Record(plain),
            "Labels": kept.labels,
            "MemPeak": _bytes(usage.memory_peak_bytes),
            "MemPerc": texts["MEM %"],
            "MemUsage": texts["MEM USAGE / LIMIT"],
            "MemUsageBytes": " / ".join(
                map(_binary, (usage.memory_bytes, usage.memory_limit_bytes))
            ),
            "NetIO": texts["NET IO"],
            "OOMKills": UNKNOWN if usage.oom_kills is None else str(usage.oom_kills),
            "PIDS": texts["PIDS"],
            "Pressure": usage.pressure,
            "State": sample.container.state,
            "SwapUsage": _bytes(usage.swap_bytes),
            "Throttled": _time(usage.cpu_throttled_us),
            "Up": _time(_up_us(sample)),
        }
    )


def struct(sample: Sample) -> dict[str, Any]:
    """Return podman's ContainerStats: plain numbers, None for what is not known."""
    usage, kept = sample.usage, sample.container.record
    nano = None if usage.cpu_us is None else usage.cpu_us * 1000
    system = usage.cpu_system_us
    up_us = _up_us(sample)
    return {
        "AvgCPU": sample.average_percent,
        "ContainerID": kept.id,
        "Name": kept.name,
        "PerCPU": [],
        "CPU": sample.cpu_percent,
        "CPUNano": nano,
        "CPUSystemNano": None if system is None else system * 1000,
        "SystemNano": time.time_ns(),
        "MemUsage": usage.memory_bytes,
        "MemLimit": usage.memory_limit_bytes,
        "MemPerc": memory_percent(sample),
        "Network": sample.network,
        "BlockInput": usage.io_read_bytes,
        "BlockOutput": usage.io_write_bytes,
        "PIDs": usage.pids,
        "UpTime": None if up_us is None else up_us * 1000,
        "Duration": nano,
    }


def json_row(sample: Sample) -> dict[str, str]:
    """Return one element of --format json, texts as podman has them."""
    texts = cells(sample, full=False)
    keys = (
        "id", "name", "cpu_percent", "mem_usage", "mem_percent", "net_io", "block_io", "pids",
        "cpu_time", "avg_cpu",
    )  # fmt: skip
    return dict(zip(keys, texts, strict=True))


def memory_percent(sample: Sample) -> float | None:
    """Return how much of its limit a container uses."""
    usage = sample.usage
    if usage.memory_bytes is None or not usage.memory_limit_bytes:
        return None
    return 100 * usage.memory_bytes / usage.memory_limit_bytes


def transferred(sample: Sample) -> tuple[int | None, int | None]:
    """Return the bytes that a container received and sent."""
    if sample.network is None:
        return None, None
    counters = sample.network.values()
    return sum(each["RxBytes"] for each in counters), sum(each["TxBytes"] for each in counters)


def _up_us(sample: Sample) -> int | None:
    if not sample.container.pid:
        return None
    return max(0, round((time.time() - sample.container.started_s) * 1e6))


def _percent(used_us: int | None, elapsed_us: float) -> float | None:
    if used_us is None:
        return None
    return max(0.0, 100 * used_us / elapsed_us) if elapsed_us > 0 else 0.0


def _percent_text(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.2f}%"


def _pair(first: int | None, second: int | None) -> str:
    return f"{_bytes(first)} / {_bytes(second)}"


def _bytes(number: int | None) -> str:
    return UNKNOWN if number is None else human.size(number, digits=4, gap="")


def _binary(number: int | None) -> str:
    if number is None:
        return UNKNOWN
    amount, unit = float(number), _UNITS[0]
    for unit in _UNITS:
        if amount < 1024 or unit == _UNITS[-1]:
            break
        amount /= 1024
    return f"{amount:.4g}{unit}"


def _time(used_us: int | None) -> str:
    return UNKNOWN if used_us is None else gotime.duration(used_us * 1000)


def _style(share: float | None) -> str:
    if share is None or share < _MUCH:
        return ""
    return "red" if share >= _VERY_MUCH else "yellow"
