"""The options of a container, as text, become a RunRequest.

The one function behind both parsers of the command line and behind definitions.  What most
containers are asked for is here; the rest is in `more_options`, which is imported with all that
parses values when one of them is given.
"""

from __future__ import annotations

import os

from rootlesspy.engine import names
from rootlesspy.engine.inputs import environment
from rootlesspy.engine.inputs.request import RunRequest, VolumeMount
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network.driver import DRIVERS, NetworkRequest, parse_network

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from rootlesspy.engine.inputs.request import TmpfsMount
    from rootlesspy.network.ports import PortMapping

    class Values(Protocol):
        """What the options were given, as text, or not at all."""

        def flag(self, dest: str) -> bool:
            """Whether a flag is on."""

        def value(self, dest: str) -> str | None:
            """The text of an option, None when it was not given."""

        def values(self, dest: str) -> tuple[str, ...]:
            """All texts of an option that may be repeated."""


MORE_FLAGS = ("no_healthcheck",)
MORE_TEXTS = (
    "cpu_shares", "cpus", "cpuset_cpus", "detach_keys", "entrypoint", "health_cmd",
    "health_interval", "health_max_log_count", "health_max_log_size", "health_on_failure",
    "health_retries", "health_start_interval", "health_start_period", "health_startup_cmd",
    "health_startup_interval", "health_startup_retries", "health_startup_success",
    "health_startup_timeout", "health_timeout", "hostname", "ipc", "log_driver", "memory",
    "memory_reservation", "memory_swap", "pid", "pids_limit", "platform", "restart", "sdnotify",
    "shm_size", "stop_signal", "stop_timeout", "subgidname", "subuidname", "umask", "user",
    "userns", "uts", "workdir",
)  # fmt: skip
MORE_LISTS = (
    "add_host", "annotation", "cap_add", "cap_drop", "device", "device_cgroup_rule", "dns",
    "dns_option", "dns_search", "gidmap", "gpus", "group_add", "label", "label_file", "landlock",
    "log_opt", "property", "secret", "security_opt", "sysctl", "uidmap", "ulimit",
)  # fmt: skip
_PULL_POLICIES = ("missing", "always", "never", "newer")


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
    request = RunRequest(
        image=image,
        command=given.values("command"),
        rootfs=rootfs,
        name=names.check_name(name) if (name := given.value("name")) else None,
        remove=given.flag("rm"),
        interactive=given.flag("interactive"),
        tty=given.flag("tty"),
        env=environment.resolve(given.values("env"), given.values("env_file"), caller_environment),
        volumes=volumes,
        tmpfs=tmpfs,
        read_only=given.flag("read_only"),
        pull=_choice(given, "pull", _PULL_POLICIES),
        network=_network(given),
        publish=_publish(given),
        init=given.flag("init"),
        privileged=given.flag("privileged"),
        quiet=given.flag("quiet"),
        cidfile=given.value("cidfile") or None,
        ignore_missing_limits=given.flag("ignore_missing_limits"),
        cgroups=_choice(given, "cgroups", ("enabled", "disabled")),
        debug=debug,
        signature_policy=_file(given, "signature_policy", directory),
        verify_always=given.flag("verify_always"),
        detach=given.flag("detach"),
        pod=given.value("pod") or "",
        publish_all=given.flag("publish_all"),
        hooks_dirs=tuple(
            os.path.normpath(os.path.join(directory, text))
            for text in given.values("hooks_dir")
            if text
        ),
        cgroupns=_choice(given, "cgroupns", ("private", "host")),
    )
    if not _more(given):
        return request
    from rootlesspy.engine.inputs import more_options

    return more_options.add(request, given)


def _more(given: Values) -> bool:
    return (
        any(map(given.flag, MORE_FLAGS))
        or any(given.value(dest) is not None for dest in MORE_TEXTS)
        or any(map(given.values, MORE_LISTS))
    )


def _mounts(
    given: Values, directory: str
) -> tuple[tuple[VolumeMount, ...], tuple[TmpfsMount, ...]]:
    if not any(map(given.values, ("volume", "tmpfs", "mount"))):
        return (), ()
    from rootlesspy.engine.inputs import mount_values

    volumes = [
        mount_values.parse_volume(text, "--volume", directory=directory)
        for text in given.values("volume")
    ]
    tmpfs = [mount_values.parse_tmpfs(text, "--tmpfs") for text in given.values("tmpfs")]
    for text in given.values("mount"):
        mount = mount_values.parse_mount(text, "--mount", directory=directory)
        if isinstance(mount, VolumeMount):
            volumes.append(mount)
        else:
            tmpfs.append(mount)
    mount_values.refuse_duplicates(tuple(volumes), tuple(tmpfs))
    return tuple(volumes), tuple(tmpfs)


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


def _publish(given: Values) -> tuple[PortMapping, ...]:
    texts = given.values("publish")
    if not texts:
        return ()
    from rootlesspy.network.ports import merge, parse_publish

    return merge(tuple(port for text in texts for port in parse_publish(text)))


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


def _choice(given: Values, dest: str, choices: tuple[str, ...]) -> str:
    """Parse one of the choices; the first one is the default."""
    text = given.value(dest)
    if not text:
        return choices[0]
    from rootlesspy.engine.inputs.values import parse_choice

    return parse_choice(text, f"--{dest}", choices)


def _file(given: Values, dest: str, directory: str) -> str | None:
    """Return a path in full; not given and empty are the same."""
    text = given.value(dest)
    return os.path.normpath(os.path.join(directory, text)) if text else None
