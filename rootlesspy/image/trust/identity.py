"""Which names a signature may speak for: signedIdentity of containers-policy.json(5).

A signature says "this manifest is NAME".  What NAME has to be is decided here, from the name that
was asked for; a signature for another name proves nothing, whoever made it.
"""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.image.reference import Reference, is_registry, is_repository, parse
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

EXACT, REPO_DIGEST_OR_EXACT, REPOSITORY = (
    "matchExact", "matchRepoDigestOrExact", "matchRepository",
)  # fmt: skip
EXACT_REFERENCE, EXACT_REPOSITORY, REMAP = "exactReference", "exactRepository", "remapIdentity"
FIELDS: dict[str, tuple[str, ...]] = {
    EXACT: (),
    REPO_DIGEST_OR_EXACT: (),
    REPOSITORY: (),
    EXACT_REFERENCE: ("dockerReference",),
    EXACT_REPOSITORY: ("dockerRepository",),
    REMAP: ("prefix", "signedPrefix"),
}


class Identity(NamedTuple):
    """One signedIdentity; the texts are its fields in the order of FIELDS."""

    type: str
    first: str = ""
    second: str = ""


DEFAULT = Identity(REPO_DIGEST_OR_EXACT)


def is_valid(field: str, text: str) -> bool:
    """Say whether a field of a signedIdentity has the form that it must have."""
    if field in ("prefix", "signedPrefix"):
        registry, slash, path = text.partition("/")
        return is_registry(registry) and (not slash or is_repository(path))
    named = _parsed(text)
    if named is None:
        return False
    is_name_only = _is_name_only(text)
    return is_name_only if field == "dockerRepository" else not is_name_only


def matches(wanted: Identity, asked: Reference | None, signed: str) -> bool:
    """Say whether a signature for the name signed is one for what was asked.

    asked is None where the image has no name, as in an archive: only the exact… types match then.
    """
    found = _parsed(signed)
    if found is None:
        return False
    name_only = _is_name_only(signed)
    if wanted.type == EXACT_REFERENCE:
        return not name_only and found == _parsed(wanted.first)
    if wanted.type == EXACT_REPOSITORY:
        return found.name == parse(wanted.first).name
    if asked is None:
        return False
    if wanted.type == REPOSITORY:
        return found.name == asked.name
    if wanted.type == REMAP:
        remapped = _remapped(asked, wanted.first, wanted.second)
        if remapped is None:
            return False
        asked = remapped
    if wanted.type != EXACT and asked.tag is None:
        # Asked for by digest: which one it is says the signed digest, not the name.
        return found.name == asked.name
    return not name_only and found == asked


def namespaces(reference: Reference) -> Iterator[str]:
    """Yield the scopes of the docker transport that hold for a reference, the narrowest first."""
    yield f"{reference.name}@{reference.digest}" if reference.digest else str(reference)
    name = reference.name
    while True:
        yield name
        name, slash, _ = name.rpartition("/")
        if not slash:
            break
    host = reference.registry.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"


def path_scopes(path: str) -> Iterator[str]:
    """Yield the scopes of a transport of files: a path and its parents, / left out."""
    while path not in ("", "/"):
        yield path
        path = path.rpartition("/")[0]


def _remapped(asked: Reference, prefix: str, signed_prefix: str) -> Reference | None:
    """Return what was asked with the signed prefix in place of prefix; None for nonsense."""
    text = str(asked)
    if not text.startswith(prefix) or text[len(prefix) : len(prefix) + 1] not in (
        "",
        "/",
        ":",
        "@",
    ):
        return asked
    rest = text[len(prefix) :]
    if rest.startswith(":") and "/" in rest:
        # A port: host is no prefix of host:5000.
        return asked
    return _parsed(f"{signed_prefix}{rest}")


def _parsed(text: str) -> Reference | None:
    try:
        return parse(text)
    except UsageError:
        return None


def _is_name_only(text: str) -> bool:
    """Say whether a reference has neither tag nor digest."""
    return "@" not in text and ":" not in text.rpartition("/")[2]
