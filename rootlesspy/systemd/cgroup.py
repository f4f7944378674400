"""The cgroup v2 tree of the user manager: find it, divide a scope, measure what it uses.

With Delegate=yes a scope's cgroup is ours to divide, and a cgroup with enabled controllers must
hold no process itself (cgroups(7), "no internal processes"), so the payload lives in the sub-cgroup
`payload`, the name that systemd-nspawn uses.

Nothing here asks the bus, so it works when the bus does not.
"""

from __future__ import annotations

import errno
import os

from rootlesspy.errors import RuntimeFailure, Unsupported
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rootlesspy.systemd.bus import Property

PAYLOAD = "payload"
_ABOVE = "memory.events of the slice"
_USUAL_MOUNT = "/sys/fs/cgroup"
# Of dbus-daemon and dbus-broker, which distributions put into either slice.
_BROKERS = tuple(
    f"{slice}/{unit}.service"
    for slice in ("session.slice", "app.slice")
    for unit in ("dbus", "dbus-broker")
)
# A path of each v1 hierarchy may stand before it.
_LINES_BYTES = 1 << 16
# Which controller, in systemd's words, makes a property do something; the first match counts.
# The bpf ones need privileges that no user manager has.
_CONTROLLERS = (
    ("AllowedCPUs", "cpuset"),
    ("AllowedMemoryNodes", "cpuset"),
    ("CPUWeight", "cpu"),
    ("CPUShares", "cpu"),
    ("CPUQuota", "cpu"),
    ("MemoryPressure", ""),
    ("MemoryZSwapWriteback", "memory"),
    ("Memory", "memory"),
    ("DefaultMemory", "memory"),
    ("TasksMax", "pids"),
    ("IO", "io"),
    ("BlockIO", "io"),
    ("IPAddress", "bpf-firewall"),
    ("Device", "bpf-devices"),
)
_ACCOUNTING = "Accounting"
_INFINITY = 2**64 - 1


class Usage(NamedTuple):
    """What a cgroup has used so far; None where its controller is not delegated."""

    memory_peak_bytes: int | None
    cpu_usage_us: int | None
    pids_peak: int | None
    oom_kills: int | None
    cpu_throttled_us: int | None = None
    """How long it was kept from running by its CPU limit."""
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None


def mount_point() -> str | None:
    """Return where the cgroup v2 tree is mounted; None on a machine without one.

    On a hybrid hierarchy that is a tree beside the v1 ones, with few or no controllers.
    """
    if os.path.exists(f"{_USUAL_MOUNT}/cgroup.controllers"):
        return _USUAL_MOUNT
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, after = line.partition(" - ")
            if after.startswith("cgroup2 "):
                return fields.split(" ")[4].replace("\\040", " ")
    return None


def directory(path: str) -> str:
    """Return the host directory of a cgroup path; raises Unsupported without cgroup v2."""
    mounted = mount_point()
    if mounted is None:
        raise Unsupported("this machine has no cgroup v2", hint="boot with systemd 252 or newer")
    return mounted + path.rstrip("/")


def manager_directory(uid: int) -> str | None:
    """Return the directory of uid's user manager; None when it cannot be found.

    The caller's own cgroup tells when it lies in the manager's tree (a custom slice, for instance),
    else the place that logind uses.
    """
    mounted = mount_point()
    if mounted is None:
        return None
    service = f"user@{uid}.service"
    parts = control_group(os.getpid()).split("/")
    if service in parts:
        found = mounted + "/".join(parts[: parts.index(service) + 1])
    else:
        found = f"{mounted}/user.slice/user-{uid}.slice/{service}"
    return found if os.path.isdir(found) else None


def broker_pid(uid: int) -> int:
    """Return the process of uid's message bus, which the user manager has executed; 0 without."""
    directory = manager_directory(uid)
    for unit in _BROKERS:
        try:
            with open(f"{directory}/{unit}/cgroup.procs", "rb") as file:
                return int(file.readline() or b"0")
        except FileNotFoundError:
            continue
    return 0


def controllers(directory: str | None) -> frozenset[str]:
    """Return the controllers that a cgroup has; none when it is not there."""
    if directory is None:
        return frozenset()
    try:
        with open(f"{directory}/cgroup.controllers", encoding="ascii") as file:
            return frozenset(file.read().split())
    except OSError:
        return frozenset()


def controller_of(item: Property) -> str | None:
    """Name the cgroup controller without which a property silently does nothing.

    None where it needs none, or only takes a limit away.
    """
    if item.value in (_INFINITY, b"", []) or item.name.endswith(_ACCOUNTING):
        return None
    name = item.name.removeprefix("Startup")
    for prefix, needed in _CONTROLLERS:
        if name.startswith(prefix):
            return needed or None
    return None


def control_group(pid: int) -> str:
    """Return the cgroup v2 path of a process, as its "0::" line says (cgroups(7))."""
    # Without a file object: a listing asks this for each of hundreds.
    fd = os.open(f"/proc/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, _LINES_BYTES).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)
    for line in text.split("\n"):
        if line.startswith("0::"):
            return line[3:]
    raise Unsupported("this machine has no cgroup v2", hint="boot with systemd 252 or newer")


def is_frozen(pid: int) -> bool:
    """Say whether the scope of a payload's process is frozen, or the payload alone."""
    try:
        payload = directory(control_group(pid))
        with open(f"{payload}/cgroup.events", encoding="ascii") as file:
            return "frozen 1" in file.read().splitlines()
    except OSError:
        return False


def move(pid: int, directory: str) -> None:
    """Move a process into the cgroup of a directory; raises OSError."""
    fd = os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % pid)
    finally:
        os.close(fd)


def enter_payload(directory: str, pid: int) -> str:
    """Move a process of the scope whose cgroup is directory into its payload sub-cgroup.

    Return the sub-cgroup's path; raises RuntimeFailure, also when the process has died and systemd
    has removed its scope.
    """
    payload = f"{directory}/{PAYLOAD}"
    try:
        # That alone: a scope's own directory, made here, would be nobody's to remove.
        if not os.path.isdir(payload):
            os.mkdir(payload)
        move(pid, payload)
    except OSError as error:
        raise RuntimeFailure(
            f"cannot move the container into {payload}: {error.strerror}",
            step="cgroup",
            errno=error.errno or 0,
            path=payload,
        ) from error
    return payload


class Meter:
    """Reads what a scope's cgroup uses, and remembers it beyond the cgroup's end.

    systemd removes the cgroup as soon as its last process is gone, which races with whoever wants
    to know how it ended.  So the files are opened early, and the supervisor polls fileno() for
    POLLPRI: the kernel counts an OOM kill, and wakes the poller, before the victim dies.  Unless it
    has woken it less than 10 ms before: the count of the slice above, which stays, tells what was
    missed then.
    """

    def __init__(self, directory: str) -> None:
        self._fds = {
            name: fd
            for name in ("memory.events", "memory.peak", "cpu.stat", "pids.peak", "io.stat")
            if (fd := _open(f"{directory}/{name}")) is not None
        }
        if "memory.events" in self._fds:
            above_fd = _open(f"{os.path.dirname(directory)}/memory.events")
            if above_fd is not None:
                self._fds[_ABOVE] = above_fd
        self._oom_kills_above = 0
        payload_fd = _open(f"{directory}/{PAYLOAD}")
        self.payload_fd = -1 if payload_fd is None else payload_fd
        """For clone3's CLONE_INTO_CGROUP; -1 where the scope is not divided."""
        self.usage = Usage(None, None, None, None)
        self.is_late = False
        """Whether the cgroup was gone at the last reading: systemd still knows its totals."""
        self.read()

    def fileno(self) -> int:
        """Return the descriptor to poll for POLLPRI; -1 without the memory controller."""
        return self._fds.get("memory.events", -1)

    def read(self) -> Usage:
        """Read again; what cannot be read any more keeps its last value."""
        cpu, io = self._text("cpu.stat"), self._text("io.stat")
        new = Usage(
            memory_peak_bytes=_first_number(self._text("memory.peak")),
            cpu_usage_us=_keyed_number(cpu, "usage_usec"),
            pids_peak=_first_number(self._text("pids.peak")),
            oom_kills=self._oom_kills(),
            cpu_throttled_us=_keyed_number(cpu, "throttled_usec"),
            io_read_bytes=_device_total(io, "rbytes="),
            io_write_bytes=_device_total(io, "wbytes="),
        )
        self.usage = Usage._make(
            old if fresh is None else fresh for old, fresh in zip(self.usage, new, strict=True)
        )
        return self.usage

    def close(self) -> None:
        """Close the files; doing it twice is harmless."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}
        if self.payload_fd >= 0:
            os.close(self.payload_fd)
            self.payload_fd = -1

    def _oom_kills(self) -> int | None:
        """Return how many processes were killed for want of memory; None where nobody counts."""
        # Before its own: what is counted in between is in this one's difference to the next.
        above = _keyed_number(self._text(_ABOVE), "oom_kill") or 0
        found, known = _keyed_number(self._text("memory.events"), "oom_kill"), self.usage.oom_kills
        if found is None:
            # Gone, and one of those that the slice has counted since was its last.
            return None if known is None else known + max(0, above - self._oom_kills_above)
        self._oom_kills_above = max(above, self._oom_kills_above + found - (known or 0))
        return found

    def _text(self, name: str) -> str:
        fd = self._fds.get(name)
        if fd is None:
            return ""
        try:
            return os.pread(fd, 4096, 0).decode("ascii", "replace")
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            # The cgroup has been removed.
            self.is_late = True
            return ""


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _first_number(text: str) -> int | None:
    word = text.strip()
    return int(word) if word.isdigit() else None


def _device_total(text: str, prefix: str) -> int | None:
    """Add up one counter of all devices of io.stat; None for an empty one."""
    words = [word[len(prefix) :] for word in text.split() if word.startswith(prefix)]
    return sum(map(int, words)) if words else None


def _keyed_number(text: str, key: str) -> int | None:
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == key and number.isdigit():
            return int(number)
    return None
