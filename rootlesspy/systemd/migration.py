"""Have the kernel ready for a process migration (cgroups(7)) that systemd will be asked for.

Whoever moves a process excludes all forks and exits meanwhile, for which the kernel waits for an
RCU grace period, 5 to 15 ms, unless somebody has moved one in the last 15 (cgroup_attach_lock and
percpu_rwsem in the kernel's sources).  Waited for here, while rp reads its command line, it is past
when systemd moves the container's first process into its scope.
"""

from __future__ import annotations

import os

from rootlesspy.errors import Unsupported
from rootlesspy.systemd import cgroup

_waiting: list[int] = []
"""Children that wait in the kernel."""


def prepare() -> None:
    """Have a child wait for the grace period.  Where that cannot be done, systemd waits later."""
    try:
        pid = os.fork()
    except OSError:
        return
    if pid:
        _waiting.append(pid)
        return
    try:
        _wait()
    finally:
        os._exit(0)


def finish() -> None:
    """Wait for the children of prepare(), which have ended or are about to."""
    while _waiting:
        os.waitpid(_waiting.pop(), 0)


def _wait() -> None:
    """Move this process to where it is.

    Out of a cgroup that is another user's, such as that of a login session, to where the kernel
    lets nobody go from there; it says so after the waiting.
    """
    try:
        own = cgroup.directory(cgroup.control_group(os.getpid()))
        target: str | None = own
        if not os.access(f"{own}/cgroup.procs", os.W_OK):
            target = cgroup.manager_directory(os.getuid())
        # From within the manager's tree it would be moved.
        if target is not None and (target == own or not own.startswith(f"{target}/")):
            cgroup.move(os.getpid(), target)
    except (OSError, Unsupported):
        pass
