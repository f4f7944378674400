"""Where the rig keeps things: the cache, the instances, the machine's cgroup2 tree."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class RigError(Exception):
    """The rig cannot do what was asked; the message is one line with the cure."""


def cache() -> Path:
    """Return the cache directory, made when it is missing."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:
        path = Path(chosen) / "rootlesspy-rig"
    elif os.geteuid() == 0:
        path = Path("/var/cache/rootlesspy-rig")
    else:
        path = Path.home() / ".cache" / "rootlesspy-rig"
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    return path


def instances() -> Path:
    """Return the directory of running instances.

    An overlay's upper directory cannot lie on an overlay: where the cache does (a container),
    instances live in memory.
    """
    path = cache() / "instances"
    if _file_system(cache()) == "overlay":
        path = Path("/dev/shm/rootlesspy-rig")
    path.mkdir(mode=0o755, exist_ok=True)
    return path


def cgroup2() -> Path:
    """Return the mount point of the cgroup v2 hierarchy.

    Raises RigError where there is none (a kernel or container with cgroup v1 alone).
    """
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[fields.index("-") + 1] == "cgroup2" and fields[3] == "/":
                return Path(fields[4])
    raise RigError(
        "no cgroup v2 hierarchy is mounted (cure: mkdir /sys/fs/cgroup/unified && "
        "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified)"
    )


def proc(pid: int) -> Path:
    """Return the /proc directory of a process."""
    return Path("/proc") / str(pid)


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds a path."""
    best = ("", "")
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            fields = line.split()
            point = fields[4].rstrip("/") + "/"
            if f"{path}/".startswith(point) and len(point) >= len(best[0]):
                best = (point, fields[fields.index("-") + 1])
    return best[1]
