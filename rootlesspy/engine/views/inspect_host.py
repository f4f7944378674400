"""What a container was given of the host: mounts, ports, limits, rights, as podman inspect has it.

Computed from the record and config.json; a limit of a running container is what its cgroup says.
"""

from __future__ import annotations

from rootlesspy.engine.inputs import capabilities
from rootlesspy.engine.views import stats
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

_UNLIMITED = 2**63 - 1
_SCRATCH = ("/tmp", "/var/tmp", "/run")  # noqa: S108 - inside the container
_OWN_TMPFS = ("/dev", "/dev/shm")  # noqa: S108 - inside the container
_OWN_BINDS = ("/run/rp-init",)
_PROPAGATIONS = ("private", "shared", "slave", "unbindable")
_OWN_SYSCTLS = {"net.ipv4.ping_group_range": "0 0"}
# What podman has and no rootless container of rp can have, with the value that means so.
_HOST_FIXED: dict[str, Any] = {
    "AutoRemoveImage": False,
    "BlkioDeviceReadBps": None,
    "BlkioDeviceReadIOps": None,
    "BlkioDeviceWriteBps": None,
    "BlkioDeviceWriteIOps": None,
    "BlkioWeightDevice": None,
    "Cgroup": "",
    "CgroupConf": None,
    "CgroupManager": "systemd",
    "CgroupParent": "",
    "ConsoleSize": [0, 0],
    "ContainerIDFile": "",
    "CpuCount": 0,
    "CpuPercent": 0,
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "DiskQuota": 0,
    "HostsFile": "",
    "IOMaximumBandwidth": 0,
    "IOMaximumIOps": 0,
    "Isolation": "",
    "KernelMemory": 0,
    "Links": None,
    "MemorySwappiness": -1,
    "OomKillDisable": False,
    "PublishAllPorts": False,
    "Runtime": "rootlesspy",
    "VolumeDriver": "",
    "VolumesFrom": None,
}
_NETWORK_FIXED: dict[str, Any] = {
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "MacAddress": "",
    "Bridge": "",
    "SandboxID": "",
    "HairpinMode": False,
    "SandboxKey": "",
    "Networks": {},
}


class Log(NamedTuple):
    """Where a container's output goes."""

    driver: str
    path: str
    """The file of json-file, else empty."""


def mount_points(spec: dict[str, Any], paths: Paths, container_id: str) -> list[dict[str, Any]]:
    """Return Mounts: those that somebody asked for, volumes, binds and tmpfs."""
    own_source = f"{paths.runtime}/{container_id}/"
    read_only = spec.get("root", {}).get("readonly")
    own_tmpfs = (*_OWN_TMPFS, *(_SCRATCH if read_only else ()))
    found = []
    for each in spec.get("mounts", []):
        kind, destination = each["type"], each["destination"]
        if kind == "bind":
            source = str(each["source"])
            is_own = destination in _OWN_BINDS or source.startswith(own_source)
            if not is_own and (destination, source) != ("/sys", "/sys") and not _is_device(each):
                found.append(_mount_point(each, paths))
        elif kind == "tmpfs" and destination not in own_tmpfs:
            found.append(_mount_point(each, paths))
    return found


def _mount_point(mount: dict[str, Any], paths: Paths) -> dict[str, Any]:
    """Return one element of Mounts."""
    kind, source = str(mount["type"]), str(mount["source"])
    volume = _volume_name(source, paths) if kind == "bind" else ""
    propagation = next((o for o in mount["options"] if o.removeprefix("r") in _PROPAGATIONS), "")
    # Without the r of "recursive": -v and people know nodev, not rnodev.
    shown = [
        o[1:] if o.startswith("rno") else o
        for o in mount["options"]
        if o not in (propagation, "ro", "rro", "rw")
    ]
    return {
        "Type": "volume" if volume else kind,
        **({"Name": volume} if volume else {}),
        "Source": "" if kind == "tmpfs" else source,
        "Destination": str(mount["destination"]),
        "Driver": "local" if volume else "",
        "Mode": "",
        "Options": shown,
        "RW": not {"ro", "rro"} & set(mount["options"]),
        "Propagation": propagation,
    }


def port_bindings(kept: ContainerRecord) -> dict[str, list[dict[str, str]]]:
    """Return the published ports: "80/tcp" → addresses and ports of the host."""
    found: dict[str, list[dict[str, str]]] = {}
    for address, host, inner, protocol, *_ in kept.ports:
        binding = {"HostIp": str(address or "0.0.0.0"), "HostPort": str(host)}  # noqa: S104 text
        found.setdefault(f"{inner}/{protocol}", []).append(binding)
    return found


def network_settings(paths: Paths, kept: ContainerRecord) -> dict[str, Any]:
    """Return NetworkSettings: the addresses in networks, at the top too when there is one alone.

    Else they are empty, as podman's are: those of pasta and slirp4netns lead nowhere outside.
    """
    found: dict[str, Any] = {
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": port_bindings(kept),
        **_NETWORK_FIXED,
    }
    pod_id = kept.shares.get("network", "").partition("pod:")[2]
    if kept.network.get("networks") or pod_id:
        from rootlesspy.engine.networks import description
        from rootlesspy.engine.pods import views

        if pod_id:
            found["Networks"] = views.networks(paths, pod_id)
        else:
            found["Networks"] = description.networks_of(paths, kept)
        if len(found["Networks"]) == 1:
            (only,) = found["Networks"].values()
            found |= {key: value for key, value in only.items() if key in found}
    return found


def host_config(
    kept: ContainerRecord,
    spec: dict[str, Any],
    points: list[dict[str, Any]],
    directory: str | None,
    log: Log,
) -> dict[str, Any]:
    """Return HostConfig.

    points: Mounts; directory: the scope's cgroup while it runs.
    """
    policy, _, retries = kept.restart.partition(":")
    linux = spec.get("linux", {})
    bounding = tuple(spec.get("process", {}).get("capabilities", {}).get("bounding", ()))
    return {
        "Binds": [_bind_text(each) for each in points if each["Type"] != "tmpfs"],
        "LogConfig": {
            "Type": log.driver,
            "Config": kept.log_options or None,
            "Path": log.path,
            "Tag": kept.log_options.get("tag", ""),
            "Size": kept.log_options.get("max-size", "0B"),
        },
        "NetworkMode": _network_mode(kept),
        "PortBindings": port_bindings(kept),
        "RestartPolicy": {
            "Name": policy or "no",
            "MaximumRetryCount": int(retries) if retries.isdigit() else 0,
        },
        "AutoRemove": kept.remove,
        "Annotations": spec.get("annotations", {}),
        "Dns": kept.resolver.get("dns", []),
        "DnsOptions": kept.resolver.get("dns_options", []),
        "DnsSearch": kept.resolver.get("dns_search", []),
        "ExtraHosts": [_extra_host(each) for each in kept.resolver.get("add_hosts", [])],
        "CapAdd": sorted(set(bounding) - set(capabilities.DEFAULT)),
        "CapDrop": sorted(set(capabilities.DEFAULT) - set(bounding)) if bounding else [],
        "GroupAdd": kept.group_add,
        "Cgroups": "default" if kept.unit else "disabled",
        "OomScoreAdj": spec.get("process", {}).get("oomScoreAdj", 0),
        "Privileged": _is_privileged(spec, bounding),
        "ReadonlyRootfs": bool(spec.get("root", {}).get("readonly")),
        "SecurityOpt": _security_options(spec),
        "Landlock": kept.request.get("landlock", []),
        "Sysctls": {
            key: value
            for key, value in linux.get("sysctl", {}).items()
            if _OWN_SYSCTLS.get(key) != value
        },
        "Tmpfs": {
            each["Destination"]: ",".join(["rw" if each["RW"] else "ro", *each["Options"]])
            for each in points
            if each["Type"] == "tmpfs"
        },
        "CgroupMode": str(kept.request.get("cgroupns", "private")),
        "IpcMode": _shared_mode(kept, "ipc"),
        "PidMode": _shared_mode(kept, "pid"),
        "UTSMode": _shared_mode(kept, "uts"),
        "UsernsMode": "" if kept.userns == "host-map" else kept.userns,
        "IDMappings": _id_mappings(kept),
        "ShmSize": _shm_bytes(spec),
        "Devices": [_device(each) for each in spec.get("mounts", []) if _is_device(each)],
        "Ulimits": _ulimits(spec),
        **_resources(linux.get("resources", {}), directory),
        **_HOST_FIXED,
    }


def _resources(resources: dict[str, Any], directory: str | None) -> dict[str, Any]:
    """Return the limits: as the cgroup has them now, else as they were asked for.

    systemctl set-property and rp update change a running container's; 0 is no limit.
    """
    memory, cpu = resources.get("memory", {}), resources.get("cpu", {})
    limit, swap = memory.get("limit", 0), memory.get("swap")
    reservation = memory.get("reservation", 0)
    quota, period = cpu.get("quota", 0), cpu.get("period", 0)
    pids = max(0, resources.get("pids", {}).get("limit", 0))
    if directory is not None:
        now = stats.limits(directory)
        usage = stats.read(directory)
        if usage.memory_current_bytes is not None:
            limit, reservation = now.memory_bytes or 0, now.memory_low_bytes or 0
            swap = None if now.swap_bytes is None or not limit else limit + now.swap_bytes
        if usage.pids_peak is not None or now.pids is not None:
            pids = now.pids or 0
        if now.cpu_quota_us is not None:
            quota, period = now.cpu_quota_us, now.cpu_period_us or 0
    return {
        "Memory": limit,
        "MemoryReservation": reservation,
        # OCI and podman count both together; not said: as much swap as memory.
        "MemorySwap": (2 * limit if swap is None else swap) if limit else 0,
        "NanoCpus": quota * 10**9 // period if quota and period else 0,
        "CpuQuota": quota,
        "CpuPeriod": period,
        "CpuShares": cpu.get("shares", 0),
        "CpusetCpus": cpu.get("cpus", ""),
        "CpusetMems": cpu.get("mems", ""),
        "PidsLimit": pids,
        "BlkioWeight": resources.get("blockIO", {}).get("weight", 0),
    }


def _extra_host(pair: object) -> str:
    """Write name and address as --add-host takes them."""
    return ":".join(map(str, pair)) if isinstance(pair, (list, tuple)) else str(pair)


def _bind_text(point: dict[str, Any]) -> str:
    """Write a mount as -v takes it."""
    access = "rw" if point["RW"] else "ro"
    options = ",".join([access, *filter(None, [point["Propagation"]]), *point["Options"]])
    return f"{point.get('Name') or point['Source']}:{point['Destination']}:{options}"


def _volume_name(source: str, paths: Paths) -> str:
    head, _, tail = source.removeprefix(f"{paths.volumes}/").partition("/")
    return head if source.startswith(f"{paths.volumes}/") and tail == "_data" else ""


def _is_device(mount: dict[str, Any]) -> bool:
    """Say whether --device made a mount: -v does not forbid to execute."""
    options = mount["options"]
    return (
        mount["type"] == "bind"
        and str(mount["source"]).startswith("/dev/")
        and options == ["bind", "rprivate", "nosuid", "noexec"]
    )


def _device(mount: dict[str, Any]) -> dict[str, str]:
    return {
        "PathOnHost": str(mount["source"]),
        "PathInContainer": str(mount["destination"]),
        "CgroupPermissions": "",
    }


def _shared_mode(kept: ContainerRecord, kind: str) -> str:
    """Return whose namespace it is, container:ID, pod:ID, ns:PATH or host."""
    own = "host" if kept.request.get(kind) == "host" else "private"
    return kept.shares.get(kind, own)


def _id_mappings(kept: ContainerRecord) -> dict[str, list[str]] | None:
    """Return IDMappings, which podman has of containers with a user namespace of their own alone.

    Its ids are those that --uidmap takes: 0 is the user, 1… are the subordinate ids in order.
    """
    if kept.userns == "host-map" or "user" in kept.shares:
        return None
    from rootlesspy.engine import idmap, idmap_lines

    try:
        maps, own = idmap.of(kept), idmap.default_maps()
    except Error:
        # /etc/subuid no longer has what its mode needs: it cannot be started either.
        return None
    uids, gids = (idmap_lines.texts(*each) for each in zip(maps, own, strict=True))
    return {"UidMap": uids, "GidMap": gids}


def _network_mode(kept: ContainerRecord) -> str:
    if kept.network.get("networks"):
        return "bridge"
    driver, options = str(kept.network.get("driver", "")), kept.network.get("options")
    if not options or not isinstance(options, (list, tuple)):
        return driver
    return f"{driver}:{','.join(map(str, options))}"


def _is_privileged(spec: dict[str, Any], bounding: tuple[str, ...]) -> bool:
    linux = spec.get("linux", {})
    return (
        set(bounding) == set(capabilities.ALL)
        and "seccomp" not in linux
        and not linux.get("maskedPaths")
    )


def _security_options(spec: dict[str, Any]) -> list[str]:
    """Return what differs from rp's defaults, and no-new-privileges, which is one."""
    if not spec:
        return []
    found = []
    if spec.get("process", {}).get("noNewPrivileges"):
        found.append("no-new-privileges")
    if "seccomp" not in spec.get("linux", {}):
        found.append("seccomp=unconfined")
    return found


def _shm_bytes(spec: dict[str, Any]) -> int:
    for each in spec.get("mounts", []):
        if each["destination"] == "/dev/shm":  # noqa: S108 - inside the container
            for option in each["options"]:
                name, _, number = option.partition("=")
                if name == "size" and number.isdigit():
                    return int(number)
    return 0


def _ulimits(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all limits, as all are set; unlimited is -1."""
    return [
        {
            "Name": each["type"],
            "Soft": each["soft"] if each["soft"] <= _UNLIMITED else -1,
            "Hard": each["hard"] if each["hard"] <= _UNLIMITED else -1,
        }
        for each in spec.get("process", {}).get("rlimits", [])
    ]
