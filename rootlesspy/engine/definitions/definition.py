"""A TOML file that defines containers: read, checked whole, put into the order of starting.

Nothing is looked up but the files that it names (env_file, label_file); nothing is made.  Every
complaint names file and line.  docs/definitions.md is the reference.
"""

from __future__ import annotations

import contextlib
import difflib
import graphlib
import hashlib
import os
import re

from rootlesspy.engine import names
from rootlesspy.engine.definitions import definition_schema as schema
from rootlesspy.engine.definitions import toml
from rootlesspy.engine.inputs import options
from rootlesspy.engine.inputs.request import (
    DEFINITION,
    LABEL_FILE,
    LABEL_HASH,
    LABEL_NAME,
    RunRequest,
    given,
)
from rootlesspy.errors import UsageError
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rootlesspy.engine.definitions.pod_definition import PodDefinition
    from rootlesspy.engine.definitions.toml import Document, Path
    from rootlesspy.engine.networks.management import Wanted

    Texts = Mapping[str, str | bool | list[str]]
    KeyTexts = Callable[[schema.Key, object], str | bool | list[str]]

_TOP = tuple(
    schema.Key(name, schema.KEYS) for name in ("container", "pod", "volume", "network", "defaults")
)
_KINDS = {
    "container": schema.CONTAINER,
    "pod": schema.POD,
    "volume": schema.VOLUME,
    "network": schema.NETWORK,
}
_RELATIONS = ("after", "requires", "wants")
# They say how a container is made, not what it is.
_NOT_CONTENT = frozenset(("pull",))
_OPTION = re.compile(r"(?<![\w'\"])--([a-z][a-z-]*)")


class ContainerDefinition(NamedTuple):
    """One [container.NAME]."""

    name: str
    request: RunRequest
    """With the labels of this definition, detached."""
    hash: str
    """Of everything that makes the container what it is."""

    def before(self) -> tuple[str, ...]:
        """Return the names of the containers that are started before this one."""
        found = (*self.request.requires, *self.request.wants, *self.request.after)
        return tuple(dict.fromkeys(found))


class VolumeDefinition(NamedTuple):
    """One [volume.NAME]."""

    name: str
    labels: tuple[tuple[str, str], ...]


class Definition(NamedTuple):
    """A file, whole."""

    path: str
    """Absolute: what tells it from other definitions."""
    containers: tuple[ContainerDefinition, ...]
    """In the order of starting."""
    volumes: tuple[VolumeDefinition, ...]
    networks: tuple[Wanted, ...] = ()
    pods: tuple[PodDefinition, ...] = ()


def load(path: str) -> Definition:
    """Read a definition.  Raises NotFound, UsageError."""
    return parse(toml.read(path))


def parse(document: Document) -> Definition:
    """Check a document and make a definition of it.  Raises UsageError with file and line."""
    return _Reader(document).read()


def content_hash(request: RunRequest) -> str:
    """Return a digest of what a request asks for, its definition's labels left out."""
    content = given(without_labels(request))
    kept = {field: value for field, value in content.items() if field not in _NOT_CONTENT}
    encoded = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(encoded.encode()).hexdigest()[:32]


def without_labels(request: RunRequest) -> RunRequest:
    """Return a request without the labels that tell of its definition."""
    kept = tuple(pair for pair in request.labels if not pair[0].startswith(f"{DEFINITION}."))
    return request._replace(labels=kept)


class _Reader:
    """Turns one document into a definition."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._path = os.path.abspath(document.path)

    def read(self) -> Definition:
        self._check_tables()
        names_ = list(self._section("container"))
        if not names_:
            raise UsageError(
                f"{self._document.path} defines no container", hint="add [container.NAME]"
            )
        made = {name: self._container(name) for name in names_}
        return Definition(
            path=self._path,
            containers=tuple(made[name] for name in self._order(made)),
            volumes=tuple(self._volume(name) for name in self._section("volume")),
            networks=tuple(self._network(name) for name in self._section("network")),
            pods=tuple(self._pod(name) for name in self._section("pod")),
        )

    def _section(self, kind: str) -> dict[str, object]:
        section = self._document.values.get(kind, {})
        if not isinstance(section, dict):
            raise self._wrong((kind,), f"{kind} is not a table", f"[{kind}.NAME]")
        return section

    def _table(self, path: Path) -> dict[str, object]:
        table: object = self._document.values
        for key in path:
            table = table[key] if isinstance(table, dict) else None
        if not isinstance(table, dict):
            raise self._wrong(path, f"{_spell(path)} is not a table", f"[{_spell(path)}]")
        return table

    def _check_tables(self) -> None:
        """Refuse unknown keys of every table, before any value is looked at."""
        self._check_keys((), self._document.values, _TOP)
        if "defaults" in self._document.values:
            keys = tuple(key for key in schema.CONTAINER if key.kind != schema.NAMES)
            self._check_keys(("defaults",), self._table(("defaults",)), keys)
        for kind in _KINDS:
            for name in self._section(kind):
                path: Path = (kind, name)
                try:
                    names.check_name(name)
                except UsageError as error:
                    raise self._wrong(
                        path, f"[{kind}.{name!r}]: {error.message}", error.hint
                    ) from None
                self._check_keys(path, self._table(path), _KINDS[kind])

    def _check_keys(
        self, path: Path, table: Mapping[str, object], keys: tuple[schema.Key, ...]
    ) -> None:
        known = {key.name: key for key in keys}
        for name, value in table.items():
            if name not in known:
                where = f"[{_spell(path)}]: " if path else ""
                hint = _suggestion(name, _spellings(keys))
                raise self._wrong((*path, name), f"{where}unknown key {name!r}", hint)
            if known[name].keys:
                if not isinstance(value, dict):
                    raise self._wrong((*path, name), f"{name}: expected a table")
                self._check_keys((*path, name), value, known[name].keys)

    def _container(self, name: str) -> ContainerDefinition:
        table = self._with_defaults(self._table(("container", name)))
        given_texts: dict[str, str | bool | list[str]] = {}
        for path, key in schema.leaves():
            value = _look_up(table, path)
            if value is not None and key.option:
                given_texts[key.option] = self._texts(key, value, self._place(name, path))
        if bool(table.get("image")) == bool(table.get("rootfs")):
            place = ("container", name)
            raise self._wrong(place, f"[container.{name}] needs either image or rootfs")
        if "rootfs" in table:
            given_texts["image"] = given_texts["rootfs"]
            given_texts["rootfs"] = True
        request = self._request(name, given_texts)
        for label, _ in request.labels:
            if label.startswith(f"{DEFINITION}."):
                raise self._wrong(self._place(name, ("labels",)), f"label {label} is rp's own")
        request = request._replace(
            name=name,
            detach=True,
            after=self._names(name, "after"),
            requires=self._names(name, "requires"),
            wants=self._names(name, "wants"),
        )
        digest = content_hash(request)
        own = ((LABEL_HASH, digest), (LABEL_FILE, self._path), (LABEL_NAME, name))
        return ContainerDefinition(name, request._replace(labels=(*request.labels, *own)), digest)

    def _volume(self, name: str) -> VolumeDefinition:
        table = self._table(("volume", name))
        key = schema.VOLUME[0]
        labels: dict[str, str] = {}
        if key.name in table:
            try:
                labels = schema.pairs(key, table[key.name])
            except schema.MismatchError as error:
                raise self._wrong(
                    ("volume", name, key.name, *error.place), f"labels: {error.message}"
                ) from None
        return VolumeDefinition(name, tuple(labels.items()))

    def _network(self, name: str) -> Wanted:
        from rootlesspy.engine.definitions import network_definition

        with self._at(("network", name)) as (table, texts):
            return network_definition.wanted(name, table, texts)

    def _pod(self, name: str) -> PodDefinition:
        from rootlesspy.engine.definitions import pod_definition

        with self._at(("pod", name)) as (table, texts):
            return pod_definition.wanted(name, table, texts, self._path)

    @contextlib.contextmanager
    def _at(self, place: Path) -> Iterator[tuple[Mapping[str, object], KeyTexts]]:
        """Yield a table and what gives its values' texts; complaints name the place."""
        try:
            yield (
                self._table(place),
                lambda key, value: self._texts(key, value, (*place, key.name)),
            )
        except UsageError as error:
            if error.message.startswith(self._document.path):
                raise
            raise self._wrong(place, f"[{_spell(place)}]: {error.message}", error.hint) from None

    def _texts(self, key: schema.Key, value: object, place: Path) -> str | bool | list[str]:
        try:
            return schema.texts(key, value, os.path.dirname(self._path))
        except schema.MismatchError as error:
            inside = "".join(f"[{each!r}]" for each in error.place)
            raise self._wrong(
                (*place, *error.place), f"{key.name}{inside}: {error.message}"
            ) from None

    def _names(self, name: str, relation: str) -> tuple[str, ...]:
        """Return the names that after, requires or wants lists; each is one of this file."""
        value = self._table(("container", name)).get(relation, [])
        place: Path = ("container", name, relation)
        known = self._section("container")
        if not isinstance(value, list):
            raise self._wrong(place, f"{relation}: expected an array of names of containers")
        for index, each in enumerate(value):
            if not isinstance(each, str) or each not in known:
                raise self._wrong(
                    (*place, index), f"{relation}: {each!r} is not a container of this file",
                    _suggestion(str(each), {each: each for each in known}),
                )  # fmt: skip
        return tuple(dict.fromkeys(value))

    def _order(self, made: Mapping[str, ContainerDefinition]) -> list[str]:
        """Return the names in the order of starting; the file's own where nothing else is said."""
        sorter = graphlib.TopologicalSorter({name: each.before() for name, each in made.items()})
        try:
            sorter.prepare()
        except graphlib.CycleError as error:
            circle: list[str] = error.args[1][::-1]
            request = made[circle[0]].request
            relation = next(each for each in _RELATIONS if circle[1] in getattr(request, each))
            text = " → ".join(circle)
            raise self._wrong(
                ("container", circle[0], relation), f"containers wait for each other: {text}"
            ) from None
        ordered: list[str] = []
        while sorter.is_active():
            ready = sorter.get_ready()
            ordered += sorted(ready, key=list(made).index)
            sorter.done(*ready)
        return ordered

    def _request(self, name: str, given_texts: Texts) -> RunRequest:
        found = self._attempt(given_texts)
        if isinstance(found, RunRequest):
            return found
        dest, index = self._culprit(given_texts, found)
        place = self._place(name, schema.place_of(dest))
        if index is not None:
            value = _look_up(self._document.values, place)
            inner = list(value)[index] if isinstance(value, dict) and index < len(value) else index
            place = (*place, inner)
        raise self._wrong(place, _OPTION.sub(_key_of_option, found.message), found.hint)

    def _attempt(self, given_texts: Texts) -> RunRequest | UsageError:
        try:
            return options.run_request(
                schema.Given(given_texts),
                # The same file makes the same containers, whoever applies it.
                caller_environment={},
                directory=os.path.dirname(self._path),
                debug=False,
            )
        except UsageError as error:
            return error

    def _culprit(self, given_texts: Texts, error: UsageError) -> tuple[str, int | None]:
        """Find the option, and which of its values, without which there is no such complaint."""
        complaints = {
            dest: self._complaint({key: given_texts[key] for key in given_texts if key != dest})
            for dest in given_texts
            if dest not in ("image", "rootfs")
        }
        # Without it all is well; or at least something else is wrong.
        cures = [dest for dest, complaint in complaints.items() if not complaint]
        cures += [dest for dest, complaint in complaints.items() if complaint != error.message]
        if not cures:
            return "image", None
        value = given_texts[cures[0]]
        if isinstance(value, list):
            # Of two values that contradict each other the later one is wrong.
            for index in reversed(range(len(value))):
                rest = {**given_texts, cures[0]: [*value[:index], *value[index + 1 :]]}
                if self._complaint(rest) != error.message:
                    return cures[0], index
        return cures[0], None

    def _complaint(self, given_texts: Texts) -> str:
        found = self._attempt(given_texts)
        return "" if isinstance(found, RunRequest) else found.message

    def _place(self, name: str, path: Path) -> Path:
        """Return where a key of a container stands: in its own table, or in [defaults]."""
        if _look_up(self._table(("container", name)), path) is not None:
            return ("container", name, *path)
        return ("defaults", *path)

    def _with_defaults(self, table: dict[str, object]) -> dict[str, object]:
        """Add what [defaults] has: tables are merged, everything else is replaced."""
        merged = dict(self._section("defaults"))
        for name, value in table.items():
            default = merged.get(name)
            if isinstance(default, dict) and isinstance(value, dict):
                merged[name] = {**default, **value}
            else:
                merged[name] = value
        # An image and a root directory exclude each other, whichever is the default.
        if "rootfs" not in table and "image" in table:
            merged.pop("rootfs", None)
        if "image" not in table and "rootfs" in table:
            merged.pop("image", None)
        return merged

    def _wrong(self, path: Path, message: str, hint: str | None = None) -> UsageError:
        line = self._document.line(path)
        return UsageError(f"{self._document.path}:{line}: {message}", hint=hint)


def _spell(path: Path) -> str:
    return ".".join(map(str, path))


def _look_up(value: object, path: Path) -> object:
    """Return what is at a path; None when nothing is there (TOML has no null)."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _spellings(keys: tuple[schema.Key, ...]) -> dict[str, str]:
    """Return what may have been meant by what: keys, and options by the names that they have."""
    options_ = {key.option: _spell(path) for path, key in schema.leaves(keys) if key.option}
    return {**options_, **{key.name: key.name for key in keys}}


def _suggestion(name: str, meant: Mapping[str, str]) -> str | None:
    """Return a hint with the nearest name that is known."""
    near = difflib.get_close_matches(name.replace("-", "_"), list(meant), n=1)
    return f"did you mean {meant[near[0]]}?" if near else None


def _key_of_option(match: re.Match[str]) -> str:
    """Spell an option of the command line as the key it is here."""
    return ".".join(schema.place_of(match[1].replace("-", "_"))) or match[0]
