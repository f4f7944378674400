"""Secrets: small data for containers that no spec, record, image or listing ever holds.

    secrets/<name>.json    the fields of Secret, the data in base64; 0600 in a store of 0700

Containers name a secret and read it at each start (engine.supervision.secret_files): a new content
reaches a container by its restart, and one whose secret is gone does not start.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.engine import statefile
from rootlesspy.errors import Conflict, Error, NotFound, UsageError
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
    content = {**made._asdict(), "data": base64.b64encode(data).decode("ascii")}
    path = _path(paths, name)
    if replace:
        statefile.write(path, content, durable=True)
        return made
    # Reserved by a link, which of many makers one gets.
    half = f"{paths.secrets}/.{made.id}"
    statefile.write(half, content, durable=True)
    try:
        os.link(half, path)
    except FileExistsError:
        raise Conflict(
            f"secret {name} is there already", hint=f"rp secret create --replace {name} FILE"
        ) from None
    finally:
        os.unlink(half)
    statefile.sync_directory(paths.secrets)
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
    try:
        names = sorted(os.listdir(paths.secrets))
    except FileNotFoundError:
        return ()
    found = []
    for name in names:
        if name.startswith(".") or not name.endswith(_SUFFIX):
            continue
        try:
            found.append(_of(paths, name.removesuffix(_SUFFIX)))
        except (Error, OSError):
            continue
    return found


def data(paths: Paths, name: str) -> bytes:
    """Return what a secret holds.  Raises NotFound, statefile.DamagedError."""
    content = _read(paths, name)
    try:
        return base64.b64decode(str(content["data"]), validate=True)
    except (KeyError, binascii.Error) as error:
        raise _damaged(paths, name) from error


def remove(paths: Paths, name: str) -> None:
    """Remove a secret.  Raises NotFound, OSError."""
    try:
        os.unlink(_path(paths, name))
    except FileNotFoundError:
        raise NotFound(f"no secret with name or id {name!r}", hint="rp secret ls") from None


def check_name(name: str) -> None:
    """Raise UsageError for a name that podman would refuse."""
    if not _is_name(name):
        raise UsageError(
            f"secret name {name!r} is not possible",
            hint=f"1 to {_NAME_LENGTH} characters, no '/', ',', '=' or control character, "
            "no dot in front",
        )


def _is_name(name: str) -> bool:
    return (
        0 < len(os.fsencode(name)) <= _NAME_LENGTH - len(_SUFFIX)
        and name[0] != "."
        and not any(c in _REFUSED or not c.isprintable() for c in name)
    )


def _of(paths: Paths, name: str) -> Secret:
    content = _read(paths, name)
    try:
        return Secret(**{field: content[field] for field in Secret._fields})  # type: ignore[arg-type]
    except KeyError as error:
        raise _damaged(paths, name) from error


def _read(paths: Paths, name: str) -> dict[str, object]:
    try:
        return statefile.read(_path(paths, name))
    except FileNotFoundError:
        raise NotFound(f"no secret with name or id {name!r}", hint="rp secret ls") from None


def _damaged(paths: Paths, name: str) -> Error:
    return statefile.DamagedError(
        f"secret {name}: {_path(paths, name)} cannot be understood",
        hint=f"rp secret create --replace {name} FILE",
    )


def _path(paths: Paths, name: str) -> str:
    return f"{paths.secrets}/{name}{_SUFFIX}"
