"""Facts that procfs tells about processes, read without names that could be reused.

A process is identified by pid, start time and boot id together (proc_pid_stat(5)).
"""

from __future__ import annotations

import errno
import os


def boot_id() -> str:
    """Return the id of this boot of the kernel (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def shown_pid(pidfd: int) -> int:
    """Return the number that /proc shows a process by, which may be another namespace's.

    Source: pidfd_open(2), proc_pid_fdinfo(5).  Raises OSError, ProcessLookupError.
    """
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            name, _, number = line.partition(":")
            if name == "Pid" and int(number) > 0:
                return int(number)
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name may hold spaces and parentheses; field 22 is the 20th after the last one.
    return int(line[line.rindex(b")") + 2 :].split(b" ")[19])


def mounts_below(directory: str) -> list[str]:
    """Return the mount points of this mount namespace below a directory, which is no link.

    Source: proc_pid_mountinfo(5).  Raises OSError.
    """
    # As the kernel writes names: a space, a tab, a newline and a backslash in octal.
    below = os.fsencode(directory).rstrip(b"/").replace(b"\\", b"\\134") + b"/"
    for character in b" \t\n":
        below = below.replace(b"%c" % character, b"\\%03o" % character)
    with open("/proc/self/mountinfo", "rb") as file:
        places = [line.split(b" ")[4] for line in file]
    return [os.fsdecode(place) for place in places if place.startswith(below)]


def is_alive(pid: int, started: int) -> bool:
    """Say whether pid is still the process that started at that time, and not a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = line[line.rindex(b")") + 2 :].split(b" ")
    return fields[0] not in (b"Z", b"X") and int(fields[19]) == started
