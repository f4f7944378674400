"""The filters of `rp images`: all keys must fit, with any of their values (labels with all)."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from rootlesspy.cli.image_rows import hexadecimal, labels
from rootlesspy.engine.values import parse_boolean
from rootlesspy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.cli.image_rows import Line


def matching(lines: list[Line], filters: tuple[str, ...]) -> list[Line]:
    """Return the lines that fit; raises UsageError for a filter that is not known."""
    wanted: dict[str, list[Callable[[Line], bool]]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key not in _TESTS:
            raise UsageError(
                f"--filter {text!r}: expected KEY=VALUE", hint=f"keys: {', '.join(_TESTS)}"
            )
        wanted.setdefault(key, []).append(_TESTS[key](value))
    return [
        line
        for line in lines
        if all(
            (all if key == "label" else any)(test(line) for test in tests)
            for key, tests in wanted.items()
        )
    ]


def reference(value: str) -> Callable[[Line], bool]:
    """Fit names by pattern: in full, from any slash on, and without the tag."""

    def fits(line: Line) -> bool:
        parts = line.name.split("/")
        tails = ["/".join(parts[index:]) for index in range(len(parts))]
        return any(
            fnmatchcase(tail, value) or fnmatchcase(tail.rpartition(":")[0], value)
            for tail in tails
        )

    return fits


def _label(value: str) -> Callable[[Line], bool]:
    key, equals, wanted = value.partition("=")

    def fits(line: Line) -> bool:
        known = labels(line.image)
        return key in known and (not equals or known[key] == wanted)

    return fits


def _dangling(value: str) -> Callable[[Line], bool]:
    asked = parse_boolean(value, "--filter dangling")
    return lambda line: asked is (not line.image.names)


def _id(value: str) -> Callable[[Line], bool]:
    plain = hexadecimal(value)
    return lambda line: hexadecimal(line.image.id).startswith(plain)


_TESTS: dict[str, Callable[[str], Callable[[Line], bool]]] = {
    "dangling": _dangling,
    "id": _id,
    "label": _label,
    "reference": reference,
}
