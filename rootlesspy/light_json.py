"""JSON by the C half of the package json, which alone imports re and enum: 5 ms.

What the C half refuses is read again by the package, whose errors say where.
"""

from __future__ import annotations

from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

try:
    from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner
except ImportError:
    # Another Python than CPython.
    make_encoder = make_scanner = None  # type: ignore[assignment,misc]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BLANK = " \t\n\r"
_PLAIN = {str, int, float, bool, type(None)}
_NESTED = {dict, list, tuple}


def _constant(word: str) -> float:
    return float(word)


class _Settings(NamedTuple):
    """What json.JSONDecoder tells the scanner."""

    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None
    parse_constant: Callable[[str], Any]
    object_hook: None = None
    strict: bool = True
    parse_float: type[float] = float
    parse_int: type[int] = int


def loads(
    document: str | bytes,
    *,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
    parse_constant: Callable[[str], Any] = _constant,
) -> Any:
    """Parse a document, as json.loads does.  Raises ValueError, RecursionError."""
    if make_scanner is not None:
        try:
            text = document if isinstance(document, str) else document.decode()
            text = text.strip(_BLANK)
            settings: Any = _Settings(object_pairs_hook, parse_constant)
            value, end = make_scanner(settings)(text, 0)
        except (StopIteration, SystemError, UnicodeDecodeError):
            # SystemError: it looks for the exception in a module that nobody has imported.
            pass
        else:
            if end == len(text):
                return value
    import json

    return json.loads(document, object_pairs_hook=object_pairs_hook, parse_constant=parse_constant)


def dumps(
    value: object,
    *,
    separators: tuple[str, str] = (", ", ": "),
    sort_keys: bool = False,
    ensure_ascii: bool = True,
    allow_nan: bool = True,
) -> str:
    """Write a value, as json.dumps does.  Raises TypeError, ValueError, RecursionError."""
    if make_encoder is None:
        import json

        return json.dumps(
            value,
            separators=separators,
            sort_keys=sort_keys,
            ensure_ascii=ensure_ascii,
            allow_nan=allow_nan,
        )
    item, key = separators
    quoted: Any = encode_basestring_ascii if ensure_ascii else encode_basestring
    encode = make_encoder({}, _refuse, quoted, None, key, item, sort_keys, False, allow_nan)
    return "".join(encode(value, 0))


def indented(value: object, indent: str, margin: str = "") -> str:
    """Write a value as json.dumps does with an indent; keys are texts.  Raises as dumps does."""
    inner = margin + indent
    if isinstance(value, dict) and value:
        parts = [f"{dumps(key)}: {indented(each, indent, inner)}" for key, each in value.items()]
        return _enclosed("{", parts, "}", margin, inner)
    if isinstance(value, (list, tuple)) and value:
        parts = _rows(value, indent, inner) or [indented(each, indent, inner) for each in value]
        return _enclosed("[", parts, "]", margin, inner)
    return dumps(value)


def _enclosed(opening: str, parts: Sequence[str], closing: str, margin: str, inner: str) -> str:
    # Each copy of a long text takes new memory.
    lines = list(parts)
    lines[0] = f"{opening}\n{inner}{lines[0]}"
    lines[-1] += f"\n{margin}{closing}"
    return f",\n{inner}".join(lines)


def _rows(values: Sequence[Any], indent: str, margin: str) -> list[str]:
    """Write objects that have the same keys, a column at a time by C; nothing of others."""
    names = list(values[0]) if type(values[0]) is dict else []
    if not names or any(type(each) is not dict or list(each) != names for each in values):
        return []
    inner = margin + indent
    columns = zip(*[each.values() for each in values], strict=True)
    written = [_column(column, indent, inner) for column in columns]
    cells = [f"{dumps(name)}: ".replace("%", "%%") + "%s" for name in names]
    row = _enclosed("{", cells, "}", margin, inner)
    return [row % each for each in zip(*written, strict=True)]


def _column(values: Sequence[Any], indent: str, margin: str) -> list[str]:
    """Write each of many values; no text that is written has a line end of its own."""
    from itertools import chain

    kinds = set(map(type, values))
    if kinds <= _PLAIN or (kinds <= _PLAIN | _NESTED and not any(map(_is_nested, values))):
        return dumps(values, separators=("\n", ": "))[1:-1].split("\n")
    if kinds == {list} and all(values) and set(map(type, chain.from_iterable(values))) <= _PLAIN:
        between = f",\n{margin}{indent}"
        bodies = dumps(values, separators=(between, ": "))[2:-2].split(f"]{between}[")
        return [f"[{between[1:]}{body}\n{margin}]" for body in bodies]
    return [indented(each, indent, margin) for each in values]


def _is_nested(value: object) -> bool:
    return type(value) in _NESTED and bool(value)


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not written as JSON")
