"""How much memory something takes, whatever the process that tries it has held before."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def growth_bytes(work: Callable[[], object]) -> int:
    """Return by how much this process or one it waits for exceeds, at most, what this one holds.

    Children are seen when they exceed every earlier one: what forks, is tried in a new process.
    """
    # The high-water mark starts anew: proc_pid_clear_refs(5).
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, child_before = _status_kib("VmRSS"), _largest_child_kib()
    work()
    child = _largest_child_kib()
    peak = max(_status_kib("VmHWM"), child if child > child_before else 0)
    return (peak - before) << 10


def _largest_child_kib() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def _status_kib(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)[0])
