"""The keys of a definition: what each may hold, and which option of `rp run` it is.

A key has the name of the long option, in the plural where the option is repeated.  Its value
becomes the option's text, and `engine.inputs.options` parses that as it does for the command line:
there is one set of rules.
"""

from __future__ import annotations

import os

from rootlesspy.errors import Error
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

STRING, NUMBER, BOOLEAN, STRINGS = "string", "number", "boolean", "array of strings"
TABLE, WORDS, PATH, PATHS = "table", "string or array", "path", "array of paths"
NAMES, KEYS = "array of container names", "table of keys"
SOME = "string or array of strings"

_EXPECTED = {
    STRING: "a string",
    NUMBER: "a number or a string",
    BOOLEAN: "true or false",
    STRINGS: "an array of strings",
    TABLE: "a table of strings",
    WORDS: "a string or an array of strings",
    PATH: "a path in quotes",
    PATHS: "an array of paths",
    NAMES: "an array of names of containers",
    KEYS: "a table",
    SOME: "a string or an array of strings",
}


class Key(NamedTuple):
    """One key of a table."""

    name: str
    kind: str
    option: str = ""
    """Destination of the option (cli.argv); empty: it is no option."""
    keys: tuple[Key, ...] = ()
    """What a table of keys may hold."""


class MismatchError(Error):
    """A value is not of its key's kind; raised with what was expected instead."""

    def __init__(self, message: str, place: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.place = place
        """Where in the value it is."""


HEALTHCHECK = (
    Key("command", WORDS, "health_cmd"),
    Key("interval", STRING, "health_interval"),
    Key("timeout", STRING, "health_timeout"),
    Key("retries", NUMBER, "health_retries"),
    Key("start_period", STRING, "health_start_period"),
    Key("start_interval", STRING, "health_start_interval"),
    Key("on_failure", STRING, "health_on_failure"),
    Key("max_log_count", NUMBER, "health_max_log_count"),
    Key("max_log_size", NUMBER, "health_max_log_size"),
    Key("startup_command", WORDS, "health_startup_cmd"),
    Key("startup_interval", STRING, "health_startup_interval"),
    Key("startup_timeout", STRING, "health_startup_timeout"),
    Key("startup_retries", NUMBER, "health_startup_retries"),
    Key("startup_success", NUMBER, "health_startup_success"),
    Key("disable", BOOLEAN, "no_healthcheck"),
)
CONTAINER = (
    Key("image", STRING, "image"),
    Key("rootfs", PATH, "rootfs"),
    Key("command", STRINGS, "command"),
    Key("entrypoint", WORDS, "entrypoint"),
    Key("env", TABLE, "env"),
    Key("env_file", PATHS, "env_file"),
    Key("workdir", STRING, "workdir"),
    Key("user", NUMBER, "user"),
    Key("group_add", STRINGS, "group_add"),
    Key("hostname", STRING, "hostname"),
    Key("init", BOOLEAN, "init"),
    Key("tty", BOOLEAN, "tty"),
    Key("interactive", BOOLEAN, "interactive"),
    Key("umask", STRING, "umask"),
    Key("labels", TABLE, "label"),
    Key("label_file", PATHS, "label_file"),
    Key("annotations", TABLE, "annotation"),
    Key("hooks_dir", PATHS, "hooks_dir"),
    Key("volumes", STRINGS, "volume"),
    Key("mounts", STRINGS, "mount"),
    Key("tmpfs", STRINGS, "tmpfs"),
    Key("devices", STRINGS, "device"),
    Key("secrets", STRINGS, "secret"),
    Key("read_only", BOOLEAN, "read_only"),
    Key("shm_size", NUMBER, "shm_size"),
    Key("network", SOME, "network"),
    Key("ports", STRINGS, "publish"),
    Key("publish_all", BOOLEAN, "publish_all"),
    Key("add_hosts", STRINGS, "add_host"),
    Key("dns", STRINGS, "dns"),
    Key("dns_search", STRINGS, "dns_search"),
    Key("dns_options", STRINGS, "dns_option"),
    Key("memory", NUMBER, "memory"),
    Key("memory_swap", NUMBER, "memory_swap"),
    Key("memory_reservation", NUMBER, "memory_reservation"),
    Key("cpus", NUMBER, "cpus"),
    Key("cpu_shares", NUMBER, "cpu_shares"),
    Key("cpuset_cpus", STRING, "cpuset_cpus"),
    Key("pids_limit", NUMBER, "pids_limit"),
    Key("ulimits", STRINGS, "ulimit"),
    Key("properties", STRINGS, "property"),
    Key("ignore_missing_limits", BOOLEAN, "ignore_missing_limits"),
    Key("privileged", BOOLEAN, "privileged"),
    Key("cap_add", STRINGS, "cap_add"),
    Key("cap_drop", STRINGS, "cap_drop"),
    Key("security_opts", STRINGS, "security_opt"),
    Key("landlock", STRINGS, "landlock"),
    Key("sysctls", TABLE, "sysctl"),
    Key("userns", STRING, "userns"),
    Key("uidmap", STRINGS, "uidmap"),
    Key("gidmap", STRINGS, "gidmap"),
    Key("subuidname", STRING, "subuidname"),
    Key("subgidname", STRING, "subgidname"),
    Key("ipc", STRING, "ipc"),
    Key("pid", STRING, "pid"),
    Key("uts", STRING, "uts"),
    Key("cgroupns", STRING, "cgroupns"),
    Key("pod", STRING, "pod"),
    Key("platform", STRING, "platform"),
    Key("pull", STRING, "pull"),
    Key("verify_always", BOOLEAN, "verify_always"),
    Key("healthcheck", KEYS, keys=HEALTHCHECK),
    Key("restart", STRING, "restart"),
    Key("sdnotify", STRING, "sdnotify"),
    Key("log_driver", STRING, "log_driver"),
    Key("log_options", TABLE, "log_opt"),
    Key("stop_signal", NUMBER, "stop_signal"),
    Key("stop_timeout", NUMBER, "stop_timeout"),
    Key("after", NAMES),
    Key("requires", NAMES),
    Key("wants", NAMES),
)
_OF_PODS = (
    "hostname", "labels", "label_file", "shm_size", "network", "ports", "add_hosts", "dns",
    "dns_search", "dns_options", "memory", "memory_swap", "memory_reservation", "cpus",
    "cpu_shares", "cpuset_cpus", "pids_limit", "ignore_missing_limits", "sysctls", "userns",
)  # fmt: skip
POD = (
    *(key for key in CONTAINER if key.name in _OF_PODS),
    Key("exit_policy", STRING, "exit_policy"),
    Key("infra", BOOLEAN, "infra"),
    Key("share", STRINGS, "share"),
)
VOLUME = (Key("labels", TABLE),)
NETWORK = (
    Key("subnets", STRINGS),
    Key("gateways", STRINGS),
    Key("ip_ranges", STRINGS),
    Key("ipv6", BOOLEAN),
    Key("internal", BOOLEAN),
    Key("disable_dns", BOOLEAN),
    Key("dns", STRINGS),
    Key("options", TABLE),
    Key("labels", TABLE),
    Key("routes", STRINGS),
    Key("interface_name", STRING),
)
NOT_IN_DEFINITIONS = frozenset(
    (
        "name", "rm", "detach", "detach_keys", "sig_proxy", "cidfile", "quiet", "cgroups",
        "ip", "ip6", "mac_address", "network_alias", "signature_policy", "gpus",
        "device_cgroup_rule",
    )
)  # fmt: skip
"""About one invocation, impossible in a unit of its own, or said by another key: `network =
"NAME:ip=…"`, `devices = ["nvidia.com/gpu=all"]`."""


class Given:
    """Texts of options, as engine.inputs.options asks for them."""

    def __init__(self, texts: Mapping[str, str | bool | list[str]]) -> None:
        self._texts = texts

    def flag(self, dest: str) -> bool:
        """Say whether a flag is on."""
        return self._texts.get(dest) is True

    def value(self, dest: str) -> str | None:
        """Return the text of an option, None when it was not given."""
        text = self._texts.get(dest)
        return text if isinstance(text, str) else None

    def values(self, dest: str) -> tuple[str, ...]:
        """Return all texts of an option."""
        texts = self._texts.get(dest)
        if isinstance(texts, str):
            return (texts,)
        return tuple(texts) if isinstance(texts, list) else ()


def leaves(keys: tuple[Key, ...] = CONTAINER) -> list[tuple[tuple[str, ...], Key]]:
    """Return the keys that hold values, those of inner tables too, each with its path."""
    found: list[tuple[tuple[str, ...], Key]] = []
    for key in keys:
        if key.kind == KEYS:
            found += [((key.name, *path), each) for path, each in leaves(key.keys)]
        else:
            found.append(((key.name,), key))
    return found


def place_of(option: str) -> tuple[str, ...]:
    """Return the path of the key that is an option; empty when there is none."""
    return next((path for path, key in leaves() if key.option == option), ())


def texts(key: Key, value: object, directory: str) -> str | bool | list[str]:
    """Return a value as the texts of its key's option; relative paths are relative to directory.

    Raises MismatchError.
    """
    if key.kind == BOOLEAN:
        if not isinstance(value, bool):
            raise _mismatch(key)
        return value
    if key.kind == STRING:
        return _string(key, value)
    if key.kind == NUMBER:
        return _text(key, value)
    if key.kind == PATH:
        return _path(_string(key, value), directory)
    if key.kind == WORDS:
        return _string(key, value) if isinstance(value, str) else json.dumps(_list(key, value))
    if key.kind == SOME and isinstance(value, str):
        return [_string(key, value)]
    if key.kind == TABLE:
        return [f"{name}={text}" for name, text in pairs(key, value).items()]
    found = _list(key, value)
    if key.kind == PATHS:
        return [_path(each, directory) for each in found]
    return (
        [_security_option(each, directory) for each in found]
        if key.option == "security_opt"
        else found
    )


def pairs(key: Key, value: object) -> dict[str, str]:
    """Return a table of strings.  Raises MismatchError."""
    if not isinstance(value, dict):
        raise _mismatch(key)
    found = {}
    for name, each in value.items():
        if not name or "=" in name or "\0" in name:
            raise MismatchError(f"{name!r} is not a name", (name,))
        try:
            found[name] = _text(key, each)
        except MismatchError:
            raise MismatchError("expected a string", (name,)) from None
    return found


def _mismatch(key: Key, place: tuple[str | int, ...] = ()) -> MismatchError:
    return MismatchError(f"expected {_EXPECTED[key.kind]}", place)


def _string(key: Key, value: object) -> str:
    if not isinstance(value, str):
        raise _mismatch(key)
    if "\0" in value:
        raise MismatchError("expected no NUL character")
    return value


def _text(key: Key, value: object) -> str:
    """Return a string or number as text; true is not 1."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return _string(key, value)


def _list(key: Key, value: object) -> list[str]:
    if not isinstance(value, list):
        raise _mismatch(key)
    found = []
    for index, each in enumerate(value):
        try:
            found.append(_text(key, each))
        except MismatchError:
            raise MismatchError("expected a string", (index,)) from None
    return found


def _path(text: str, directory: str) -> str:
    return os.path.normpath(os.path.join(directory, text)) if text else text


def _security_option(text: str, directory: str) -> str:
    """Make the file of seccomp=FILE absolute."""
    name, equals, value = text.partition("=")
    if name != "seccomp" or not value or value == "unconfined":
        return text
    return f"{name}{equals}{_path(value, directory)}"
