"""Seccomp profiles in the containers' seccomp.json format (containers-common, moby) → OCI.

The format is the OCI section plus conditions: `includes` and `excludes` by capability, architecture
and kernel, and `archMap` for the other ABIs of one machine.  Our own profile is seccomp.json beside
this file.
"""

from __future__ import annotations

import errno
import os

from rootlesspy.errors import NotFound, Unsupported, UsageError
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootlesspy.oci.runtime_spec import LinuxSeccomp, LinuxSyscall

# uname -m → the name in `arches` (Go's), libseccomp's name
ARCHITECTURES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
}
MAX_PROFILE_BYTES = 4 << 20


def load(path: str | None = None) -> dict[str, Any]:
    """Read a profile; None is rp's own.  Raises NotFound, or UsageError when it is no profile."""
    if path is None:
        path = os.path.join(os.path.dirname(__file__), "seccomp.json")
    try:
        # O_NONBLOCK: a FIFO must not hang the command.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as stream:
            text = stream.read(MAX_PROFILE_BYTES + 1)
        if len(text) > MAX_PROFILE_BYTES:
            raise UsageError(f"seccomp profile {path} is larger than {MAX_PROFILE_BYTES} bytes")
        profile = json.loads(text)
    except OSError as error:
        raise NotFound(f"seccomp profile {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"seccomp profile {path} is not JSON: {error}") from error
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise UsageError(f"seccomp profile {path} has no defaultAction")
    return profile


def resolve(
    profile: dict[str, Any],
    capabilities: frozenset[str],
    architecture: str,
    kernel: str = "",
) -> LinuxSeccomp:
    """Return the OCI section of a profile for one container.

    capabilities: the container's bounding set.  architecture and kernel: as uname -m and -r say;
    without a kernel, rules that need at least some kernel do not hold.  Raises UsageError for a
    profile that is not what it should be; `oci.validate` checks what is copied.
    """
    go_name = ARCHITECTURES.get(architecture, (architecture, ""))[0]
    result: LinuxSeccomp = {"defaultAction": profile["defaultAction"]}
    default_errno = _errno(profile, "defaultErrno", "defaultErrnoRet")
    if default_errno is not None:
        result["defaultErrnoRet"] = default_errno
    architectures = _architectures(profile, architecture)
    if architectures:
        result["architectures"] = architectures
    for key in ("flags", "listenerPath", "listenerMetadata"):
        if profile.get(key):
            result[key] = profile[key]
    syscalls = _objects(profile, "syscalls")
    version = _version(kernel)
    result["syscalls"] = [
        _rule(entry) for entry in syscalls if _applies(entry, capabilities, go_name, version)
    ]
    return result


def _architectures(profile: dict[str, Any], machine: str) -> list[str]:
    listed, mapped = profile.get("architectures"), _objects(profile, "archMap")
    if listed and mapped:
        raise UsageError("a seccomp profile has either architectures or archMap")
    if not mapped:
        return list(listed or ())
    wanted = ARCHITECTURES.get(machine, ("", ""))[1]
    for entry in mapped:
        if wanted and entry.get("architecture") == wanted:
            return [wanted, *(entry.get("subArchitectures") or ())]
    raise Unsupported(
        f"the seccomp profile has no rules for {machine}",
        hint="give one that has: --security-opt seccomp=FILE",
    )


def _applies(
    entry: dict[str, Any], capabilities: frozenset[str], go_name: str, kernel: tuple[int, ...]
) -> bool:
    """Return whether all of `includes` and none of `excludes` is true of this container."""
    includes, excludes = _object(entry, "includes"), _object(entry, "excludes")
    if not capabilities.issuperset(includes.get("caps") or ()):
        return False
    if includes.get("arches") and go_name not in includes["arches"]:
        return False
    if includes.get("minKernel") and kernel < _version(includes["minKernel"]):
        return False
    if not capabilities.isdisjoint(excludes.get("caps") or ()):
        return False
    if go_name in (excludes.get("arches") or ()):
        return False
    return not (excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]))


def _rule(entry: dict[str, Any]) -> LinuxSyscall:
    name, names = entry.get("name"), entry.get("names")
    if bool(name) == bool(names):
        raise UsageError("a rule of a seccomp profile has either name or names")
    rule: LinuxSyscall = {"names": names or [name], "action": entry.get("action", "")}
    number = _errno(entry, "errno", "errnoRet")
    if number is not None:
        rule["errnoRet"] = number
    if entry.get("args"):
        rule["args"] = entry["args"]
    return rule


def _errno(holder: dict[str, Any], name_key: str, number_key: str) -> int | None:
    """Return an error number given by name (podman's newer form) or by number."""
    name = holder.get(name_key)
    if name:
        if not isinstance(name, str) or not hasattr(errno, name):
            raise UsageError(f"seccomp profile: unknown {name_key} {name!r}")
        return int(getattr(errno, name))
    number: int | None = holder.get(number_key)
    return number


def _objects(holder: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = holder.get(key) or []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise UsageError(f"seccomp profile: {key} must be an array of objects")
    return value


def _object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    value = holder.get(key) or {}
    if not isinstance(value, dict):
        raise UsageError(f"seccomp profile: {key} must be an object")
    return value


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers that a kernel release starts with: "6.12.1-amd64" → (6, 12)."""
    numbers = []
    for word in text.split(".")[:2]:
        digits = ""
        for character in word:
            if character not in "0123456789":
                break
            digits += character
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
