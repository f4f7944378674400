"""The lock file of a definition: the digest of each image that it names, for `apply --locked`.

FILE.lock stands beside FILE and is meant to be kept with it: a tag may move, what was tested does
not.  It has one table for each image, sorted by name:

    [image."docker.io/library/alpine:3.20"]
    digest = "sha256:…"       of the index or manifest, as the registry gives it
    local = true              only for an image that is here and in no registry
"""

from __future__ import annotations

import os
import tempfile

from rootlesspy.engine.definitions import toml
from rootlesspy.engine.definitions.definition import content_hash
from rootlesspy.engine.inputs.request import LABEL_HASH
from rootlesspy.errors import Error, NotFound, UsageError
from rootlesspy.image.reference import LOCAL_REGISTRY, candidates, parse
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.oci.image_spec import is_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rootlesspy.engine.definitions.definition import ContainerDefinition, Definition
    from rootlesspy.image.reference import Reference
    from rootlesspy.image.store import Store
    from rootlesspy.settings import Settings

_VERSION = 1
_KEYS = frozenset(("digest", "local"))


class Pin(NamedTuple):
    """One image of the lock file."""

    name: str
    """The whole reference."""
    digest: str
    local: bool = False
    """It is in no registry."""

    def reference(self) -> str:
        """Return the text that means this content and no other."""
        return self.name if "@" in self.name else f"{self.name}@{self.digest}"


Pins = dict[str, Pin]


def path_of(definition: str) -> str:
    """Return where the lock file of a definition is."""
    return f"{definition}.lock"


def read(path: str) -> Pins:
    """Read a lock file.  Raises NotFound, and UsageError with file and line."""
    document = toml.read(path)

    def wrong(place: toml.Path, message: str) -> UsageError:
        return UsageError(f"{path}:{document.line(place)}: {message}")

    values = document.values
    for key in values:
        if key not in ("version", "image"):
            raise wrong((key,), f"unknown key {key}")
    if values.get("version") != _VERSION or isinstance(values.get("version"), bool):
        raise wrong(("version",), f"version is not {_VERSION}, which this rp understands")
    images = values.get("image", {})
    if not isinstance(images, dict):
        raise wrong(("image",), "image: expected a table")
    pins: Pins = {}
    for name, table in images.items():
        place = ("image", name)
        if not _is_reference(name):
            raise wrong(place, f"{name!r} is not the whole name of an image")
        if not isinstance(table, dict) or not set(table) <= _KEYS:
            raise wrong(place, f"image {name}: expected digest and local")
        digest, local = table.get("digest"), table.get("local", False)
        if not is_digest(digest) or not isinstance(local, bool):
            raise wrong((*place, "digest"), f"image {name}: digest or local is malformed")
        pins[name] = Pin(name, str(digest), local)
    return pins


def write(path: str, pins: Pins) -> None:
    """Replace a lock file as a whole.  Raises Error."""
    directory = os.path.dirname(os.path.abspath(path))
    try:
        fd, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=directory)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                file.write(text(path, pins))
                file.flush()
                # As other files are made: it belongs into version control.
                os.fchmod(fd, 0o666 & ~_umask())
                os.fsync(fd)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise Error(f"cannot write {path}: {error.strerror}") from error


def text(path: str, pins: Pins) -> str:
    """Return what a lock file holds: the same for the same pins."""
    name = os.path.basename(path).removesuffix(".lock")
    head = (
        f"# The digest of each image of {name}: rp apply --locked {name} takes no other.\n"
        f"# Written by rp lock {name}; --update looks the tags up again.\n"
        f"version = {_VERSION}\n"
    )
    tables: list[tuple[tuple[str, ...], dict[str, object]]] = []
    for pin in sorted(pins.values()):
        table: dict[str, object] = {"digest": pin.digest}
        if pin.local:
            table["local"] = True
        tables.append((("image", pin.name), table))
    return f"{head}\n{toml.write(tables)}" if tables else head


def make(
    definition: Definition,
    old: Pins,
    *,
    store: Store,
    settings: Settings,
    ask: Callable[[Reference], str],
) -> Pins:
    """Pin each image of a definition; what old has stays as it is.

    ask returns the digest that a registry has under a name, and raises NotFound.  Raises UsageError
    naming the definition, NotFound, RegistryError.
    """
    pins: Pins = {}
    for each in _with_images(definition):
        known = _known(each.request.image, old, settings)
        pin = known or _resolved(each.request.image, store, settings, ask)
        pins[pin.name] = pin
    return pins


def pinned(definition: Definition, pins: Pins, settings: Settings) -> Definition:
    """Return a definition whose containers name their images by the digests of the lock file.

    Raises UsageError for an image that it does not have.
    """
    return definition._replace(
        containers=tuple(
            each if each.request.rootfs else _pinned(each, definition, pins, settings)
            for each in definition.containers
        )
    )


def difference(old: Mapping[str, Pin], new: Mapping[str, Pin]) -> list[str]:
    """Say what is different between two lock files, a line for each image."""
    lines = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before is None and after is not None:
            lines.append(f"added {name} {after.digest}")
        elif after is None:
            lines.append(f"removed {name}")
        elif before is not None and before.digest != after.digest:
            lines.append(f"changed {name} {before.digest} → {after.digest}")
    return lines


def _with_images(definition: Definition) -> Iterable[ContainerDefinition]:
    return (each for each in definition.containers if not each.request.rootfs)


def _pinned(
    each: ContainerDefinition, definition: Definition, pins: Pins, settings: Settings
) -> ContainerDefinition:
    pin = _known(each.request.image, pins, settings)
    if pin is None:
        raise UsageError(
            f"{definition.path}: image {each.request.image} of container {each.name} is not in "
            f"{path_of(definition.path)}",
            hint=f"rp lock {definition.path}",
        )
    request = each.request._replace(image=pin.reference())
    # The digest is part of what the container is: another one makes it anew.
    digest = content_hash(request)
    labels = tuple((key, digest if key == LABEL_HASH else value) for key, value in request.labels)
    return each._replace(request=request._replace(labels=labels), hash=digest)


def _known(image: str, pins: Pins, settings: Settings) -> Pin | None:
    """Return the pin of an image as a definition names it."""
    meant = (*candidates(image), parse(settings.resolve_alias(image)))
    return next((pins[str(each)] for each in meant if str(each) in pins), None)


def _resolved(image: str, store: Store, settings: Settings, ask: Callable[[Reference], str]) -> Pin:
    """Find the digest that an image has now: here, where only this machine has it, or there."""
    reference = parse(settings.resolve_alias(image))
    if reference.digest is not None:
        return Pin(str(reference), reference.digest)
    for each in candidates(image):
        if each.registry == LOCAL_REGISTRY:
            found = _here(store, each)
            if found is not None:
                return found
    if reference.registry == LOCAL_REGISTRY:
        raise NotFound(f"no image {image} here", hint="rp images")
    try:
        return Pin(str(reference), ask(reference))
    except NotFound:
        found = _here(store, reference)
        if found is None:
            raise
        return found


def _here(store: Store, reference: Reference) -> Pin | None:
    try:
        return Pin(str(reference), store.resolve(str(reference)).digest, local=True)
    except NotFound:
        return None


def _is_reference(name: str) -> bool:
    try:
        return str(parse(name)) == name
    except UsageError:
        return False


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
