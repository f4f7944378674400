"""The processes of a container, with ids and names as they are inside it.

Only the host's /proc is read.  No program is run, neither the host's ps nor the image's: what a
container brings must not run outside it, nor see what joins it (CVE-2022-1227).
Sources: proc_pid_stat(5), proc_pid_status(5), user_namespaces(7).
"""

from __future__ import annotations

import os
import time

from rootlesspy.engine.views import stats
from rootlesspy.light_typing import NamedTuple
from rootlesspy.linux import pathrs

_NAMES_LIMIT_BYTES = 1024 * 1024
_READ_BYTES = 131072
_OVERFLOW_ID = 65534
"""What the kernel shows for an id that a user namespace does not map."""
_PTS_MAJORS = range(136, 144)


class Ids(NamedTuple):
    """One number inside the container and on the host."""

    inside: int
    host: int


class Process(NamedTuple):
    """One process."""

    pid: Ids
    ppid: int
    """Inside; 0 for one whose parent is outside."""
    pgid: int
    uid: Ids
    """The effective one."""
    real_uid: Ids
    gid: Ids
    real_gid: Ids
    groups: tuple[Ids, ...]
    comm: str
    args: str
    state: str
    tty: str
    nice: int
    cpu_s: float
    elapsed_s: float
    started_s: float
    """Seconds since the epoch."""
    vsz_bytes: int
    rss_bytes: int
    capabilities: dict[str, int]
    """CapInh, CapPrm, CapEff, CapBnd, CapAmb: bit masks."""
    seccomp: int
    """0 disabled, 1 strict, 2 filter."""
    label: str


class Names(NamedTuple):
    """Names of users and groups; a number that has none stays one."""

    users: dict[int, str]
    groups: dict[int, str]

    def user(self, number: int) -> str:
        """Return a user's name."""
        return self.users.get(number, str(number))

    def group(self, number: int) -> str:
        """Return a group's name."""
        return self.groups.get(number, str(number))


class _Inside(NamedTuple):
    """How numbers of the host are read as the container's."""

    depth: int
    """Which of the pids of NSpid is the container's."""
    uids: tuple[tuple[int, int, int], ...]
    gids: tuple[tuple[int, int, int], ...]
    uptime_s: float
    now_s: float


def processes(first_pid: int) -> list[Process]:
    """Return the processes of the container whose first process this is, by their pids inside."""
    first = _status(first_pid)
    if "NSpid" not in first:
        return []
    inside = _Inside(
        depth=len(first["NSpid"].split()) - 1,
        uids=_id_map(f"/proc/{first_pid}/uid_map"),
        gids=_id_map(f"/proc/{first_pid}/gid_map"),
        uptime_s=_uptime(),
        now_s=time.time(),
    )
    directory = stats.scope_directory(first_pid)
    pids = _of_namespace(first_pid) if directory is None else stats.processes(directory)
    found = [process for pid in pids if (process := _process(pid, inside)) is not None]
    by_host = {process.pid.host: process.pid.inside for process in found}
    placed = [each._replace(ppid=by_host.get(each.ppid, 0)) for each in found]
    return sorted(placed, key=lambda each: each.pid.inside)


def names_inside(first_pid: int) -> Names:
    """Return the names that the container's own /etc/passwd and /etc/group give."""
    try:
        root_fd = os.open(f"/proc/{first_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return Names({}, {})
    try:
        return Names(_names(root_fd, "etc/passwd"), _names(root_fd, "etc/group"))
    finally:
        os.close(root_fd)


def names_of_host() -> Names:
    """Return the names that this machine gives."""
    import grp
    import pwd

    return Names(
        {entry.pw_uid: entry.pw_name for entry in pwd.getpwall()},
        {entry.gr_gid: entry.gr_name for entry in grp.getgrall()},
    )


def _process(pid: int, inside: _Inside) -> Process | None:
    """Read one process; None when it is gone."""
    stat, status = _stat(pid), _status(pid)
    pids = status.get("NSpid", "").split()
    if len(stat) < 22 or len(pids) <= inside.depth:
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    started_s = int(stat[19]) / ticks
    groups = _numbers(status.get("NSpgid", ""))
    uids, gids = _numbers(status.get("Uid", "")), _numbers(status.get("Gid", ""))
    comm = status.get("Name", "")
    return Process(
        pid=Ids(int(pids[inside.depth]), pid),
        ppid=int(stat[1]),
        pgid=groups[inside.depth] if len(groups) > inside.depth else 0,
        uid=_ids(uids[1], inside.uids),
        real_uid=_ids(uids[0], inside.uids),
        gid=_ids(gids[1], inside.gids),
        real_gid=_ids(gids[0], inside.gids),
        groups=tuple(_ids(gid, inside.gids) for gid in _numbers(status.get("Groups", ""))),
        comm=comm,
        args=_args(pid) or f"[{comm}]",
        state=stat[0],
        tty=_tty(int(stat[4])),
        nice=int(stat[16]),
        cpu_s=(int(stat[11]) + int(stat[12])) / ticks,
        elapsed_s=max(0.0, inside.uptime_s - started_s),
        started_s=inside.now_s - max(0.0, inside.uptime_s - started_s),
        vsz_bytes=int(stat[20]),
        rss_bytes=int(stat[21]) * os.sysconf("SC_PAGE_SIZE"),
        capabilities={
            name: int(text, 16) for name, text in status.items() if name.startswith("Cap")
        },
        seccomp=int(status.get("Seccomp", "0")),
        label=_read(f"/proc/{pid}/attr/current").rstrip("\n\0"),
    )


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; empty when it is gone."""
    # The command's name may hold spaces and parentheses.
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _status(pid: int) -> dict[str, str]:
    lines = (line.partition(":") for line in _read(f"/proc/{pid}/status").splitlines())
    return {name: value.strip() for name, _, value in lines}


def _args(pid: int) -> str:
    return " ".join(_read(f"/proc/{pid}/cmdline").rstrip("\0").split("\0"))


def _tty(number: int) -> str:
    """Write a terminal's device number as its name below /dev; ? for none."""
    major, minor = os.major(number), os.minor(number)
    if major in _PTS_MAJORS:
        return f"pts/{(major - _PTS_MAJORS.start) * 256 + minor}"
    return f"tty{minor}" if major == 4 else "?"


def _ids(host: int, mappings: tuple[tuple[int, int, int], ...]) -> Ids:
    for inner, outer, size in mappings:
        if outer <= host < outer + size:
            return Ids(inner + host - outer, host)
    return Ids(_OVERFLOW_ID, host)


def _id_map(path: str) -> tuple[tuple[int, int, int], ...]:
    lines = [_numbers(line) for line in _read(path).splitlines()]
    return tuple((line[0], line[1], line[2]) for line in lines if len(line) == 3)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def _of_namespace(first_pid: int) -> list[int]:
    """Return the processes of a PID namespace, for a container without a scope."""
    try:
        wanted = os.readlink(f"/proc/{first_pid}/ns/pid")
    except OSError:
        return []
    return [
        pid
        for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
        if _link(f"/proc/{pid}/ns/pid") == wanted
    ]


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _names(root_fd: int, path: str) -> dict[int, str]:
    """Read passwd(5) or group(5) of the image; whatever is odd in it is left out."""
    try:
        content = pathrs.read_file(root_fd, path, _NAMES_LIMIT_BYTES)
    except OSError:
        return {}
    found: dict[int, str] = {}
    for line in content.decode("utf-8", "replace").splitlines():
        name, _, number, *_ = [*line.split(":"), "", "", ""]
        if name and number.isascii() and number.isdigit() and len(number) <= 10:
            found.setdefault(int(number), name)
    return found


def _uptime() -> float:
    return float(_read("/proc/uptime").split()[0])


def _read(path: str) -> str:
    """Read a file of /proc; "" when the process is gone or not ours to look at."""
    try:
        with open(path, "rb") as file:
            return file.read(_READ_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
