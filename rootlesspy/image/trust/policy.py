"""Which images are accepted from where: containers-policy.json(5), read whole and strictly.

As container tools do, an unknown key, a key that is there twice and a requirement that cannot be
understood refuse the file: a policy that is only half understood protects nobody.  Where there is
no file at all everything is accepted (docs/differences.md).

Sources: containers-policy.json(5); what its verification means is in signed_by.py and sigstore.py.
"""

from __future__ import annotations

import base64
import binascii
import os

from rootlesspy.errors import UsageError
from rootlesspy.image.trust import identity
from rootlesspy.image.trust.identity import Identity
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple, cast
from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rootlesspy.paths import Paths

SYSTEM_FILE = "/etc/containers/policy.json"
ACCEPT, REJECT, SIGNED_BY, SIGSTORE, BASE_LAYER = (
    "insecureAcceptAnything", "reject", "signedBy", "sigstoreSigned", "signedBaseLayer",
)  # fmt: skip
DOCKER = "docker"
# Their scopes are paths; docker's are names, and those of all others have no rules of ours.
_PATH_TRANSPORTS = ("dir", "oci", "oci-archive")
_KEY_TYPES = ("GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs")


class Keys(NamedTuple):
    """Public keys, all of one requirement: files, and what stands in the policy itself."""

    paths: tuple[str, ...] = ()
    data: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.paths or self.data)


class Requirement(NamedTuple):
    """One thing that an image has to fulfil."""

    type: str
    keys: Keys = Keys()
    identity: Identity = identity.DEFAULT
    key_type: str = ""
    """Of signedBy."""
    rekor: Keys = Keys()
    """Public keys of the transparency log, of sigstoreSigned; any one of them."""
    unsupported: str = ""
    """A key of the policy that asks for what rp cannot verify."""


Requirements = tuple[Requirement, ...]


class Policy(NamedTuple):
    """A whole policy; path is where it was read, empty for the built-in one."""

    path: str
    default: Requirements
    transports: Mapping[str, Mapping[str, Requirements]]

    def requirements(self, transport: str, scopes: tuple[str, ...]) -> tuple[str, Requirements]:
        """Return the place in the policy that decides, and what it requires.

        scopes: what is asked for, from the narrowest to the widest.
        """
        known = self.transports.get(transport, {})
        for scope in (*scopes, ""):
            if scope in known:
                return (f"{transport}:{scope}" if scope else f"{transport}:"), known[scope]
        return "default", self.default


ACCEPT_ALL = Policy("", (Requirement(ACCEPT),), {})


def default_path(paths: Paths) -> str:
    """Return where the user's policy is, whether it exists or not."""
    return f"{paths.config}/containers/policy.json"


def find(paths: Paths, chosen: str | None = None) -> str | None:
    """Return the file that holds the policy: chosen, the user's, the system's; None for none."""
    if chosen:
        return chosen
    return next(
        (each for each in (default_path(paths), SYSTEM_FILE) if os.path.lexists(each)), None
    )


def load(paths: Paths, chosen: str | None = None) -> Policy:
    """Read the policy; where there is no file, accept everything.

    Raises UsageError naming file and key.
    """
    path = find(paths, chosen)
    if path is None:
        return ACCEPT_ALL
    return parse(read(path), path)


def read(path: str) -> bytes:
    """Return a file of the policy.  Raises UsageError."""
    try:
        with open(path, "rb") as file:
            return file.read(image_spec.MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"signature policy {path}: {error.strerror}") from error


def parse(data: bytes, path: str) -> Policy:
    """Parse a policy.  Raises UsageError naming file and key."""
    try:
        document = image_spec.parse_document(data, "it")
        _check_keys(document, ("default", "transports"), "it")
        transports = _table(document.get("transports", {}), "transports")
        return Policy(
            path,
            _requirements(document.get("default"), "default"),
            {name: _scopes(name, value) for name, value in transports.items()},
        )
    except (_Wrong, image_spec.MalformedError) as error:
        raise UsageError(
            f"signature policy {path}: {error}", hint="man containers-policy.json"
        ) from None


class _Wrong(Exception):
    """Something of a policy cannot be understood; the text says what."""


def _scopes(transport: str, value: object) -> dict[str, Requirements]:
    place = f"transports.{transport}"
    found = {}
    for scope, requirements in _table(value, place).items():
        if scope and transport in _PATH_TRANSPORTS:
            path = scope.partition(":")[0] if transport != "dir" else scope
            if not path.startswith("/") or path == "/" or os.path.normpath(path) != path:
                raise _Wrong(f"{place}: scope {scope!r} is not an absolute path in its plain form")
        found[scope] = _requirements(requirements, f"{place}.{scope or '(all)'}")
    return found


def _requirements(value: object, place: str) -> Requirements:
    if not isinstance(value, list):
        raise _Wrong(f"{place} is not a list of requirements")
    if not value:
        raise _Wrong(f"{place} is an empty list")
    return tuple(_requirement(each, place) for each in value)


def _requirement(value: object, place: str) -> Requirement:
    table = _table(value, f"a requirement of {place}")
    kind = table.get("type")
    makers: dict[str, Callable[[dict[str, object], str], Requirement]] = {
        ACCEPT: _plain,
        REJECT: _plain,
        SIGNED_BY: _signed_by,
        SIGSTORE: _sigstore,
        BASE_LAYER: _base_layer,
    }
    if not isinstance(kind, str) or kind not in makers:
        raise _Wrong(f"{place}: unknown type of requirement {kind!r}")
    return makers[kind](table, f"{place}: {kind}")


def _plain(table: dict[str, object], place: str) -> Requirement:
    _check_keys(table, ("type",), place)
    return Requirement(cast("str", table["type"]))


def _base_layer(table: dict[str, object], place: str) -> Requirement:
    _check_keys(table, ("type", "baseLayerIdentity"), place)
    found = _identity(table.get("baseLayerIdentity"), place)
    return Requirement(BASE_LAYER, identity=found, unsupported=BASE_LAYER)


def _signed_by(table: dict[str, object], place: str) -> Requirement:
    _check_keys(
        table, ("type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"), place
    )
    key_type = table.get("keyType")
    if key_type not in _KEY_TYPES:
        raise _Wrong(f"{place}: keyType is not {' or '.join(_KEY_TYPES)}")
    keys = _keys(table, "key", place, required=True)
    return Requirement(
        SIGNED_BY,
        keys=keys,
        identity=_identity(table.get("signedIdentity"), place),
        key_type=str(key_type),
        unsupported="" if key_type == "GPGKeys" else f"keyType {key_type}",
    )


def _sigstore(table: dict[str, object], place: str) -> Requirement:
    names = ("keyPath", "keyPaths", "keyData", "keyDatas")
    rekor = ("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData",
             "rekorPublicKeyDatas")  # fmt: skip
    _check_keys(table, ("type", *names, "fulcio", "pki", *rekor, "signedIdentity"), place)
    certified = [name for name in ("fulcio", "pki") if name in table]
    keys = _keys(table, "key", place, required=not certified)
    if len(certified) + bool(keys) > 1:
        raise _Wrong(f"{place}: keys, fulcio and pki exclude each other")
    for name in certified:
        _table(table[name], f"{place}: {name}")
    return Requirement(
        SIGSTORE,
        keys=keys,
        identity=_identity(table.get("signedIdentity"), place),
        rekor=_keys(table, "rekorPublicKey", place, required=False),
        unsupported=certified[0] if certified else "",
    )


def _keys(table: dict[str, object], prefix: str, place: str, *, required: bool) -> Keys:
    """Return the one of keyPath, keyPaths, keyData and keyDatas that there is."""
    names = [f"{prefix}{suffix}" for suffix in ("Path", "Paths", "Data", "Datas")]
    given = [name for name in names if name in table]
    if len(given) > 1:
        raise _Wrong(f"{place}: {' and '.join(given)} exclude each other")
    if not given:
        if required:
            raise _Wrong(f"{place}: {names[0]}, {names[1]} or {names[2]} is missing")
        return Keys()
    name, value = given[0], table[given[0]]
    texts = value if name.endswith("s") else [value]
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
        kind = "a list of strings" if name.endswith("s") else "a string"
        raise _Wrong(f"{place}: {name} is not {kind}")
    if "Path" in name:
        return Keys(paths=tuple(texts))
    try:
        return Keys(data=tuple(base64.b64decode(text, validate=True) for text in texts))
    except (binascii.Error, ValueError):
        raise _Wrong(f"{place}: {name} is not base64") from None


def _identity(value: object, place: str) -> Identity:
    """Parse signedIdentity; without one it is matchRepoDigestOrExact."""
    if value is None:
        return identity.DEFAULT
    table = _table(value, f"{place}: signedIdentity")
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in identity.FIELDS:
        raise _Wrong(f"{place}: signedIdentity has the unknown type {kind!r}")
    fields = identity.FIELDS[kind]
    _check_keys(table, ("type", *fields), f"{place}: {kind}")
    texts = []
    for field in fields:
        text = table.get(field)
        if not isinstance(text, str):
            raise _Wrong(f"{place}: {kind}: {field} is not a string")
        if not identity.is_valid(field, text):
            raise _Wrong(f"{place}: {kind}: {field} {text!r} is not what it is to be")
        texts.append(text)
    return Identity(kind, *texts)


def _table(value: object, place: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _Wrong(f"{place} is not a table")
    return cast("dict[str, object]", value)


def _check_keys(table: Mapping[str, object], known: tuple[str, ...], place: str) -> None:
    for key in table:
        if key not in known:
            raise _Wrong(f"{place}: unknown key {key!r}")
