"""What of a container is decided by its request alone: its namespaces, its limits, its scope.

Pure.  So it can begin before its image is looked at (engine.supervision.outlook).
"""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.oci.runtime_spec import LinuxNamespace, LinuxResources

_PIDS_LIMIT = 2048
_CPU_PERIOD_US = 100_000
_STOP_TIMEOUT_S = 10


def namespaces(request: RunRequest) -> list[LinuxNamespace]:
    """Return the namespaces that are made for the container.  Raises UsageError.

    A PID namespace takes its processes along when it ends; without one only the cgroup knows them.
    """
    if request.pid == "host" and request.cgroups == "disabled":
        raise UsageError(
            "--pid=host and --cgroups=disabled exclude each other",
            hint="its processes would outlive it: nothing else holds them together",
        )
    if request.uts == "host" and request.hostname:
        raise UsageError("--hostname and --uts=host exclude each other: the name is the host's")
    kinds: list[LinuxNamespace] = [{"type": "user"}, {"type": "mount"}]
    if request.pid != "host":
        kinds.append({"type": "pid"})
    if request.uts != "host":
        kinds.append({"type": "uts"})
    if request.ipc != "host":
        kinds.append({"type": "ipc"})
    if request.cgroupns != "host":
        kinds.append({"type": "cgroup"})
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


def unit(request: RunRequest, name: str) -> str:
    """Return the scope of a container; empty where it has none."""
    return f"rp-{name}.scope" if request.cgroups == "enabled" else ""


def default_limits(request: RunRequest) -> list[str]:
    """Return the systemd properties that nobody asked for."""
    return ["TasksMax"] if request.pids_limit is None else []


def stop_timeout_s(request: RunRequest) -> int:
    """Return how long the payload may take to obey its stop signal."""
    return _STOP_TIMEOUT_S if request.stop_timeout_s is None else request.stop_timeout_s
