"""What each --security-opt changes: masks, options of /proc, no_new_privs, labels.

Called by engine.specgen when there is one; looks at the machine only where a protection depends on
what the kernel has, which is refused when it is absent.  Source: podman-run(1), proc_pid(5).
"""

from __future__ import annotations

import os

from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.engine.specgen import Security

_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_SELINUX = "/sys/fs/selinux/enforce"


def apply(security: Security, options: Sequence[str]) -> Security:
    """Return what checked options make of the defaults.  Raises Unsupported, UsageError."""
    for option in options:
        key, _, value = option.partition("=")
        if key == "no-new-privileges":
            security = security._replace(no_new_privileges=value != "false")
        elif key == "seccomp":
            security = security._replace(seccomp=value)
        elif key == "mask":
            security = security._replace(masked=[*security.masked, *value.split(":")])
        elif key == "unmask":
            security = _unmask(security, value)
        elif key == "proc-opts":
            security = security._replace(proc_options=tuple(value.split(",")))
        elif key == "apparmor":
            security = security._replace(apparmor=_apparmor(option, value))
        elif key == "label":
            _label(option, value)
        else:
            raise UsageError(f"--security-opt {option!r} is unknown")
    return security


def _unmask(security: Security, value: str) -> Security:
    if value == "ALL":
        return security._replace(masked=[], read_only=[])
    patterns = value.split(":")
    return security._replace(
        masked=[path for path in security.masked if not _matches(path, patterns)],
        read_only=[path for path in security.read_only if not _matches(path, patterns)],
    )


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Say whether one of the patterns is this path; `*` stands for no slash, as in a shell."""
    for pattern in patterns:
        if pattern == path:
            return True
        if any(character in pattern for character in "*?["):
            from fnmatch import fnmatchcase

            words, names = pattern.split("/"), path.split("/")
            if len(words) == len(names) and all(map(fnmatchcase, names, words)):
                return True
    return False


def _apparmor(option: str, profile: str) -> str:
    if profile == "unconfined":
        return ""
    try:
        with open(_APPARMOR, encoding="ascii") as file:
            enabled = file.read(1) == "Y"
    except OSError:
        enabled = False
    if not enabled:
        raise Unsupported(
            f"--security-opt {option}: AppArmor is not enabled on this machine",
            hint="leave it out, or boot a kernel with lsm=…,apparmor",
        )
    return profile


def _label(option: str, value: str) -> None:
    """Accept `disable`: no label is set anyway."""
    if value == "disable":
        return
    if os.path.exists(_SELINUX):
        raise Unsupported(
            f"--security-opt {option}: rp sets no SELinux labels", hint="label=disable says so"
        )
    raise Unsupported(
        f"--security-opt {option}: SELinux is not enabled on this machine", hint="leave it out"
    )
