"""Strict parsers for id maps: --userns with its modes, --uidmap, --gidmap, and what auto takes.

The rules are those of `engine.inputs.values`; the grammar is podman-run(1)'s.  Which ids of the
host come of it is decided by engine.idmap and engine.idmap_choice.
"""

from __future__ import annotations

from rootlesspy.engine.inputs.values import MAX_ID, parse_integer, reject
from rootlesspy.light_typing import NamedTuple

_USERNS_FORM = "host-map, keep-id, auto, nomap, container:NAME or ns:/PATH"
_MAP_FORM = "[+ug]CONTAINER_ID:[@]ID[:AMOUNT]"


class MapLine(NamedTuple):
    """One line of --uidmap or --gidmap."""

    container_id: int
    from_id: int
    size: int
    of_host: bool
    """from_id is an id of the host (@), not one of the user's in order."""
    extends: bool
    """It replaces what is in its way (+), and the rest of the ids follow."""
    kinds: str
    """u, g or ug: which maps it is for."""


class AutoOptions(NamedTuple):
    """What --userns=auto was given."""

    size: int = 0
    """0: as many as the image needs."""
    uids: tuple[MapLine, ...] = ()
    gids: tuple[MapLine, ...] = ()


def parse_userns(text: str, option: str) -> str:
    """Check a mode with its options; podman's host is host-map here.  Raises UsageError."""
    mode, colon, settings = text.partition(":")
    if mode in ("container", "ns"):
        if not settings or (mode == "ns" and not settings.startswith("/")):
            reject(option, text, _USERNS_FORM)
        return text
    if mode not in ("host-map", "host", "keep-id", "nomap", "auto"):
        reject(option, text, _USERNS_FORM)
    if mode == "auto":
        parse_auto(text, option)
    elif mode == "keep-id" and colon:
        _check_keep_id(settings, text, option)
    elif colon:
        reject(option, text, f"{mode} without options")
    return "host-map" if mode == "host" else text


def parse_auto(text: str, option: str = "--userns") -> AutoOptions:
    """Parse auto[:size=N,uidmapping=C:H:N,gidmapping=C:H:N].  Raises UsageError."""
    found = AutoOptions()
    settings = text.partition(":")[2]
    for setting in settings.split(",") if settings else ():
        key, _, value = setting.partition("=")
        if key == "size" and not found.size:
            found = found._replace(size=parse_integer(value, option, 1, MAX_ID))
        elif key == "uidmapping":
            found = found._replace(uids=(*found.uids, *parse_id_map(value, option)))
        elif key == "gidmapping":
            found = found._replace(gids=(*found.gids, *parse_id_map(value, option)))
        else:
            reject(option, text, "auto:size=N,uidmapping=C:H:N,gidmapping=C:H:N")
    for line in (*found.uids, *found.gids):
        if line.of_host or line.extends or line.kinds != "ug":
            reject(option, text, "CONTAINER_ID:ID:AMOUNT without flags in auto's options")
    return found


def check_id_map(text: str, option: str) -> str:
    """Check one argument of --uidmap or --gidmap and return it.  Raises UsageError."""
    parse_id_map(text, option)
    return text


def parse_id_map(text: str, option: str) -> tuple[MapLine, ...]:
    """Parse [+ug]CONTAINER_ID:[@]ID[:AMOUNT], or several with amounts.  Raises UsageError."""
    words = text.split(":")
    if len(words) == 2:
        words.append("1")
    if len(words) % 3:
        reject(option, text, _MAP_FORM)
    lines = (_line(words[index : index + 3], text, option) for index in range(0, len(words), 3))
    return tuple(line for line in lines if line.size)


def parse_owner(text: str, option: str) -> str:
    """Check a name of /etc/subuid or /etc/subgid (--subuidname).  Raises UsageError."""
    if not text or any(c in ":\n\0" or not c.isprintable() for c in text):
        reject(option, text, "a user's name")
    return text


def _line(words: list[str], text: str, option: str) -> MapLine:
    number = words[0].lstrip("+ug")
    flags = words[0][: len(words[0]) - len(number)]
    of_host = words[1].startswith("@")
    container_id = parse_integer(number, option, 0, MAX_ID)
    from_id = parse_integer(words[1].removeprefix("@"), option, 0, MAX_ID)
    size = parse_integer(words[2], option, 0, MAX_ID)
    if max(container_id, from_id) + size > MAX_ID + 1:
        reject(option, text, _MAP_FORM, f"ids end at {MAX_ID}")
    kinds = "".join(kind for kind in "ug" if kind in flags) or "ug"
    return MapLine(container_id, from_id, size, of_host, "+" in flags, kinds)


def _check_keep_id(settings: str, text: str, option: str) -> None:
    given = dict(setting.partition("=")[::2] for setting in settings.split(","))
    if not given.keys() <= {"uid", "gid", "size"}:
        reject(option, text, "keep-id:uid=N,gid=N,size=N")
    for key, value in given.items():
        parse_integer(value, option, int(key == "size"), MAX_ID)
