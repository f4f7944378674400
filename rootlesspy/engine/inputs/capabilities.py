"""Which capabilities a container gets: podman's default list, --cap-add, --cap-drop, --privileged.

Pure policy: names in, names out.  The runtime carries the result out (runtime.caps).
"""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import NamedTuple

# In the kernel's order (<linux/capability.h>); runtime.caps numbers the same names.
# fmt: off
ALL = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
    "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
    "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
# fmt: on

# podman's default_capabilities (containers.conf(5)); docker's has NET_RAW, MKNOD, AUDIT_WRITE more.
DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_SETFCAP",
)


class CapabilitySets(NamedTuple):
    """The five sets of capabilities(7), as names."""

    bounding: tuple[str, ...]
    effective: tuple[str, ...]
    permitted: tuple[str, ...]
    inheritable: tuple[str, ...]
    ambient: tuple[str, ...]


def resolve(
    cap_add: tuple[str, ...],
    cap_drop: tuple[str, ...],
    *,
    privileged: bool,
    available: tuple[str, ...] = ALL,
) -> tuple[str, ...]:
    """Return the container's capabilities in the kernel's order.

    The options mean what podman-run(1) says: --cap-drop ALL leaves what is added, --cap-add ALL
    adds every one that is not dropped, and --privileged is all of them whatever else is said.
    available: those that the caller's bounding set holds.
    """
    added, dropped = _named(cap_add, "--cap-add"), _named(cap_drop, "--cap-drop")
    if privileged:
        return available
    both = sorted(added & dropped)
    if both:
        raise UsageError(f"capability {both[0]} is both added and dropped")
    if "ALL" in dropped:
        chosen = added
    elif "ALL" in added:
        chosen = set(available) - dropped
    else:
        chosen = set(DEFAULT) - dropped | added
    return tuple(name for name in ALL if name in chosen and name in available)


def for_user(
    capabilities: tuple[str, ...], cap_add: tuple[str, ...], *, root: bool
) -> CapabilitySets:
    """Return the five sets of a payload that starts as uid 0 (root) or as another user.

    The inheritable set of root is empty (CVE-2022-24769).  Another user holds only what --cap-add
    names, and then as ambient capabilities too, since execve(2) would take them away otherwise.
    """
    if root:
        return CapabilitySets(capabilities, capabilities, capabilities, (), ())
    asked = capabilities if "ALL" in cap_add else tuple(c for c in capabilities if c in cap_add)
    return CapabilitySets(capabilities, asked, asked, asked, asked)


def _named(names: tuple[str, ...], option: str) -> set[str]:
    for name in names:
        if name != "ALL" and name not in ALL:
            raise UsageError(
                f"{option}: unknown capability {name!r}", hint="see capabilities(7) for the names"
            )
    return set(names)
