"""What CDI files change in a container's spec: environment, devices, mounts, hooks, groups.

A container of a user gets what can be done without root, and an error names what cannot.  Modes and
owners of device nodes stay the host's: its nodes are mounted, none can be made.
"""

from __future__ import annotations

import os
import stat

from rootlesspy.errors import Error, Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rootlesspy.engine.security.cdi import Description
    from rootlesspy.oci.runtime_spec import Mount, Spec

_HOOK_TIMEOUT_S = 10
_HOOKS = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
_NEEDS_ROOT = ("intelRdt", "netDevices")
_KINDS: dict[str, Callable[[int], bool]] = {
    "b": stat.S_ISBLK, "c": stat.S_ISCHR, "u": stat.S_ISCHR, "p": stat.S_ISFIFO,
}  # fmt: skip


class Edits(NamedTuple):
    """The changes of all devices together, checked."""

    env: tuple[str, ...]
    mounts: tuple[Mount, ...]
    """Device nodes too."""
    hooks: tuple[tuple[str, dict[str, Any]], ...]
    """Stage and hook, as the spec has it."""
    groups: tuple[int, ...]


def collect(described: Iterable[Description]) -> Edits:
    """Put the changes together, those of a file only once.

    Raises UsageError for a malformed description, Unsupported for what needs root, Error for a
    device node that is not there.
    """
    env: list[str] = []
    mounts: list[Mount] = []
    hooks: list[tuple[str, dict[str, Any]]] = []
    groups: list[int] = []
    seen: list[int] = []
    for description in described:
        for edits in description.edits:
            if id(edits) in seen:
                continue
            seen.append(id(edits))
            where = _Place(description.path)
            for key in edits:
                where.check_key(key)
            env += [where.entry(each) for each in where.texts(edits, "env")]
            mounts += [where.node(each) for each in where.objects(edits, "deviceNodes")]
            mounts += [where.mount(each) for each in where.objects(edits, "mounts")]
            hooks += [where.hook(each) for each in where.objects(edits, "hooks")]
            groups += [where.group(each) for each in where.items(edits, "additionalGids")]
    return Edits(tuple(env), tuple(mounts), tuple(hooks), tuple(dict.fromkeys(groups)))


def apply(spec: Spec, edits: Edits) -> None:
    """Change a spec; what it mounts at the same place is replaced."""
    process = spec["process"]
    ours = {entry.partition("=")[0] for entry in edits.env}
    kept_env = [each for each in process.get("env", []) if each.partition("=")[0] not in ours]
    process["env"] = [*kept_env, *edits.env]
    taken = {each["destination"] for each in edits.mounts}
    kept = [each for each in spec.get("mounts", []) if each["destination"] not in taken]
    spec["mounts"] = sorted([*kept, *edits.mounts], key=_depth)
    if edits.hooks:
        stages: dict[str, list[dict[str, Any]]] = spec.setdefault("hooks", {})  # type: ignore[assignment]  # six lists of hooks
        for stage, hook in edits.hooks:
            stages.setdefault(stage, []).append(hook)


def _depth(entry: Mount) -> int:
    return entry["destination"].rstrip("/").count("/")


class _Place:
    """One file, whose name stands in every message."""

    def __init__(self, path: str) -> None:
        self._path = path

    def _malformed(self, what: str) -> UsageError:
        return UsageError(f"CDI file {self._path}: {what}")

    def check_key(self, key: str) -> None:
        if key in _NEEDS_ROOT:
            raise Unsupported(f"CDI file {self._path}: {key} can only be done as root")
        if key not in ("env", "deviceNodes", "mounts", "hooks", "additionalGids"):
            raise Unsupported(f"CDI file {self._path}: {key} of containerEdits is not known")

    def items(self, edits: Mapping[str, Any], key: str) -> list[Any]:
        value = edits.get(key) or []
        if not isinstance(value, list):
            raise self._malformed(f"{key} must be an array")
        return value

    def texts(self, edits: Mapping[str, Any], key: str) -> list[str]:
        value = self.items(edits, key)
        if not all(isinstance(each, str) and "\0" not in each for each in value):
            raise self._malformed(f"{key} must be an array of strings")
        return value

    def objects(self, edits: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        value = self.items(edits, key)
        if not all(isinstance(each, dict) for each in value):
            raise self._malformed(f"{key} must be an array of objects")
        return value

    def _absolute(self, holder: Mapping[str, Any], key: str, default: str = "") -> str:
        value = holder.get(key) or default
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
            raise self._malformed(f"{key} must be an absolute path")
        if ".." in value.split("/"):
            raise self._malformed(f"{key} must be a path without '..'")
        return value

    def entry(self, text: str) -> str:
        if not text.partition("=")[0] or "=" not in text:
            raise self._malformed(f"env entry {text[:80]!r} is not KEY=VALUE")
        return text

    def group(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32 - 1:
            raise self._malformed("additionalGids must be an array of group ids")
        return value

    def node(self, given: Mapping[str, Any]) -> Mount:
        """Return the mount of a device node, which must be there and be what is said of it."""
        path = self._absolute(given, "path")
        host = self._absolute(given, "hostPath", path)
        access = given.get("permissions") or "rwm"
        if not isinstance(access, str) or set(access) - set("rwm"):
            raise self._malformed("permissions must be made of r, w and m")
        try:
            found = os.stat(host)
        except OSError as error:
            raise Error(f"CDI file {self._path}: {host}: {error.strerror}") from error
        kind = given.get("type")
        if kind and (kind not in _KINDS or not _KINDS[kind](found.st_mode)):
            raise Error(f"CDI file {self._path}: {host} is not of the type {kind!r}")
        number = (given.get("major"), given.get("minor"))
        actual = (os.major(found.st_rdev), os.minor(found.st_rdev))
        if None not in number and any(number) and number != actual:
            raise Error(
                f"CDI file {self._path}: {host} is device {actual[0]}:{actual[1]}, not "
                f"{number[0]}:{number[1]}",
                hint="write the file again: nvidia-ctk cdi generate, or its like",
            )
        options = ["bind", "rprivate", "nosuid", "noexec"]
        if "w" not in access:
            raise Unsupported(
                f"CDI file {self._path}: permissions {access!r} of {host} cannot be enforced "
                "without root"
            )
        return {"destination": path, "type": "bind", "source": host, "options": options}

    def mount(self, given: Mapping[str, Any]) -> Mount:
        target = self._absolute(given, "containerPath")
        options = self.texts(given, "options")
        kind = given.get("type") or "bind"
        if kind == "tmpfs":
            return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}
        if kind not in ("bind", "none"):
            raise Unsupported(f"CDI file {self._path}: mounts of type {kind!r} are not supported")
        source = self._absolute(given, "hostPath")
        if not {"bind", "rbind"} & set(options):
            options = ["rbind", *options]
        return {"destination": target, "type": "bind", "source": source, "options": options}

    def hook(self, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        stage = given.get("hookName")
        if stage not in _HOOKS:
            raise self._malformed(f"hookName {stage!r} is not known")
        hook: dict[str, Any] = {"path": self._absolute(given, "path")}
        for key in ("args", "env"):
            if given.get(key):
                hook[key] = self.texts(given, key)
        timeout = given.get("timeout") or _HOOK_TIMEOUT_S
        if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
            raise self._malformed("timeout of a hook must be a number of seconds")
        hook["timeout"] = timeout
        return stage, hook
