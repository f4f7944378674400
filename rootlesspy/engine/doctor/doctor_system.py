"""Checks of the user and the machine: kernel, systemd, cgroups, seccomp, the clock."""

from __future__ import annotations

import ctypes
import os
import re
import time

from rootlesspy.engine import limits
from rootlesspy.engine.doctor.doctor import (
    FAILED,
    OK,
    SKIPPED,
    WARNING,
    Check,
    Finding,
    Machine,
    Report,
)
from rootlesspy.systemd import cgroup

_KERNEL = (5, 12)
# 2026-11-01: before the first release of rp.
_BUILT_S = 1_793_491_200
_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
_SWAPS = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line"


def user(machine: Machine, _report: Report) -> Finding:
    """See whether this is an ordinary user."""
    if os.getuid() == 0:
        return Finding(
            WARNING,
            "you are root, who would be root inside too",
            cure="log in as an ordinary user: ssh, or machinectl shell USER@",
        )
    return Finding(OK, f"{machine.user}, uid {os.getuid()}")


def kernel(_machine: Machine, _report: Report) -> Finding:
    """Compare the kernel's version: mount_setattr(2) came with 5.12."""
    release = os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None or (int(found[1]), int(found[2])) < _KERNEL:
        return Finding(
            FAILED,
            f"Linux {release} is too old: 5.12 is needed for mount_setattr(2)",
            cure="install a newer kernel and boot it",
        )
    return Finding(OK, f"Linux {release}")


def systemd(_machine: Machine, _report: Report) -> Finding:
    """See whether systemd runs, and whether its library can be loaded."""
    if not os.path.isdir("/run/systemd/system"):
        return Finding(
            FAILED,
            "systemd is not running on this machine",
            cure="boot with systemd, or rp run --cgroups=disabled: no scope and no limits",
        )
    try:
        ctypes.CDLL("libsystemd.so.0")
    except OSError as error:
        return Finding(
            FAILED,
            f"libsystemd cannot be loaded: {error}",
            cure="install libsystemd",
            packages=("libsystemd0",),
        )
    return Finding(OK, "systemd runs, and its library can be loaded")


def cgroups(_machine: Machine, _report: Report) -> Finding:
    """See whether cgroup v2 is what systemd uses."""
    mounted = cgroup.mount_point()
    if mounted == "/sys/fs/cgroup":
        return Finding(OK, "cgroup v2")
    what = "cgroup v1" if mounted is None else f"cgroup v1, with v2 beside it on {mounted}"
    return Finding(FAILED, f"this machine runs with {what}", cure=_SWAPS)


def delegation(machine: Machine, report: Report) -> Finding:
    """See which controllers the user manager was given."""
    if report["cgroups"].status == FAILED:
        return Finding(SKIPPED, "not tried, because of cgroups")
    found = limits.host()
    missing = [name for name in _CONTROLLERS if name not in found.delegated]
    if not missing:
        return Finding(OK, f"delegated: {' '.join(sorted(found.delegated))}")
    absent = [name for name in missing if name not in found.offered]
    if absent:
        return Finding(
            WARNING,
            f"the cgroup tree lacks {', '.join(absent)}; limits that need it are refused",
            cure="boot a kernel that has it; inside a container, ask whoever runs that",
        )
    directory, _, _ = limits.DROP_IN.rpartition("/")
    return Finding(
        WARNING,
        f"not delegated: {', '.join(missing)}; limits that need it are refused",
        cure="as root a drop-in for user@.service, then log in afresh",
        root=(
            f"mkdir -p {directory}; "
            f"printf '[Service]\\nDelegate={' '.join(_CONTROLLERS)}\\n' >{limits.DROP_IN}; "
            "systemctl daemon-reload"
        ),
    )


def seccomp(_machine: Machine, _report: Report) -> Finding:
    """See whether the kernel takes filters and libseccomp can make them."""
    if not os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        return Finding(
            FAILED,
            "the kernel has no seccomp filters",
            cure="a kernel with CONFIG_SECCOMP_FILTER, or --security-opt seccomp=unconfined",
        )
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        return Finding(
            FAILED,
            f"libseccomp cannot be loaded: {error}",
            cure="install libseccomp",
            packages=("libseccomp2",),
        )
    return Finding(OK, "the kernel takes filters, and libseccomp can be loaded")


def clock(_machine: Machine, _report: Report) -> Finding:
    """See whether the clock is obviously wrong."""
    now_s = time.time()
    if now_s < _BUILT_S:
        return Finding(
            WARNING,
            f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now_s))}, which is past",
            cure="as root: set the clock; registries' certificates are not valid yet",
            root="timedatectl set-ntp true",
        )
    return Finding(OK, time.strftime("%Y-%m-%d", time.gmtime(now_s)))


CHECKS = (
    Check("user", "containers have no more rights than whoever runs them", user),
    Check("kernel", "id-mapped and recursive mount attributes, clone3, pidfds", kernel),
    Check("systemd", "it starts, limits and stops containers", systemd),
    Check("cgroups", "a container is one cgroup, and its limits are that cgroup's", cgroups),
    Check("delegation", "limits of memory, CPU, processes and I/O", delegation),
    Check("seccomp", "the filter that keeps system calls from containers", seccomp),
    Check("clock", "certificates of registries, times in logs", clock),
)
