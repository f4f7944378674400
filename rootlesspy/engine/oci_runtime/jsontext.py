"""JSON as rp-oci reads and writes it: strict, indented where people read it."""

from __future__ import annotations

from rootlesspy import light_json
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NoReturn


def loads(text: str) -> Any:
    """Parse a document.  Raises ValueError, also for NaN and Infinity, RecursionError."""
    return light_json.loads(text, parse_constant=_refuse)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def dumps(value: object, indent: str | None = None) -> str:
    """Write a value, as json.dumps does.  Raises TypeError."""
    return light_json.dumps(value) if indent is None else light_json.indented(value, indent)
