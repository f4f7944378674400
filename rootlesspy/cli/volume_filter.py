"""What `rp volume` shows of a volume, and its filters: keys must all fit, each with any value."""

from __future__ import annotations

from datetime import UTC, datetime

from rootlesspy.cli.gotime import Time
from rootlesspy.engine.inputs.values import parse_boolean
from rootlesspy.errors import NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rootlesspy.engine.volumes import Known

    _Test = Callable[["Known"], bool]


def document(known: Known) -> dict[str, Any]:
    """Return the keys of podman volume inspect."""
    volume = known.volume
    made = datetime.fromtimestamp(volume.created_s, UTC).isoformat().replace("+00:00", "Z")
    found: dict[str, Any] = {
        "Name": volume.name,
        "Driver": volume.driver,
        "Mountpoint": known.mountpoint,
        "CreatedAt": Time(made),
        "Labels": dict(volume.labels),
        "Scope": "local",
        "Options": {},
        "MountCount": sum(each.state == "running" for each in known.users),
        "NeedsCopyUp": not volume.populated,
        "NeedsChown": not volume.populated,
        "Anonymous": volume.anonymous,
    }
    return found


def matching(found: Sequence[Known], filters: Sequence[str], every: Sequence[Known]) -> list[Known]:
    """Return the volumes that fit; since and after name one of every.

    Raises UsageError for a filter that is not known or cannot be, NotFound.
    """
    wanted: dict[str, list[_Test]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key not in _KEYS:
            raise UsageError(
                f"--filter {text!r}: expected KEY=VALUE", hint=f"keys: {', '.join(sorted(_KEYS))}"
            )
        wanted.setdefault(key, []).append(_KEYS[key](value, every))
    return [
        each
        for each in found
        if all(
            (all if key in _ALL_OF else any)(test(each) for test in tests)
            for key, tests in wanted.items()
        )
    ]


def ask_users(filters: Sequence[str]) -> bool:
    """Say whether a filter looks at who mounts a volume."""
    return any(each.startswith("dangling=") for each in filters)


def _name(value: str, _every: Sequence[Known]) -> _Test:
    import re

    try:
        pattern = re.compile(value)
    except re.error as error:
        raise UsageError(f"--filter name={value}: {error}") from error
    return lambda known: bool(pattern.search(known.volume.name))


def _label(value: str, _every: Sequence[Known]) -> _Test:
    key, equals, wanted = value.partition("=")

    def fits(known: Known) -> bool:
        labels = known.volume.labels
        return key in labels and (not equals or labels[key] == wanted)

    return fits


def _lacks_label(value: str, every: Sequence[Known]) -> _Test:
    has = _label(value, every)
    return lambda known: not has(known)


def _driver(value: str, _every: Sequence[Known]) -> _Test:
    return lambda known: known.volume.driver == value


def _scope(value: str, _every: Sequence[Known]) -> _Test:
    return lambda _known: value == "local"


def _option(_value: str, _every: Sequence[Known]) -> _Test:
    # Volumes have no options: none has this one.
    return lambda _known: False


def _anonymous(value: str, _every: Sequence[Known]) -> _Test:
    wanted = parse_boolean(value, "--filter anonymous")
    return lambda known: known.volume.anonymous == wanted


def _dangling(value: str, _every: Sequence[Known]) -> _Test:
    wanted = parse_boolean(value, "--filter dangling")
    return lambda known: wanted != bool(known.users)


def _until(value: str, _every: Sequence[Known]) -> _Test:
    from rootlesspy.cli.moment import parse_moment

    before_s = parse_moment(value, "--filter until")
    return lambda known: known.volume.created_s < before_s


def _since(value: str, every: Sequence[Known]) -> _Test:
    for each in every:
        if each.volume.name == value:
            after_s = each.volume.created_s
            return lambda known: known.volume.created_s > after_s
    raise NotFound(f"--filter since={value}: no such volume", hint="rp volume ls lists them")


_KEYS: dict[str, Callable[[str, Sequence[Known]], _Test]] = {
    "name": _name,
    "label": _label,
    "label!": _lacks_label,
    "driver": _driver,
    "scope": _scope,
    "opt": _option,
    "anonymous": _anonymous,
    "dangling": _dangling,
    "until": _until,
    "since": _since,
    "after": _since,
}
_ALL_OF = frozenset(("label", "label!"))
