"""What is shown of pods: their state, podman's rows and podman's JSON.

There is no infra container: the fields that name one are empty, and it is not counted.
"""

from __future__ import annotations

from datetime import UTC, datetime

from rootlesspy.engine import lifecycle
from rootlesspy.engine.pods import actions, store
from rootlesspy.engine.supervision import control
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.network import driver

if TYPE_CHECKING:
    from rootlesspy.engine.pods.store import Pod
    from rootlesspy.engine.record import Container
    from rootlesspy.paths import Paths

# In podman's order: as --share's default has it.
_SHOWN = {"uts": "uts", "ipc": "ipc", "network": "net", "pid": "pid"}


def state_of(paths: Paths, container: Container) -> str:
    """Return created, running, paused, exited or broken."""
    return "paused" if lifecycle.is_paused(paths, container) else container.state


def status(paths: Paths, pod: Pod, states: list[str]) -> str:
    """Say what podman says of a pod whose members are in these states."""
    everybody = list(states)
    if pod.infra:
        runs = paths.runtime is not None and control.connect_once(paths, pod.id)
        held = "exited" if actions.was_started(paths, pod) else "created"
        # Frozen members do not freeze their service.
        paused = runs and bool(states) and set(states) == {"paused"}
        everybody.append("paused" if paused else "running" if runs else held)
    kinds = set(everybody)
    if kinds <= {"created"}:
        return "Created"
    for kind, word in (("running", "Running"), ("paused", "Paused"), ("exited", "Exited")):
        if kinds == {kind}:
            return word
    return "Degraded" if kinds & {"running", "paused"} else "Exited"


def listed(paths: Paths, pod: Pod) -> dict[str, Any]:
    """Return a pod as `podman pod ps --format json` has it."""
    members = [(each, state_of(paths, each)) for each in store.members(paths, pod)]
    return {
        "Cgroup": pod.slice,
        "Containers": [
            {
                "Id": each.record.id,
                "Names": each.record.name,
                "Status": state,
                "RestartCount": 0,
            }
            for each, state in members
        ],
        "Created": _moment(pod.created_s),
        "Id": pod.id,
        "InfraId": "",
        "Name": pod.name,
        "Namespace": "",
        "Networks": [each.name for each in driver.restore(pod.network).networks],
        "SharedNamespaces": _shared(pod),
        "Status": status(paths, pod, [state for _, state in members]),
        "Labels": dict(pod.labels),
    }


def inspected(paths: Paths, pod: Pod) -> dict[str, Any]:
    """Return a pod as `podman pod inspect` has it."""
    members = [(each, state_of(paths, each)) for each in store.members(paths, pod)]
    found: dict[str, Any] = {
        "Id": pod.id,
        "Name": pod.name,
        "Created": _moment(pod.created_s),
        "ExitPolicy": pod.exit_policy,
        "State": status(paths, pod, [state for _, state in members]),
        "Hostname": pod.hostname,
        "Labels": dict(pod.labels),
        "CreateCgroup": True,
        "CgroupParent": "",
        "CgroupPath": pod.slice,
        "CreateInfra": pod.infra,
        "InfraContainerID": "",
        "SharedNamespaces": _shared(pod),
        "NumContainers": len(members),
        "Containers": [
            {"Id": each.record.id, "Name": each.record.name, "State": state}
            for each, state in members
        ],
        "Unit": pod.unit if pod.infra else "",
        "Slice": pod.slice,
    }
    if pod.infra:
        found["InfraConfig"] = _infra(pod)
    memory, cpu = pod.resources.get("memory", {}), pod.resources.get("cpu", {})
    held = {
        "memory_limit": memory.get("limit"),
        "memory_swap": memory.get("swap"),
        "cpu_shares": cpu.get("shares"),
        "cpu_period": cpu.get("period"),
        "cpu_quota": cpu.get("quota"),
        "cpuset_cpus": cpu.get("cpus"),
    }
    found |= {name: value for name, value in held.items() if value}
    return found


def _shared(pod: Pod) -> list[str]:
    return [word for kind, word in _SHOWN.items() if kind in pod.share]


def _infra(pod: Pod) -> dict[str, Any]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for address, host, inner, protocol, *_ in pod.ports:
        place = {"HostIp": str(address or "0.0.0.0"), "HostPort": str(host)}  # noqa: S104 text
        bindings.setdefault(f"{inner}/{protocol}", []).append(place)
    asked = pod.resolver
    hosts = [
        ":".join(map(str, pair)) for pair in asked.get("add_hosts", ()) if isinstance(pair, list)
    ]
    return {
        "PortBindings": bindings,
        "HostNetwork": pod.network.get("driver") == "host",
        "NoManageResolvConf": asked.get("dns") == ["none"],
        "DNSServer": asked.get("dns") or None,
        "DNSSearch": asked.get("dns_search") or None,
        "DNSOption": asked.get("dns_options") or None,
        "NoManageHosts": False,
        "HostAdd": hosts or None,
        "Networks": [each.name for each in driver.restore(pod.network).networks] or None,
        "NetworkOptions": None,
        "pid_ns": "shared" if "pid" in pod.share else "private",
        "userns": "host" if pod.userns == "host-map" else pod.userns,
        "uts_ns": "private",
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def pod_name(paths: Paths, pod_id: str) -> str:
    """Return the name of a container's pod; "" when it is gone."""
    return next((each.name for each in store.everything(paths) if each.id == pod_id), "")


def networks(paths: Paths, pod_id: str) -> dict[str, Any]:
    """Return NetworkSettings.Networks of a pod's members; without the pod nothing."""
    from rootlesspy.engine.networks import description

    for each in store.everything(paths):
        if each.id == pod_id:
            return description.networks_of_pod(paths, each)
    return {}


def pod_ports(paths: Paths, pod_id: str) -> list[list[object]]:
    """Return the ports that a container's pod publishes."""
    return next((each.ports for each in store.everything(paths) if each.id == pod_id), [])
