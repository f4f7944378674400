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

_DESCRIPTORS = 2**31 - 1

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
        # A lock or a pipe among them would be held on to.
        os.closerange(3, _DESCRIPTORS)
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
        if os.access(f"{own}/cgroup.procs", os.W_OK):
            cgroup.move(os.getpid(), own)
            return
        manager = cgroup.manager_directory(os.getuid())
        # From within the manager's tree it would be moved.
        if manager is not None and not own.startswith(f"{manager}/"):
            cgroup.move(os.getpid(), manager)
    except (OSError, Unsupported):
        pass
