"""Strict parsers for what a container may do: limits, devices, sysctls, ids, capabilities.

The rules are those of `engine.inputs.values`.
"""

from __future__ import annotations

from rootlesspy.engine.inputs.request import Device, Ulimit
from rootlesspy.engine.inputs.values import (
    MAX_ID,
    MAX_SIZE,
    has_control,
    parse_boolean,
    parse_integer,
    reject,
)

_ULIMITS = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc",
    "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
_SECURITY_OPTIONS = ("no-new-privileges", "seccomp", "label", "apparmor", "mask", "unmask")


def parse_ulimits(text: str, option: str) -> tuple[Ulimit, ...]:
    """Parse NAME=SOFT[:HARD] (-1: unlimited), or host: all limits of the caller."""
    if text == "host":
        return _host_ulimits()
    name, equals, value = text.partition("=")
    if not equals or name not in _ULIMITS:
        reject(option, text, "NAME=SOFT:HARD", f"NAME is one of {', '.join(_ULIMITS)}")
    soft_text, colon, hard_text = value.partition(":")
    soft = _limit(soft_text, option)
    hard = _limit(hard_text, option) if colon else soft
    if hard != -1 and (soft == -1 or soft > hard):
        reject(option, text, "a soft limit that is not above the hard one")
    return (Ulimit(name=name, soft=soft, hard=hard),)


def parse_device(text: str, option: str) -> Device:
    """Parse HOST[:CONTAINER][:ACCESS], ACCESS being made of r, w and m."""
    host, *rest = text.split(":")
    access = rest.pop() if rest and _is_access(rest[-1]) else "rwm"
    container = rest.pop(0) if rest else host
    if rest or not host.startswith("/dev/") or not container.startswith("/"):
        reject(option, text, "/dev/HOST[:/dev/CONTAINER][:rwm]")
    if ".." in host.split("/") or ".." in container.split("/"):
        reject(option, text, "a path without '..'")
    return Device(host=host, container=container, access=access)


def parse_sysctl(text: str, option: str) -> tuple[str, str]:
    """Parse KEY=VALUE; `engine.specgen` decides whether the key belongs to the container."""
    key, equals, value = text.partition("=")
    if not equals or not key or has_control(text):
        reject(option, text, "KEY=VALUE")
    return key.replace("/", "."), value


def parse_userns(text: str, option: str) -> str:
    """Check host-map, keep-id[:uid=N,gid=N] or container:NAME; podman's host is host-map here."""
    mode, colon, settings = text.partition(":")
    if mode == "container" and settings:
        return text
    if not colon:
        if mode not in ("host-map", "host", "keep-id"):
            reject(option, text, "host-map, keep-id or container:NAME")
        return "host-map" if mode == "host" else mode
    given = dict(setting.partition("=")[::2] for setting in settings.split(","))
    if mode != "keep-id" or not given.keys() <= {"uid", "gid"}:
        reject(option, text, "keep-id:uid=N,gid=N")
    for value in given.values():
        parse_integer(value, option, 0, MAX_ID)
    return text


def parse_namespace(text: str, option: str) -> str:
    """Check container:NAME or ns:PATH; private, the default, is empty, as is ipc's shareable."""
    kind, _, name = text.partition(":")
    if text == "private" or (text == "shareable" and option == "--ipc"):
        return ""
    if kind not in ("container", "ns") or not name or (kind == "ns" and not name.startswith("/")):
        reject(option, text, "private, container:NAME or ns:/PATH")
    return text


def parse_capability(text: str, option: str) -> str:
    """Parse a capability's name, in any case and with or without CAP_; ALL stays ALL."""
    name = text.upper()
    if name in ("ALL", "CAP_ALL"):
        return "ALL"
    from rootlesspy.engine.inputs.capabilities import ALL

    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in ALL:
        reject(option, text, "a capability such as NET_ADMIN, or ALL", "see capabilities(7)")
    return name


def parse_security_option(text: str, option: str) -> str:
    """Check the name of a security option; docker's old NAME:VALUE becomes NAME=VALUE."""
    name, _, value = text.partition("=")
    if "=" not in text and ":" in text:
        name, _, value = text.partition(":")
    if name not in _SECURITY_OPTIONS:
        reject(option, text, f"one of {', '.join(_SECURITY_OPTIONS)}")
    if name == "no-new-privileges":
        return f"{name}={str(parse_boolean(value or 'true', option)).lower()}"
    if not value:
        reject(option, text, f"{name}=VALUE")
    return f"{name}={value}"


def _limit(text: str, option: str) -> int:
    return -1 if text == "unlimited" else parse_integer(text, option, -1, MAX_SIZE)


def _host_ulimits() -> tuple[Ulimit, ...]:
    import resource

    limits = []
    for name in _ULIMITS:
        soft, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
        limits.append(Ulimit(name=name, soft=soft, hard=hard))
    return tuple(limits)


def _is_access(text: str) -> bool:
    return bool(text) and not text.strip("rwm") and len(set(text)) == len(text)
