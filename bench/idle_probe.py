"""What processes cost while nothing happens: runs inside the rig as root (pasta is not dumpable).

idle_probe.py list prints the ids of the user's processes outside of containers as a JSON list;
idle_probe.py watch SECONDS reads {name: [pid...]} from stdin and prints for each name what its
processes hold and what they did in that time.  Stands alone (standard library only).
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

_USER = "/user-1000.slice/"
_PAYLOAD = "sleep"


def main() -> int:
    """Print what was asked for."""
    if sys.argv[1] == "list":
        found = sorted(
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if ours(pid)
        )
        json.dump(found, sys.stdout)
        return 0
    watched: dict[str, list[int]] = json.load(sys.stdin)
    before = {name: [_did(pid) for pid in pids] for name, pids in watched.items()}
    time.sleep(float(sys.argv[2]))
    json.dump({name: _cost(pids, before[name]) for name, pids in watched.items()}, sys.stdout)
    return 0


def ours(pid: int) -> bool:
    """Tell whether a process is the user's, and not a container's payload.

    That goes by its name: a pasta that is in the background has a PID namespace of its own too.
    """
    try:
        return _USER in _read(pid, "cgroup") and _read(pid, "comm").strip() != _PAYLOAD
    except OSError:  # it has ended meanwhile
        return False


def _cost(pids: list[int], before: list[tuple[int, float]]) -> dict[str, Any]:
    after = [_did(pid) for pid in pids]
    return {
        "programs": sorted(_read(pid, "comm").strip() for pid in pids),
        "memory": sum(_pss_bytes(pid) for pid in pids) / 1e6,
        "switches": sum(now[0] - then[0] for now, then in zip(after, before, strict=True)),
        "cpu": sum(now[1] - then[1] for now, then in zip(after, before, strict=True)),
    }


def _pss_bytes(pid: int) -> int:
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _did(pid: int) -> tuple[int, float]:
    """Return how often all threads of a process were switched to, and their CPU time in ms."""
    switches, ran_ms = 0, 0.0
    for thread in os.listdir(f"/proc/{pid}/task"):
        for line in _read(pid, f"task/{thread}/status").splitlines():
            if line.startswith(("voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")):
                switches += int(line.split()[1])
        ran_ms += int(_read(pid, f"task/{thread}/schedstat").split()[0]) / 1e6
    return switches, ran_ms


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()


if __name__ == "__main__":
    sys.exit(main())
