"""A config.json to start from: `rp oci spec`.  Source: runtime-spec config.md."""

from __future__ import annotations

import json
import os

from rootlesspy.errors import Conflict, RuntimeFailure
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.oci.runtime_spec import Mount, Spec

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_MASKED = [
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware"),
    *("/proc/scsi", "/sys/devices/virtual/powercap"),
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def write(directory: str) -> None:
    """Write config.json.  Raises Conflict when there is one, RuntimeFailure."""
    path = os.path.join(directory, "config.json")
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(document(os.geteuid(), os.getegid()), file, indent="\t")
            file.write("\n")
    except FileExistsError:
        raise Conflict(f"file {path} exists. Remove it first") from None
    except OSError as error:
        raise RuntimeFailure(f"{path}: {error.strerror}", step="spec") from error


def document(uid: int, gid: int) -> Spec:
    """Return a spec that runs `sh` on a terminal as root of a new user namespace."""
    return {
        # Nothing here is newer, and older runtimes take it too.
        "ociVersion": "1.2.1",
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": list(_CAPABILITIES),
                "effective": list(_CAPABILITIES),
                "permitted": list(_CAPABILITIES),
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "rp-oci",
        "mounts": _mounts(),
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "cgroup"},
                {"type": "user"},
            ],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }


def _mounts() -> list[Mount]:
    safe = ["nosuid", "noexec", "nodev"]
    devpts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": devpts},
        {
            "destination": "/dev/shm",  # noqa: S108 - in the container
            "type": "tmpfs",
            "source": "shm",
            "options": [*safe, "mode=1777", "size=65536k"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe},
        {
            "destination": "/sys",
            "type": "none",
            "source": "/sys",
            "options": ["rbind", *safe, "ro"],
        },
    ]
