"""Check a config.json before anything is done with it.

    validate(spec)      raises SpecError("process.args[0]: must be a string")

One pass over the document by a table of checks that mirrors `oci.runtime_spec`.  The place of an
error is put together only once there is one, so that a valid document costs well under a
millisecond.  Unknown keys are left alone, as the specification asks (config.md, extensibility).

linux.resources, which few containers ask for here, is in resource_checks.
"""

from __future__ import annotations

from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.oci.checks import (
    MAX_ID,
    SpecError,
    absolute,
    absolutes,
    all_of,
    any_object,
    boolean,
    device_number,
    fail,
    i32,
    i64,
    id_number,
    integer,
    line,
    list_of,
    map_of,
    non_empty,
    numbers,
    object_of,
    one_of,
    text,
    texts,
    u16,
    u32,
    u64,
)

if TYPE_CHECKING:
    from typing import Any

MAX_HOSTNAME_BYTES = 64  # __NEW_UTS_LEN in <linux/utsname.h>
MAX_INTERFACE_BYTES = 15  # IFNAMSIZ in <linux/if.h>, without its NUL
MAX_ERRNO = 4095  # SECCOMP_RET_DATA is cut to MAX_ERRNO by the kernel

NAMESPACES = frozenset(("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"))
HOOKS = (
    *("prestart", "createRuntime", "createContainer"),
    *("startContainer", "poststart", "poststop"),
)
RLIMITS = frozenset(
    f"RLIMIT_{name}"
    for name in (
        *("AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE"),
        *("NOFILE", "NPROC", "RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK"),
    )
)
SECCOMP_ACTIONS = frozenset(
    f"SCMP_ACT_{name}"
    for name in (
        *("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO"),
        *("TRACE", "ALLOW", "LOG", "NOTIFY"),
    )
)
SECCOMP_OPERATORS = frozenset(
    f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
)
SECCOMP_FLAGS = frozenset(
    f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
)
# <linux/mempolicy.h>
MEMORY_MODES = frozenset(
    f"MPOL_{name}"
    for name in (
        *("DEFAULT", "PREFERRED", "BIND", "INTERLEAVE", "LOCAL"),
        *("PREFERRED_MANY", "WEIGHTED_INTERLEAVE"),
    )
)
MEMORY_FLAGS = frozenset(
    f"MPOL_F_{name}" for name in ("NUMA_BALANCING", "RELATIVE_NODES", "STATIC_NODES")
)


def validate(spec: object) -> None:
    """Raise SpecError for the first thing in a parsed config.json that cannot be carried out."""
    _spec(spec)
    _relations(spec)  # type: ignore[arg-type]  # _spec has proved that it is one


def process(value: object) -> None:
    """Raise SpecError for a process (that of `exec`) that cannot be carried out."""
    _process(value)
    _capabilities_in_sets(value)  # type: ignore[arg-type]  # _process has proved that it is one


def resources(value: object) -> None:
    """Raise SpecError for a linux.resources (that of `update`) that cannot be carried out."""
    from rootlesspy.oci import resource_checks

    resource_checks.resources(value)


def _relations(spec: dict[str, Any]) -> None:
    """Check what concerns more than one field: namespaces that others need, sets in sets."""
    linux = spec.get("linux", {})
    own = {n["type"] for n in linux.get("namespaces", ())}
    needs = {
        "hostname": ("uts", spec.get("hostname")),
        "domainname": ("uts", spec.get("domainname")),
        "linux.uidMappings": ("user", linux.get("uidMappings")),
        "linux.gidMappings": ("user", linux.get("gidMappings")),
        "linux.timeOffsets": ("time", linux.get("timeOffsets")),
        "linux.netDevices": ("network", linux.get("netDevices")),
    }
    for path, (namespace, value) in needs.items():
        if value and namespace not in own:
            raise SpecError(path, f"needs a {namespace} namespace")
    for key in linux.get("sysctl", ()):
        namespace = sysctl_namespace(key)
        if namespace not in own:
            raise SpecError(f"linux.sysctl.{key}", f"needs an own {namespace} namespace")
    try:
        _capabilities_in_sets(spec["process"])
    except SpecError as error:
        raise error.under("process") from None


def _capabilities_in_sets(process: dict[str, Any]) -> None:
    sets = process.get("capabilities", {})
    beyond = set(sets.get("effective", ())) - set(sets.get("permitted", ()))
    if beyond:
        reason = f"holds {min(beyond)}, which is not permitted"
        raise SpecError("capabilities.effective", reason)


def sysctl_namespace(key: str) -> str:
    """Return the namespace that a sysctl belongs to; raise SpecError if it is the machine's own.

    The allow-list of sysctl(8) keys that namespaces(7), ipc_namespaces(7) and the kernel's
    Documentation/admin-guide/sysctl say are kept per namespace.
    """
    words = key.replace("/", ".").split(".")
    if "" in words or not all(c.isascii() and (c.isalnum() or c in "._-/") for c in key):
        fail("is not the name of a sysctl")
    name = ".".join(words)
    if words[0] == "net" and len(words) > 2:
        return "network"
    if name in _IPC_SYSCTLS or (words[:2] == ["fs", "mqueue"] and len(words) == 3):
        return "ipc"
    if name not in {"kernel.hostname", "kernel.domainname"}:
        fail("is not kept per namespace: it would change the machine")
    return "uts"


_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in (
        *("msgmax", "msgmnb", "msgmni", "msg_next_id", "sem", "sem_next_id", "auto_msgmni"),
        *("shmall", "shmmax", "shmmni", "shm_next_id", "shm_rmid_forced"),
    )
)


def _environment_entry(value: Any) -> None:
    text(value)
    if value.find("=") < 1:
        fail("must have the form NAME=VALUE")


def _capability(value: Any) -> None:
    text(value)
    name = value.removeprefix("CAP_")
    if name == value or not name.replace("_", "A").isalpha() or value != value.upper():
        fail("must be a capability such as CAP_CHOWN")


def _host_name(value: Any) -> None:
    text(value)
    if len(value.encode(errors="surrogateescape")) > MAX_HOSTNAME_BYTES:
        fail(f"must not be longer than {MAX_HOSTNAME_BYTES} bytes")


def _interface(value: Any) -> None:
    """Check the name of a network device, as dev_valid_name() of the kernel does."""
    text(value)
    if not 0 < len(value.encode(errors="surrogateescape")) <= MAX_INTERFACE_BYTES:
        fail(f"must have from 1 to {MAX_INTERFACE_BYTES} bytes")
    if value in (".", "..") or any(c in "/:%" or c.isspace() for c in value):
        fail("is not the name of a network device")


def _version(value: Any) -> None:
    text(value)
    numbers = value.partition("-")[0].partition("+")[0].split(".")
    if len(numbers) != 3 or not all(n.isascii() and n.isdigit() for n in numbers):
        fail("must have the form 1.2.3")
    if numbers[0] != "1":
        fail(f"version {value} is not understood, only 1.x")


def _soft_not_above_hard(value: Any) -> None:
    if value["soft"] > value["hard"]:
        raise SpecError("soft", "must not be above the hard limit")


def _numbers_unless_pipe(value: Any) -> None:
    for name in ("major", "minor"):
        if value["type"] != "p" and name not in value:
            raise SpecError(name, "is missing")


def _no_overlap(value: Any) -> None:
    """Two extents of an id map must not share an id (user_namespaces(7))."""
    for key in ("containerID", "hostID"):
        end = 0
        for extent in sorted(value, key=lambda e: e[key]):
            if extent[key] < end:
                fail(f"two entries overlap in {key} {extent[key]}")
            end = extent[key] + extent["size"]
            if end > MAX_ID + 1:
                fail(f"{key} {extent[key]} and size {extent['size']} go beyond {MAX_ID}")


_ids = {"containerID": u32, "hostID": u32, "size": integer(1, 2**32 - 1)}
_mappings = all_of(list_of(object_of(_ids, {})), _no_overlap)
_capability_sets = object_of(
    {},
    dict.fromkeys(
        ("bounding", "effective", "inheritable", "permitted", "ambient"), list_of(_capability)
    ),
)
_rlimit = all_of(
    object_of({"type": one_of(RLIMITS), "hard": u64, "soft": u64}, {}), _soft_not_above_hard
)
_process = object_of(
    {
        "args": list_of(text, least=1),
        "cwd": absolute,
        "user": object_of(
            {"uid": id_number, "gid": id_number},
            {"umask": integer(0, 0o777), "additionalGids": list_of(id_number)},
        ),
    },
    {
        "terminal": boolean,
        "consoleSize": object_of({"height": u16, "width": u16}, {}),
        "env": list_of(_environment_entry),
        "capabilities": _capability_sets,
        "rlimits": list_of(_rlimit, unique="type"),
        "noNewPrivileges": boolean,
        "apparmorProfile": text,
        "selinuxLabel": text,
        "oomScoreAdj": integer(-1000, 1000),
        "scheduler": object_of(
            {"policy": non_empty},
            {"nice": integer(-20, 19), "priority": i32, "flags": texts}
            | dict.fromkeys(("runtime", "deadline", "period"), u64),
        ),
        "ioPriority": object_of(
            {
                "class": one_of(("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")),
                "priority": integer(0, 7),
            },
            {},
        ),
        "execCPUAffinity": object_of({}, {"initial": text, "final": text}),
    },
)
_mount = object_of(
    {"destination": absolute},
    {
        "type": text,
        "source": text,
        "options": texts,
        "uidMappings": _mappings,
        "gidMappings": _mappings,
    },
)
_hook = object_of(
    {"path": absolute},
    {"args": texts, "env": list_of(_environment_entry), "timeout": integer(1, 2**31 - 1)},
)
_hooks = object_of({}, dict.fromkeys(HOOKS, list_of(_hook)))
_device = all_of(
    object_of(
        {"path": absolute, "type": one_of("cbup")},
        {"major": device_number, "minor": device_number, "fileMode": integer(0, 0o7777)}
        | {"uid": id_number, "gid": id_number},
    ),
    _numbers_unless_pipe,
)
_argument = object_of(
    {"index": integer(0, 5), "value": u64, "op": one_of(SECCOMP_OPERATORS)}, {"valueTwo": u64}
)
_errno = integer(0, MAX_ERRNO)
_syscall = object_of(
    {"names": list_of(non_empty, least=1), "action": one_of(SECCOMP_ACTIONS)},
    {"errnoRet": _errno, "args": list_of(_argument)},
)
_seccomp = object_of(
    {"defaultAction": one_of(SECCOMP_ACTIONS)},
    {
        "defaultErrnoRet": _errno,
        "architectures": list_of(non_empty),
        "flags": list_of(one_of(SECCOMP_FLAGS)),
        "listenerPath": absolute,
        "listenerMetadata": text,
        "syscalls": list_of(_syscall),
    },
)
_propagations = ("shared", "slave", "private", "unbindable")
_linux = object_of(
    {},
    {
        "uidMappings": _mappings,
        "gidMappings": _mappings,
        "sysctl": map_of(line, key=sysctl_namespace),
        "resources": resources,
        "cgroupsPath": text,
        "namespaces": list_of(
            object_of({"type": one_of(NAMESPACES)}, {"path": absolute}), unique="type"
        ),
        "devices": list_of(_device),
        "netDevices": map_of(object_of({}, {"name": _interface}), key=_interface),
        "memoryPolicy": object_of(
            {"mode": one_of(MEMORY_MODES)},
            {"nodes": numbers, "flags": list_of(one_of(MEMORY_FLAGS))},
        ),
        "seccomp": _seccomp,
        "rootfsPropagation": one_of((*_propagations, *(f"r{word}" for word in _propagations))),
        "maskedPaths": absolutes,
        "readonlyPaths": absolutes,
        "mountLabel": text,
        "intelRdt": any_object,
        "personality": object_of({"domain": one_of(("LINUX", "LINUX32"))}, {"flags": texts}),
        "timeOffsets": map_of(
            object_of({}, {"secs": i64, "nanosecs": integer(0, 999_999_999)}),
            key=one_of(("monotonic", "boottime")),
        ),
    },
)
_spec = object_of(
    {
        "ociVersion": _version,
        "process": _process,
        "root": object_of({"path": non_empty}, {"readonly": boolean}),
    },
    {
        "hostname": _host_name,
        "domainname": _host_name,
        "mounts": list_of(_mount),
        "hooks": _hooks,
        "annotations": map_of(text, key=non_empty),
        "linux": _linux,
    },
)
