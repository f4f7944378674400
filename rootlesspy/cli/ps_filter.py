"""The filters of `rp ps`: all keys must fit, with any of their values (labels with all)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootlesspy.engine.values import parse_choice, parse_integer
from rootlesspy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.record import Container

# podman's words for states that rp has under another name, or does not have.
_STATES = {
    "configured": "created", "created": "created", "running": "running", "paused": "paused",
    "exited": "exited", "stopped": "exited", "unknown": "broken", "broken": "broken",
}  # fmt: skip
_ALL_OF = ("label", "label!")


def matching(containers: list[Container], filters: tuple[str, ...]) -> list[Container]:
    """Return the containers that fit; raises UsageError for a filter that is not known."""
    wanted: dict[str, list[Callable[[Container], bool]]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if key.endswith("!") and equals:
            key = f"{key[:-1].rstrip()}!"
        if not equals or key not in _TESTS:
            raise UsageError(
                f"--filter {text!r}: expected KEY=VALUE", hint=f"keys: {', '.join(_TESTS)}"
            )
        wanted.setdefault(key, []).append(_TESTS[key](value))
    return [
        container
        for container in containers
        if all(
            (all if key in _ALL_OF else any)(test(container) for test in tests)
            for key, tests in wanted.items()
        )
    ]


def _name(value: str) -> Callable[[Container], bool]:
    fits = _pattern(value)
    return lambda container: fits(container.record.name)


def _id(value: str) -> Callable[[Container], bool]:
    if value.isalnum():
        return lambda container: container.record.id.startswith(value)
    fits = _pattern(value)
    return lambda container: fits(container.record.id)


def _pattern(value: str) -> Callable[[str], bool]:
    """Return a test for a regular expression, found anywhere; most are plain words."""
    if value.replace("-", "").replace("_", "").isalnum():
        return lambda text: value in text
    import re

    try:
        compiled = re.compile(value)
    except re.error as error:
        raise UsageError(f"--filter {value!r}: not a regular expression: {error}") from error
    return lambda text: compiled.search(text) is not None


def _status(value: str) -> Callable[[Container], bool]:
    state = _STATES[parse_choice(value, "--filter status", tuple(_STATES))]
    return lambda container: container.state == state


def _label(value: str) -> Callable[[Container], bool]:
    key, equals, wanted = value.partition("=")

    def fits(container: Container) -> bool:
        labels = container.record.labels
        return key in labels and (not equals or labels[key] == wanted)

    return fits


def _no_label(value: str) -> Callable[[Container], bool]:
    fits = _label(value)
    return lambda container: not fits(container)


def _exited(value: str) -> Callable[[Container], bool]:
    code = parse_integer(value, "--filter exited", -1, 255)
    return lambda container: container.exit is not None and container.exit.exit_code == code


def _ancestor(value: str) -> Callable[[Container], bool]:
    def fits(container: Container) -> bool:
        name = container.record.image
        image_id = container.record.image_id.removeprefix("sha256:")
        short = name.rpartition("/")[2]
        names = {name, short, _untagged(name), _untagged(short)}
        return value in names or (len(value) >= 4 and image_id.startswith(value))

    return fits


def _untagged(name: str) -> str:
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail else name


_TESTS: dict[str, Callable[[str], Callable[[Container], bool]]] = {
    "ancestor": _ancestor,
    "exited": _exited,
    "id": _id,
    "label": _label,
    "label!": _no_label,
    "name": _name,
    "status": _status,
}
