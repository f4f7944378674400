"""What of a valid config.json this runtime carries out: everything else is refused by name.

Pure but for the look at this machine's security modules.
"""

from __future__ import annotations

import os

from rootlesspy.engine.oci_runtime import state
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.linux import scheduling
from rootlesspy.oci import checks, validate

if TYPE_CHECKING:
    from rootlesspy.oci.runtime_spec import Linux, LinuxSeccomp, Process, Spec

VERSION = "1.3.0"
"""Of the runtime specification, as far as it goes here; another major version is refused."""


def check(spec: object) -> Spec:
    """Return a parsed config.json as a spec.

    Raises UsageError for what is no spec, Unsupported for what is not carried out.
    """
    spec = state.without_nulls(spec)
    try:
        validate.validate(spec)
    except checks.SpecError as error:
        raise UsageError(f"config.json: {error}") from error
    checked: Spec = spec  # type: ignore[assignment]  # validate has proved it
    linux = checked.get("linux", {})
    _check_namespaces(linux)
    own_ids = any(entry["type"] == "user" for entry in linux.get("namespaces", ()))
    for each in checked.get("mounts", ()):
        _check_mount(each, own_ids=own_ids)
    for key, reason in _refused(linux):
        raise Unsupported(f"linux.{key} is not supported: {reason}")
    check_process(checked["process"])
    if "seccomp" in linux:
        _check_seccomp(linux["seccomp"])
    return checked


def is_newer(version: str) -> bool:
    """Say whether a valid ociVersion is of a later minor version than the one carried out."""
    return int(version.split(".")[1]) > int(VERSION.split(".")[1])


def check_process(process: Process) -> None:
    """Refuse what a process asks for and would not get.  Raises Unsupported, UsageError."""
    if process.get("apparmorProfile") and not _says("/sys/module/apparmor/parameters/enabled", "Y"):
        raise Unsupported("process.apparmorProfile: AppArmor is not enabled in this kernel")
    if process.get("selinuxLabel") and not os.path.exists("/sys/fs/selinux/enforce"):
        raise Unsupported("process.selinuxLabel: SELinux is not enabled in this kernel")
    scheduler = process.get("scheduler")
    if scheduler is not None:
        _known("process.scheduler.policy", scheduler["policy"], scheduling.POLICIES)
        for flag in scheduler.get("flags", ()):
            _known("process.scheduler.flags", flag, scheduling.SCHED_FLAGS)


def _check_namespaces(linux: Linux) -> None:
    kinds = {entry["type"]: entry.get("path", "") for entry in linux.get("namespaces", ())}
    if "mount" not in kinds:
        raise UsageError("config.json: linux.namespaces has no mount namespace")
    if "user" not in kinds and os.geteuid() != 0:
        raise UsageError("rootless container requires user namespaces")
    if "user" in kinds and not kinds["user"]:
        for key in ("uidMappings", "gidMappings"):
            if not linux.get(key):
                raise UsageError(f"config.json: a new user namespace needs linux.{key}")
    if kinds.get("user") and (linux.get("uidMappings") or linux.get("gidMappings")):
        raise UsageError("config.json: a user namespace with a path has its own id mappings")
    if linux.get("timeOffsets") and kinds.get("time"):
        raise UsageError("config.json: linux.timeOffsets does not go with a time namespace's path")


def _check_mount(entry: object, *, own_ids: bool) -> None:
    mount: dict[str, object] = entry  # type: ignore[assignment]  # a checked mount
    options = mount.get("options", ())
    words = options if isinstance(options, list) else []
    bind = mount.get("type") == "bind" or "bind" in words or "rbind" in words
    where = f"config.json: mount of {mount['destination']}"
    if bind and not mount.get("source"):
        raise UsageError(f"{where} has no source")
    if not bind and not mount.get("type"):
        raise UsageError(f"{where} has no type")
    if "remount" in words:
        raise Unsupported(f"{where}: remount is not supported")
    if "tmpcopyup" in words and mount.get("type") != "tmpfs":
        raise UsageError(f"{where}: tmpcopyup is for tmpfs")
    mapped = mount.get("uidMappings") or mount.get("gidMappings")
    if bool(mount.get("uidMappings")) != bool(mount.get("gidMappings")):
        raise UsageError(f"{where}: uidMappings and gidMappings go together")
    idmap = "idmap" in words or "ridmap" in words
    if (mapped or idmap) and not bind:
        raise Unsupported(f"{where}: only bind mounts can be id-mapped")
    if idmap and not mapped and not own_ids:
        raise UsageError(f"{where}: idmap needs mappings, or a user namespace to take them from")


def _refused(linux: Linux) -> list[tuple[str, str]]:
    personality = linux.get("personality", {"domain": "LINUX"})
    found: list[tuple[str, bool, str]] = [
        ("intelRdt", bool(linux.get("intelRdt")), "resctrl belongs to the machine's root"),
        ("mountLabel", bool(linux.get("mountLabel")), "mounts are not labelled"),
        ("personality.flags", bool(personality.get("flags")), "the kernel has no such flags"),
    ]
    return [(key, reason) for key, asked, reason in found if asked]


def _check_seccomp(seccomp: LinuxSeccomp) -> None:
    asks = [rule for rule in seccomp.get("syscalls", ()) if rule["action"] == "SCMP_ACT_NOTIFY"]
    by_default = seccomp["defaultAction"] == "SCMP_ACT_NOTIFY"
    if (asks or by_default) and not seccomp.get("listenerPath"):
        raise UsageError("config.json: linux.seccomp.listenerPath is needed for SCMP_ACT_NOTIFY")
    # The descriptor is handed over by sendmsg(2) when the filter holds already.
    if by_default or any("sendmsg" in rule["names"] for rule in asks):
        raise Unsupported("linux.seccomp: SCMP_ACT_NOTIFY cannot be used for sendmsg")


def _known(path: str, word: str, table: dict[str, int]) -> None:
    if word not in table:
        raise UsageError(f"config.json: {path}: must be one of {', '.join(sorted(table))}")


def _says(path: str, wanted: str) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip() == wanted
    except OSError:
        return False
