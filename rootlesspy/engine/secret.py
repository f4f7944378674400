"""Secrets: small data for containers that no spec, record, image or listing ever holds.

    secrets/<name>.json    the fields of Secret, the data in base64; 0600 in a store of 0700

Containers name a secret and read it at each start (engine.supervision.secret_files): a new content
reaches a container by its restart, and one whose secret is gone does not start.
"""

from __future__ import annotations

import binascii
import fcntl
import os
import time

from rootlesspy.engine import statefile
from rootlesspy.errors import Conflict, Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.paths import Paths

LIMIT_BYTES = 512_000
"""podman's limit, which is Kubernetes' too."""

_SUFFIX = ".json"
_NAME_LENGTH = 253
_ID_LENGTH = 25
_REFUSED = frozenset(",/=\0")


class Secret(NamedTuple):
    """One secret without its data."""

    id: str
    """25 hexadecimal digits."""
    name: str
    created_s: float
    """Seconds since the epoch, as updated_s."""
    updated_s: float
    labels: dict[str, str]


def create(
    paths: Paths, name: str, data: bytes, labels: dict[str, str], *, replace: bool = False
) -> Secret:
    """Keep a secret.

    Raises UsageError for a name or size that cannot be, Conflict when there is one of this name,
    OSError.
    """
    check_name(name)
    if not data or len(data) > LIMIT_BYTES:
        raise UsageError(
            f"secret {name}: its data has {len(data):,} bytes",
            hint=f"a secret has 1 to {LIMIT_BYTES:,} bytes",
        )
    private_directory(paths.secrets)
    now_s = time.time()
    made = Secret(os.urandom(_ID_LENGTH).hex()[:_ID_LENGTH], name, now_s, now_s, labels)
    content = {**made._asdict(), "data": binascii.b2a_base64(data, newline=False).decode()}
    path = _path(paths, name)
    lock = _locked(paths)
    try:
        if not replace and os.path.lexists(path):
            raise Conflict(
                f"secret {name} is there already", hint=f"rp secret create --replace {name} FILE"
            )
        statefile.write(path, content, durable=True)
    finally:
        os.close(lock)
    return made


def find(paths: Paths, text: str) -> Secret:
    """Return the secret of a name, an id or a unique beginning of an id.

    Raises NotFound, Conflict for a beginning of several ids, statefile.DamagedError.
    """
    if _is_name(text) and os.path.lexists(_path(paths, text)):
        return _of(paths, text)
    found = [each for each in everything(paths) if text and each.id.startswith(text)]
    if len(found) > 1:
        raise Conflict(f"secret {text}: {len(found)} ids begin with it", hint="rp secret ls")
    if not found:
        raise NotFound(f"no secret with name or id {text!r}", hint="rp secret ls")
    return found[0]


def everything(paths: Paths) -> Sequence[Secret]:
    """Return all secrets by name; a damaged file is left out, find() names it."""
    found = []
    for name in names(paths):
        try:
            found.append(_of(paths, name))
        except (Error, OSError):
            continue
    return found


def names(paths: Paths) -> Sequence[str]:
    """Return the names of all secrets, of damaged ones too.

    What a killed writer left of a secret's data is removed on the way.
    """
    try:
        listed = sorted(os.listdir(paths.secrets))
    except FileNotFoundError:
        return ()
    if any(each.endswith(statefile.HALF_WRITTEN) for each in listed):
        os.close(_locked(paths))
    return [
        each.removesuffix(_SUFFIX)
        for each in listed
        if each.endswith(_SUFFIX) and not each.startswith(".")
    ]


def data(paths: Paths, name: str) -> bytes:
    """Return what a secret holds.  Raises NotFound, statefile.DamagedError."""
    content = _read(paths, name)
    try:
        return binascii.a2b_base64(str(content["data"]), strict_mode=True)
    except (KeyError, binascii.Error) as error:
        raise _damaged(paths, name) from error


def remove(paths: Paths, text: str) -> str:
    """Remove the secret of a name, an id or a unique beginning of an id; return its id.

    One whose file is damaged goes by its name, and has no other id.  Raises NotFound, Conflict,
    OSError.
    """
    try:
        found = find(paths, text)
        name, shown = found.name, found.id
    except statefile.DamagedError:
        name = shown = text
    lock = _locked(paths)
    try:
        statefile.remove(_path(paths, name))
        statefile.sync_directory(paths.secrets)
    except FileNotFoundError:
        raise NotFound(f"no secret with name or id {text!r}", hint="rp secret ls") from None
    finally:
        os.close(lock)
    return shown


def check_name(name: str) -> None:
    """Raise UsageError for a name that podman would refuse."""
    if not _is_name(name):
        raise UsageError(
            f"secret name {name!r} is not possible",
            hint=f"1 to {_NAME_LENGTH} characters, no '/', ',', '=' or control character, "
            "no dot in front",
        )


def _locked(paths: Paths) -> int:
    """Lock the secrets against other writers and remove what a killed one left of its data."""
    fd = os.open(paths.secrets, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    statefile.sweep(paths.secrets)
    return fd


def _is_name(name: str) -> bool:
    return (
        0 < len(os.fsencode(name)) <= _NAME_LENGTH - len(_SUFFIX)
        and name[0] != "."
        and not any(c in _REFUSED or not c.isprintable() for c in name)
    )


def _of(paths: Paths, name: str) -> Secret:
    try:
        found: Secret = statefile.checked(Secret, _read(paths, name), _path(paths, name))
    except statefile.DamagedError as error:
        raise _damaged(paths, name) from error
    if found.name != name:
        raise _damaged(paths, name)
    return found


def _read(paths: Paths, name: str) -> dict[str, object]:
    try:
        return statefile.read(_path(paths, name))
    except FileNotFoundError:
        raise NotFound(f"no secret with name or id {name!r}", hint="rp secret ls") from None
    except OSError as error:
        raise _damaged(paths, name) from error


def _damaged(paths: Paths, name: str) -> Error:
    return statefile.DamagedError(
        f"secret {name}: {_path(paths, name)} cannot be understood",
        hint=f"rp secret create --replace {name} FILE",
    )


def _path(paths: Paths, name: str) -> str:
    return f"{paths.secrets}/{name}{_SUFFIX}"
