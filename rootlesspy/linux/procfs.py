"""Facts that procfs tells about processes, read without names that could be reused.

A process is identified by pid, start time and boot id together (proc_pid_stat(5)).
"""

from __future__ import annotations

import os


def boot_id() -> str:
    """Return the id of this boot of the kernel (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name may hold spaces and parentheses; field 22 is the 20th after the last one.
    return int(line[line.rindex(b")") + 2 :].split(b" ")[19])


def is_alive(pid: int, started: int) -> bool:
    """Say whether pid is still the process that started at that time, and not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = line[line.rindex(b")") + 2 :].split(b" ")
    return fields[0] not in (b"Z", b"X") and int(fields[19]) == started


def cgroup(pid: int) -> str | None:
    """Return the cgroup v2 path of a process, as its own cgroup namespace's reader sees it."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in lines:
        if line.startswith("0::"):
            return line[3:]
    return None


def cgroup2_mount() -> str | None:
    """Return where cgroup v2 is mounted (/sys/fs/cgroup, or unified below it on a hybrid host)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            if rest.startswith("cgroup2 "):
                return _unescape(fields.split(" ")[4])
    return None


def is_procfs(fd: int) -> bool:
    """Say whether fd lies on a procfs instance: its file system type is "proc"."""
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            if fields.split(" ")[2] == wanted:
                return rest.startswith("proc ")
    return False


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
