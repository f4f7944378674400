"""Who the payload runs as: a user string looked up in the container's own passwd and group files.

Runs in the container's init before the pivot, with bounded reads through the root's descriptor:
never NSS, never the host's files (CVE-2019-14271).  Grammar as podman's --user: NAME or UID,
optionally ":" and a group name or GID.  Sources: passwd(5), group(5).
"""

from __future__ import annotations

import errno
import io

from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.linux import pathrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rootlesspy.oci.runtime_spec import LinuxIDMapping

_FILE_LIMIT_BYTES = 16 * 1024 * 1024
_ID_MAXIMUM = 2**32 - 2
_GROUPS_MAXIMUM = 65536
_PASSWD_FIELDS = 7
_GROUP_FIELDS = 4


class User(NamedTuple):
    """Numeric identity of the payload, inside the container."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...]
    home: str


class UserLookupError(OSError):
    """The user string names nobody; strerror says what was looked for."""


def resolve(root_fd: int, text: str, group_add: tuple[str, ...]) -> User:
    """Resolve a user string and the extra groups below root_fd.

    A number is that id, whatever passwd calls by that name (CVE-2016-3697); a number out of range
    or anything odd is an error, never uid 0 (CVE-2026-46680).  Raises UserLookupError, OSError.
    """
    name, colon, group = text.partition(":")
    if ":" in group or (colon and not (name and group)):
        raise _error(f"user {text!r} is not USER or USER:GROUP")
    for word in (name, group, *group_add):
        _refuse_almost_a_number(word)
    entry = _passwd_entry(_content(root_fd, "etc/passwd"), name or "0")
    if entry is not None:
        uid, gid, login, home = entry
    else:
        uid, gid, login, home = _number(name or "0", "user", "/etc/passwd"), 0, "", "/"
    groups = _content(root_fd, "etc/group") if group or group_add or login else b""
    if group:
        gid = _group_id(groups, group)
        additional: list[int] = []
    else:
        additional = _memberships(groups, login)
    additional += [_group_id(groups, extra) for extra in group_add]
    # The primary group too, or a mode 0604 file shuts it out only sometimes (CVE-2022-2989).
    unique = tuple(dict.fromkeys([gid, *additional]))
    return User(uid, gid, unique[:_GROUPS_MAXIMUM], home or "/")


def check_mapped(
    who: User, uid_maps: Sequence[LinuxIDMapping], gid_maps: Sequence[LinuxIDMapping]
) -> None:
    """Raise UserLookupError for an id outside the container's maps: setresuid says only EINVAL."""
    ids = (("user", who.uid, uid_maps), *(("group", gid, gid_maps) for gid in who.additional_gids))
    for what, number, maps in ids:
        if not any(m["containerID"] <= number < m["containerID"] + m["size"] for m in maps):
            count = sum(m["size"] for m in maps)
            raise _error(f"{what} {number} is not among the {count} ids of the container")


def _refuse_almost_a_number(name: str) -> None:
    """Refuse `0x0`, `1_000`, `-1` and the like, whatever the image calls by that name.

    useradd(8) makes no such names; what looks like a number must not become another one
    (CVE-2024-40635).
    """
    first = name[:1]
    if (
        first
        and not _is_number(name)
        and not (first == "_" or (first.isascii() and first.isalpha()))
    ):
        raise _error(f"{name!r} is neither a number nor a name")


def _passwd_entry(passwd: bytes, name: str) -> tuple[int, int, str, str] | None:
    wanted = name.encode("utf-8", "surrogateescape")
    by_number = _is_number(name)
    for fields in _entries(passwd, _PASSWD_FIELDS):
        if not by_number and fields[0] != wanted:
            continue
        uid, gid = _plain(fields[2]), _plain(fields[3])
        if by_number and uid != int(name):
            continue
        if uid is None or gid is None:
            raise _error(f"/etc/passwd of the image has no valid ids for user {name!r}")
        return uid, gid, fields[0].decode("utf-8", "replace"), _text(fields[5])
    return None


def _memberships(groups: bytes, login: str) -> list[int]:
    if not login:
        return []
    wanted = b",%s," % login.encode()
    found: dict[int, None] = {}
    for fields in _entries(groups, _GROUP_FIELDS):
        gid = _plain(fields[2])
        if gid is not None and wanted in b",%s," % fields[3]:
            found[gid] = None
            if len(found) == _GROUPS_MAXIMUM:
                break
    return list(found)


def _group_id(groups: bytes, name: str) -> int:
    if _is_number(name):
        return _number(name, "group", "/etc/group")
    wanted = name.encode("utf-8", "surrogateescape")
    for fields in _entries(groups, _GROUP_FIELDS):
        gid = _plain(fields[2])
        if fields[0] == wanted and gid is not None:
            return gid
    raise _error(f"group {name!r} is not in /etc/group of the image")


def _number(text: str, what: str, file: str) -> int:
    if not _is_number(text):
        raise _error(f"{what} {text!r} is not in {file} of the image")
    value = int(text)
    if value > _ID_MAXIMUM:
        raise _error(f"{what} {text} is out of range")
    return value


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _plain(field: bytes) -> int | None:
    if not field.isdigit() or len(field) > 10:
        return None
    value = int(field)
    return value if value <= _ID_MAXIMUM else None


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")


def _content(root_fd: int, path: str) -> bytes:
    try:
        return pathrs.read_file(root_fd, path, _FILE_LIMIT_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _entries(content: bytes, width: int) -> Iterator[list[bytes]]:
    """Yield the fields of each line that has that many.

    One line at a time and no more fields than wanted: as lists the 16 MiB of a hostile file would
    be 1 GiB (CVE-2026-47262).
    """
    for line in io.BytesIO(content):
        fields = line.rstrip(b"\n").split(b":", width)
        if len(fields) >= width:
            yield fields


def _error(text: str) -> UserLookupError:
    return UserLookupError(errno.ENOENT, text)
