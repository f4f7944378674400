"""Manifest lists of the store: names, ids, what they keep, and that names belong to one thing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from unit.image.test_store import MAPS, Shelf

from rootlesspy.errors import Conflict, ImageError, NotFound, UsageError
from rootlesspy.image import fsck, group, layout, lists, manifest_list, naming, save
from rootlesspy.image.reference import parse
from rootlesspy.image.writer import Writer
from rootlesspy.report import Reporter

if TYPE_CHECKING:
    from rootlesspy.image.store import Image


class ListShelf(Shelf):
    """A store with images and lists of them."""

    def writer(self) -> Writer:
        return Writer(self.paths, MAPS, Reporter(debug=False))

    def a_list(self, name: str, *images: Image) -> lists.ManifestList:
        entries = [group.of_image(save.stored(self.paths, image)) for image in images]
        document = manifest_list.with_entries(manifest_list.empty(), entries)
        with self.writer() as writer:
            return lists.create(writer, self.paths, name, document)

    def names(self) -> list[tuple[str, str]]:
        """Return (media type's kind, name) of each entry, as other tools read them."""
        text = Path(self.paths.images, "index.json").read_text(encoding="utf-8")
        return sorted(
            (
                "list" if "index" in entry["mediaType"] else "image",
                entry.get("annotations", {}).get("org.opencontainers.image.ref.name", ""),
            )
            for entry in json.loads(text)["manifests"]
        )

    def add(self, found: lists.ManifestList, image: Image) -> lists.ManifestList:
        entry = group.of_image(save.stored(self.paths, image))
        with self.writer() as writer:
            return lists.change(
                writer, self.paths, found, lambda old: manifest_list.with_entries(old, [entry])
            )


@pytest.fixture
def shelf(tmp_path: Path) -> ListShelf:
    return ListShelf(tmp_path)


def test_a_list_keeps_its_id_when_it_changes(shelf: ListShelf) -> None:
    made = shelf.a_list("l")
    image = shelf.image("docker.io/library/a:latest")
    changed = shelf.add(made, image)
    assert (changed.id, changed.names) == (made.id, ("localhost/l:latest",))
    assert changed.digest != made.digest
    for text in ("l", "localhost/l", made.id, made.id[7:19], f"localhost/l@{changed.digest}"):
        found = lists.find(shelf.paths, text)
        assert found is not None, text
        assert found.digest == changed.digest
    assert lists.find(shelf.paths, "other") is None


def test_a_name_is_taken_once(shelf: ListShelf) -> None:
    shelf.a_list("l")
    image = shelf.image("localhost/a:latest")
    with pytest.raises(Conflict):
        shelf.a_list("l")
    with pytest.raises(Conflict):
        shelf.a_list("localhost/a:latest")
    naming.tag(shelf.paths, image, ["l"])
    assert shelf.names() == [
        ("image", "localhost/a:latest"), ("image", "localhost/l:latest"), ("list", ""),
    ]  # fmt: skip
    [nameless] = lists.all_lists(shelf.paths)
    lists.tag(shelf.paths, nameless, ["a"])
    assert shelf.names() == [("image", "localhost/l:latest"), ("list", "localhost/a:latest")]


def test_names_come_and_go(shelf: ListShelf) -> None:
    made = shelf.a_list("l")
    lists.tag(shelf.paths, made, ["m:1", "n:2"])
    both = lists.resolve(shelf.paths, "m:1")
    assert both.names == ("localhost/l:latest", "localhost/m:1", "localhost/n:2")
    assert lists.untag(shelf.paths, both, ["m:1"]) == ["localhost/m:1"]
    with pytest.raises(NotFound):
        lists.untag(shelf.paths, lists.resolve(shelf.paths, "l"), ["m:1"])
    lists.untag(shelf.paths, lists.resolve(shelf.paths, "l"), [])
    assert shelf.names() == [("list", "")]
    assert lists.remove(shelf.paths, made) == []
    assert lists.all_lists(shelf.paths) == []


def test_the_image_of_the_platform_is_meant(shelf: ListShelf) -> None:
    one, two = shelf.image("localhost/a:1", "one"), shelf.image("localhost/a:2", "two")
    made = shelf.a_list("l", one, two)
    with shelf.writer() as writer:
        made = lists.change(
            writer,
            shelf.paths,
            made,
            lambda old: manifest_list.annotated(
                old, one.digest, manifest_list.Change(architecture="s390x")
            ),
        )
    assert shelf.store.resolve("l").digest == two.digest
    assert shelf.store.resolve("l", "linux/s390x").digest == one.digest
    with pytest.raises(ImageError, match="not made for linux/riscv64"):
        shelf.store.resolve("l", "linux/riscv64")
    with pytest.raises(UsageError, match="not a manifest list"):
        lists.resolve(shelf.paths, "localhost/a:1")


def test_what_a_list_needs_stays_until_it_goes(shelf: ListShelf) -> None:
    image = shelf.image("docker.io/library/a:latest")
    shelf.a_list("l", image)
    shelf.store.remove("docker.io/library/a:latest")
    blob = Path(layout.blob_path(shelf.paths, image.digest))
    assert blob.exists()
    assert shelf.store.resolve("l").id == image.id
    # The shelf's layers have no description.
    assert {each.kind for each in fsck.Check(shelf.paths, set).run()} <= {"layer"}
    lists.remove(shelf.paths, lists.resolve(shelf.paths, "l"))
    shelf.store.collect(set)
    assert not blob.exists()
    assert os.listdir(blob.parent) == []


def test_fsck_finds_what_a_list_lacks(shelf: ListShelf) -> None:
    image = shelf.image("docker.io/library/a:latest")
    made = shelf.a_list("l", image)
    shelf.store.remove("docker.io/library/a:latest")
    Path(layout.blob_path(shelf.paths, image.id)).unlink()
    kinds = {problem.kind for problem in fsck.Check(shelf.paths, set).run()}
    assert "list" in kinds
    Path(layout.blob_path(shelf.paths, made.digest)).write_bytes(b"{}")
    problems = fsck.Check(shelf.paths, set).run()
    assert ("list", made.digest) in {(each.kind, each.name) for each in problems}
    assert fsck.repair(shelf.paths, MAPS, problems, set) == []
    assert shelf.names() == []


def test_a_list_that_another_tool_made_has_its_digest_as_id(shelf: ListShelf) -> None:
    image = shelf.image("docker.io/library/a:latest")
    entry = group.of_image(save.stored(shelf.paths, image))
    data = manifest_list.encode(manifest_list.with_entries(manifest_list.empty(), [entry]))
    digest = shelf.blob(data)
    path = Path(shelf.paths.images, "index.json")
    index = json.loads(path.read_text(encoding="utf-8"))
    index["manifests"].append({
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest,
        "size": len(data), "annotations": {"org.opencontainers.image.ref.name": "their:1"},
    })  # fmt: skip
    path.write_text(json.dumps(index), encoding="utf-8")
    [found] = lists.all_lists(shelf.paths)
    assert (found.id, found.names) == (digest, ("their:1",))
    changed = shelf.add(found, shelf.image("docker.io/library/b:latest", "b"))
    assert (changed.id, len(changed.entries())) == (digest, 2)


@pytest.mark.parametrize("name", ["UPPER", "a@sha256:" + "0" * 64, "", "a b"])
def test_names_that_a_list_cannot_have(shelf: ListShelf, name: str) -> None:
    with pytest.raises(UsageError):
        shelf.a_list(name)
    assert lists.all_lists(shelf.paths) == []
    assert parse("a")


def test_texts_that_are_no_text(shelf: ListShelf) -> None:
    made = shelf.a_list("l")
    with shelf.writer() as writer, pytest.raises(UsageError, match="cannot hold"):
        lists.change(
            writer,
            shelf.paths,
            made,
            lambda old: manifest_list.with_annotations(old, [("a", "\udc80")]),
        )
    assert lists.resolve(shelf.paths, "l").digest == made.digest
