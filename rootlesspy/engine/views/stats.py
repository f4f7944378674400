"""What a running container uses: its scope's cgroup, and its network interfaces.

Files of the host alone are read; neither the bus nor a program is asked.  None stands for what this
machine does not count: a number that needs a controller which is not delegated is unknown, not 0.
Sources: the kernel's cgroup-v2 document, proc_pid_net(5).
"""

from __future__ import annotations

import os
import time

from rootlesspy.errors import Unsupported
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.systemd import cgroup

if TYPE_CHECKING:
    from collections.abc import Iterator


_PRESSURES = ("cpu", "memory", "io")
_READ_BYTES = 65536
_NET_FIELDS = ("RxBytes", "RxPackets", "RxErrors", "RxDropped")


class Usage(NamedTuple):
    """What one container has used up to a moment."""

    at_ns: int = 0
    """CLOCK_MONOTONIC."""
    memory_bytes: int | None = None
    """Without the page cache that the kernel would give up first, as podman and docker count."""
    memory_current_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_limit_bytes: int | None = None
    """The smallest limit that holds, up to the machine's memory."""
    swap_bytes: int | None = None
    cpu_us: int | None = None
    cpu_system_us: int | None = None
    cpu_throttled_us: int | None = None
    cpu_throttled_periods: int | None = None
    pids: int | None = None
    """Processes and threads."""
    pids_peak: int | None = None
    pids_limit: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    oom_kills: int | None = None
    pressure: dict[str, float] = {}  # noqa: RUF012 - never written to
    """cpu, memory, io: percent of the last 10 s in which somebody waited (some avg10)."""


class Limits(NamedTuple):
    """The limits that the cgroup holds now; None: none, or nobody to hold it."""

    memory_bytes: int | None
    swap_bytes: int | None
    memory_low_bytes: int | None
    cpu_quota_us: int | None
    cpu_period_us: int | None
    pids: int | None


FROZEN = "1"
"""What a freezer says (cgroup.freeze)."""


def scope_directory(pid: int) -> str | None:
    """Return the cgroup directory of the scope rp-….scope that holds a process.

    None without a scope, or when the process is gone.
    """
    try:
        parts = cgroup.control_group(pid).split("/")
        for index, part in enumerate(parts):
            # The first: a payload with cgroups of its own, such as systemd, lies deeper.
            if part.startswith("rp-") and part.endswith(".scope"):
                return cgroup.directory("/".join(parts[: index + 1]))
    except (OSError, Unsupported):
        return None
    return None


def is_frozen(directory: str | None) -> bool:
    """Say whether a scope is frozen (`systemctl --user freeze`, rp pause)."""
    return directory is not None and freezer(directory) == FROZEN


def freezer(directory: str) -> str:
    """Return what a scope's freezer says; "" when there is no such scope."""
    return _text(f"{directory}/cgroup.freeze").strip()


def read(directory: str | None) -> Usage:
    """Read what a scope uses; without a directory nothing is known."""
    if directory is None:
        return Usage(at_ns=time.monotonic_ns())
    cpu = dict(_keyed(f"{directory}/cpu.stat"))
    memory = dict(_keyed(f"{directory}/memory.stat"))
    current = _number(f"{directory}/memory.current")
    io_read, io_write = _io(directory)
    return Usage(
        at_ns=time.monotonic_ns(),
        memory_bytes=None if current is None else max(0, current - memory.get("inactive_file", 0)),
        memory_current_bytes=current,
        memory_peak_bytes=_number(f"{directory}/memory.peak"),
        memory_limit_bytes=None if current is None else _memory_limit(directory),
        swap_bytes=_number(f"{directory}/memory.swap.current"),
        cpu_us=cpu.get("usage_usec"),
        cpu_system_us=cpu.get("system_usec"),
        cpu_throttled_us=cpu.get("throttled_usec"),
        cpu_throttled_periods=cpu.get("nr_throttled"),
        pids=_pids(directory),
        pids_peak=_number(f"{directory}/pids.peak"),
        pids_limit=_number(f"{directory}/pids.max"),
        io_read_bytes=io_read,
        io_write_bytes=io_write,
        oom_kills=dict(_keyed(f"{directory}/memory.events")).get("oom_kill"),
        pressure={
            name: share
            for name in _PRESSURES
            if (share := _pressure(f"{directory}/{name}.pressure")) is not None
        },
    )


def limits(directory: str) -> Limits:
    """Read the limits of a scope as they are now, whoever changed them."""
    quota, _, period = _text(f"{directory}/cpu.max").strip().partition(" ")
    return Limits(
        memory_bytes=_number(f"{directory}/memory.max"),
        swap_bytes=_number(f"{directory}/memory.swap.max"),
        memory_low_bytes=_number(f"{directory}/memory.low") or None,
        cpu_quota_us=int(quota) if quota.isdigit() else None,
        cpu_period_us=int(period) if quota.isdigit() and period.isdigit() else None,
        pids=_number(f"{directory}/pids.max"),
    )


def network(pid: int) -> dict[str, dict[str, int]]:
    """Return the counters of the network interfaces that a process sees, `lo` left out."""
    found = {}
    for line in _text(f"/proc/{pid}/net/dev").splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = [int(word) for word in rest.split()]
        if name.strip() != "lo" and len(numbers) >= 12:
            received = zip(_NET_FIELDS, numbers, strict=False)
            sent = zip((f"T{field[1:]}" for field in _NET_FIELDS), numbers[8:], strict=False)
            found[name.strip()] = {**dict(received), **dict(sent)}
    return found


def machine_memory_bytes() -> int:
    """Return how much memory this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def processes(directory: str) -> list[int]:
    """Return the pids of all processes below a cgroup, in the order of their start."""
    found: list[int] = []
    for path, _, _ in os.walk(directory):
        found += map(int, _text(f"{path}/cgroup.procs").split())
    return sorted(found)


def _memory_limit(directory: str) -> int:
    """Return the smallest limit of a cgroup and those around it."""
    smallest = machine_memory_bytes()
    mounted = cgroup.mount_point() or directory
    while len(directory) > len(mounted):
        smallest = min(smallest, _number(f"{directory}/memory.max") or smallest)
        directory = os.path.dirname(directory)
    return smallest


def _pids(directory: str) -> int | None:
    """Return the number of tasks, counted one by one where there is no pids controller."""
    number = _number(f"{directory}/pids.current")
    if number is not None:
        return number
    try:
        return sum(_threads(pid) for pid in processes(directory))
    except OSError:
        return None


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return 0


def _io(directory: str) -> tuple[int | None, int | None]:
    """Return the bytes read from and written to all devices."""
    if not os.path.exists(f"{directory}/io.stat"):
        return None, None
    fields = [
        field.partition("=")
        for line in _text(f"{directory}/io.stat").splitlines()
        for field in line.split()[1:]
    ]
    total = {"rbytes": 0, "wbytes": 0}
    for name, _, number in fields:
        if name in total and number.isdigit():
            total[name] += int(number)
    return total["rbytes"], total["wbytes"]


def _pressure(path: str) -> float | None:
    """Return avg10 of the line `some` of a PSI file."""
    for line in _text(path).splitlines():
        kind, *fields = line.split()
        if kind == "some" and fields and fields[0].startswith("avg10="):
            return float(fields[0].removeprefix("avg10="))
    return None


def _number(path: str) -> int | None:
    """Read one number; None for a missing file and for `max`."""
    word = _text(path).strip()
    return int(word) if word.isdigit() else None


def _keyed(path: str) -> Iterator[tuple[str, int]]:
    for line in _text(path).splitlines():
        name, _, number = line.partition(" ")
        if number.isdigit():
            yield name, int(number)


def _text(path: str) -> str:
    """Read a small file; "" when it, or what it tells of, is not there (any more)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, _READ_BYTES).decode("ascii", "replace")
    except OSError:
        # ENODEV: the cgroup has been removed; EOPNOTSUPP: pressure is not counted.
        return ""
    finally:
        os.close(fd)
