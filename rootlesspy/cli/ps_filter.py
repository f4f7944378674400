"""The filters of `rp ps`: all keys must fit, with any of their values (labels with all)."""

from __future__ import annotations

from rootlesspy.engine.inputs.values import parse_choice, parse_integer
from rootlesspy.errors import NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.engine.record import Container
    from rootlesspy.paths import Paths

    Test = Callable[[Container], bool]

_NEVER = ""
# podman's and docker's words for states that rp has under another name, or does not have.
_STATES = {
    "configured": "created", "created": "created", "running": "running", "paused": "paused",
    "exited": "exited", "stopped": "exited", "unknown": "broken", "broken": "broken",
    "dead": "broken", "initialized": _NEVER, "removing": _NEVER, "restarting": _NEVER,
    "stopping": _NEVER,
}  # fmt: skip
_HEALTH = ("starting", "healthy", "unhealthy", "none")
_POLICIES = ("no", "always", "on-failure", "unless-stopped")
_ALL_OF = ("label", "label!")


class World(NamedTuple):
    """What a filter may look at besides the container that it judges."""

    containers: list[Container]
    paths: Paths


def matching(
    containers: list[Container],
    filters: tuple[str, ...],
    paths: Paths,
    among: list[Container] | None = None,
) -> list[Container]:
    """Return the containers that fit.

    among: those that before and since may name, if more than containers.  Raises UsageError for a
    filter that is not known, NotFound for a container that is not there.
    """
    world = World(containers if among is None else among, paths)
    wanted: dict[str, list[Test]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if key.endswith("!") and equals:
            key = f"{key[:-1].rstrip()}!"
        if not equals or key not in _TESTS:
            raise UsageError(
                f"--filter {text!r}: expected KEY=VALUE", hint=f"keys: {', '.join(_TESTS)}"
            )
        wanted.setdefault(key, []).append(_TESTS[key](value, world))
    return [
        container
        for container in containers
        if all(
            (all if key in _ALL_OF else any)(test(container) for test in tests)
            for key, tests in wanted.items()
        )
    ]


def _name(value: str, _world: World) -> Test:
    fits = _pattern(value)
    return lambda container: fits(container.record.name)


def _id(value: str, _world: World) -> Test:
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


def _status(value: str, _world: World) -> Test:
    state = _STATES[parse_choice(value, "--filter status", tuple(_STATES))]
    return lambda container: container.state == state


def _label(value: str, _world: World) -> Test:
    key, equals, wanted = value.partition("=")

    def fits(container: Container) -> bool:
        labels = container.record.labels
        return key in labels and (not equals or labels[key] == wanted)

    return fits


def _no_label(value: str, _world: World) -> Test:
    fits = _label(value, _world)
    return lambda container: not fits(container)


def _exited(value: str, _world: World) -> Test:
    code = parse_integer(value, "--filter exited", -1, 255)
    return lambda container: container.exit is not None and container.exit.exit_code == code


def _ancestor(value: str, _world: World) -> Test:
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


def _command(value: str, _world: World) -> Test:
    fits = _pattern(value)
    return lambda container: bool(container.record.command) and fits(container.record.command[0])


def _before(value: str, world: World) -> Test:
    created_s = _named(value, world).record.created_s
    return lambda container: container.record.created_s < created_s


def _since(value: str, world: World) -> Test:
    created_s = _named(value, world).record.created_s
    return lambda container: container.record.created_s > created_s


def _named(value: str, world: World) -> Container:
    """Return the container with this name or beginning of an id."""
    for each in world.containers:
        if each.record.name == value:
            return each
    found = [each for each in world.containers if value and each.record.id.startswith(value)]
    if len(found) != 1:
        raise NotFound(f"no container with name or id {value!r}", hint="rp ps -a lists them")
    return found[0]


def _until(value: str, _world: World) -> Test:
    from rootlesspy.cli.moment import parse_moment

    until_s = parse_moment(value, "--filter until")
    return lambda container: container.record.created_s < until_s


def _health(value: str, world: World) -> Test:
    from rootlesspy.cli import ps_facts

    state = parse_choice(value, "--filter health", _HEALTH)
    return lambda container: (ps_facts.health(world.paths, container) or "none") == state


def _network(value: str, _world: World) -> Test:
    from rootlesspy.cli.ps_rows import network_names

    return lambda container: (
        container.record.network.get("driver") == value or value in network_names(container.record)
    )


def _restart_policy(value: str, _world: World) -> Test:
    policy = parse_choice(value, "--filter restart-policy", _POLICIES)
    return lambda container: (container.record.restart.partition(":")[0] or "no") == policy


def _volume(value: str, world: World) -> Test:
    from rootlesspy.cli import ps_facts

    facts = ps_facts.Facts(world.paths, world.containers)

    def fits(container: Container) -> bool:
        return any(
            value in (each.get("Name"), each["Destination"], each["Source"] or None)
            for each in facts.mounts(container)
        )

    return fits


def _pod(value: str, world: World) -> Test:
    from rootlesspy.engine.pods import store

    known = store.everything(world.paths)
    fitting = {each.id for each in known if each.name == value or each.id.startswith(value)}
    return lambda container: container.record.pod in fitting


_TESTS: dict[str, Callable[[str, World], Test]] = {
    "ancestor": _ancestor,
    "before": _before,
    "command": _command,
    "exited": _exited,
    "health": _health,
    "id": _id,
    "label": _label,
    "label!": _no_label,
    "name": _name,
    "network": _network,
    "pod": _pod,
    "restart-policy": _restart_policy,
    "since": _since,
    "status": _status,
    "until": _until,
    "volume": _volume,
}
