"""The filters of `rp images`: all keys must fit, with any of their values (labels with all)."""

from __future__ import annotations

from rootlesspy.cli.image_rows import Line, hexadecimal, labels, split
from rootlesspy.engine.inputs.values import parse_boolean
from rootlesspy.errors import NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from rootlesspy.image.store import Image

    Used = Callable[[], Collection[str]]


def matching(
    lines: list[Line], filters: Sequence[str], *, known: Sequence[Image] = (), used: Used = tuple
) -> list[Line]:
    """Return the lines that fit.

    known are the images that before and since may name; used returns the ids of images that
    containers use.  Raises UsageError for a filter that is not known or cannot be.
    """
    wanted: dict[str, list[Callable[[Line], bool]]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if key.endswith("!") and equals:
            key = f"{key[:-1].rstrip()}!"
        key = {"after": "since"}.get(key, key)
        if equals and key in _MOMENTS:
            test = _MOMENTS[key](_created_s(known, key, value))
        elif equals and key == "containers":
            test = _in_use(value, used)
        elif equals and key in _TESTS:
            test = _TESTS[key](value)
        else:
            keys = sorted({*_TESTS, *_MOMENTS, "containers", "after"})
            raise UsageError(
                f"--filter {text!r}: expected KEY=VALUE", hint=f"keys: {', '.join(keys)}"
            )
        wanted.setdefault(key, []).append(test)
    return [
        line
        for line in lines
        if all(
            (all if key in _ALL_OF else any)(test(line) for test in tests)
            for key, tests in wanted.items()
        )
    ]


def reference(value: str) -> Callable[[Line], bool]:
    """Fit names by pattern: in full, from any slash on, and without the tag."""

    from fnmatch import fnmatchcase

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


def _lacks_label(value: str) -> Callable[[Line], bool]:
    has = _label(value)
    return lambda line: not has(line)


def _created_s(known: Sequence[Image], key: str, value: str) -> float:
    """Return the moment that a filter means: a time, a duration ago, or an image's creation."""
    if key == "until":
        from rootlesspy.cli import moment

        return moment.parse_moment(value, "--filter until")
    for image in known:
        names = [name for name in image.names if reference(value)(Line(image, *split(name)))]
        if names or hexadecimal(image.id).startswith(hexadecimal(value)):
            return image.created_s
    raise NotFound(f"--filter {key}: no image {value} here", hint="rp images")


def _in_use(value: str, used: Used) -> Callable[[Line], bool]:
    asked, ids = parse_boolean(value, "--filter containers"), frozenset(used())
    return lambda line: asked is (line.image.id in ids)


def _read_only(value: str) -> Callable[[Line], bool]:
    """Fit nothing when asked for: all images are in the user's own store."""
    asked = parse_boolean(value, "--filter readonly")
    return lambda line: not asked


def _intermediate(value: str) -> Callable[[Line], bool]:
    """Fit nothing when asked for: no build leaves such images."""
    asked = parse_boolean(value, "--filter intermediate")
    return lambda line: not asked


def _digest(value: str) -> Callable[[Line], bool]:
    return lambda line: line.image.digest.startswith(value)


def _dangling(value: str) -> Callable[[Line], bool]:
    asked = parse_boolean(value, "--filter dangling")
    return lambda line: asked is (not line.image.names)


def _manifest(value: str) -> Callable[[Line], bool]:
    asked = parse_boolean(value, "--filter manifest")
    return lambda line: asked is (not line.image.platform)


def _id(value: str) -> Callable[[Line], bool]:
    plain = hexadecimal(value)
    return lambda line: hexadecimal(line.image.id).startswith(plain)


_ALL_OF = ("label", "label!", "before", "since", "until")
_MOMENTS: dict[str, Callable[[float], Callable[[Line], bool]]] = {
    "before": lambda at_s: lambda line: line.image.created_s < at_s,
    "since": lambda at_s: lambda line: line.image.created_s > at_s,
    "until": lambda at_s: lambda line: line.image.created_s < at_s,
}
_TESTS: dict[str, Callable[[str], Callable[[Line], bool]]] = {
    "dangling": _dangling,
    "digest": _digest,
    "id": _id,
    "intermediate": _intermediate,
    "label": _label,
    "label!": _lacks_label,
    "manifest": _manifest,
    "readonly": _read_only,
    "reference": reference,
}
