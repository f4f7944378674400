"""From what a container was asked to be back to the keys of a definition.

`table` is the inverse of `definition`: what it returns, written and read again, asks for the same.
Plans compare containers in these words, too.
"""

from __future__ import annotations

import signal

from rootlesspy.engine.definitions import toml
from rootlesspy.engine.definitions.definition import without_labels
from rootlesspy.engine.inputs import secret_values
from rootlesspy.engine.inputs.health_values import NONE, HealthRequest, StartupRequest
from rootlesspy.engine.inputs.request import (
    Device,
    RunRequest,
    SecretUse,
    TmpfsMount,
    Ulimit,
    VolumeMount,
)
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network.driver import NetworkRequest
from rootlesspy.network.ports import PortMapping

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from rootlesspy.engine.record import ContainerRecord

    T = TypeVar("T")

_SIZES = (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10))
_TIMES = (("h", 3600 * 10**9), ("m", 60 * 10**9), ("s", 10**9), ("ms", 10**6), ("us", 10**3))
_RECORDS: dict[str, Callable[..., object]] = {
    "volumes": VolumeMount,
    "secrets": SecretUse,
    "tmpfs": TmpfsMount,
    "publish": PortMapping,
    "ulimits": Ulimit,
    "devices": Device,
}
# What -v says that --mount spells otherwise.
_MOUNT_SPELLINGS = {"bind": "bind-nonrecursive", "rbind": "bind-nonrecursive=false"}


def restore(fields: Mapping[str, object], name: str) -> RunRequest:
    """Make a request of what inputs.request.given kept of it, after a journey through JSON."""
    found: dict[str, Any] = {
        key: _tuples(value) for key, value in fields.items() if key in RunRequest._fields
    }
    for key, record in _RECORDS.items():
        if key in found:
            found[key] = tuple(record(*each) for each in found[key])
    if "network" in found:
        found["network"] = _restored(NetworkRequest(*found["network"]))
    if found.get("health") is not None:
        health = HealthRequest(*found["health"])
        if health.startup is not None:
            health = health._replace(startup=StartupRequest(*health.startup))
        found["health"] = health
    return RunRequest(**{"image": "", **found, "name": name})


def request_of(record: ContainerRecord) -> RunRequest:
    """Return what a container was asked to be.

    Raises Unsupported for one that was made before records kept it.
    """
    if not record.request:
        raise Unsupported(
            f"container {record.name} was made by an older rp, which did not record its options",
            hint="rp run it again",
        )
    return without_labels(restore(record.request, record.name))


def text_of(records: Sequence[ContainerRecord]) -> str:
    """Write containers as one definition.

    Raises Unsupported as request_of() does, UsageError when one waits for another that is left out.
    """
    requests = [request_of(each) for each in records]
    names = [str(each.name) for each in requests]
    for each in requests:
        for other in (*each.requires, *each.wants, *each.after):
            if other not in names:
                raise UsageError(
                    f"container {each.name} is started after {other}",
                    hint=f"both belong into one file: rp export-definition {other} {each.name}",
                )
    return text(requests)


def text(requests: Sequence[RunRequest]) -> str:
    """Write requests as a definition; each needs its name."""
    return toml.write([(("container", str(each.name)), table(each)) for each in requests])


def table(request: RunRequest) -> dict[str, object]:
    """Return the keys of [container.NAME], without those that say what goes without saying."""
    written = {key: write(request) for key, write in _WRITERS.items()}
    return {
        key: value
        for key, value in {**written, **_mounts(request)}.items()
        # 0 is a value: no limit, no timeout.
        if value is not None and value is not False and value not in ((), {}, [])
    }


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _size(size_bytes: int | None) -> str | int | None:
    """Write a size with the largest unit that divides it."""
    if size_bytes is None or size_bytes <= 0:
        return size_bytes
    for unit, factor in _SIZES:
        if size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return size_bytes


def _time(time_ns: int | None) -> str | None:
    if time_ns is None:
        return None
    if time_ns == 0:
        return "0"
    for unit, factor in _TIMES:
        if time_ns % factor == 0:
            return f"{time_ns // factor}{unit}"
    return f"{time_ns}ns"


def _cpus(quota_us: int | None) -> int | float | None:
    if quota_us is None:
        return None
    return quota_us // 1_000_000 if quota_us % 1_000_000 == 0 else quota_us / 1_000_000


def _signal(number: int | None) -> str | int | None:
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return number


def _entrypoint(words: tuple[str, ...] | None) -> str | list[str] | None:
    if words is None:
        return None
    return words[0] if len(words) == 1 and not words[0].startswith("[") else list(words)


def _pairs(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return dict(pairs)


def _restored(network: NetworkRequest) -> NetworkRequest:
    if not network.networks:
        return network
    from rootlesspy.network import attachment

    return network._replace(networks=tuple(map(attachment.restore, network.networks)))


def _network(network: NetworkRequest) -> str | list[str] | None:
    if network == NetworkRequest() or network.driver == "pod":
        return None
    options = f":{','.join(network.options)}" if network.options else ""
    way_out = network.driver + options
    if not network.networks:
        return way_out
    from rootlesspy.network import attachment

    found = [way_out] if network.chosen else []
    found += map(attachment.spelled, network.networks)
    return found[0] if len(found) == 1 else found


def _port(mapping: PortMapping) -> str:
    written = str(mapping).removesuffix("/tcp")
    return written.removeprefix(":") if not mapping.host_ip else written


def _host(host: str, address: str) -> str:
    return f"{host}:[{address}]" if ":" in address else f"{host}:{address}"


def _health(health: HealthRequest | None) -> dict[str, object]:
    if health is None:
        return {}
    startup = health.startup or StartupRequest(test=())
    plain, default = HealthRequest(), StartupRequest(test=())
    values: dict[str, object] = {
        "command": _test(health.test),
        "interval": _time(health.interval_ns),
        "timeout": _time(health.timeout_ns),
        "retries": health.retries,
        "start_period": _time(health.start_period_ns),
        "start_interval": _time(health.start_interval_ns),
        "on_failure": _unless(health.on_failure, plain.on_failure),
        "max_log_count": _unless(health.max_log_count, plain.max_log_count),
        "max_log_size": _unless(health.max_log_size, plain.max_log_size),
        "startup_command": _test(startup.test or None),
        "startup_interval": _time(_unless(startup.interval_ns, default.interval_ns)),
        "startup_timeout": _time(_unless(startup.timeout_ns, default.timeout_ns)),
        "startup_retries": _unless(startup.retries, default.retries),
        "startup_success": _unless(startup.successes, default.successes),
    }
    if health.test == NONE:
        values.update(command=None, disable=True)
    return {key: value for key, value in values.items() if value is not None}


def _test(test: tuple[str, ...] | None) -> str | list[str] | None:
    """Write a check's command so that health_values.parse_test reads the same."""
    if test is None:
        return None
    if test[0] == "CMD-SHELL":
        plain = test[1].split(" ")[0].upper() not in ("NONE", "CMD", "CMD-SHELL")
        return test[1] if plain and not test[1].startswith("[") else list(test)
    words = list(test[1:])
    return words if len(words) > 1 and words[0] not in ("CMD", "CMD-SHELL") else list(test)


def _unless(value: T, default: T) -> T | None:
    return None if value == default else value


def _mounts(request: RunRequest) -> dict[str, object]:
    """Return volumes, tmpfs and mounts; what the short form cannot say is a mount.

    From the first such one on all are: mounts come after volumes.
    """
    volumes: list[str] = []
    tmpfs: list[str] = []
    mounts: list[str] = []
    long = False
    for volume in request.volumes:
        long = long or _needs_mount(volume)
        (mounts if long else volumes).append((_mount if long else _volume)(volume))
    long = False
    for each in request.tmpfs:
        long = long or ":" in each.target
        (mounts if long else tmpfs).append((_tmpfs_mount if long else _tmpfs)(each))
    return {"volumes": volumes, "tmpfs": tmpfs, "mounts": mounts}


def _needs_mount(volume: VolumeMount) -> bool:
    return (
        ":" in volume.source
        or ":" in volume.target
        or (volume.kind == "anonymous" and bool(volume.options))
    )


def _volume(volume: VolumeMount) -> str:
    parts = [volume.source, volume.target] if volume.source else [volume.target]
    return ":".join([*parts, ",".join(volume.options)] if volume.options else parts)


def _mount(volume: VolumeMount) -> str:
    fields = [f"type={'bind' if volume.kind == 'bind' else 'volume'}"]
    if volume.source:
        fields.append(f"source={volume.source}")
    fields.append(f"target={volume.target}")
    return _csv([*fields, *(_MOUNT_SPELLINGS.get(each, each) for each in volume.options)])


def _tmpfs(mount: TmpfsMount) -> str:
    return ":".join([mount.target, ",".join(mount.options)] if mount.options else [mount.target])


def _tmpfs_mount(mount: TmpfsMount) -> str:
    options = (
        f"tmpfs-{each}" if each.startswith(("size=", "mode=")) else each for each in mount.options
    )
    return _csv(["type=tmpfs", f"target={mount.target}", *options])


def _csv(fields: list[str]) -> str:
    def quote(field: str) -> str:
        return '"' + field.replace('"', '""') + '"' if '"' in field or "," in field else field

    return ",".join(map(quote, fields))


_WRITERS: dict[str, Callable[[RunRequest], object]] = {
    "image": lambda asked: asked.image or None,
    "rootfs": lambda asked: asked.rootfs,
    "command": lambda asked: list(asked.command),
    "entrypoint": lambda asked: _entrypoint(asked.entrypoint),
    "env": lambda asked: dict(each.split("=", 1) for each in asked.env),
    "workdir": lambda asked: asked.workdir,
    "user": lambda asked: asked.user,
    "group_add": lambda asked: list(asked.group_add),
    "hostname": lambda asked: asked.hostname,
    "init": lambda asked: asked.init,
    "tty": lambda asked: asked.tty,
    "interactive": lambda asked: asked.interactive,
    "umask": lambda asked: None if asked.umask is None else f"{asked.umask:04o}",
    "labels": lambda asked: _pairs(asked.labels),
    "annotations": lambda asked: _pairs(asked.annotations),
    "hooks_dir": lambda asked: list(asked.hooks_dirs),
    "volumes": lambda _: (),
    "tmpfs": lambda _: (),
    "mounts": lambda _: (),
    "devices": lambda asked: [*(":".join(each) for each in asked.devices), *asked.cdi_devices],
    "secrets": lambda asked: [secret_values.text_of(each) for each in asked.secrets],
    "read_only": lambda asked: asked.read_only,
    "shm_size": lambda asked: _size(asked.shm_size_bytes),
    "network": lambda asked: _network(asked.network),
    "ports": lambda asked: [_port(each) for each in asked.publish],
    "publish_all": lambda asked: asked.publish_all,
    "add_hosts": lambda asked: [_host(*each) for each in asked.add_hosts],
    "dns": lambda asked: list(asked.dns),
    "dns_search": lambda asked: list(asked.dns_search),
    "dns_options": lambda asked: list(asked.dns_options),
    "memory": lambda asked: _size(asked.memory_bytes),
    "memory_swap": lambda asked: _size(asked.memory_swap_bytes),
    "memory_reservation": lambda asked: _size(asked.memory_reservation_bytes),
    "cpus": lambda asked: _cpus(asked.cpu_quota_us),
    "cpu_shares": lambda asked: asked.cpu_shares,
    "cpuset_cpus": lambda asked: asked.cpuset_cpus,
    "pids_limit": lambda asked: asked.pids_limit,
    "ulimits": lambda asked: [f"{each.name}={each.soft}:{each.hard}" for each in asked.ulimits],
    "properties": lambda asked: list(asked.properties),
    "ignore_missing_limits": lambda asked: asked.ignore_missing_limits,
    "privileged": lambda asked: asked.privileged,
    "cap_add": lambda asked: list(asked.cap_add),
    "cap_drop": lambda asked: list(asked.cap_drop),
    "security_opts": lambda asked: list(asked.security_opts),
    "landlock": lambda asked: list(asked.landlock),
    "sysctls": lambda asked: _pairs(asked.sysctls),
    "userns": lambda asked: asked.userns if asked.userns not in ("host-map", "private") else None,
    "uidmap": lambda asked: list(asked.uidmap),
    "gidmap": lambda asked: list(asked.gidmap),
    "subuidname": lambda asked: asked.subuidname or None,
    "subgidname": lambda asked: asked.subgidname or None,
    "ipc": lambda asked: asked.ipc or None,
    "pid": lambda asked: asked.pid or None,
    "uts": lambda asked: asked.uts or None,
    "cgroupns": lambda asked: asked.cgroupns if asked.cgroupns != "private" else None,
    "pod": lambda asked: asked.pod or None,
    "platform": lambda asked: asked.platform,
    "pull": lambda asked: _unless(asked.pull, "missing"),
    "verify_always": lambda asked: asked.verify_always,
    "healthcheck": lambda asked: _health(asked.health),
    "restart": lambda asked: _unless(asked.restart, "no"),
    "sdnotify": lambda asked: _unless(asked.sdnotify, "runner"),
    "log_driver": lambda asked: asked.log_driver or None,
    "log_options": lambda asked: _pairs(asked.log_options),
    "stop_signal": lambda asked: _signal(asked.stop_signal),
    "stop_timeout": lambda asked: asked.stop_timeout_s,
    "after": lambda asked: list(asked.after),
    "requires": lambda asked: list(asked.requires),
    "wants": lambda asked: list(asked.wants),
}
