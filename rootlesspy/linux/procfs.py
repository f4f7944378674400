"""Facts that procfs tells about processes, read without names that could be reused.

A process is identified by pid, start time and boot id together (proc_pid_stat(5)).
"""

from __future__ import annotations


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
