"""Volumes as users know them: made, listed with who uses them, removed."""

from __future__ import annotations

import os
import time

from rootlesspy.engine import idmap, lifecycle, statefile, volume_store
from rootlesspy.engine.volume_store import Volume
from rootlesspy.errors import Conflict, Error, NotFound, UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.engine.record import Container
    from rootlesspy.paths import Paths
    from rootlesspy.report import Reporter

# Part of the path of every volume: paths.Paths.volumes.
_BELOW = b"/volumes/"


class Known(NamedTuple):
    """A volume and the containers that mount it."""

    volume: Volume
    mountpoint: str
    users: tuple[Container, ...]


def create(paths: Paths, name: str, labels: Mapping[str, str], *, ignore: bool) -> str:
    """Make an empty volume and return its name, a random one if name is empty.

    ignore: one that is there is left as it is.  Raises Conflict, UsageError for a name that is
    none, OSError.
    """
    chosen = name or volume_store.anonymous_name()
    made = volume_store.create(
        paths, Volume(name=chosen, created_s=time.time(), labels=dict(labels))
    )
    if not made and not ignore:
        raise Conflict(f"volume {chosen} exists already", hint="--ignore leaves it as it is")
    return chosen


def known(paths: Paths, *, users: bool = True) -> list[Known]:
    """Return all volumes by name; of one whose volume.json is damaged what can be known.

    users: also who mounts them, for which all containers are looked at.
    """
    every = names(paths)
    used = _users(paths, every) if users else {}
    return [_known(paths, name, used.get(name, ())) for name in every]


def get(paths: Paths, text: str) -> Known:
    """Return the volume of this name, or whose name alone begins so.

    Raises NotFound, Conflict when several begin so, UsageError.
    """
    volume_store.check_name(text)
    every = names(paths)
    fitting = [text] if text in every else [name for name in every if name.startswith(text)]
    if not fitting:
        raise NotFound(f"no volume with name {text!r}", hint="rp volume ls lists them")
    if len(fitting) > 1:
        raise Conflict(f"volume name {text} is not unique: {len(fitting)} begin with it")
    return _known(paths, fitting[0], _users(paths, fitting).get(fitting[0], ()))


def names(paths: Paths) -> list[str]:
    """Return the names of all volumes, sorted."""
    try:
        with os.scandir(paths.volumes) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            )
    except FileNotFoundError:
        return []


def of(paths: Paths, container: Container) -> frozenset[str]:
    """Return the names of the volumes that a container mounts."""
    anonymous = container.record.anonymous_volumes
    directory = paths.container(container.record.id)
    try:
        # Most mount none: to parse the specs of a thousand takes half a second.
        if not statefile.spec_mentions(directory, _BELOW):
            return frozenset(anonymous)
        mounts = statefile.read_spec(directory).get("mounts") or []
    except (OSError, ValueError):
        return frozenset(anonymous)
    base = f"{paths.volumes}/"
    sources = [str(each.get("source", "")) for each in mounts if isinstance(each, dict)]
    found = {
        source.removeprefix(base).partition("/")[0] for source in sources if source.startswith(base)
    }
    return frozenset(found | set(anonymous))


def remove(
    paths: Paths, text: str, *, force: bool, timeout_s: float | None, reporter: Reporter
) -> str:
    """Remove a volume with all that is in it, and return its name.

    force: containers that mount it are removed first; timeout_s is how long running ones may take
    to stop, None: they are killed.  Raises NotFound, Conflict when it is in use, OSError.
    """
    found = get(paths, text)
    name = found.volume.name
    if found.users and not force:
        ids = ", ".join(each.record.name for each in found.users)
        raise Conflict(
            f"volume {name} is in use by container {ids}", hint=f"rp volume rm -f {name}"
        )
    if found.users:
        from rootlesspy.engine import ending

        ending.remove(
            paths,
            [each.record.id for each in found.users],
            force=True,
            reporter=reporter,
            timeout_s=timeout_s,
        )
    _remove(paths, name)
    return name


def prune(paths: Paths, chosen: list[Known] | None = None) -> list[str]:
    """Remove volumes (None: all) that no container mounts; return the names of those.

    Raises Error.
    """
    gone = []
    for each in known(paths) if chosen is None else chosen:
        if not each.users:
            _remove(paths, each.volume.name)
            gone.append(each.volume.name)
    return gone


def _remove(paths: Paths, name: str) -> None:
    try:
        volume_store.remove(paths, name, idmap.default_maps())
    except OSError as error:
        raise Error(f"cannot remove volume {name}: {error.strerror or error}") from error


def _users(paths: Paths, wanted: list[str]) -> dict[str, tuple[Container, ...]]:
    found: dict[str, list[Container]] = {}
    for container in lifecycle.containers(paths) if wanted else ():
        for name in of(paths, container):
            found.setdefault(name, []).append(container)
    return {name: tuple(users) for name, users in found.items()}


def _known(paths: Paths, name: str, users: tuple[Container, ...]) -> Known:
    path = volume_store.data_path(paths, name)
    try:
        volume = volume_store.read(paths, name)
    except statefile.DamagedError:
        volume = Volume(
            name=name,
            created_s=_changed_s(path),
            labels={},
            anonymous=volume_store.is_anonymous_name(name),
            populated=True,
        )
    return Known(volume._replace(name=name), path, users)


def _changed_s(path: str) -> float:
    try:
        return os.stat(path, follow_symlinks=False).st_ctime
    except OSError:
        return 0.0


def parse_labels(texts: tuple[str, ...]) -> dict[str, str]:
    """Understand --label KEY=VALUE, or KEY for an empty value.  Raises UsageError."""
    labels = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key:
            raise UsageError(f"--label {text!r}: expected KEY=VALUE")
        labels[key] = value
    return labels
