"""From what was asked to an OCI runtime spec: pure, no disk, no kernel.

The spec is the one description that everything later carries out.  Defaults are podman's; where
they differ a comment says why.  Source: OCI runtime-spec 1.2, podman-run(1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.engine import spec_mounts
from rootlesspy.engine.inputs import capabilities
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.network.driver import SHARED
from rootlesspy.systemd import notify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.linux.userns import IdMapping, IdMaps
    from rootlesspy.oci.image_spec import ContainerConfig
    from rootlesspy.oci.runtime_spec import (
        LinuxIDMapping,
        LinuxNamespace,
        LinuxResources,
        LinuxSeccomp,
        Mount,
        Rlimit,
        Spec,
    )

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PIDS_LIMIT = 2048
_CPU_PERIOD_US = 100_000
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
        "mounts": spec_mounts.mounts(request, volumes, files, maps),
        "linux": {
            "uidMappings": _id_mappings(maps.uids),
            "gidMappings": _id_mappings(maps.gids),
            "namespaces": namespaces(request),
            "resources": resources(request),
            "sysctl": sysctls(request),
            "maskedPaths": security.masked,
            "readonlyPaths": security.read_only,
        },
    }
    if request.tty and all(caller.terminal_size):
        rows, columns = caller.terminal_size
        spec["process"]["consoleSize"] = {"height": rows, "width": columns}
    if seccomp is not None:
        spec["linux"]["seccomp"] = seccomp
    return spec


class Security(NamedTuple):
    """What --security-opt and --privileged come to."""

    no_new_privileges: bool
    seccomp: str
    """"": the default profile; "unconfined"; or the path of a profile."""
    masked: list[str]
    read_only: list[str]


def parse_security_opts(request: RunRequest) -> Security:
    """Understand --security-opt; raise UsageError or Unsupported for what cannot be done."""
    no_new_privileges, profile = not request.privileged, ""
    if request.privileged:
        profile = "unconfined"
    masked = [] if request.privileged else list(_MASKED_PATHS)
    read_only = [] if request.privileged else list(_READONLY_PATHS)
    for option in request.security_opts:
        key, _, value = option.partition("=")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            no_new_privileges = value != "false"
        elif key == "seccomp" and value:
            profile = value
        elif key == "mask" and value:
            masked += value.split(":")
        elif key == "unmask" and value:
            masked, read_only = _unmask(value, masked, read_only)
        elif (key, value) in (("label", "disable"), ("apparmor", "unconfined")):
            # Neither confines a rootless container: there is nothing to switch off.
            continue
        elif key in ("label", "apparmor"):
            raise Unsupported(f"--security-opt {option}: {key} needs root and is not supported")
        else:
            raise UsageError(
                f"--security-opt {option!r} is unknown",
                hint="no-new-privileges[=false], seccomp=FILE|unconfined, mask=PATH, unmask=PATH",
            )
    return Security(no_new_privileges, profile, masked, read_only)


def capability_names(request: RunRequest) -> tuple[str, ...]:
    """Return the container's capabilities."""
    return capabilities.resolve(request.cap_add, request.cap_drop, privileged=request.privileged)


def arguments(request: RunRequest, config: ContainerConfig) -> list[str]:
    """Return the payload's argv: entrypoint and command, as podman combines them."""
    if request.entrypoint is None:
        command = list(request.command) or config.get("Cmd") or []
    else:
        # Another entrypoint makes the image's command meaningless.
        command = list(request.command)
    argv = [*entrypoint(request, config), *command]
    if request.init:
        argv = ["/run/rp-init", "--", *argv] if argv else []
    if not argv:
        raise UsageError("no command: the image has none", hint="name one: rp run IMAGE COMMAND")
    return argv


def entrypoint(request: RunRequest, config: ContainerConfig) -> list[str]:
    """Return the entrypoint's words, with which the payload's argv begins: asked for or image's."""
    if request.entrypoint is None:
        return config.get("Entrypoint") or []
    return [word for word in request.entrypoint if word]


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
    """Return the container's host name: the host's own with --network=host, else the short id."""
    if request.hostname:
        return request.hostname
    return caller.host_name if request.network.driver == "host" else container_id[:12]


def namespaces(request: RunRequest) -> list[LinuxNamespace]:
    """Return the namespaces that are made for the container."""
    kinds: list[LinuxNamespace] = [
        {"type": "user"},
        {"type": "mount"},
        {"type": "pid"},
        {"type": "uts"},
        {"type": "ipc"},
        {"type": "cgroup"},
    ]
    if request.network.driver != "host":
        kinds.append({"type": "network"})
    return kinds


def resources(request: RunRequest) -> LinuxResources:
    """Return the limits, in bytes and microseconds."""
    limits: LinuxResources = {}
    memory = {
        "limit": request.memory_bytes,
        "reservation": request.memory_reservation_bytes,
        "swap": request.memory_swap_bytes,
    }
    if any(value is not None for value in memory.values()):
        limits["memory"] = {k: v for k, v in memory.items() if v is not None}  # type: ignore[typeddict-item]  # filtered
    cpu: dict[str, object] = {}
    if request.cpu_quota_us:
        cpu["quota"] = request.cpu_quota_us * _CPU_PERIOD_US // 1_000_000
        cpu["period"] = _CPU_PERIOD_US
    if request.cpu_shares:
        cpu["shares"] = request.cpu_shares
    if request.cpuset_cpus:
        cpu["cpus"] = request.cpuset_cpus
    if cpu:
        limits["cpu"] = cpu  # type: ignore[typeddict-item]  # the four keys above
    wanted = _PIDS_LIMIT if request.pids_limit is None else request.pids_limit
    limits["pids"] = {"limit": wanted if wanted > 0 else -1}
    return limits


def sysctls(request: RunRequest) -> dict[str, str]:
    """Return the kernel parameters; only those of the container's own namespaces are allowed."""
    own_network = request.network.driver not in ("host", *SHARED)
    # As podman: ping works without a capability for the container's root group.
    found = {"net.ipv4.ping_group_range": "0 0"} if own_network else {}
    for key, value in request.sysctls:
        plain = all(c.isascii() and (c.isalnum() or c in "._-") for c in key)
        if not plain or ".." in key or "\n" in value or "\0" in value:
            raise UsageError(f"--sysctl {key}={value!r} is malformed")
        if (
            (key.startswith("net.") and own_network)
            or key in _IPC_SYSCTLS
            or key.startswith("fs.mqueue.")
        ):
            found[key] = value
        else:
            raise UsageError(
                f"--sysctl {key} does not belong to a namespace of the container",
                hint="allowed: net.* (with an own network), fs.mqueue.*, kernel.msg*, .sem, .shm*",
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


def _unmask(value: str, masked: list[str], read_only: list[str]) -> tuple[list[str], list[str]]:
    if value == "ALL":
        return [], []
    wanted = value.split(":")
    return (
        [path for path in masked if path not in wanted],
        [path for path in read_only if path not in wanted],
    )


def _id_mappings(mappings: tuple[IdMapping, ...]) -> list[LinuxIDMapping]:
    return [
        {"containerID": each.container_id, "hostID": each.host_id, "size": each.size}
        for each in mappings
    ]
