"""What a process is besides its ids: OOM score, labels, priorities; before it becomes the payload.

`apply` opens files of the host's /proc and so runs before the pivot; `schedule` makes system calls
only.  Sources: runtime-spec config.md "Linux Process", proc_pid_oom_score_adj(5), apparmor(7).
"""

from __future__ import annotations

import errno
import os

from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import scheduling
from rootlesspy.oci import checks

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.oci.runtime_spec import Linux, LinuxMemoryPolicy, Process


def apply(wanted: Process, linux: Linux, step: Callable[[str], None]) -> None:
    """Set what this process will keep over execve.  Raises OSError."""
    if "oomScoreAdj" in wanted:
        step("set the OOM score")
        _write("/proc/self/oom_score_adj", str(wanted["oomScoreAdj"]))
    if wanted.get("apparmorProfile"):
        step("set the AppArmor profile")
        confine(wanted["apparmorProfile"])
    if wanted.get("selinuxLabel"):
        step("set the SELinux label")
        _write("/proc/self/attr/exec", wanted["selinuxLabel"])
    if "memoryPolicy" in linux:
        step("set the memory policy")
        _set_memory_policy(linux["memoryPolicy"])
    if "personality" in linux:
        step("set the personality")
        scheduling.personality(scheduling.PERSONALITIES[linux["personality"]["domain"]])


def _set_memory_policy(policy: LinuxMemoryPolicy) -> None:
    mode = scheduling.MEMORY_MODES[policy["mode"]]
    for name in policy.get("flags", ()):
        mode |= scheduling.MEMORY_FLAGS[name]
    nodes = policy.get("nodes", "")
    scheduling.set_mempolicy(mode, checks.numbers(nodes) if nodes else ())


def confine(profile: str) -> None:
    """Have the next execve(2) of this process change to an AppArmor profile.  Raises OSError."""
    _write("/proc/self/attr/apparmor/exec", f"exec {profile}")


def schedule(wanted: Process, step: Callable[[str], None]) -> None:
    """Set I/O class and CPU scheduler; as the last, since some policies forbid fork(2)."""
    if "ioPriority" in wanted:
        step("set the I/O priority")
        priority = wanted["ioPriority"]
        scheduling.ioprio_set(scheduling.IO_CLASSES[priority["class"]], priority["priority"])
    if "scheduler" in wanted:
        step("set the scheduler")
        scheduler = wanted["scheduler"]
        flags = 0
        for name in scheduler.get("flags", ()):
            flags |= scheduling.SCHED_FLAGS[name]
        scheduling.sched_setattr(
            scheduling.POLICIES[scheduler["policy"]],
            flags,
            nice=scheduler.get("nice", 0),
            priority=scheduler.get("priority", 0),
            runtime_ns=scheduler.get("runtime", 0),
            deadline_ns=scheduler.get("deadline", 0),
            period_ns=scheduler.get("period", 0),
        )


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, f"{text}: {os.strerror(number)}", path) from error
    finally:
        os.close(fd)
