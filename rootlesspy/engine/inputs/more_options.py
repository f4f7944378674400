"""Options that few containers are given, and that need more to be parsed than the others."""

from __future__ import annotations

from rootlesspy.engine.inputs import isolation_values, values
from rootlesspy.engine.inputs.constants import KEEP_GROUPS
from rootlesspy.engine.supervision import readiness
from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from rootlesspy.engine.inputs.health_values import HealthRequest
    from rootlesspy.engine.inputs.options import Values
    from rootlesspy.engine.inputs.request import Device, RunRequest, SecretUse

    T = TypeVar("T")

_HEALTH = (
    "health_cmd", "health_interval", "health_max_log_count", "health_max_log_size",
    "health_on_failure", "health_retries", "health_start_interval", "health_start_period",
    "health_startup_cmd", "health_startup_interval", "health_startup_retries",
    "health_startup_success", "health_startup_timeout", "health_timeout",
)  # fmt: skip
_ID_MAPS = ("uidmap", "gidmap", "subuidname", "subgidname")


def add(request: RunRequest, given: Values) -> RunRequest:
    """Return the request with these options; raises UsageError for the first bad one."""
    devices, cdi_devices = _devices(given)
    request = _with_limits(request, given)._replace(
        workdir=_text(given, "workdir", values.parse_workdir),
        user=_text(given, "user", values.parse_user),
        entrypoint=_limit(given, "entrypoint", values.parse_entrypoint),
        hostname=_text(given, "hostname", values.parse_hostname),
        labels=_labels(given),
        detach_keys=_detach_keys(given, request.detach_keys),
        stop_signal=_text(given, "stop_signal", values.parse_signal),
        stop_timeout_s=_stop_timeout(given),
        add_hosts=tuple(
            entry for found in _list(given, "add_host", values.parse_add_hosts) for entry in found
        ),
        dns=_dns(given),
        dns_search=_words(given, "dns_search", values.parse_dns_search),
        dns_options=_words(given, "dns_option", values.parse_word),
        shm_size_bytes=_limit(given, "shm_size", values.parse_size),
        devices=devices,
        platform=_text(given, "platform", values.parse_platform),
        group_add=_groups(given),
        umask=_text(given, "umask", values.parse_umask),
        restart=_restart(given),
        sdnotify=_text(given, "sdnotify", readiness.parse) or "runner",
        health=_health(given),
        secrets=_secrets(given),
        annotations=tuple(dict(_list(given, "annotation", values.parse_annotation)).items()),
        cdi_devices=cdi_devices,
    )
    return _with_isolation(_with_log(request, given), given)


def _with_limits(request: RunRequest, given: Values) -> RunRequest:
    memory, memory_swap, memory_reservation = _memory(given)
    return request._replace(
        memory_bytes=memory,
        memory_swap_bytes=memory_swap,
        memory_reservation_bytes=memory_reservation,
        cpu_quota_us=_limit(given, "cpus", values.parse_cpus) or None,
        cpu_shares=_cpu_shares(given),
        cpuset_cpus=_limit(given, "cpuset_cpus", values.parse_cpuset),
        pids_limit=_limit(given, "pids_limit", values.parse_pids_limit),
        properties=_list(given, "property", values.parse_property),
    )


def _with_isolation(request: RunRequest, given: Values) -> RunRequest:
    return request._replace(
        cap_add=_words(given, "cap_add", isolation_values.parse_capability),
        cap_drop=_words(given, "cap_drop", isolation_values.parse_capability),
        security_opts=_list(given, "security_opt", isolation_values.parse_security_option),
        userns=_userns(given),
        uidmap=_words(given, "uidmap", isolation_values.parse_id_map),
        gidmap=_words(given, "gidmap", isolation_values.parse_id_map),
        subuidname=_text(given, "subuidname", isolation_values.parse_owner) or "",
        subgidname=_text(given, "subgidname", isolation_values.parse_owner) or "",
        ulimits=tuple(
            limit
            for found in _list(given, "ulimit", isolation_values.parse_ulimits)
            for limit in found
        ),
        sysctls=_list(given, "sysctl", isolation_values.parse_sysctl),
        ipc=_text(given, "ipc", isolation_values.parse_namespace) or "",
        pid=_text(given, "pid", isolation_values.parse_namespace) or "",
        uts=_text(given, "uts", isolation_values.parse_namespace) or "",
        landlock=_landlock(given),
    )


def _with_log(request: RunRequest, given: Values) -> RunRequest:
    driver, options = given.value("log_driver"), given.values("log_opt")
    if driver is None and not options:
        return request
    from rootlesspy.engine.output import log_values

    log_driver, log_options = log_values.parse(driver, options)
    return request._replace(log_driver=log_driver, log_options=log_options)


def _devices(given: Values) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    """Return device nodes, and the devices that CDI files describe."""
    if given.values("device_cgroup_rule"):
        raise Unsupported(
            "--device-cgroup-rule: which devices a cgroup may use can only be ruled as root",
            hint="name the device: --device /dev/NAME",
        )
    nodes, described = [], [f"nvidia.com/gpu={name}" for name in _words(given, "gpus", _gpu)]
    for text in given.values("device"):
        if isolation_values.is_cdi_device(text):
            described.append(text)
        else:
            nodes.append(isolation_values.parse_device(text, "--device"))
    return tuple(nodes), tuple(dict.fromkeys(described))


def _gpu(text: str, option: str) -> str:
    if not isolation_values.is_cdi_device(f"nvidia.com/gpu={text}"):
        values.reject(option, text, "all, or names of devices of nvidia.com/gpu")
    return text


def _landlock(given: Values) -> tuple[str, ...]:
    if not given.values("landlock"):
        return ()
    from rootlesspy.engine.inputs import landlock_values

    return landlock_values.check(_words(given, "landlock", landlock_values.parse))


def _secrets(given: Values) -> tuple[SecretUse, ...]:
    if not given.values("secret"):
        return ()
    from rootlesspy.engine.inputs import secret_values

    return _list(given, "secret", secret_values.parse)


def _text(given: Values, dest: str, parse: Callable[[str, str], T]) -> T | None:
    """Parse an option's text; not given and empty are the same."""
    text = given.value(dest)
    return parse(text, _option(dest)) if text else None


def _limit(given: Values, dest: str, parse: Callable[[str, str], T]) -> T | None:
    """Parse an option's text, the empty one too."""
    text = given.value(dest)
    return None if text is None else parse(text, _option(dest))


def _list(given: Values, dest: str, parse: Callable[[str, str], T]) -> tuple[T, ...]:
    """Parse every text of an option that may be repeated."""
    return tuple(parse(text, _option(dest)) for text in given.values(dest))


def _words(given: Values, dest: str, parse: Callable[[str, str], T]) -> tuple[T, ...]:
    """Parse every text of an option that may be repeated and takes lists with commas (podman)."""
    return tuple(
        parse(word, _option(dest)) for text in given.values(dest) for word in text.split(",")
    )


def _option(dest: str) -> str:
    """Spell a destination as its option: the table holds to `--` and dashes for underscores."""
    return f"--{dest.replace('_', '-')}"


def _labels(given: Values) -> tuple[tuple[str, str], ...]:
    labels: dict[str, str] = {}
    for path in given.values("label_file"):
        labels.update(values.read_label_file(path, "--label-file"))
    labels.update(_list(given, "label", values.parse_label))
    return tuple(labels.items())


def _memory(given: Values) -> tuple[int | None, int | None, int | None]:
    """Return memory, memory and swap together, and reservation; 0 means no limit, as in podman."""
    memory = _limit(given, "memory", values.parse_size) or None
    swap = _limit(given, "memory_swap", values.parse_size_or_unlimited) or None
    reservation = _limit(given, "memory_reservation", values.parse_size) or None
    if swap is not None and swap != -1:
        if memory is None:
            raise UsageError("--memory-swap needs --memory", hint="it limits both together")
        if swap < memory:
            raise UsageError("--memory-swap is less than --memory", hint="it limits both together")
    if memory is not None and reservation is not None and reservation > memory:
        raise UsageError("--memory-reservation is more than --memory")
    return memory, swap, reservation


def _cpu_shares(given: Values) -> int | None:
    """Parse the weight in the scale of cgroup v1, as podman takes it; 0 is the default."""
    text = given.value("cpu_shares")
    if text is None or text == "0":
        return None
    return values.parse_integer(text, "--cpu-shares", 2, 262144)


def _groups(given: Values) -> tuple[str, ...]:
    groups = _words(given, "group_add", values.parse_group)
    if KEEP_GROUPS in groups and len(groups) > 1:
        raise UsageError(f"--group-add={KEEP_GROUPS} excludes other groups")
    return groups


def _userns(given: Values) -> str:
    mode = _text(given, "userns", isolation_values.parse_userns)
    own = [dest for dest in _ID_MAPS if given.value(dest) or given.values(dest)]
    if not own:
        return mode or "host-map"
    if mode is not None:
        raise UsageError(f"--userns and {_option(own[0])} exclude each other")
    for kind in ("uid", "gid"):
        if given.values(f"{kind}map") and given.value(f"sub{kind}name"):
            raise UsageError(f"--{kind}map and --sub{kind}name exclude each other")
    return "private"


def _restart(given: Values) -> str:
    policy = _text(given, "restart", values.parse_restart) or "no"
    if policy != "no" and given.flag("rm"):
        raise UsageError(f"--rm and --restart={policy} exclude each other")
    return policy


def _health(given: Values) -> HealthRequest | None:
    if not (given.flag("no_healthcheck") or any(given.value(dest) for dest in _HEALTH)):
        return None
    # Imported here: most containers have no health check.
    from rootlesspy.engine.inputs import health_values

    return health_values.parse_options(given)


def _stop_timeout(given: Values) -> int | None:
    text = given.value("stop_timeout")
    return None if not text else values.parse_integer(text, "--stop-timeout", 0, 2**31 - 1)


def _detach_keys(given: Values, default: bytes) -> bytes:
    keys = _limit(given, "detach_keys", values.parse_detach_keys)
    return default if keys is None else keys


def _dns(given: Values) -> tuple[str, ...]:
    servers = _words(given, "dns", values.parse_dns)
    if "none" in servers and len(servers) > 1:
        raise UsageError("--dns none excludes other name servers")
    return servers
