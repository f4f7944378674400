"""One small JSON file per thing: written to a temporary name and renamed, never half there.

Read with a size limit; whatever is wrong with a file is a Damaged error that names it, so that one
damaged object leaves all others usable (SECURITY.md D1, D2).
"""

from __future__ import annotations

import errno
import os

from rootlesspy.errors import Error
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORMAT_VERSION = 1
HALF_WRITTEN = ".tmp"
"""End of the name of a file that is being written, or whose writer was killed."""
_UNSYNCED = 0o1000
"""The sticky bit, which means nothing on a file, tells one that was not synced.

File systems write names seconds before what is in the files (ext4's delayed allocation; XFS, btrfs
too), so a power loss leaves such a file empty: as good as not there, while an empty one that was
synced is damaged.
"""
LIMIT_BYTES = 4 * 1024 * 1024
_SPEC_LIMIT_BYTES = 64 * 1024 * 1024
_TYPES: dict[str, Any] = {
    "str": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict,
    "tuple": (list, tuple),
}  # fmt: skip
_LARGEST = 1 << 62
_NOTHING = type(None)
# What most fields are: a value of just this type needs no closer look in a plain file.
_USUAL: dict[str, Any] = {
    "str": str, "bool": bool, "int": int, "float": float, "int | None": int,
    "dict[str, object] | None": dict, "list[str]": list, "dict[str, str]": dict,
    "dict[str, object]": dict, "list[list[object]]": list,
    "dict[str, list[object]]": dict, "list[list[list[int]]]": list, "dict[str, int]": dict,
}  # fmt: skip


class DamagedError(Error):
    """A state file cannot be understood."""


class Shape(NamedTuple):
    """What a file of one kind holds, taken apart once for listings that read thousands."""

    kind: Any
    """A NamedTuple."""
    annotations: dict[str, str]
    names: list[str]
    """The keys of a file as this version writes it."""
    types: list[Any]
    """Of each the type whose values need no closer look than a test."""
    optional: list[bool]
    """Which of them may be None."""
    tests: tuple[tuple[int, Callable[[Any], bool]], ...]
    """By the number of the key."""


def write(path: str, value: dict[str, object], *, durable: bool, named: bool = True) -> None:
    """Write value with the format version; durable: it and its name survive a power loss.

    Of a file that is not, the name alone may: see _UNSYNCED.  named False: the caller will sync the
    directory, and the name with it.  Raises OSError; the old content stays whole.
    """
    temporary = f"{path}.{os.getpid()}{HALF_WRITTEN}"
    encoded = json.dumps({"version": FORMAT_VERSION, **value}, separators=(",", ":")).encode()
    try:
        mode = 0o600 if durable else 0o600 | _UNSYNCED
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            view = memoryview(encoded)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        _remove(temporary)
        raise
    if durable and named:
        sync_directory(os.path.dirname(path))


def read(path: str) -> dict[str, object]:
    """Return the content of a state file.

    Raises FileNotFoundError (also when a power loss has left nothing of it), OSError, DamagedError
    (also for a newer format version).
    """
    return _parsed(content(path, LIMIT_BYTES)[0], path)


def _parsed(written: bytes, path: str) -> dict[str, Any]:
    try:
        # Decoded here: json.loads() looks which UTF it could be, byte by byte.
        value = json.loads(written.decode())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged", hint="remove the object with rp rm -f") from error
    if not isinstance(value, dict) or not isinstance(value.get("version"), int):
        raise DamagedError(f"{path} is damaged", hint="remove the object with rp rm -f")
    if value["version"] > FORMAT_VERSION:
        raise DamagedError(
            f"{path} was written by a newer rp (format {value['version']})", hint="upgrade rp"
        )
    return value


def read_spec(directory: str) -> dict[str, Any]:
    """Return the config.json of a container's directory.  Raises OSError, ValueError."""
    path = f"{directory}/config.json"
    try:
        value = json.loads(content(path, _SPEC_LIMIT_BYTES)[0])
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is no object")  # noqa: TRY004 as what is no JSON at all
    return value


def read_spec_parts(directory: str, parts: dict[str, str]) -> dict[str, Any] | None:
    """Return some objects and lists of config.json by name, without parsing the rest.

    parts: what each begins with.  None when one is not there as rp writes it.  Raises OSError,
    ValueError.
    """
    from json import JSONDecoder

    text = content(f"{directory}/config.json", _SPEC_LIMIT_BYTES)[0].decode()
    found = {}
    for name, bracket in parts.items():
        # In no string: there a quotation mark has a backslash before it.
        at = text.find(f'"{name}":{bracket}')
        if at < 0:
            return None
        found[name] = JSONDecoder().raw_decode(text, at + len(name) + 3)[0]
    return found


def spec_mentions(directory: str, text: bytes) -> bool:
    """Say whether a plain ASCII text is anywhere in config.json.  Raises OSError."""
    return text in content(f"{directory}/config.json", _SPEC_LIMIT_BYTES)[0]


def content(path: str, limit_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return what is in a file, and which it is; nothing of one too large, and of no link or pipe.

    Raises FileNotFoundError (also when a power loss has left nothing of it), OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        size = found.st_size
        if not size and found.st_mode & _UNSYNCED:
            raise FileNotFoundError(errno.ENOENT, "lost with the machine's power", path)
        return os.read(fd, size) if size <= limit_bytes else b"", found
    finally:
        os.close(fd)


def shape(kind: Any) -> Shape:
    """Take a NamedTuple's annotations apart for read_shape()."""
    texts = {
        name: getattr(annotation, "__forward_arg__", annotation)
        for name, annotation in kind.__annotations__.items()
    }
    tests: dict[str, Callable[[Any], bool]] = {
        "int": _is_small, "int | None": _is_small, "float": _is_small,
        "list[str]": _are_texts, "dict[str, str]": _has_texts,
    }  # fmt: skip
    return Shape(
        kind=kind,
        annotations=texts,
        names=["version", *texts],
        types=[int, *(_USUAL.get(text) for text in texts.values())],
        optional=[False, *(text.endswith(" | None") for text in texts.values())],
        tests=tuple(
            (at, tests[text]) for at, text in enumerate(texts.values(), 1) if text in tests
        ),
    )


def read_as(kind: Any, path: str) -> Any:
    """Return the content of a state file as a NamedTuple; fields that it lacks are left out.

    Raises FileNotFoundError, OSError, DamagedError, also for a field of another type.
    """
    return checked(kind, read(path), path)


def read_shape(wanted: Shape, path: str) -> Any:
    """Return the content of a state file as read_as() does, of a kind that is known already."""
    return understood(wanted, content(path, LIMIT_BYTES)[0], path)


def understood(wanted: Shape, written: bytes, path: str) -> Any:
    """Return what was read from a state file as a NamedTuple.  Raises DamagedError."""
    value = _parsed(written, path)
    # Without an escape no text can hold a NUL or half a surrogate pair: JSON has neither.
    if b"\\u" not in written and list(value) == wanted.names:
        values = list(value.values())
        if _is_usual(wanted, values):
            return wanted.kind._make(values[1:])
    return _checked(wanted, value, path)


def checked(kind: Any, value: Mapping[str, Any], path: str) -> Any:
    """Return what was read from a file as a NamedTuple.  Raises DamagedError, as read_as()."""
    if not isinstance(value, dict):
        raise DamagedError(f"{path} is damaged", hint="remove the object with rp rm -f")
    return _checked(shape(kind), value, path)


def _checked(wanted: Shape, value: Mapping[str, Any], path: str) -> Any:
    fields: dict[str, Any] = {}
    for name, annotation in wanted.annotations.items():
        if name not in value:
            if name not in wanted.kind._field_defaults:
                raise DamagedError(f"{path} lacks {name!r}")
        elif _fits(value[name], annotation):
            fields[name] = value[name]
        else:
            raise DamagedError(f"{path}: {name} is not what rp writes")
    return wanted.kind(**fields)


def _is_usual(wanted: Shape, values: list[Any]) -> bool:
    """Say whether nothing in a file needs a closer look: _fits() would take each value."""
    types = list(map(type, values))
    if types != wanted.types and not all(map(_may_be, types, wanted.types, wanted.optional)):
        return False
    return all(test(values[at]) for at, test in wanted.tests if values[at] is not None)


def _may_be(kind: type, usual: Any, optional: bool) -> bool:
    return kind is usual or (optional and kind is _NOTHING)


def _is_small(value: float) -> bool:
    return -_LARGEST < value < _LARGEST


def _are_texts(value: list[object]) -> bool:
    return not value or set(map(type, value)) == {str}


def _has_texts(value: dict[str, object]) -> bool:
    return not value or set(map(type, value.values())) == {str}


def _fits(value: object, annotation: str) -> bool:
    """Say whether a value can be of a type, as the annotation of a field has it."""
    if value is None or annotation.endswith(" | None"):
        return annotation.endswith(" | None") and (
            value is None or _fits(value, annotation.removesuffix(" | None"))
        )
    outer, _, inner = annotation.removesuffix("]").partition("[")
    if not isinstance(value, _TYPES[outer]) or (outer != "bool" and isinstance(value, bool)):
        return False
    if isinstance(value, str):
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return False
        return "\0" not in value
    if isinstance(value, int | float):
        return _is_small(value)
    if inner.endswith(("str", "str, ...")) and isinstance(value, list | tuple | dict):
        elements = [*value, *value.values()] if isinstance(value, dict) else value
        return all(isinstance(each, str) for each in elements)
    return True


def remove(path: str) -> None:
    """Remove a state file, or what stands in its place.  Raises FileNotFoundError, OSError."""
    try:
        os.unlink(path)
    except IsADirectoryError:
        os.rmdir(path)


def sweep(directory: str) -> None:
    """Remove what killed writers left half-written; the caller has locked out all writers."""
    for name in os.listdir(directory):
        if name.endswith(HALF_WRITTEN):
            os.unlink(f"{directory}/{name}")


def names_in(directory: str) -> list[str]:
    """Return the names in a directory; none of one that is not there."""
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
