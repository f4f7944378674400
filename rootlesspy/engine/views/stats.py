"""What a running container uses: its scope's cgroup, and its network interfaces.

Files of the host alone are read; neither the bus nor a program is asked.  None stands for what this
machine does not count: a number that needs a controller which is not delegated is unknown, not 0.
Sources: the kernel's cgroup-v2 document, proc_pid_net(5).
"""

from __future__ import annotations

import os
import time

from rootlesspy.errors import Unsupported
from rootlesspy.light_typing import NamedTuple
from rootlesspy.systemd import cgroup

_PRESSURES = ("cpu", "memory", "io")
_READ_BYTES = 65536
_HALF_PAGE = 2048
_LINKS_OF_A_LEAF = 2
"""A directory without directories: by its name and by its dot."""
_FROZEN = b"1"
_CPU_NUMBERS = (b"usage_usec", b"system_usec", b"throttled_usec", b"nr_throttled")
# The columns of /proc/PID/net/dev.
_NET_COLUMNS = (
    ("RxBytes", 0), ("RxPackets", 1), ("RxErrors", 2), ("RxDropped", 3),
    ("TxBytes", 8), ("TxPackets", 9), ("TxErrors", 10), ("TxDropped", 11),
)  # fmt: skip


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


class Scopes:
    """The scopes of many containers: most are side by side, and share what is looked up once."""

    def __init__(self) -> None:
        self._slice = ""
        self._slice_fd: int | None = None
        self._names: frozenset[str] = frozenset()
        self._controllers: list[str] | None = None
        self._memory_limit_bytes = 0

    def __enter__(self) -> Scopes:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._slice_fd is not None:
            os.close(self._slice_fd)
            self._slice_fd = None

    def find(self, pid: int, unit: str) -> str | None:
        """Return the scope of a container for the other methods; None when it has none any more.

        Where the first one's is, there are most others': their processes need not be asked.
        """
        if unit in self._names:
            return unit
        directory = scope_directory(pid)
        if directory is None or self._slice_fd is not None:
            return directory
        self._slice, name = os.path.split(directory)
        try:
            # Names below it are found in two thirds of the time of whole paths.
            self._slice_fd = os.open(self._slice, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            # Gone with its last scope.
            return None
        self._names = frozenset(os.listdir(self._slice_fd))
        return name

    def is_frozen(self, scope: str | None) -> bool:
        """Say whether a scope is frozen (`systemctl --user freeze`, rp pause)."""
        if scope is None:
            return False
        return _content(f"{scope}/cgroup.freeze", self._slice_fd).strip() == _FROZEN

    def read(self, scope: str | None, *, whole: bool = False) -> Usage:
        """Read what a scope uses; without one nothing is known.

        whole: the peaks, the swap, the limit of processes, the OOM kills and the pressures too.
        """
        if scope is None:
            return Usage(at_ns=time.monotonic_ns())
        fd = self._slice_fd
        cpu = _numbers(f"{scope}/cpu.stat", _CPU_NUMBERS, fd)
        at_ns = time.monotonic_ns()
        current = used = limit = pids = None
        if self._may_count(scope, "memory"):
            current = _number(f"{scope}/memory.current", fd)
        if current is not None:
            (inactive,) = _numbers(f"{scope}/memory.stat", (b"inactive_file",), fd)
            used = max(0, current - (inactive or 0))
            limit = self._memory_limit(scope)
        if self._may_count(scope, "pids"):
            pids = _number(f"{scope}/pids.current", fd)
        if pids is None:
            pids = _count_tasks(scope, fd)
        io = _io(f"{scope}/io.stat", fd) if self._may_count(scope, "io") else (None, None)
        peak = swap = pids_peak = pids_limit = oom_kills = None
        pressure: dict[str, float] = {}
        if whole:
            peak = _number(f"{scope}/memory.peak", fd)
            swap = _number(f"{scope}/memory.swap.current", fd)
            pids_peak = _number(f"{scope}/pids.peak", fd)
            pids_limit = _number(f"{scope}/pids.max", fd)
            (oom_kills,) = _numbers(f"{scope}/memory.events", (b"oom_kill",), fd)
            pressure = _pressures(scope, fd)
        # In the order of its fields: by their names it takes 4 µs.
        return Usage._make(
            (at_ns, used, current, peak, limit, swap, *cpu, pids, pids_peak, pids_limit, *io,
             oom_kills, pressure)
        )  # fmt: skip

    def _may_count(self, scope: str, controller: str) -> bool:
        """Say whether a scope may have the files of a controller."""
        if scope.startswith("/"):
            return True
        if self._controllers is None:
            self._controllers = _text("cgroup.subtree_control", self._slice_fd).split()
        return controller in self._controllers

    def _memory_limit(self, scope: str) -> int:
        """Return the smallest memory limit of a scope and what is around it."""
        if scope.startswith("/"):
            return _memory_limit(scope)
        if not self._memory_limit_bytes:
            self._memory_limit_bytes = _memory_limit(self._slice)
        own = _number(f"{scope}/memory.max", self._slice_fd)
        return min(own or self._memory_limit_bytes, self._memory_limit_bytes)


def is_frozen(directory: str | None) -> bool:
    """Say whether one scope is frozen."""
    return Scopes().is_frozen(directory)


def read(directory: str | None) -> Usage:
    """Read all that one scope uses; without a directory nothing is known."""
    return Scopes().read(directory, whole=True)


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
    for line in _text(f"/proc/{pid}/net/dev", long=True).splitlines()[2:]:
        name, _, rest = line.strip().partition(":")
        numbers = rest.split()
        if name != "lo" and len(numbers) >= 12:
            found[name] = {field: int(numbers[column]) for field, column in _NET_COLUMNS}
    return found


def machine_memory_bytes() -> int:
    """Return how much memory this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def processes(directory: str) -> list[int]:
    """Return the pids of all processes below a cgroup, in the order of their start."""
    found: list[int] = []
    for path, _, _ in os.walk(directory):
        found += map(int, _text(f"{path}/cgroup.procs", long=True).split())
    return sorted(found)


def _memory_limit(directory: str) -> int:
    """Return the smallest limit of a cgroup and those around it."""
    smallest = machine_memory_bytes()
    mounted = cgroup.mount_point() or directory
    while len(directory) > len(mounted):
        smallest = min(smallest, _number(f"{directory}/memory.max") or smallest)
        directory = os.path.dirname(directory)
    return smallest


def _count_tasks(directory: str, dir_fd: int | None) -> int:
    """Count the processes and threads below a cgroup, where no pids controller does."""
    count, pending = 0, [(directory, _links(directory, dir_fd))]
    while pending:
        each, links = pending.pop()
        count += _content(f"{each}/cgroup.threads", dir_fd, long=True).count(b"\n")
        if links > _LINKS_OF_A_LEAF:
            pending += _cgroups_in(each, links, dir_fd)
    return count


def _links(directory: str, dir_fd: int | None) -> int:
    """Count the links to a cgroup's directory: each one in it is another; 0 when it is gone."""
    try:
        return os.stat(directory, dir_fd=dir_fd).st_nlink
    except OSError:
        return 0


def _cgroups_in(directory: str, links: int, dir_fd: int | None) -> list[tuple[str, int]]:
    """Return the cgroups in one that has so many links, and the links of each."""
    if links == _LINKS_OF_A_LEAF + 1:
        payload = f"{directory}/{cgroup.PAYLOAD}"
        inner = _links(payload, dir_fd)
        if inner:
            return [(payload, inner)]
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return []
    try:
        with os.scandir(fd) as entries:
            names = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
    finally:
        os.close(fd)
    paths = [f"{directory}/{name}" for name in names]
    return [(path, _links(path, dir_fd)) for path in paths]


def _io(path: str, dir_fd: int | None) -> tuple[int | None, int | None]:
    """Return the bytes read from and written to all devices."""
    text = _text(path, dir_fd)
    if not text and not os.access(path, os.F_OK, dir_fd=dir_fd):
        return None, None
    total = {"rbytes": 0, "wbytes": 0}
    for field in text.split():
        name, _, number = field.partition("=")
        if name in total and number.isdigit():
            total[name] += int(number)
    return total["rbytes"], total["wbytes"]


def _pressures(scope: str, dir_fd: int | None) -> dict[str, float]:
    found = {name: _pressure(f"{scope}/{name}.pressure", dir_fd) for name in _PRESSURES}
    return {name: share for name, share in found.items() if share is not None}


def _pressure(path: str, dir_fd: int | None) -> float | None:
    """Return avg10 of the line `some` of a PSI file."""
    for line in _text(path, dir_fd).splitlines():
        kind, *fields = line.split()
        if kind == "some" and fields and fields[0].startswith("avg10="):
            return float(fields[0].removeprefix("avg10="))
    return None


def _number(path: str, dir_fd: int | None = None) -> int | None:
    """Read one number; None for a missing file and for `max`."""
    word = _text(path, dir_fd).strip()
    return int(word) if word.isdigit() else None


def _numbers(path: str, names: tuple[bytes, ...], dir_fd: int | None) -> list[int | None]:
    """Read some of the lines of a name and a number; None for what is not there."""
    words = _content(path, dir_fd).split()
    found = dict(zip(words[::2], words[1::2]))  # noqa: B905 half a pair is none
    numbers = map(found.get, names)
    return [int(each) if each and each.isdigit() else None for each in numbers]


def _text(path: str, dir_fd: int | None = None, *, long: bool = False) -> str:
    """Read a file as _content()."""
    return _content(path, dir_fd, long=long).decode("ascii", "replace")


def _content(path: str, dir_fd: int | None = None, *, long: bool = False) -> bytes:
    """Read a file; nothing when it, or what it tells of, is not there (any more).

    long: it may be longer than the page that the kernel gives at once; half of one is all.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return b""
    try:
        content = piece = os.read(fd, _READ_BYTES)
        while long and len(piece) > _HALF_PAGE:
            piece = os.read(fd, _READ_BYTES)
            content += piece
    except OSError:
        # ENODEV: the cgroup has been removed; EOPNOTSUPP: pressure is not counted.
        return b""
    finally:
        os.close(fd)
    return content
