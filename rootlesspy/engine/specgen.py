"""From what was asked to an OCI runtime spec: pure, no disk, no kernel.

The spec is the one description that everything later carries out.  Defaults are podman's; where
they differ a comment says why.  Source: OCI runtime-spec 1.2, podman-run(1).
"""

from __future__ import annotations

from rootlesspy.engine import spec_mounts
from rootlesspy.engine.command import arguments
from rootlesspy.engine.inputs import capabilities
from rootlesspy.engine.isolation import namespaces, resources
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.network.driver import SHARED
from rootlesspy.systemd import notify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.linux.userns import IdMapping, IdMaps
    from rootlesspy.oci.image_spec import ContainerConfig
    from rootlesspy.oci.runtime_spec import (
        LinuxIDMapping,
        LinuxSeccomp,
        Mount,
        Rlimit,
        Spec,
    )

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UNLIMITED = 2**64 - 1
_OPEN_FILES = 1024 * 1024

# fmt: off
_MASKED_PATHS = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/dev/block", "/sys/devices/virtual/powercap", "/sys/firmware",
    "/sys/fs/selinux",
]
_READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
# fmt: on

# What --sysctl may set: parameters of a namespace that the container has for itself.
_IPC_SYSCTLS = (
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
)


class Caller(NamedTuple):
    """Facts about the process that runs rp, so that generate() stays pure."""

    host_name: str
    rlimits: dict[str, tuple[int, int]]
    """RLIMIT_… → (soft, hard), -1 unlimited."""
    terminal_size: tuple[int, int]
    """Rows and columns, 0 when there is no terminal."""


def generate(
    request: RunRequest,
    config: ContainerConfig,
    *,
    container_id: str,
    maps: IdMaps,
    volumes: Sequence[Mount],
    files: spec_mounts.Files,
    caller: Caller,
    seccomp: LinuxSeccomp | None,
) -> Spec:
    """Return the spec of one container.  Raises UsageError, Unsupported."""
    security = parse_security_opts(request)
    # For root; another user holds only what --cap-add names (runtime.init knows who it is).
    sets = capabilities.for_user(capability_names(request), request.cap_add, root=False)
    spec: Spec = {
        "ociVersion": "1.2.1",
        "process": {
            "terminal": request.tty,
            "user": {
                "uid": 0,
                "gid": 0,
                "umask": 0o022 if request.umask is None else request.umask,
            },
            "args": arguments(request, config),
            "env": environment(request, config, hostname(request, container_id, caller), files),
            "cwd": request.workdir or config.get("WorkingDir") or "/",
            "capabilities": {
                "bounding": list(sets.bounding),
                "effective": list(sets.bounding),
                "permitted": list(sets.bounding),
                "inheritable": list(sets.inheritable),
                "ambient": list(sets.ambient),
            },
            "rlimits": rlimits(request, caller),
            "noNewPrivileges": security.no_new_privileges,
        },
        "root": {"path": "rootfs", "readonly": request.read_only},
        "hostname": hostname(request, container_id, caller),
        "mounts": spec_mounts.mounts(request, volumes, files, maps, security.proc_options),
        "linux": {
            "uidMappings": _id_mappings(maps.uids),
            "gidMappings": _id_mappings(maps.gids),
            "namespaces": namespaces(request),
            "resources": resources(request),
            "sysctl": sysctls(request, security.proc_options),
            "maskedPaths": security.masked,
            "readonlyPaths": security.read_only,
        },
    }
    if request.tty and all(caller.terminal_size):
        rows, columns = caller.terminal_size
        spec["process"]["consoleSize"] = {"height": rows, "width": columns}
    if request.uts == "host":
        del spec["hostname"]
    if seccomp is not None:
        spec["linux"]["seccomp"] = seccomp
    if security.apparmor:
        spec["process"]["apparmorProfile"] = security.apparmor
    return spec


class Security(NamedTuple):
    """What --security-opt and --privileged come to."""

    no_new_privileges: bool
    seccomp: str
    """"": the default profile; "unconfined"; or the path of a profile."""
    masked: list[str]
    read_only: list[str]
    proc_options: tuple[str, ...] = ()
    """Options of the mount at /proc."""
    apparmor: str = ""
    """The AppArmor profile that the payload is confined by; empty: none of its own."""


def parse_security_opts(request: RunRequest) -> Security:
    """Understand --security-opt and --privileged.  Raises UsageError, Unsupported."""
    plain = request.privileged
    security = Security(
        no_new_privileges=not plain,
        seccomp="unconfined" if plain else "",
        masked=[] if plain else list(_MASKED_PATHS),
        read_only=[] if plain else list(_READONLY_PATHS),
    )
    if not request.security_opts:
        return security
    from rootlesspy.engine.security import options

    return options.apply(security, request.security_opts)


def capability_names(request: RunRequest) -> tuple[str, ...]:
    """Return the container's capabilities."""
    return capabilities.resolve(request.cap_add, request.cap_drop, privileged=request.privileged)


def environment(
    request: RunRequest, config: ContainerConfig, host_name: str, files: spec_mounts.Files
) -> list[str]:
    """Return the payload's environment: defaults, then the image's, then what was asked.

    Raises UsageError for an image entry that is no KEY=VALUE: never is one looked up in the
    caller's environment (CVE-2026-57231).
    """
    merged = dict([_PATH.split("=", 1)])
    if request.tty:
        merged["TERM"] = "xterm"
    # How a payload sees that it is in a container (systemd, CONTAINER_INTERFACE).
    merged["container"] = "rootlesspy"
    merged["HOSTNAME"] = host_name
    for entry in config.get("Env") or []:
        key, equals, value = entry.partition("=")
        if not (key and equals) or "\0" in entry:
            raise UsageError(f"the image's environment entry {entry[:80]!r} is not KEY=VALUE")
        merged[key] = value
    for entry in request.env:
        key, _, value = entry.partition("=")
        merged[key] = value
    if files.notify:
        merged["NOTIFY_SOCKET"] = notify.ADDRESS
    return [f"{key}={value}" for key, value in merged.items()]


def hostname(request: RunRequest, container_id: str, caller: Caller) -> str:
    """Return the container's host name: the short id, or with --network or --uts host its."""
    if request.hostname:
        return request.hostname
    of_host = request.network.driver == "host" or request.uts == "host"
    return caller.host_name if of_host else container_id[:12]


def sysctls(request: RunRequest, proc_options: Sequence[str] = ()) -> dict[str, str]:
    """Return the kernel parameters; only those of the container's own namespaces are allowed."""
    if "subset=pid" in proc_options:
        if request.sysctls:
            raise UsageError("--sysctl needs /proc/sys, which proc-opts=subset=pid leaves out")
        return {}
    own_network = request.network.driver not in ("host", *SHARED)
    own_ipc = request.ipc != "host" and "ipc" not in dict(request.shares)
    # As podman: ping works without a capability for the container's root group.
    found = {"net.ipv4.ping_group_range": "0 0"} if own_network else {}
    for key, value in request.sysctls:
        plain = all(c.isascii() and (c.isalnum() or c in "._-") for c in key)
        if not plain or ".." in key or "\n" in value or "\0" in value:
            raise UsageError(f"--sysctl {key}={value!r} is malformed")
        of_ipc = key in _IPC_SYSCTLS or key.startswith("fs.mqueue.")
        if (key.startswith("net.") and own_network) or (of_ipc and own_ipc):
            found[key] = value
        else:
            raise UsageError(
                f"--sysctl {key} does not belong to a namespace of the container",
                hint="allowed: net.* with an own network; with an own IPC namespace fs.mqueue.*, "
                "kernel.msg*, .sem, .shm*",
            )
    return found


def rlimits(request: RunRequest, caller: Caller) -> list[Rlimit]:
    """Return the resource limits, all set explicitly so that the caller's do not leak in."""
    wanted: dict[str, tuple[int, int]] = {}
    for name, (_, hard) in caller.rlimits.items():
        wanted[name] = (hard, hard)
    files_hard = caller.rlimits["RLIMIT_NOFILE"][1]
    files = _OPEN_FILES if files_hard < 0 else min(_OPEN_FILES, files_hard)
    wanted["RLIMIT_NOFILE"] = (files, files)
    wanted["RLIMIT_CORE"] = (0, caller.rlimits["RLIMIT_CORE"][1])
    stack_hard = caller.rlimits["RLIMIT_STACK"][1]
    wanted["RLIMIT_STACK"] = (8 << 20 if stack_hard < 0 else min(8 << 20, stack_hard), stack_hard)
    for limit in request.ulimits:
        name = f"RLIMIT_{limit.name.upper()}"
        hard = caller.rlimits[name][1]
        if hard >= 0 and not 0 <= limit.hard <= hard:
            raise Unsupported(
                f"--ulimit {limit.name}={limit.soft}:{limit.hard}: the hard limit of this session "
                f"is {hard}",
                hint="raise it in /etc/security/limits.d/ or user@.service",
            )
        wanted[name] = (limit.soft, limit.hard)
    return [
        {"type": name, "soft": _rlimit(soft), "hard": _rlimit(hard)}
        for name, (soft, hard) in wanted.items()
    ]


def _rlimit(value: int) -> int:
    return _UNLIMITED if value < 0 else value


def _id_mappings(mappings: tuple[IdMapping, ...]) -> list[LinuxIDMapping]:
    return [
        {"containerID": each.container_id, "hostID": each.host_id, "size": each.size}
        for each in mappings
    ]
