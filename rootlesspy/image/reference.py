"""Image references: registry/repository:tag@digest, as people type them and as rp writes them.

Hot path: a hand-written parser, no regular expressions.  The grammar is that of the distribution
project (reference/regexp.go), with docker.io and library/ as what is left out.  There is no search
list: a short name means docker.io unless registries.conf gives it an alias (settings.py).
"""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import NamedTuple
from rootlesspy.oci.image_spec import is_digest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
LOCAL_REGISTRY = "localhost"
_OFFICIAL = "library/"
_MAX_NAME = 255
_MAX_TAG = 128
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz")
_DIGITS = frozenset("0123456789")
_LOWER_ALNUM = _LOWER | _DIGITS
_ALNUM = _LOWER_ALNUM | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD = _ALNUM | {"_"}
_HEX = frozenset("0123456789abcdef")


class Reference(NamedTuple):
    """One image in one registry; tag or digest or both are set."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def name(self) -> str:
        """registry/repository."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.name}{tag}{digest}"

    def familiar(self) -> str:
        """Return the shortest text that means the same, for people."""
        full = str(self)
        short = full.removeprefix(f"{DEFAULT_REGISTRY}/")
        for candidate in (short.removeprefix(_OFFICIAL), short):
            if candidate != full and _parsed_or_none(candidate) == self:
                return candidate
        return full


def parse(text: str) -> Reference:
    """Parse what was typed; docker.io, library/ and :latest are filled in.

    Raises UsageError.
    """
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, f"{digest!r} is not a sha256 or sha512 digest")
    name, tag = _split_tag(rest)
    if tag is not None and not _is_tag(tag):
        raise _invalid(text, f"{tag!r} is not a tag")
    registry, repository = _split_registry(name)
    # A host that capitals alone tell from a repository is not told from it in lower case.
    if not is_registry(registry) or not _names_registry(f"{registry}/"):
        raise _invalid(text, f"{registry!r} is not a registry host")
    _check_repository(text, repository)
    if len(registry) + len(repository) + 1 > _MAX_NAME:
        raise _invalid(text, f"the name is longer than {_MAX_NAME} characters")
    if tag is None and not at:
        tag = DEFAULT_TAG
    return Reference(registry, repository, tag, digest if at else None)


def parse_local(text: str) -> Reference:
    """Parse the name that something made here is to get: without a registry it is localhost's.

    Raises UsageError.
    """
    if _names_registry(text):
        return parse(text)
    return parse(f"{LOCAL_REGISTRY}/{text}")


def candidates(text: str) -> tuple[Reference, ...]:
    """Return what a name may mean among the images that are here: a short one localhost's first.

    Raises UsageError.
    """
    meant = parse(text)
    return (meant,) if _names_registry(text) else (parse_local(text), meant)


def is_image_id(text: str) -> bool:
    """Say whether text is a whole image id, with or without "sha256:"."""
    encoded = text.removeprefix("sha256:")
    return len(encoded) == 64 and _HEX.issuperset(encoded)


def is_registry(text: str) -> bool:
    """Say whether text is host[:port]; the host is a name, an IPv4 address or [IPv6]."""
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not (closed and host and set(host) <= _HEX | {":", "."} and ":" in host):
            return False
        if port and not port.startswith(":"):
            return False
        return not port or _is_port(port[1:])
    host, colon, port = text.partition(":")
    if colon and not _is_port(port):
        return False
    return all(_is_host_label(label) for label in host.split("."))


def is_repository(text: str) -> bool:
    """Say whether text is the path of a repository in its registry."""
    return len(text) <= _MAX_NAME and all(_is_path_component(part) for part in text.split("/"))


def _parsed_or_none(text: str) -> Reference | None:
    try:
        return parse(text)
    except UsageError:
        return None


def _split_tag(text: str) -> tuple[str, str | None]:
    """Cut the tag off; a colon before the last slash is a port."""
    head, colon, tail = text.rpartition(":")
    if not colon or "/" in tail or tail.endswith("]"):
        return text, None
    return head, tail


def _split_registry(name: str) -> tuple[str, str]:
    first, _, rest = name.partition("/")
    if not _names_registry(name):
        registry, repository = DEFAULT_REGISTRY, name
    else:
        registry, repository = first.lower(), rest
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = _OFFICIAL + repository
    return registry, repository


def _names_registry(text: str) -> bool:
    first, slash, _ = text.partition("@")[0].partition("/")
    return bool(slash) and (
        "." in first or ":" in first or first == LOCAL_REGISTRY or first != first.lower()
    )


def _is_host_label(label: str) -> bool:
    return (
        bool(label)
        and len(label) <= 63
        and set(label) <= _LOWER_ALNUM | {"-"}
        and not label.startswith("-")
        and not label.endswith("-")
    )


def _is_port(text: str) -> bool:
    return 0 < len(text) <= 5 and _DIGITS.issuperset(text) and 0 < int(text) < 65536


def _is_tag(text: str) -> bool:
    return (
        0 < len(text) <= _MAX_TAG
        and text[0] in _WORD
        and all(character in _WORD or character in ".-" for character in text)
    )


def _check_repository(text: str, repository: str) -> None:
    plain = repository.removeprefix(_OFFICIAL)
    if len(plain) == 64 and _HEX.issuperset(plain):
        # The distribution project refuses these too: they would hide image ids.
        raise _invalid(text, "64 hexadecimal digits are an image id, not a name")
    for component in repository.split("/"):
        if not _is_path_component(component):
            if component != component.lower() and _is_path_component(component.lower()):
                raise _invalid(text, f"{component!r} must be in lower case")
            raise _invalid(text, f"{component!r} is not a part of a repository name")


def _is_path_component(text: str) -> bool:
    """Check letters and digits, separated by ".", "_", "__" or any number of "-"."""
    if not text or text[0] not in _LOWER_ALNUM or text[-1] not in _LOWER_ALNUM:
        return False
    separator = ""
    for character in text:
        if character in _LOWER_ALNUM:
            if separator not in ("", ".", "_", "__") and separator.strip("-"):
                return False
            separator = ""
        else:
            separator += character
    return True


def _invalid(text: str, why: str) -> UsageError:
    hint = None
    if "://" in text:
        hint = f"write the name without {text.partition('://')[0]}://"
    return UsageError(f"invalid image reference {text!r}: {why}", hint=hint)
