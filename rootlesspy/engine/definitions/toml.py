"""TOML files that say on which line each of their keys stands, and text of the same form.

tomli tells a line for syntax errors only; `_Locator` reads the text once more for the rest, after
tomli has found it valid, and so may be simple.  Format: TOML 1.0 (https://toml.io/en/v1.0.0).
"""

from __future__ import annotations

import contextlib
import re

import tomli

from rootlesspy.errors import NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Path = tuple["str | int", ...]
"""Where something is in a document: keys, and positions in arrays from 0 on."""

_MAX_FILE_BYTES = 4 * 1024 * 1024
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TOKEN = re.compile(
    r"""
      \"\"\"(?:\\.|[^\\])*?\"{3,5}     # multi-line strings, which may end in up to two quotes
    | '''.*?'{3,5}
    | "(?:\\.|[^"\\])*" | '[^']*'
    | \#[^\n]*
    | [A-Za-z0-9_+:-]+
    | \n | [^\S\n]+ | .
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}
_WIDE = 88
"""Arrays longer than this many characters are written one element per line."""


class Document(NamedTuple):
    """A TOML file, read."""

    path: str
    values: dict[str, object]
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """Return the line of something, or of the nearest thing around it; from 1 on."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return 1


def read(path: str) -> Document:
    """Read a file.  Raises NotFound, and UsageError with file and line for what is not TOML."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise UsageError(f"cannot read {path}: {reason.lower()}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise UsageError(f"{path} is longer than {_MAX_FILE_BYTES} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8") from error
    return parse(text, path)


def parse(text: str, path: str) -> Document:
    """Parse text; path is for messages.  Raises UsageError."""
    try:
        values = tomli.loads(text)
        return Document(path, values, _Locator(text.replace("\r\n", "\n")).locate())
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply") from None
    except tomli.TOMLDecodeError as error:
        message, line = _explain(error, text)
        raise UsageError(f"{path}:{line}: not valid TOML: {message}") from error


def write(tables: Sequence[tuple[tuple[str, ...], Mapping[str, object]]]) -> str:
    """Return tables, each with its name, as TOML; values are strings, numbers, booleans, arrays
    and inline tables.

    Raises UsageError for text that TOML cannot express.
    """
    blocks = []
    for name, table in tables:
        lines = [f"[{'.'.join(map(_key, name))}]"] if name else []
        lines += [f"{_key(key)} = {value(each)}" for key, each in table.items()]
        blocks.append("".join(f"{line}\n" for line in lines))
    return "\n".join(blocks)


def value(thing: object) -> str:
    """Return one value as TOML."""
    if isinstance(thing, str):
        return _string(thing)
    if isinstance(thing, bool):
        return "true" if thing else "false"
    if isinstance(thing, dict):
        pairs = ", ".join(f"{_key(key)} = {value(each)}" for key, each in thing.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(thing, (list, tuple)):
        items = [value(each) for each in thing]
        if sum(len(item) + 2 for item in items) <= _WIDE:
            return f"[{', '.join(items)}]"
        return "[\n" + "".join(f"    {item},\n" for item in items) + "]"
    return repr(thing)


def _explain(error: tomli.TOMLDecodeError, text: str) -> tuple[str, int]:
    """Return tomli's message without its position, and the line."""
    message, _, position = str(error).rpartition(" (at ")
    found = re.match(r"line (\d+)", position)
    line = int(found[1]) if found else text.count("\n") + 1
    twice = re.fullmatch(r"Cannot declare \((.+?),?\) twice", message)
    if twice:
        message = "[" + twice[1].replace("', '", ".").strip("'") + "] is there twice"
    return f"{message[:1].lower()}{message[1:]}", line


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _string(text: str) -> str:
    if any(0xD800 <= ord(each) < 0xE000 for each in text):
        raise UsageError(f"{text!r} cannot be written as TOML: it is not UTF-8")
    return '"' + "".join(_character(each) for each in text) + '"'


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    return f"\\u{ord(character):04X}" if ord(character) < 0x10000 else f"\\U{ord(character):08X}"


class _Locator:
    """Reads valid TOML for the lines of its tables, keys and array elements."""

    def __init__(self, content: str) -> None:
        self._tokens: list[tuple[str, int]] = []
        line = 1
        for match in _TOKEN.finditer(content):
            text = match[0]
            if text[0] != "#" and (text == "\n" or not text.isspace()):
                self._tokens.append((text, line))
            line += text.count("\n")
        self._tokens.append(("\n", line))
        self._next = 0
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}

    def locate(self) -> dict[Path, int]:
        """Walk through the text, one table header or assignment at a time."""
        table: Path = ()
        # Text that is understood otherwise than by tomli ends early: what is known by then is kept.
        with contextlib.suppress(IndexError):
            while True:
                if self._peek() == "\n":
                    self._take()
                elif self._peek() == "[":
                    table = self._header()
                else:
                    self._assignment(table)
        return self._lines

    def _peek(self) -> str:
        return self._tokens[self._next][0]

    def _take(self) -> tuple[str, int]:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _skip_lines(self) -> None:
        while self._peek() == "\n":
            self._take()

    def _header(self) -> Path:
        _, line = self._take()
        is_array = self._peek() == "["
        if is_array:
            self._take()
        path = self._resolved(self._keys("]"))
        for _ in range(1 + is_array):
            self._take()
        if is_array:
            index = self._counts.get(path, -1) + 1
            self._counts[path] = index
            path = (*path, index)
        self._note(path, line)
        return path

    def _resolved(self, keys: Path) -> Path:
        """Insert the position of the last element where a key names an array of tables."""
        path: Path = ()
        for position, key in enumerate(keys):
            path = (*path, key)
            if path in self._counts and position < len(keys) - 1:
                path = (*path, self._counts[path])
        return path

    def _assignment(self, table: Path) -> None:
        line = self._tokens[self._next][1]
        path = (*table, *self._keys("="))
        self._take()
        self._note(path, line)
        self._value(path)

    def _keys(self, end: str) -> Path:
        """Read a dotted key up to the token after it, which stays."""
        keys: list[str] = []
        while self._peek() != end:
            text, _ = self._take()
            if text != ".":
                keys.append(_decode_key(text))
        return tuple(keys)

    def _value(self, path: Path) -> None:
        if self._peek() == "{":
            self._take()
            while self._peek() != "}":
                if self._peek() == ",":
                    self._take()
                else:
                    self._assignment(path)
            self._take()
        elif self._peek() == "[":
            self._array(path)
        else:
            self._take()
            # A number such as 1.5 and a date are several tokens.
            while self._peek() not in ("\n", ",", "]", "}"):
                self._take()

    def _array(self, path: Path) -> None:
        self._take()
        index = 0
        self._skip_lines()
        while self._peek() != "]":
            if self._peek() == ",":
                self._take()
                index += 1
            else:
                self._note((*path, index), self._tokens[self._next][1])
                self._value((*path, index))
            self._skip_lines()
        self._take()

    def _note(self, path: Path, line: int) -> None:
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], line)
        self._lines[path] = line


def _decode_key(token: str) -> str:
    if token[0] not in "\"'":
        return token
    return next(iter(tomli.loads(f"{token} = 0")))
