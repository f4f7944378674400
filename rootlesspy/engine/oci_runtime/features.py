"""What this runtime implements, whatever the machine has: `rp oci features`.

Source: runtime-spec features.md, features-linux.md.
"""

from __future__ import annotations

from rootlesspy import __version__
from rootlesspy.engine.oci_runtime import support
from rootlesspy.linux import scheduling
from rootlesspy.oci import validate
from rootlesspy.runtime import bundle_mounts, caps, rootfs, seccomp

_ARCHITECTURES = ("X86_64", "X86", "X32", "AARCH64", "ARM", "RISCV64", "PPC64LE", "S390X", "S390")


def document() -> dict[str, object]:
    """Return the features document."""
    flags = sorted(seccomp.FLAGS)
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": support.VERSION,
        "hooks": list(validate.HOOKS),
        "mountOptions": mount_options(),
        "linux": {
            "namespaces": sorted(validate.NAMESPACES),
            "capabilities": list(caps.NUMBERS),
            "cgroup": {
                "v1": False,
                "v2": True,
                "systemd": True,
                "systemdUser": True,
                # Written to its file; systemd has no property for it.
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(seccomp.OPERATORS),
                "archs": sorted(f"SCMP_ARCH_{name}" for name in _ARCHITECTURES),
                "knownFlags": flags,
                "supportedFlags": flags,
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "memoryPolicy": {
                "modes": list(scheduling.MEMORY_MODES),
                "flags": list(scheduling.MEMORY_FLAGS),
            },
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "false",
            "rootlesspy.version": __version__,
        },
    }


def mount_options() -> list[str]:
    """Return every mount option that is no file system's own."""
    words = set(rootfs.FLAG_OPTIONS) | set(rootfs.PROPAGATION)
    both = words | {f"r{word}" for word in words}
    ignored = rootfs.IGNORED_OPTIONS | bundle_mounts.IGNORED_OPTIONS
    return sorted(both | ignored | bundle_mounts.OWN_OPTIONS | {"sync", "dirsync", "lazytime"})
