"""Strict parser for --secret NAME[,OPTION=VALUE…], as podman-run(1) has it.

Besides podman's options there is `source=credential`: the data is the systemd credential of that
name, which the service was given by LoadCredential= or SetCredential= (systemd.exec(5)).
"""

from __future__ import annotations

from rootlesspy.engine.inputs.request import SecretUse
from rootlesspy.engine.inputs.values import parse_integer, reject
from rootlesspy.errors import UsageError

DIRECTORY = "/run/secrets"
_FORM = (
    "NAME[,type=mount|env][,target=PATH or VARIABLE][,uid=N][,gid=N][,mode=0444]"
    "[,source=store|credential]"
)
_KEYS = ("type", "target", "uid", "gid", "mode", "source")
_ID_LIMIT = 2**32 - 2


def parse(text: str, option: str) -> SecretUse:
    """Parse one --secret.  Raises UsageError."""
    name, *words = text.split(",")
    given: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in _KEYS or not (equals and value) or key in given:
            reject(option, text, _FORM)
        given[key] = value
    kind, source = given.get("type", "mount"), given.get("source", "store")
    if not name or "=" in name or kind not in ("mount", "env"):
        reject(option, text, _FORM)
    if source not in ("store", "credential"):
        reject(option, text, _FORM)
    if kind == "env":
        if {"uid", "gid", "mode"} & set(given):
            raise UsageError(f"{option} {text}: uid, gid and mode are of files, not of type=env")
        return SecretUse(name, kind, given.get("target", name), source=source)
    return SecretUse(
        name,
        kind,
        _path(given.get("target", name), text, option),
        uid=parse_integer(given.get("uid", "0"), option, 0, _ID_LIMIT),
        gid=parse_integer(given.get("gid", "0"), option, 0, _ID_LIMIT),
        mode=_mode(given.get("mode", "0444"), text, option),
        source=source,
    )


def _path(target: str, text: str, option: str) -> str:
    path = target if target.startswith("/") else f"{DIRECTORY}/{target}"
    if any(part in ("", ".", "..") for part in path.split("/")[1:]) or not path.isprintable():
        reject(option, text, _FORM, "the target is a plain path, or a name below /run/secrets")
    return path


def _mode(value: str, text: str, option: str) -> int:
    if not value or value.strip("01234567") or int(value, 8) > 0o777:
        reject(option, text, _FORM, "the mode is octal, such as 0400")
    return int(value, 8)


def text_of(use: SecretUse) -> str:
    """Write a secret's use as --secret takes it."""
    words = [use.name]
    if use.kind == "env":
        words.append("type=env")
    words.append(f"target={use.target}")
    words += [f"{key}={number}" for key, number in (("uid", use.uid), ("gid", use.gid)) if number]
    if use.mode != SecretUse._field_defaults["mode"]:
        words.append(f"mode={use.mode:04o}")
    if use.source != "store":
        words.append(f"source={use.source}")
    return ",".join(words)
