"""Check a config.json before anything is done with it.

    validate(spec)      raises SpecError("process.args[0]: must be a string")

One pass over the document by a table of checks that mirrors `oci.runtime_spec`.  The place of an
error is put together only once there is one, so that a valid document costs well under a
millisecond.  Unknown keys are left alone, as the specification asks (config.md, extensibility).

This file is one table; it may be longer than others, since splitting it would part a field from
its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Check = Callable[[Any], None]

MAX_ID = 2**32 - 2  # (uid_t) -1 means "leave unchanged" in chown(2) and setresuid(2)
MAX_HOSTNAME_BYTES = 64  # __NEW_UTS_LEN in <linux/utsname.h>
MAX_ERRNO = 4095  # SECCOMP_RET_DATA is cut to MAX_ERRNO by the kernel

NAMESPACES = frozenset(("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"))
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


class SpecError(ValueError):
    """A config.json is not what the specification says: where, and what it must be."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason

    def under(self, key: str) -> SpecError:
        """Return the same error seen from one level further up."""
        joint = "" if not self.path or self.path.startswith("[") else "."
        return SpecError(f"{key}{joint}{self.path}", self.reason)


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
    _resources(value)


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
        _fail("is not the name of a sysctl")
    name = ".".join(words)
    if words[0] == "net" and len(words) > 2:
        return "network"
    if name in _IPC_SYSCTLS or (words[:2] == ["fs", "mqueue"] and len(words) == 3):
        return "ipc"
    if name not in {"kernel.hostname", "kernel.domainname"}:
        _fail("is not kept per namespace: it would change the machine")
    return "uts"


_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in (
        *("msgmax", "msgmnb", "msgmni", "msg_next_id", "sem", "sem_next_id", "auto_msgmni"),
        *("shmall", "shmmax", "shmmni", "shm_next_id", "shm_rmid_forced"),
    )
)


# Checks of one value


def _fail(reason: str) -> NoReturn:
    raise SpecError("", reason)


def _text(value: Any) -> None:
    if type(value) is not str:
        _fail("must be a string")
    if "\0" in value:
        _fail("must not contain a NUL")


def _non_empty(value: Any) -> None:
    _text(value)
    if not value:
        _fail("must not be empty")


def _absolute(value: Any) -> None:
    _text(value)
    if not value.startswith("/"):
        _fail("must be an absolute path")


def _boolean(value: Any) -> None:
    if type(value) is not bool:
        _fail("must be true or false")


def _integer(low: int, high: int) -> Check:
    def check(value: Any) -> None:
        # type(), as True is an int.
        if type(value) is not int:
            _fail("must be an integer")
        if not low <= value <= high:
            _fail(f"must be from {low} to {high}")

    return check


def _one_of(words: Iterable[str]) -> Check:
    known = frozenset(words)

    def check(value: Any) -> None:
        if type(value) is not str or value not in known:
            _fail(f"must be one of {', '.join(sorted(known))}")

    return check


def _environment_entry(value: Any) -> None:
    _text(value)
    if value.find("=") < 1:
        _fail("must have the form NAME=VALUE")


def _capability(value: Any) -> None:
    _text(value)
    name = value.removeprefix("CAP_")
    if name == value or not name.replace("_", "A").isalpha() or value != value.upper():
        _fail("must be a capability such as CAP_CHOWN")


def _host_name(value: Any) -> None:
    _text(value)
    if len(value.encode(errors="surrogateescape")) > MAX_HOSTNAME_BYTES:
        _fail(f"must not be longer than {MAX_HOSTNAME_BYTES} bytes")


def _version(value: Any) -> None:
    _text(value)
    numbers = value.partition("-")[0].partition("+")[0].split(".")
    if len(numbers) != 3 or not all(n.isascii() and n.isdigit() for n in numbers):
        _fail("must have the form 1.2.3")
    if numbers[0] != "1":
        _fail(f"version {value} is not understood, only 1.x")


# Checks made of checks


def _list(item: Check, *, least: int = 0, unique: str = "") -> Check:
    """Return a check of a list; unique: the key whose values must differ."""

    def check(value: Any) -> None:
        if type(value) is not list:
            _fail("must be an array")
        if len(value) < least:
            _fail("must not be empty")
        seen = set()
        for index, element in enumerate(value):
            try:
                item(element)
            except SpecError as error:
                raise error.under(f"[{index}]") from None
            if unique:
                if element[unique] in seen:
                    raise SpecError(f"[{index}].{unique}", f"{element[unique]} is there twice")
                seen.add(element[unique])

    return check


def _map(item: Check, *, key: Callable[[str], object] | None = None) -> Check:
    def check(value: Any) -> None:
        if type(value) is not dict:
            _fail("must be an object")
        for name, element in value.items():
            try:
                if key is not None:
                    key(name)
                item(element)
            except SpecError as error:
                raise error.under(name) from None

    return check


def _object(required: dict[str, Check], optional: dict[str, Check]) -> Check:
    known = required | optional

    def check(value: Any) -> None:
        if type(value) is not dict:
            _fail("must be an object")
        for name in required:
            if name not in value:
                raise SpecError(name, "is missing")
        for name, element in value.items():
            item = known.get(name)
            if item is not None:
                try:
                    item(element)
                except SpecError as error:
                    raise error.under(name) from None

    return check


def _all(*checks: Check) -> Check:
    def check(value: Any) -> None:
        for one in checks:
            one(value)

    return check


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
                _fail(f"two entries overlap in {key} {extent[key]}")
            end = extent[key] + extent["size"]
            if end > MAX_ID + 1:
                _fail(f"{key} {extent[key]} and size {extent['size']} go beyond {MAX_ID}")


def _sysctl_value(value: Any) -> None:
    _text(value)
    if "\n" in value:
        _fail("must be one line")


_u16, _u32, _u64 = _integer(0, 2**16 - 1), _integer(0, 2**32 - 1), _integer(0, 2**64 - 1)
_i32, _i64 = _integer(-(2**31), 2**31 - 1), _integer(-(2**63), 2**63 - 1)
_id, _texts, _absolutes = _integer(0, MAX_ID), _list(_text), _list(_absolute)
_device_number = _integer(-1, 2**32 - 1)
_any_object = _object({}, {})

_ids = {"containerID": _u32, "hostID": _u32, "size": _integer(1, 2**32 - 1)}
_mappings = _all(_list(_object(_ids, {})), _no_overlap)
_capability_sets = _object(
    {},
    dict.fromkeys(
        ("bounding", "effective", "inheritable", "permitted", "ambient"), _list(_capability)
    ),
)
_rlimit = _all(
    _object({"type": _one_of(RLIMITS), "hard": _u64, "soft": _u64}, {}), _soft_not_above_hard
)
_process = _object(
    {
        "args": _list(_text, least=1),
        "cwd": _absolute,
        "user": _object(
            {"uid": _id, "gid": _id},
            {"umask": _integer(0, 0o777), "additionalGids": _list(_id)},
        ),
    },
    {
        "terminal": _boolean,
        "consoleSize": _object({"height": _u16, "width": _u16}, {}),
        "env": _list(_environment_entry),
        "capabilities": _capability_sets,
        "rlimits": _list(_rlimit, unique="type"),
        "noNewPrivileges": _boolean,
        "apparmorProfile": _text,
        "selinuxLabel": _text,
        "oomScoreAdj": _integer(-1000, 1000),
        "scheduler": _object(
            {"policy": _non_empty},
            {"nice": _integer(-20, 19), "priority": _i32, "flags": _texts}
            | dict.fromkeys(("runtime", "deadline", "period"), _u64),
        ),
        "ioPriority": _object(
            {
                "class": _one_of(("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")),
                "priority": _integer(0, 7),
            },
            {},
        ),
        "execCPUAffinity": _object({}, {"initial": _text, "final": _text}),
    },
)
_mount = _object(
    {"destination": _absolute},
    {
        "type": _text,
        "source": _text,
        "options": _texts,
        "uidMappings": _mappings,
        "gidMappings": _mappings,
    },
)
_hook = _object(
    {"path": _absolute},
    {"args": _texts, "env": _list(_environment_entry), "timeout": _integer(1, 2**31 - 1)},
)
_hook_kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart")
_hooks = _object({}, dict.fromkeys((*_hook_kinds, "poststop"), _list(_hook)))
_device = _all(
    _object(
        {"path": _absolute, "type": _one_of("cbup")},
        {"major": _device_number, "minor": _device_number, "fileMode": _integer(0, 0o7777)}
        | {"uid": _id, "gid": _id},
    ),
    _numbers_unless_pipe,
)
_numbered = {"major": _device_number, "minor": _device_number}
_throttle = _list(_object({**_numbered, "rate": _u64}, {}))
_weights = {"weight": _u16, "leafWeight": _u16}
_throttles = ("throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice")
_resources = _object(
    {},
    {
        "devices": _list(
            _object({"allow": _boolean}, {"type": _one_of("acb"), "access": _text, **_numbered})
        ),
        "memory": _object(
            {},
            dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), _i64)
            | {"swappiness": _integer(0, 100)}
            | dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), _boolean),
        ),
        "cpu": _object(
            {},
            dict.fromkeys(("shares", "burst", "period", "realtimePeriod"), _u64)
            | dict.fromkeys(("quota", "realtimeRuntime", "idle"), _i64)
            | {"cpus": _text, "mems": _text},
        ),
        "pids": _object({"limit": _i64}, {}),
        "blockIO": _object(
            {},
            {**_weights, "weightDevice": _list(_object(_numbered, _weights))}
            | dict.fromkeys((*_throttles, "throttleWriteIOPSDevice"), _throttle),
        ),
        "hugepageLimits": _list(_object({"pageSize": _non_empty, "limit": _u64}, {})),
        "network": _object(
            {},
            {
                "classID": _u32,
                "priorities": _list(_object({"name": _non_empty, "priority": _u32}, {})),
            },
        ),
        "rdma": _map(_object({}, {"hcaHandles": _u32, "hcaObjects": _u32})),
        "unified": _map(_sysctl_value, key=_non_empty),
    },
)
_argument = _object(
    {"index": _integer(0, 5), "value": _u64, "op": _one_of(SECCOMP_OPERATORS)}, {"valueTwo": _u64}
)
_errno = _integer(0, MAX_ERRNO)
_syscall = _object(
    {"names": _list(_non_empty, least=1), "action": _one_of(SECCOMP_ACTIONS)},
    {"errnoRet": _errno, "args": _list(_argument)},
)
_seccomp = _object(
    {"defaultAction": _one_of(SECCOMP_ACTIONS)},
    {
        "defaultErrnoRet": _errno,
        "architectures": _list(_non_empty),
        "flags": _list(_one_of(SECCOMP_FLAGS)),
        "listenerPath": _absolute,
        "listenerMetadata": _text,
        "syscalls": _list(_syscall),
    },
)
_propagations = ("shared", "slave", "private", "unbindable")
_linux = _object(
    {},
    {
        "uidMappings": _mappings,
        "gidMappings": _mappings,
        "sysctl": _map(_sysctl_value, key=sysctl_namespace),
        "resources": _resources,
        "cgroupsPath": _text,
        "namespaces": _list(
            _object({"type": _one_of(NAMESPACES)}, {"path": _absolute}), unique="type"
        ),
        "devices": _list(_device),
        "netDevices": _map(_object({}, {"name": _non_empty}), key=_non_empty),
        "seccomp": _seccomp,
        "rootfsPropagation": _one_of((*_propagations, *(f"r{word}" for word in _propagations))),
        "maskedPaths": _absolutes,
        "readonlyPaths": _absolutes,
        "mountLabel": _text,
        "intelRdt": _any_object,
        "personality": _object({"domain": _one_of(("LINUX", "LINUX32"))}, {"flags": _texts}),
        "timeOffsets": _map(
            _object({}, {"secs": _i64, "nanosecs": _integer(0, 999_999_999)}),
            key=_one_of(("monotonic", "boottime")),
        ),
    },
)
_spec = _object(
    {
        "ociVersion": _version,
        "process": _process,
        "root": _object({"path": _non_empty}, {"readonly": _boolean}),
    },
    {
        "hostname": _host_name,
        "domainname": _host_name,
        "mounts": _list(_mount),
        "hooks": _hooks,
        "annotations": _map(_text, key=_non_empty),
        "linux": _linux,
    },
)
