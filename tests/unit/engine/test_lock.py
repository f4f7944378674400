"""Lock files: what is pinned, what is refused, and that they are the same for the same pins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from rootlesspy.engine.definitions import definition, lock, toml
from rootlesspy.engine.definitions.lock import Pin
from rootlesspy.engine.inputs.request import LABEL_HASH
from rootlesspy.errors import Error, NotFound, UsageError
from rootlesspy.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from rootlesspy.image.reference import Reference
    from rootlesspy.image.store import Store

ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")
ALPINE, LOCAL = "docker.io/library/alpine:3.20", "localhost/mine:latest"
FILE = """\
[container.a]
image = "alpine:3.20"
[container.b]
image = "mine"
requires = ["a"]
[container.c]
rootfs = "/srv/root"
"""


class Images:
    """A store that has some images by their whole names."""

    def __init__(self, **digests: str) -> None:
        self._digests = digests

    def resolve(self, name: str) -> Any:
        if name not in self._digests:
            raise NotFound(f"no image {name} here")
        return Pin(name, self._digests[name])


def defined(text: str = FILE) -> definition.Definition:
    return definition.parse(toml.parse(text, "/d/web.toml"))


def make(
    text: str = FILE,
    old: lock.Pins | None = None,
    here: dict[str, str] | None = None,
    there: dict[str, str] | None = None,
) -> tuple[lock.Pins, list[str]]:
    asked: list[str] = []
    registry = {ALPINE: ONE} if there is None else there

    def ask(reference: Reference) -> str:
        asked.append(str(reference))
        if str(reference) not in registry:
            raise NotFound(f"no image {reference}")
        return registry[str(reference)]

    store = cast("Store", Images(**({LOCAL: TWO} if here is None else here)))
    pins = lock.make(defined(text), old or {}, store=store, settings=Settings(), ask=ask)
    return pins, asked


PINS = {ALPINE: Pin(ALPINE, ONE), LOCAL: Pin(LOCAL, TWO, local=True)}


def test_images_are_pinned() -> None:
    assert make() == (PINS, [ALPINE])
    # What is known stays, whatever the tag means now, and what is not named any more goes.
    old = {
        ALPINE: Pin(ALPINE, TWO),
        "docker.io/library/gone:1": Pin("docker.io/library/gone:1", ONE),
    }
    assert make(old=old) == ({**PINS, ALPINE: Pin(ALPINE, TWO)}, [])


def test_an_image_that_only_this_machine_has() -> None:
    pins, asked = make(here={LOCAL: TWO, ALPINE: TWO}, there={})
    assert pins == {**PINS, ALPINE: Pin(ALPINE, TWO, local=True)}
    assert asked == [ALPINE]
    with pytest.raises(NotFound):
        make(here={}, there={})


def test_a_digest_needs_nobody() -> None:
    pins, asked = make(f'[container.a]\nimage = "alpine@{ONE}"\n')
    name = f"docker.io/library/alpine@{ONE}"
    assert (pins, asked) == ({name: Pin(name, ONE)}, [])
    assert pins[name].reference() == name


def test_a_pinned_definition() -> None:
    plain = defined()
    found = lock.pinned(plain, PINS, Settings())
    images = {each.name: each.request.image for each in found.containers}
    assert images["a"] == f"{ALPINE}@{ONE}"
    assert images["b"] == f"{LOCAL}@{TWO}"
    before = {each.name: each for each in plain.containers}
    for each in found.containers:
        assert dict(each.request.labels)[LABEL_HASH] == each.hash
        assert (each.hash == before[each.name].hash) is (each.name == "c")
    other = lock.pinned(plain, {**PINS, ALPINE: Pin(ALPINE, TWO)}, Settings())
    assert other.containers[0].hash != found.containers[0].hash


def test_what_is_not_in_the_lock_file_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        lock.pinned(defined(), {LOCAL: PINS[LOCAL]}, Settings())
    assert caught.value.message == (
        "/d/web.toml: image alpine:3.20 of container a is not in /d/web.toml.lock"
    )
    assert caught.value.hint == "rp lock /d/web.toml"
    for image in ("alpine:3.21", "quay.io/alpine:3.20", f"alpine@{ONE}", "alpine"):
        with pytest.raises(UsageError, match="is not in"):
            lock.pinned(defined(f'[container.a]\nimage = "{image}"\n'), PINS, Settings())


def test_an_alias_that_means_something_else_now() -> None:
    settings = Settings(aliases=(("alpine", "quay.io/evil/alpine"),))
    with pytest.raises(UsageError, match="is not in"):
        lock.pinned(defined(), {"docker.io/x:1": Pin("docker.io/x:1", ONE)}, settings)


def test_written_and_read(tmp_path: Path) -> None:
    path = lock.path_of(str(tmp_path / "web.toml"))
    lock.write(path, PINS)
    assert lock.read(path) == PINS
    text = (tmp_path / "web.toml.lock").read_text()
    lock.write(path, dict(reversed(PINS.items())))
    assert (tmp_path / "web.toml.lock").read_text() == text
    assert text.startswith("# The digest of each image of web.toml")
    assert [each.name for each in tmp_path.iterdir()] == ["web.toml.lock"]
    lock.write(path, {})
    assert lock.read(path) == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "version is not 1"),
        ("version = 2", "version is not 1"),
        ("version = true", "version is not 1"),
        ('version = 1\nx = "y"', ":2: unknown key x"),
        ("version = 1\nimage = 3", ":2: image: expected a table"),
        ('version = 1\n[image."alpine"]\ndigest = "x"', ":2: 'alpine' is not the whole name"),
        (f'version = 1\n[image."{ALPINE}"]\ndigest = "sha256:x"', ":3: image"),
        (f'version = 1\n[image."{ALPINE}"]\ndigest = "{ONE}"\nlocal = 1', "malformed"),
        (f'version = 1\n[image."{ALPINE}"]\ndigest = "{ONE}"\nmore = 1', ":2: image"),
        ("version =", "not valid TOML"),
    ],
)
def test_a_damaged_lock_file(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "web.toml.lock"
    path.write_text(text)
    with pytest.raises(Error) as caught:
        lock.read(str(path))
    assert complaint in caught.value.message
    assert str(path) in caught.value.message


def test_differences() -> None:
    assert lock.difference({}, PINS) == [f"added {ALPINE} {ONE}", f"added {LOCAL} {TWO}"]
    assert lock.difference(PINS, PINS) == []
    changed = {ALPINE: Pin(ALPINE, TWO)}
    assert lock.difference(PINS, changed) == [
        f"changed {ALPINE} {ONE} → {TWO}", f"removed {LOCAL}",
    ]  # fmt: skip
