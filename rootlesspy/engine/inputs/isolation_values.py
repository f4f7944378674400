"""Strict parsers for what a container may do: limits, devices, sysctls, ids, capabilities.

The rules are those of `engine.inputs.values`.
"""

from __future__ import annotations

from rootlesspy.engine.inputs.request import Device, Ulimit
from rootlesspy.engine.inputs.values import (
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
_SECURITY_OPTIONS = (
    "no-new-privileges", "seccomp", "label", "apparmor", "mask", "unmask", "proc-opts",
    "systempaths",
)  # fmt: skip
_HIDEPID = ("0", "1", "2", "4", "off", "noaccess", "invisible", "ptraceable")


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


def is_cdi_device(text: str) -> bool:
    """Say whether a device is named as CDI does: VENDOR/CLASS=NAME (CDI specification, "Kind")."""
    kind, equals, name = text.partition("=")
    vendor, slash, class_name = kind.partition("/")
    return bool(
        equals
        and slash
        and vendor[:1].isalpha()
        and class_name[:1].isalpha()
        and _is_made_of(vendor, "_-.")
        and _is_made_of(class_name, "_-.")
        and name[:1].isalnum()
        and _is_made_of(name, "_-.:")
    )


def parse_sysctl(text: str, option: str) -> tuple[str, str]:
    """Parse KEY=VALUE; `engine.specgen` decides whether the key belongs to the container."""
    key, equals, value = text.partition("=")
    if not equals or not key or has_control(text):
        reject(option, text, "KEY=VALUE")
    return key.replace("/", "."), value


def parse_userns(text: str, option: str) -> str:
    """Check the mode of --userns; podman's host is host-map here."""
    # Imported here: most containers have the default.
    from rootlesspy.engine.inputs import id_values

    return id_values.parse_userns(text, option)


def parse_id_map(text: str, option: str) -> str:
    """Check a line of --uidmap or --gidmap."""
    from rootlesspy.engine.inputs import id_values

    return id_values.check_id_map(text, option)


def parse_owner(text: str, option: str) -> str:
    """Check a name of /etc/subuid or /etc/subgid."""
    from rootlesspy.engine.inputs import id_values

    return id_values.parse_owner(text, option)


def parse_namespace(text: str, option: str) -> str:
    """Check host, private, container:NAME or ns:PATH; of ipc also none and shareable, its default.

    private said of a pod's member means its own (podman-run(1)); shareable is empty.
    """
    kind, _, name = text.partition(":")
    if text in ("host", "private") or (text == "none" and option == "--ipc"):
        return text
    if text == "shareable" and option == "--ipc":
        return ""
    if kind not in ("container", "ns") or not name or (kind == "ns" and not name.startswith("/")):
        more = ", shareable, none" if option == "--ipc" else ""
        reject(option, text, f"host, private{more}, container:NAME or ns:/PATH")
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
    """Check a security option; docker's old NAME:VALUE becomes NAME=VALUE."""
    name, _, value = text.partition("=")
    if "=" not in text and ":" in text:
        name, _, value = text.partition(":")
    if name not in _SECURITY_OPTIONS:
        reject(option, text, f"one of {', '.join(_SECURITY_OPTIONS)}")
    if name == "no-new-privileges":
        return f"{name}={str(parse_boolean(value or 'true', option)).lower()}"
    if not value or has_control(value):
        reject(option, text, f"{name}=VALUE")
    if name == "systempaths":
        # docker's word for it.
        if value != "unconfined":
            reject(option, text, "systempaths=unconfined")
        return "unmask=ALL"
    if name in ("mask", "unmask") and (name, value) != ("unmask", "ALL"):
        _check_paths(text, value, option)
    elif name == "proc-opts":
        _check_proc_options(text, value, option)
    return f"{name}={value}"


def _check_paths(text: str, value: str, option: str) -> None:
    """Check /PATH[:/PATH]…; they are resolved inside the container."""
    for path in value.split(":"):
        if not path.startswith("/") or ".." in path.split("/"):
            reject(option, text, "absolute paths without '..', with colons between them")


def _check_proc_options(text: str, value: str, option: str) -> None:
    for each in value.split(","):
        key, _, setting = each.partition("=")
        known = (key == "hidepid" and setting in _HIDEPID) or each == "subset=pid"
        if not known and not (key == "gid" and setting.isascii() and setting.isdecimal()):
            reject(option, text, "hidepid=0, 1, 2 or 4, gid=N, subset=pid, with commas")


def _limit(text: str, option: str) -> int:
    return -1 if text == "unlimited" else parse_integer(text, option, -1, MAX_SIZE)


def _host_ulimits() -> tuple[Ulimit, ...]:
    import resource

    limits = []
    for name in _ULIMITS:
        soft, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
        limits.append(Ulimit(name=name, soft=soft, hard=hard))
    return tuple(limits)


def _is_made_of(text: str, others: str) -> bool:
    """Say whether a text is of ASCII letters, digits and some others, and ends in none of those."""
    plain = all(c.isascii() and (c.isalnum() or c in others) for c in text)
    return plain and text[-1:].isalnum()


def _is_access(text: str) -> bool:
    return bool(text) and not text.strip("rwm") and len(set(text)) == len(text)
