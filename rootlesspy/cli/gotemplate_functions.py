"""The functions of `--format` templates, and how Go writes values."""

from __future__ import annotations

from rootlesspy.cli.gotime import Time
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

_VERB = r"%([-+# 0]*)(\d*)(\.\d+)?([a-zA-Z%])"


class Record(dict[str, Any]):
    """A dict whose keys are all the fields there are, as a struct of Go has them."""


class Nil(list[Any]):
    """A list that was never made: empty, and null in JSON."""


class _NoValue:
    """What a missing key of a map yields."""


NO_VALUE = _NoValue()


def write(value: Any) -> str:
    """Write a value as Go's fmt does with %v."""
    if value is NO_VALUE or value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Time):
        return value.string()
    if isinstance(value, dict) and not isinstance(value, Record):
        inner = " ".join(f"{key}:{write(value[key])}" for key in sorted(value))
        return f"map[{inner}]"
    if isinstance(value, Record):
        # A struct: its values alone, in the order of its fields.
        return f"{{{' '.join(write(each) for each in value.values() if not callable(each))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(write(each) for each in value)}]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def truth(value: Any) -> bool:
    """Say whether `if` takes a value: not for zero, empty and nothing."""
    return value is not NO_VALUE and bool(value)


def _json(value: Any) -> str:
    import json

    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), default=write)


def _plain(value: Any) -> Any:
    """Return what Go's encoding/json would write: the keys of maps sorted, structs as they are."""
    if value is NO_VALUE or isinstance(value, Nil):
        return None
    if isinstance(value, dict):
        # Fields that take an argument (.Label "x") are no data.
        items = [(key, each) for key, each in value.items() if not callable(each)]
        ordered = items if isinstance(value, Record) else sorted(items)
        return {key: _plain(each) for key, each in ordered}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _printf(form: str, *values: Any) -> str:
    import re

    remaining = list(values)

    def replace(found: re.Match[str]) -> str:
        flags, width, precision, verb = found.groups()
        if verb == "%":
            return "%"
        if not remaining:
            return f"%!{verb}(MISSING)"
        return _verb(flags, width, precision or "", verb, remaining.pop(0))

    return re.sub(_VERB, replace, form)


def _verb(flags: str, width: str, precision: str, verb: str, value: Any) -> str:
    if verb in "dxXob" and isinstance(value, int):
        return f"%{flags}{width}{verb if verb != 'b' else 'd'}" % value
    if verb in "feEgG" and isinstance(value, (int, float)):
        return f"%{flags}{width}{precision}{verb}" % value
    text = _json(write(value)) if verb == "q" else write(value)
    if precision:
        text = text[: int(precision[1:])]
    return text.ljust(int(width or 0)) if "-" in flags else text.rjust(int(width or 0))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, NO_VALUE)
        elif isinstance(key, bool) or not isinstance(key, int) or key < 0:
            raise TypeError
        else:
            value = value[key]
    return value


def _join(values: Any, separator: str) -> str:
    return str(separator).join(write(each) for each in values or ())


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TypeError
    return any(type(first) is type(other) and first == other for other in others)


def _print(*values: Any) -> str:
    return " ".join(write(value) for value in values)


def _slice(value: Any, *bounds: int) -> Any:
    start, end, *_ = (*bounds, len(value))[:2] if bounds else (0, len(value))
    if any(isinstance(each, bool) or not 0 <= each <= len(value) for each in (start, end)):
        raise ValueError
    return value[start:end]


def _truncate(value: Any, length: int) -> str:
    return write(value)[:length]


def _pad(value: Any, before: int, after: int) -> str:
    return f"{' ' * before}{write(value)}{' ' * after}" if value else ""


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": _equal,
    "ge": lambda first, second: first >= second,
    "gt": lambda first, second: first > second,
    "index": _index,
    "join": _join,
    "json": _json,
    "le": lambda first, second: first <= second,
    "len": lambda value: 0 if value is None else len(value),
    "lower": lambda value: write(value).lower(),
    "lt": lambda first, second: first < second,
    "ne": lambda first, second: not _equal(first, second),
    "not": lambda value: not truth(value),
    "pad": _pad,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: f"{_print(*values)}\n",
    "slice": _slice,
    "split": lambda value, separator: write(value).split(separator),
    "title": lambda value: write(value).title(),
    "truncate": _truncate,
    "upper": lambda value: write(value).upper(),
}
