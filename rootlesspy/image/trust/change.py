"""Changing the user's signature policy: `rp image trust set`.

Only the scope that is named changes; everything else of the file is kept, in its order, also what
rp does not understand.
"""

from __future__ import annotations

import json
import os
import tempfile

from rootlesspy.errors import Error, UsageError
from rootlesspy.image.reference import is_registry, parse
from rootlesspy.image.trust import policy
from rootlesspy.light_typing import TYPE_CHECKING, cast
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.paths import Paths

DEFAULT = "default"
TYPES = {
    "accept": policy.ACCEPT,
    "reject": policy.REJECT,
    "signedBy": policy.SIGNED_BY,
    "sigstoreSigned": policy.SIGSTORE,
}


def put(paths: Paths, scope: str, kind: str, keys: Sequence[str]) -> str:
    """Set what is required of images of a scope, or with "default" of all others.

    kind is one of TYPES; each key becomes a requirement of its own, so that all have to have
    signed.  Returns the path of the file.  Raises UsageError, Error.
    """
    needs_keys = kind in ("signedBy", "sigstoreSigned")
    if needs_keys and not keys:
        raise UsageError(
            f"trust type {kind} needs a public key",
            hint=f"-f KEY: rp image trust set -f KEY {scope}",
        )
    if keys and not needs_keys:
        raise UsageError(f"trust type {kind} takes no public key", hint="leave out -f")
    requirements = [_requirement(TYPES[kind], _key(each)) for each in keys] or [
        {"type": TYPES[kind]}
    ]
    if scope != DEFAULT:
        _check_scope(scope)
    path = policy.default_path(paths)
    document = _document(policy.find(paths))
    if scope == DEFAULT:
        document["default"] = requirements
    else:
        transports = _table(document, "transports", path)
        _table(transports, policy.DOCKER, path)[scope] = requirements
    # What is written is also what can be read: a policy that nobody understands stops everything.
    data = json.dumps(document, indent=4, ensure_ascii=False).encode() + b"\n"
    policy.parse(data, path)
    _write(path, data)
    return path


def _document(path: str | None) -> dict[str, object]:
    """Return the policy to start from: the user's, the system's, or one that accepts all."""
    if path is None:
        return {"default": [{"type": policy.ACCEPT}]}
    try:
        return image_spec.parse_document(policy.read(path), "it")
    except image_spec.MalformedError as error:
        raise UsageError(f"signature policy {path}: {error}") from None


def _requirement(kind: str, key: str) -> dict[str, object]:
    if kind == policy.SIGNED_BY:
        return {"type": kind, "keyType": "GPGKeys", "keyPath": key}
    return {"type": kind, "keyPath": key}


def _key(path: str) -> str:
    if not os.path.isfile(path):
        raise UsageError(f"there is no key {path}", hint=f"ls -l {path}")
    return os.path.abspath(path)


def _check_scope(scope: str) -> None:
    """Raise UsageError for what no image's name can be in."""
    host, slash, rest = scope.partition("/")
    is_scope = is_registry(host) if slash else is_registry(host.removeprefix("*."))
    if is_scope and slash:
        try:
            parse(f"localhost/{rest}")
        except UsageError:
            is_scope = False
    if not is_scope:
        raise UsageError(
            f"{scope!r} is not the beginning of an image's name",
            hint="such as docker.io/library, registry.example.com or default",
        )


def _table(parent: dict[str, object], name: str, path: str) -> dict[str, object]:
    found = parent.setdefault(name, {})
    if not isinstance(found, dict):
        raise UsageError(f"signature policy {path}: {name} is not a table")
    return cast("dict[str, object]", found)


def _write(path: str, data: bytes) -> None:
    """Replace the file as a whole.  Raises Error."""
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=".policy.json.", dir=directory)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(fd, 0o644)
                os.fsync(fd)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise Error(f"cannot write {path}: {error.strerror}", hint=f"ls -ld {directory}") from error
