"""Strict parsers for -v/--volume, --mount and --tmpfs.

Paths are only cleaned as text here, as podman does it; what they lead to is decided by
`linux.pathrs` when the container is made.
"""

from __future__ import annotations

import os

from rootlesspy.engine.inputs.request import TmpfsMount, VolumeMount
from rootlesspy.engine.inputs.values import (
    has_control,
    is_name,
    parse_boolean,
    parse_integer,
    parse_size,
    reject,
)
from rootlesspy.errors import UsageError

_PROPAGATION = (
    "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable",
)  # fmt: skip
_EXCLUSIVE = (
    ("ro", "rw"),
    ("z", "Z"),
    ("exec", "noexec"),
    ("dev", "nodev"),
    ("suid", "nosuid"),
    ("bind", "rbind"),
    ("copy", "nocopy"),
    ("tmpcopyup", "notmpcopyup"),
    _PROPAGATION,
)
_VOLUME_OPTIONS = frozenset(
    option for group in _EXCLUSIVE if "tmpcopyup" not in group for option in group
) | {"U"}
_TMPFS_FLAGS = frozenset((
    "ro", "rw", "exec", "noexec", "dev", "nodev", "suid", "nosuid", "sync", "async", "dirsync",
    "noatime", "relatime", "strictatime", "nodiratime", "tmpcopyup", "notmpcopyup", "U",
    *_PROPAGATION,
))  # fmt: skip
_MOUNT_FLAGS = {
    "ro": "ro", "readonly": "ro", "rw": "rw", "U": "U", "chown": "U",
    "exec": "exec", "noexec": "noexec", "dev": "dev", "nodev": "nodev",
    "suid": "suid", "nosuid": "nosuid",
    "bind-nonrecursive": "bind", "tmpcopyup": "tmpcopyup", "notmpcopyup": "notmpcopyup",
}  # fmt: skip
_OPPOSITE = {"ro": "rw", "rw": "ro", "bind": "rbind"}
_RELABEL = {"shared": "z", "private": "Z"}
_VOLUME_FORM = "[SOURCE:]/CONTAINER/PATH[:OPTION,…]"


def parse_volume(text: str, option: str, *, directory: str) -> VolumeMount:
    """Parse -v [SOURCE:]TARGET[:OPTIONS].

    A source that begins with '/' or '.' is a path of the host, relative ones to directory (the
    caller's); other sources are names of volumes.
    """
    parts = text.split(":")
    if len(parts) == 1:
        return VolumeMount(source="", target=_target(text, text, option), kind="anonymous")
    if len(parts) > 3:
        reject(option, text, _VOLUME_FORM, "paths that hold a colon: --mount type=bind,source=…")
    if len(parts) == 2 and not parts[1].startswith("/") and parts[0].startswith("/"):
        # -v /data:ro: docker and podman read it as a source and a target, and refuse the target.
        reject(option, text, _VOLUME_FORM)
    source, target = parts[0], parts[1]
    options = _volume_options(parts[2], text, option) if len(parts) == 3 else ()
    kind = "bind" if source.startswith(("/", ".")) else "volume"
    return VolumeMount(
        source=_source(source, kind, text, option, directory),
        target=_target(target, text, option),
        kind=kind,
        options=options,
    )


def parse_tmpfs(text: str, option: str) -> TmpfsMount:
    """Parse --tmpfs TARGET[:OPTIONS], options as in tmpfs(5)."""
    target, colon, option_text = text.partition(":")
    given = option_text.split(",") if colon else []
    options = [_tmpfs_option(name, text, option) for name in given]
    _refuse_contradictions(options, text, option)
    return TmpfsMount(target=_target(target, text, option), options=tuple(options))


def parse_mount(text: str, option: str, *, directory: str) -> VolumeMount | TmpfsMount:
    """Parse --mount type=bind|volume|tmpfs,source=…,target=…,OPTION…; volume is the default."""
    fields = [field.partition("=") for field in _split_csv(text, option)]
    kind = next((value for name, _, value in fields if name == "type"), "volume")
    if kind not in ("bind", "volume", "tmpfs"):
        reject(option, text, "type=bind, type=volume or type=tmpfs")
    source: str | None = None
    target: str | None = None
    options: list[str] = []
    for name, equals, value in fields:
        if name in ("source", "src"):
            source = _once(source, value, text, option)
        elif name in ("target", "dst", "destination"):
            target = _once(target, value, text, option)
        elif name != "type":
            options += _mount_option(name, value if equals else None, kind, text, option)
    if target is None:
        reject(option, text, "target=/PATH")
    _refuse_contradictions(options, text, option)
    clean_target = _target(target, text, option)
    if kind == "tmpfs":
        if source is not None:
            reject(option, text, "no source for type=tmpfs")
        return TmpfsMount(target=clean_target, options=tuple(options))
    if kind == "bind" and source is None:
        reject(option, text, "source=/PATH for type=bind")
    if source is None:
        return VolumeMount("", clean_target, "anonymous", tuple(options))
    clean_source = _source(source, kind, text, option, directory)
    return VolumeMount(clean_source, clean_target, kind, tuple(options))


def refuse_duplicates(volumes: tuple[VolumeMount, ...], tmpfs: tuple[TmpfsMount, ...]) -> None:
    """Raise UsageError when two mounts have the same target."""
    targets = [volume.target for volume in volumes] + [mount.target for mount in tmpfs]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"{target} is mounted twice")


def _target(path: str, text: str, option: str) -> str:
    if not path.startswith("/") or has_control(path):
        reject(option, text, "an absolute path inside the container", f"the form is {_VOLUME_FORM}")
    clean = _clean(path)
    if clean == "/":
        reject(option, text, "a path below / inside the container")
    return clean


def _clean(path: str) -> str:
    # normpath keeps two leading slashes, which POSIX lets mean something else.
    return os.path.normpath("/" + path.lstrip("/"))


def _source(source: str, kind: str, text: str, option: str, directory: str) -> str:
    if kind == "bind":
        if not source:
            reject(option, text, "a path of the host")
        return _clean(os.path.join(directory, source))
    if not is_name(source):
        reject(
            option, text, "a volume's name: letters, digits, '_', '.' and '-'",
            "paths of the host begin with / or ./",
        )  # fmt: skip
    return source


def _volume_options(option_text: str, text: str, option: str) -> tuple[str, ...]:
    options = option_text.split(",")
    for name in options:
        if name not in _VOLUME_OPTIONS and name.partition("=")[0] != "idmap":
            reject(option, text, f"options of {', '.join(sorted(_VOLUME_OPTIONS))}")
    _refuse_contradictions(options, text, option)
    return tuple(options)


def _tmpfs_option(name: str, text: str, option: str) -> str:
    """Check one option of a tmpfs and return it as the kernel reads it: sizes in bytes."""
    key, equals, value = name.partition("=")
    if not equals:
        if name not in _TMPFS_FLAGS:
            reject(option, text, "options as in tmpfs(5), such as size=64m,mode=1777")
    elif key == "size":
        if not (value.endswith("%") and value[:-1].isascii() and value[:-1].isdigit()):
            return f"size={parse_size(value, option)}"
    elif key == "mode":
        if not value or value.strip("01234567") or len(value) > 5:
            reject(option, text, "an octal mode")
    elif key in ("nr_inodes", "nr_blocks"):
        return f"{key}={parse_size(value, option)}"
    elif key in ("uid", "gid"):
        parse_integer(value, option, 0, 2**32 - 2)
    else:
        reject(option, text, "options as in tmpfs(5), such as size=64m,mode=1777")
    return name


def _mount_option(name: str, value: str | None, kind: str, text: str, option: str) -> list[str]:
    """Turn one field of --mount into the spelling of -v or tmpfs(5)."""
    if name in _MOUNT_FLAGS:
        flag = _MOUNT_FLAGS[name]
        if not parse_boolean(value or "true", option):
            return [_OPPOSITE[flag]] if flag in _OPPOSITE else []
        result = flag
    elif name == "bind-propagation" and kind == "bind" and value in _PROPAGATION:
        result = str(value)
    elif name == "relabel" and value in _RELABEL:
        result = _RELABEL[str(value)]
    elif name in ("tmpfs-size", "tmpfs-mode") and kind == "tmpfs" and value:
        result = f"{name.removeprefix('tmpfs-')}={value}"
    elif name == "consistency":
        return []  # docker's, for macOS; ignored everywhere else
    elif value is None and (name in _PROPAGATION or name in ("z", "Z")):
        result = name
    else:
        field = name if value is None else f"{name}={value}"
        reject(option, text, f"fields that type={kind} has, which {field!r} is not")
    if kind == "tmpfs":
        return [_tmpfs_option(result, text, option)]
    if result not in _VOLUME_OPTIONS:
        reject(option, text, f"fields that type={kind} has, which {name!r} is not")
    return [result]


def _once(old: str | None, new: str, text: str, option: str) -> str:
    if old is not None:
        reject(option, text, "each field once")
    return new


def _refuse_contradictions(options: list[str], text: str, option: str) -> None:
    for group in _EXCLUSIVE:
        given = [name for name in options if name in group]
        if len(given) > 1:
            reject(option, text, f"one of {' and '.join(given)}")


def _split_csv(text: str, option: str) -> list[str]:
    """Split at commas; a field in double quotes may hold commas (RFC 4180, as podman reads it)."""
    fields: list[str] = []
    rest = text
    while True:
        if rest.startswith('"'):
            field, rest = _quoted(rest, text, option)
        else:
            end = rest.find(",")
            field, rest = (rest, "") if end < 0 else (rest[:end], rest[end:])
            if '"' in field:
                reject(option, text, "quotes around a whole field")
        fields.append(field)
        if not rest:
            return fields
        rest = rest[1:]


def _quoted(rest: str, text: str, option: str) -> tuple[str, str]:
    """Return the field that begins rest, without its quotes, and what follows it."""
    end = rest.find('"', 1)
    while end > 0 and rest[end + 1 : end + 2] == '"':
        end = rest.find('"', end + 2)
    if end < 0 or rest[end + 1 : end + 2] not in ("", ","):
        reject(option, text, "quotes around a whole field")
    return rest[1:end].replace('""', '"'), rest[end + 1 :]
