"""Where the signatures of images lie: containers-registries.d(5).

The files are YAML, of which they use three levels of mappings and plain values.  That much is read
here, strictly: what YAML has beyond it (lists, anchors, tags, block texts) is refused with its
line, so that nothing is taken for something else.
"""

from __future__ import annotations

import json
import os

from rootlesspy.errors import UsageError
from rootlesspy.image.trust import identity
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rootlesspy.image.reference import Reference
    from rootlesspy.paths import Paths

SYSTEM_DIRECTORY = "/etc/containers/registries.d"
_MAX_FILE_BYTES = 1 << 20
_READ = ("lookaside", "sigstore")
_WRITE = ("lookaside-staging", "sigstore-staging", *_READ)
_ATTACHMENTS = "use-sigstore-attachments"
# What begins a value that is no plain text.
_SPECIAL = frozenset("[{&*!|>%@`-?,]}")


class Places(NamedTuple):
    """Where signatures are: by scope, and for all others.  default is the user's own directory."""

    scopes: Mapping[str, Mapping[str, str | bool]]
    others: Mapping[str, str | bool]
    default: str

    def lookaside(self, reference: Reference, *, write: bool = False) -> str:
        """Return the URL below which the signatures of a repository lie."""
        names = _WRITE if write else _READ
        for table in self._tables(reference):
            for name in names:
                if table.get(name):
                    return str(table[name])
        return f"file://{self.default}"

    def configured(self, scope: str) -> str:
        """Return the lookaside that is configured for a scope ("" for all others), "" for none."""
        while scope and scope not in self.scopes:
            scope = scope.rpartition("/")[0]
        table = self.scopes[scope] if scope else self.others
        return str(next((table[name] for name in _READ if table.get(name)), ""))

    def uses_attachments(self, reference: Reference) -> bool:
        """Say whether signatures of cosign in the registry itself count for a repository."""
        tables = self._tables(reference)
        return bool(next((each[_ATTACHMENTS] for each in tables if _ATTACHMENTS in each), False))

    def _tables(self, reference: Reference) -> Iterator[Mapping[str, str | bool]]:
        for scope in identity.namespaces(reference):
            if scope in self.scopes:
                yield self.scopes[scope]
        yield self.others


def load(paths: Paths, chosen: str | None = None) -> Places:
    """Read the directory: chosen, else the user's when there is one, else the system's.

    Raises UsageError naming file and line.
    """
    user = f"{paths.config}/containers/registries.d"
    directory = chosen or (user if os.path.isdir(user) else SYSTEM_DIRECTORY)
    scopes: dict[str, Mapping[str, str | bool]] = {}
    others: Mapping[str, str | bool] | None = None
    for path in _files(directory):
        document = parse(_read(path), path)
        if "default-docker" in document:
            if others is not None:
                raise UsageError(f"{path}: default-docker is in another file of {directory} too")
            others = _table(path, "default-docker", document["default-docker"])
        for scope, value in _scopes(path, document.get("docker")).items():
            if scope in scopes:
                raise UsageError(f"{path}: {scope} is in another file of {directory} too")
            scopes[scope] = _table(path, scope, value)
    return Places(scopes, others or {}, f"{os.path.dirname(paths.data)}/containers/sigstore")


Node = str | dict[str, "Node"]


def parse(text: str, path: str) -> dict[str, Node]:
    """Parse the part of YAML that these files use.  Raises UsageError with file and line."""
    root: dict[str, Node] = {}
    # Of each open mapping: the indentation of its keys, None until the first one.
    stack: list[tuple[int | None, dict[str, Node]]] = [(None, root)]
    for number, line in enumerate(text.split("\n"), 1):
        content = line.lstrip(" ").rstrip()
        if not content or content.startswith("#") or (content == "---" and not root):
            continue
        where = f"{path}:{number}"
        if line.lstrip(" ")[0].isspace():
            raise UsageError(f"{where}: something else than spaces in the indentation")
        indent = len(line) - len(line.lstrip(" "))
        # A key without a value ends, too, where its neighbour begins.
        while len(stack) > 1 and indent < (stack[-1][0] or (stack[-2][0] or 0) + 1):
            stack.pop()
        expected, mapping = stack[-1]
        if expected is None:
            stack[-1] = (indent, mapping)
            expected = indent
        if indent != expected:
            raise UsageError(f"{where}: indentation that fits nothing above")
        key, value = _pair(content, where)
        if key in mapping:
            raise UsageError(f"{where}: {key} is there twice")
        if value is not None:
            mapping[key] = value
            continue
        inner: dict[str, Node] = {}
        mapping[key] = inner
        stack.append((None, inner))
    return root


def _pair(content: str, where: str) -> tuple[str, Node | None]:
    """Split a line into key and value; None where the value is a mapping on the next lines."""
    if content[0] in "'\"":
        key, rest = _quoted(content, where)
        rest = rest.lstrip(" ")
        if rest[:1] != ":" or rest[1:2].strip():
            raise UsageError(f"{where}: expected KEY: VALUE")
        rest = rest[1:]
    else:
        content = _uncommented(content)
        if content.endswith(":"):
            key, rest = content[:-1], ""
        else:
            key, colon, rest = content.partition(": ")
            if not colon:
                raise UsageError(f"{where}: expected KEY: VALUE")
        key = key.rstrip()
        if not key or (key[0] in _SPECIAL and not key.startswith("*.")):
            raise UsageError(f"{where}: {key!r} is not a plain key; put it in quotes")
    return key, _value(rest.strip(), where)


def _value(text: str, where: str) -> Node | None:
    if not text or text.startswith("#"):
        return None
    if text[0] in "'\"":
        value, rest = _quoted(text, where)
        if _uncommented(f" {rest}").strip():
            raise UsageError(f"{where}: something stands after the quotes")
        return value
    text = _uncommented(text)
    if text == "{}":
        return {}
    if text[0] in _SPECIAL:
        raise UsageError(f"{where}: {text!r} is not a plain text; put it in quotes")
    return text


def _quoted(text: str, where: str) -> tuple[str, str]:
    """Return what is in the quotes that text begins with, and what follows them."""
    if text[0] == '"':
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except ValueError:
            raise UsageError(f"{where}: quotes without an end") from None
        return str(value), text[end:]
    end = 1
    while True:
        end = text.find("'", end)
        if end < 0:
            raise UsageError(f"{where}: quotes without an end")
        if text[end : end + 2] != "''":
            return text[1:end].replace("''", "'"), text[end + 1 :]
        end += 2


def _uncommented(text: str) -> str:
    return text.partition(" #")[0].rstrip()


def _files(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot read {directory}: {error.strerror}") from error
    return [f"{directory}/{name}" for name in names if name.endswith(".yaml")]


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise UsageError(f"{path} is longer than {_MAX_FILE_BYTES} bytes")
        return data.decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8") from None


def _scopes(path: str, value: Node | None) -> dict[str, Node]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{path}: docker is not a mapping")
    return value


def _table(path: str, scope: str, value: Node) -> dict[str, str | bool]:
    """Check what is said of one scope; keys that rp does not use are left out."""
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {scope} is not a mapping")
    found: dict[str, str | bool] = {}
    for name in _WRITE:
        if name in value:
            text = value[name]
            if not isinstance(text, str) or not text.startswith(
                ("file:///", "http://", "https://")
            ):
                raise UsageError(f"{path}: {scope}: {name} is not a file, http or https URL")
            found[name] = text.rstrip("/")
    if _ATTACHMENTS in value:
        if value[_ATTACHMENTS] not in ("true", "false"):
            raise UsageError(f"{path}: {scope}: {_ATTACHMENTS} is not true or false")
        found[_ATTACHMENTS] = value[_ATTACHMENTS] == "true"
    return found
