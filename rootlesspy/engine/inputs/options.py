"""The options of a container, as text, become a RunRequest.

The one function behind both parsers of the command line and behind definitions.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rootlesspy.engine import names
from rootlesspy.engine.inputs import environment, isolation_values, mount_values, values
from rootlesspy.engine.inputs.request import RunRequest, SecretUse, TmpfsMount, VolumeMount
from rootlesspy.engine.supervision import readiness
from rootlesspy.errors import UsageError
from rootlesspy.network.driver import DRIVERS, NetworkRequest, parse_network
from rootlesspy.network.ports import merge, parse_publish

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol, TypeVar

    from rootlesspy.engine.inputs.health_values import HealthRequest

    T = TypeVar("T")

    class Values(Protocol):
        """What the options were given, as text, or not at all."""

        def flag(self, dest: str) -> bool:
            """Whether a flag is on."""

        def value(self, dest: str) -> str | None:
            """The text of an option, None when it was not given."""

        def values(self, dest: str) -> tuple[str, ...]:
            """All texts of an option that may be repeated."""


_HEALTH = (
    "health_cmd", "health_interval", "health_max_log_count", "health_max_log_size",
    "health_on_failure", "health_retries", "health_start_interval", "health_start_period",
    "health_startup_cmd", "health_startup_interval", "health_startup_retries",
    "health_startup_success", "health_startup_timeout", "health_timeout",
)  # fmt: skip
_PULL_POLICIES = ("always", "missing", "never", "newer")


def run_request(
    given: Values, *, caller_environment: Mapping[str, str], directory: str, debug: bool
) -> RunRequest:
    """Parse every value and put them together; raises UsageError for the first bad one.

    directory: what relative host paths are relative to.  An empty text is "not given" for names and
    the like, as in podman; for a limit it is an error, so that an unset shell variable never takes
    a limit away.
    """
    volumes, tmpfs = _mounts(given, directory)
    rootfs, image = _root(given, directory)
    memory, memory_swap, memory_reservation = _memory(given)
    driver, log_options = _log(given)
    return RunRequest(
        image=image,
        command=given.values("command"),
        rootfs=rootfs,
        name=names.check_name(name) if (name := given.value("name")) else None,
        remove=given.flag("rm"),
        interactive=given.flag("interactive"),
        tty=given.flag("tty"),
        detach_keys=_detach_keys(given),
        env=environment.resolve(given.values("env"), given.values("env_file"), caller_environment),
        volumes=volumes,
        tmpfs=tmpfs,
        workdir=_text(given, "workdir", values.parse_workdir),
        user=_text(given, "user", values.parse_user),
        entrypoint=_limit(given, "entrypoint", values.parse_entrypoint),
        hostname=_text(given, "hostname", values.parse_hostname),
        labels=_labels(given),
        read_only=given.flag("read_only"),
        pull=_choice(given, "pull", _PULL_POLICIES),
        network=_network(given),
        publish=merge(
            tuple(port for text in given.values("publish") for port in parse_publish(text))
        ),
        memory_bytes=memory,
        memory_swap_bytes=memory_swap,
        memory_reservation_bytes=memory_reservation,
        cpu_quota_us=_limit(given, "cpus", values.parse_cpus) or None,
        cpu_shares=_cpu_shares(given),
        cpuset_cpus=_limit(given, "cpuset_cpus", values.parse_cpuset),
        pids_limit=_limit(given, "pids_limit", values.parse_pids_limit),
        properties=_list(given, "property", values.parse_property),
        stop_signal=_text(given, "stop_signal", values.parse_signal),
        stop_timeout_s=_stop_timeout(given),
        init=given.flag("init"),
        privileged=given.flag("privileged"),
        cap_add=_words(given, "cap_add", isolation_values.parse_capability),
        cap_drop=_words(given, "cap_drop", isolation_values.parse_capability),
        security_opts=_list(given, "security_opt", isolation_values.parse_security_option),
        userns=_text(given, "userns", isolation_values.parse_userns) or "host-map",
        add_hosts=tuple(
            entry for found in _list(given, "add_host", values.parse_add_hosts) for entry in found
        ),
        dns=_dns(given),
        dns_search=_words(given, "dns_search", values.parse_dns_search),
        dns_options=_words(given, "dns_option", values.parse_word),
        ulimits=tuple(
            limit
            for found in _list(given, "ulimit", isolation_values.parse_ulimits)
            for limit in found
        ),
        shm_size_bytes=_limit(given, "shm_size", values.parse_size),
        devices=_list(given, "device", isolation_values.parse_device),
        sysctls=_list(given, "sysctl", isolation_values.parse_sysctl),
        platform=_text(given, "platform", values.parse_platform),
        quiet=given.flag("quiet"),
        cidfile=given.value("cidfile") or None,
        ignore_missing_limits=given.flag("ignore_missing_limits"),
        cgroups=_choice(given, "cgroups", ("enabled", "disabled")),
        group_add=_words(given, "group_add", values.parse_group),
        umask=_text(given, "umask", values.parse_umask),
        debug=debug,
        signature_policy=_file(given, "signature_policy", directory),
        verify_always=given.flag("verify_always"),
        detach=given.flag("detach"),
        restart=_restart(given),
        sdnotify=_text(given, "sdnotify", readiness.parse) or "runner",
        health=_health(given),
        log_driver=driver,
        log_options=log_options,
        ipc=_text(given, "ipc", isolation_values.parse_namespace) or "",
        pid=_text(given, "pid", isolation_values.parse_namespace) or "",
        uts=_text(given, "uts", isolation_values.parse_namespace) or "",
        pod=given.value("pod") or "",
        publish_all=given.flag("publish_all"),
        secrets=_secrets(given),
    )


def _secrets(given: Values) -> tuple[SecretUse, ...]:
    if not given.values("secret"):
        return ()
    from rootlesspy.engine.inputs import secret_values

    return _list(given, "secret", secret_values.parse)


def _log(given: Values) -> tuple[str, tuple[tuple[str, str], ...]]:
    driver, options = given.value("log_driver"), given.values("log_opt")
    if driver is None and not options:
        return "", ()
    from rootlesspy.engine.output import log_values

    return log_values.parse(driver, options)


def _text(given: Values, dest: str, parse: Callable[[str, str], T]) -> T | None:
    """Parse an option's text; not given and empty are the same."""
    text = given.value(dest)
    return parse(text, _option(dest)) if text else None


def _limit(given: Values, dest: str, parse: Callable[[str, str], T]) -> T | None:
    """Parse an option's text, the empty one too."""
    text = given.value(dest)
    return None if text is None else parse(text, _option(dest))


def _file(given: Values, dest: str, directory: str) -> str | None:
    """Return a path in full; not given and empty are the same."""
    text = given.value(dest)
    return os.path.normpath(os.path.join(directory, text)) if text else None


def _list(given: Values, dest: str, parse: Callable[[str, str], T]) -> tuple[T, ...]:
    """Parse every text of an option that may be repeated."""
    return tuple(parse(text, _option(dest)) for text in given.values(dest))


def _words(given: Values, dest: str, parse: Callable[[str, str], T]) -> tuple[T, ...]:
    """Parse every text of an option that may be repeated and takes lists with commas (podman)."""
    return tuple(
        parse(word, _option(dest)) for text in given.values(dest) for word in text.split(",")
    )


def _choice(given: Values, dest: str, choices: tuple[str, ...]) -> str:
    """Parse one of the choices; the default is `missing` of pull, `enabled` of cgroups."""
    default = "missing" if dest == "pull" else choices[0]
    text = given.value(dest) or default
    return values.parse_choice(text, _option(dest), choices)


def _option(dest: str) -> str:
    """Spell a destination as its option: the table holds to `--` and dashes for underscores."""
    return f"--{dest.replace('_', '-')}"


def _root(given: Values, directory: str) -> tuple[str | None, str]:
    """Return the root directory and the image; one of them is empty."""
    image = given.value("image")
    if not image:
        raise UsageError("the image's name is empty", hint="rp run IMAGE COMMAND")
    if not given.flag("rootfs"):
        return None, image
    command = given.values("command")
    if command and command[0].startswith("-") and given.value("entrypoint") is None:
        raise UsageError(
            f"command {command[0]!r} begins with a dash",
            hint="options stand before the directory: rp run --rootfs OPTIONS DIR COMMAND",
        )
    return os.path.normpath(os.path.join(directory, image)), ""


def _mounts(
    given: Values, directory: str
) -> tuple[tuple[VolumeMount, ...], tuple[TmpfsMount, ...]]:
    volumes = [
        mount_values.parse_volume(text, "--volume", directory=directory)
        for text in given.values("volume")
    ]
    tmpfs = [mount_values.parse_tmpfs(text, "--tmpfs") for text in given.values("tmpfs")]
    for text in given.values("mount"):
        mount = mount_values.parse_mount(text, "--mount", directory=directory)
        if isinstance(mount, TmpfsMount):
            tmpfs.append(mount)
        else:
            volumes.append(mount)
    mount_values.refuse_duplicates(tuple(volumes), tuple(tmpfs))
    return tuple(volumes), tuple(tmpfs)


def _labels(given: Values) -> tuple[tuple[str, str], ...]:
    labels: dict[str, str] = {}
    for path in given.values("label_file"):
        labels.update(values.read_label_file(path, "--label-file"))
    labels.update(_list(given, "label", values.parse_label))
    return tuple(labels.items())


def _network(given: Values) -> NetworkRequest:
    texts = given.values("network")
    one = given.value("ip"), given.value("ip6"), given.value("mac_address")
    aliases = given.values("network_alias")
    if not any(one) and not aliases:
        if not texts:
            return NetworkRequest()
        if len(texts) == 1 and texts[0].partition(":")[0] in DRIVERS:
            return parse_network(texts[0])
    from rootlesspy.network import attachment

    ip, ip6, mac = (text or "" for text in one)
    return attachment.parse_all(texts, ip=ip, ip6=ip6, mac=mac, aliases=aliases)


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


def _detach_keys(given: Values) -> bytes:
    keys = _limit(given, "detach_keys", values.parse_detach_keys)
    return values.DEFAULT_DETACH_KEYS if keys is None else keys


def _dns(given: Values) -> tuple[str, ...]:
    servers = _words(given, "dns", values.parse_dns)
    if "none" in servers and len(servers) > 1:
        raise UsageError("--dns none excludes other name servers")
    return servers
