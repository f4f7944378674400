"""The store: names, ids, index, removal, locks; and that damage stays where it is."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.image import tarmaker as tm

from rootlesspy.errors import Conflict, ImageError, NotFound, UsageError
from rootlesspy.image import layout, locks, removal, usage
from rootlesspy.image.reference import parse
from rootlesspy.image.store import Image, Store, parse_time
from rootlesspy.linux.userns import IdMapping, IdMaps
from rootlesspy.oci import image_spec
from rootlesspy.paths import Paths

MAPS = IdMaps((IdMapping(0, os.getuid(), 1),), (IdMapping(0, os.getgid(), 1),))
OTHER = IdMaps((IdMapping(0, 100000, 65536),), (IdMapping(0, 100000, 65536),))


class Shelf:
    """A store that is filled by hand."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.paths = Paths(data=str(base / "data"), runtime=None, config=str(base))
        layout.prepare(self.paths)
        layout.claim_default_maps(self.paths, MAPS)
        self.store = Store(self.paths)

    def blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        Path(layout.blob_path(self.paths, digest)).write_bytes(data)
        return digest

    def image(self, name: str, salt: str = "", *, layers: tuple[bytes, ...] = (b"base",)) -> Image:
        """Add an image with layers of these contents and list it under a name."""
        descriptors, diff_ids = [], []
        for content in layers:
            plain = tm.archive(tm.file(b"f", content))
            diff_ids.append(f"sha256:{hashlib.sha256(plain).hexdigest()}")
            zipped = gzip.compress(plain, mtime=0)
            descriptors.append({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": self.blob(zipped), "size": len(zipped),
            })  # fmt: skip
            tree = Path(layout.layer_directory(self.paths, diff_ids[-1], "")) / "diff"
            tree.mkdir(parents=True, exist_ok=True)
            (tree / "f").write_bytes(content)
            (tree.parent / "layer.json").write_text(
                json.dumps({"maps": layout.maps_text(MAPS), "size_bytes": len(content)})
            )
        config = json.dumps({
            "os": "linux", "architecture": "amd64", "created": "2024-01-02T03:04:05Z",
            "author": salt, "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }).encode()  # fmt: skip
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": image_spec.MANIFEST, "layers": descriptors,
            "config": {"mediaType": image_spec.CONFIG, "digest": self.blob(config),
                       "size": len(config)},
        }).encode()  # fmt: skip
        self.list(name, self.blob(manifest), len(manifest))
        return self.store.resolve(str(parse(name)))

    def list(self, name: str, digest: str, size: int, **annotations: str) -> None:
        entry: layout.IndexEntry = {
            "mediaType": image_spec.MANIFEST, "digest": digest, "size": size,
            "annotations": {image_spec.REF_NAME: str(parse(name)), **annotations},
        }  # fmt: skip
        layout.update_index(self.paths, lambda entries: layout.with_entry(entries, entry))

    def counts(self) -> tuple[int, int]:
        """Return how many blobs and layers are there."""
        return (
            len(os.listdir(f"{self.paths.images}/blobs/sha256")),
            len(os.listdir(f"{self.paths.layers}/sha256"))
            if os.path.exists(f"{self.paths.layers}/sha256")
            else 0,
        )


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


# --- finding ---------------------------------------------------------------------------------


def test_every_way_to_name_an_image(shelf: Shelf) -> None:
    image = shelf.image("alpine:3")
    shelf.image("quay.io/a/b:c", "other")
    encoded = image.id.removeprefix("sha256:")
    for text in (
        "alpine:3", "docker.io/library/alpine:3", f"alpine@{image.digest}", image.id, encoded,
        encoded[:12], encoded[:4], f"sha256:{encoded[:9]}",
    ):  # fmt: skip
        assert shelf.store.resolve(text) == image, text
    assert image.created_s == 1704164645
    assert image.platform == "linux/amd64"
    assert shelf.store.layers(image, MAPS) is not None


@pytest.mark.parametrize(
    "text",
    ["alpine", "alpine:4", "quay.io/alpine:3", "0" * 64, f"sha256:{'0' * 64}", "0000",
     f"alpine@sha256:{'0' * 64}"],
)  # fmt: skip
def test_what_is_not_here(shelf: Shelf, text: str) -> None:
    shelf.image("alpine:3")
    with pytest.raises(NotFound, match="no image") as caught:
        shelf.store.resolve(text)
    assert caught.value.hint == f"rp pull {text}"


def test_a_digest_belongs_to_its_repository(shelf: Shelf) -> None:
    image = shelf.image("alpine:3")
    with pytest.raises(NotFound):
        shelf.store.resolve(f"evil/alpine@{image.digest}")


def test_short_beginnings_of_ids_are_names(shelf: Shelf) -> None:
    image = shelf.image("alpine:3")
    with pytest.raises(NotFound):
        shelf.store.resolve(image.id[7:10])


def test_ambiguous_ids(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}
    for number in range(2000):
        image_id = shelf.image("x", str(number)).id
        if seen.setdefault(image_id[7:9], image_id) != image_id:
            monkeypatch.setattr("rootlesspy.image.store._MIN_ID_PREFIX", 2)
            with pytest.raises(UsageError, match="ambiguous"):
                shelf.store.resolve(image_id[7:9])
            return
    pytest.fail("no two ids began alike")


def test_a_name_goes_before_an_id(shelf: Shelf) -> None:
    image = shelf.image("alpine:3")
    named = shelf.image(image.id[7:13], "named")
    assert shelf.store.resolve(image.id[7:13]) == named
    assert shelf.store.resolve(image.id[7:14]) == image


def test_an_empty_store(tmp_path: Path) -> None:
    store = Store(Paths(data=str(tmp_path / "none"), runtime=None, config=""))
    assert store.images() == []
    with pytest.raises(NotFound):
        store.resolve("alpine")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-09-06T22:20:07.5Z", 1725661207.5),
        ("1970-01-01T00:00:00Z", 0.0),
        ("2000-02-29T12:00:00+05:30", 951805800.0),
        ("2000-03-01t00:00:00z", 951868800.0),
        ("1969-12-31T23:59:59-01:00", 3599.0),
        ("", 0.0), ("yesterday", 0.0), ("2024-09-06", 0.0), ("2024-09-06T22:20:07.xZ", 0.0),
        ("\uff12024-09-06T22:20:07Z", 0.0), ("2024-09-06T22:20:07.5.5Z", 0.0),
    ],
)  # fmt: skip
def test_times(text: str, expected: float) -> None:
    assert parse_time(text) == expected


@given(st.text(max_size=40) | st.text(alphabet="0123456789-:TZ+.", max_size=35))
def test_times_never_raise(text: str) -> None:
    assert isinstance(parse_time(text), float)


# --- layers ----------------------------------------------------------------------------------


def test_layers_base_first(shelf: Shelf) -> None:
    image = shelf.image("x", layers=(b"one", b"two"))
    found = shelf.store.layers(image, MAPS)
    assert found is not None
    assert [Path(path, "f").read_bytes() for path in found] == [b"one", b"two"]


def test_other_id_maps_have_other_layers(shelf: Shelf) -> None:
    image = shelf.image("x")
    assert shelf.store.layers(image, OTHER) is None
    suffix = layout.maps_suffix(shelf.paths, OTHER)
    assert suffix.startswith("-")
    assert len(suffix) == 13
    assert layout.maps_suffix(shelf.paths, MAPS) == ""
    layout.claim_default_maps(shelf.paths, OTHER)
    assert layout.maps_suffix(shelf.paths, MAPS) == ""


@pytest.mark.row("D3", "told")
def test_D3_a_missing_layer_is_told(shelf: Shelf) -> None:
    image = shelf.image("x", layers=(b"one", b"two"))
    shutil.rmtree(layout.layer_directory(shelf.paths, image.diff_ids[1], ""))
    assert shelf.store.layers(image, MAPS) is None


# --- the index -------------------------------------------------------------------------------


def test_names_move_and_images_keep_being_listed(shelf: Shelf) -> None:
    first = shelf.image("a:1", "first")
    shelf.list("b:1", first.digest, 1)
    second = shelf.image("a:1", "second")
    assert shelf.store.resolve("a:1") == second
    assert shelf.store.resolve("b:1").names == ("docker.io/library/b:1",)
    third = shelf.image("b:1", "third")
    nameless = shelf.store.resolve(first.id)
    assert nameless.names == ()
    assert {image.id for image in shelf.store.images()} == {first.id, second.id, third.id}
    # It gets a name again.
    shelf.list("c", first.digest, 1)
    assert shelf.store.resolve("c").names == ("docker.io/library/c:latest",)
    assert len(layout.read_index(shelf.paths)) == 3


def test_what_others_wrote_is_kept(shelf: Shelf) -> None:
    shelf.image("a")
    path = Path(shelf.paths.images, "index.json")
    document = json.loads(path.read_text())
    document["annotations"] = {"of": "somebody"}
    odd: dict[str, Any] = {"mediaType": "application/x", "digest": f"sha256:{'1' * 64}", "size": 1}
    document["manifests"].append(odd)
    path.write_text(json.dumps(document))
    shelf.image("b", "b")
    after = json.loads(path.read_text())
    assert after["annotations"] == {"of": "somebody"}
    assert odd in after["manifests"]
    assert len(shelf.store.images()) == 2


@pytest.mark.row("D1", "one error with the cure")
@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_D1_a_damaged_index_is_one_error(shelf: Shelf, cut: int) -> None:
    shelf.image("a")
    path = Path(shelf.paths.images, "index.json")
    path.write_bytes(path.read_bytes()[:cut])
    for call in (shelf.store.images, lambda: shelf.store.resolve("a")):
        with pytest.raises(ImageError, match=r"index\.json is damaged") as caught:
            call()
        assert caught.value.hint is not None


@pytest.mark.row("D1", "one error with the cure")
@pytest.mark.parametrize("kind", ["fifo", "directory", "symlink", "dangling"])
def test_D1_an_index_that_is_no_file(shelf: Shelf, kind: str) -> None:
    path = Path(shelf.paths.images, "index.json")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/etc/passwd" if kind == "symlink" else "/nonexistent")
    with pytest.raises(ImageError, match="damaged"):
        shelf.store.images()


@pytest.mark.row("D1", "the others are listed")
def test_D1_one_damaged_image_does_not_hide_the_others(shelf: Shelf) -> None:
    good, bad = shelf.image("good", "good"), shelf.image("bad", "bad")
    for digest in (bad.digest, bad.id):
        path = Path(layout.blob_path(shelf.paths, digest))
        content = path.read_bytes()
        for damage in (b"", content[:-1], bytes(len(content)), b"\xff" * 9, b"[" * 100000):
            path.write_bytes(damage)
            assert shelf.store.images() == [good]
            assert shelf.store.resolve(good.id) == good
            with pytest.raises(ImageError, match="blob"):
                shelf.store.resolve("bad")
        path.unlink()
        with pytest.raises(ImageError, match="blob"):
            shelf.store.resolve("bad")
        path.write_bytes(content)
    assert shelf.store.resolve("bad") == bad


def test_two_writers_of_the_index(shelf: Shelf) -> None:
    image = shelf.image("a")
    pids = []
    for writer in range(4):
        pid = os.fork()
        if pid == 0:
            for number in range(10):
                shelf.list(f"n{writer}-{number}", image.digest, 1)
            os._exit(0)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
    assert len(shelf.store.resolve("a").names) == 41


def test_skopeo_and_umoci_read_the_layout(shelf: Shelf) -> None:
    programs = [program for program in ("skopeo", "umoci") if shutil.which(program)]
    if not programs:
        pytest.skip("needs skopeo or umoci")
    image = shelf.image("alpine:3")
    name = f"{shelf.paths.images}:docker.io/library/alpine:3"
    if "skopeo" in programs:
        shown = subprocess.run(
            ["skopeo", "inspect", f"oci:{name}"], capture_output=True, check=True
        )
        assert json.loads(shown.stdout)["Digest"] == image.digest
    if "umoci" in programs:
        listed = subprocess.run(
            ["umoci", "list", "--layout", shelf.paths.images], capture_output=True, check=True
        )
        assert listed.stdout.split() == [b"docker.io/library/alpine:3"]


# --- removing --------------------------------------------------------------------------------


def test_removing_the_last_name_removes_the_image(shelf: Shelf) -> None:
    image = shelf.image("a", layers=(b"one", b"two"))
    kept = shelf.image("b", "b", layers=(b"one",))
    removed = shelf.store.remove("a")
    assert removed.untagged == ("docker.io/library/a:latest",)
    assert removed.deleted == image.id
    assert shelf.store.images() == [kept]
    # Manifest, config and layer of the other one.
    assert shelf.counts() == (3, 1)
    shelf.store.remove("b")
    assert shelf.counts() == (0, 0)
    assert os.listdir(shelf.paths.tmp) == []


def test_removing_one_of_several_names(shelf: Shelf) -> None:
    image = shelf.image("a")
    shelf.list("b", image.digest, 1)
    removed = shelf.store.remove("a")
    assert removed == (("docker.io/library/a:latest",), None)
    assert shelf.store.resolve("b").id == image.id
    shelf.list("c", image.digest, 1)
    with pytest.raises(Conflict, match="several names"):
        shelf.store.remove(image.id)
    assert shelf.store.remove(image.id, force=True).deleted == image.id
    assert shelf.counts() == (0, 0)


def test_a_running_pull_keeps_the_content(shelf: Shelf) -> None:
    shelf.image("a")
    held = shelf.store.hold()
    assert held is not None
    shelf.store.remove("a")
    assert shelf.store.images() == []
    assert shelf.counts() == (3, 1)
    os.close(held)
    removal.collect(shelf.paths, tuple)
    assert shelf.counts() == (0, 0)


@pytest.mark.row("C3", "they stay")
def test_C3_layers_under_a_container_stay(shelf: Shelf) -> None:
    image = shelf.image("a", layers=(b"one", b"two"))
    found = shelf.store.layers(image, MAPS)
    assert found is not None
    shelf.store.remove("a", in_use=lambda: found[:1])
    assert shelf.counts() == (0, 1)
    assert os.path.isdir(found[0])
    removal.collect(shelf.paths, tuple)
    assert shelf.counts() == (0, 0)


def test_nothing_is_collected_while_an_image_is_damaged(shelf: Shelf) -> None:
    bad = shelf.image("bad", "bad", layers=(b"one",))
    shelf.image("a", layers=(b"two",))
    Path(layout.blob_path(shelf.paths, bad.digest)).write_bytes(b"{")
    with pytest.raises(ImageError):
        shelf.store.remove("a")
    assert shelf.counts()[1] == 2


def test_strangers_files_among_the_blobs_are_left_alone(shelf: Shelf) -> None:
    shelf.image("a")
    stranger = Path(shelf.paths.images, "blobs/sha256/README")
    stranger.write_text("x")
    shelf.store.remove("a")
    assert stranger.exists()


# --- half-made things ------------------------------------------------------------------------


def test_items_of_the_living_are_left_alone(shelf: Shelf) -> None:
    mine = locks.new_item(shelf.paths)
    os.mkdir(f"{mine.path}/x")
    locks.sweep(shelf.paths, MAPS)
    assert os.path.isdir(f"{mine.path}/x")
    os.close(mine.fd)
    locks.sweep(shelf.paths, MAPS)
    assert os.listdir(shelf.paths.tmp) == []


def test_things_of_others_in_tmp_are_left_alone(shelf: Shelf) -> None:
    Path(shelf.paths.tmp, "removed-abc").mkdir()
    Path(shelf.paths.tmp, "note").write_text("x")
    locks.sweep(shelf.paths, MAPS)
    assert sorted(os.listdir(shelf.paths.tmp)) == ["note", "removed-abc"]


@pytest.mark.row("C4", "noticed")
def test_C4_a_deleted_lock_file_is_noticed(shelf: Shelf) -> None:
    digest = f"sha256:{'a' * 64}"
    first = locks.lock_blob(shelf.paths, digest, lambda pid: None)
    os.unlink(first.path)
    second = locks.lock_blob(shelf.paths, digest, lambda pid: None)
    assert os.fstat(second.fd).st_ino == os.lstat(second.path).st_ino
    second.release()
    assert not os.path.exists(second.path)


def test_stale_locks_are_swept_and_live_ones_are_not(shelf: Shelf) -> None:
    live = locks.lock_blob(shelf.paths, f"sha256:{'a' * 64}", lambda pid: None)
    dead = locks.lock_blob(shelf.paths, f"sha256:{'b' * 64}", lambda pid: None)
    os.close(dead.fd)
    locks.sweep(shelf.paths, MAPS)
    assert os.listdir(shelf.paths.tmp) == [os.path.basename(live.path)]
    live.release()


@pytest.mark.row("X1", "nothing half-made is left")
def test_what_a_dying_child_of_a_killed_process_holds_is_waited_for(shelf: Shelf) -> None:
    """As that of a job: it lets go of its pipes and of the locks that it shares in any order."""
    others = locks.new_item(shelf.paths)
    ready, told = os.pipe()
    awaited, end = os.pipe()
    maker = os.fork()
    if maker == 0:
        os.mkdir(f"{locks.new_item(shelf.paths).path}/layer")
        locks.lock_blob(shelf.paths, f"sha256:{'a' * 64}", lambda pid: None)
        os.close(end)
        if os.fork() != 0:
            os.write(told, b"1")
            signal.pause()
        os.read(awaited, 1)
        os._exit(0)
    assert os.read(ready, 1) == b"1"
    os.kill(maker, signal.SIGKILL)
    os.waitpid(maker, 0)
    locks.sweep(shelf.paths, MAPS)
    assert len(os.listdir(shelf.paths.tmp)) == 3
    later = threading.Timer(0.1, os.close, (end,))
    later.start()
    # Another pull's is not waited for: this has a limit of an hour.
    locks.sweep_after(shelf.paths, MAPS, {maker}, 3600)
    later.join()
    assert os.listdir(shelf.paths.tmp) == [os.path.basename(others.path)]
    for fd in (ready, told, awaited, others.fd):
        os.close(fd)


@pytest.mark.row("C4", "waiting has an end")
def test_C4_waiting_has_an_end(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_NOTICE_AFTER_S", 0.1)
    monkeypatch.setattr(locks, "_GIVE_UP_AFTER_S", 0.2)
    digest = f"sha256:{'a' * 64}"
    held = locks.lock_blob(shelf.paths, digest, lambda pid: None)
    told: list[int] = []
    with pytest.raises(Conflict, match="for an hour"):
        locks.lock_blob(shelf.paths, digest, told.append)
    assert told == [os.getpid()]
    held.release()


def test_the_hot_path_imports_nothing_heavy() -> None:
    program = (
        "import sys; from rootlesspy.image.store import Store;"
        "from rootlesspy.paths import Paths; Store(Paths('/nonexistent', None, '')).images();"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, check=True, text=True,
        cwd=Path(__file__).parents[3], env={"PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    heavy = {"hashlib", "subprocess", "pathlib", "dataclasses", "inspect", "tempfile", "datetime",
             "urllib3", "tomli", "shutil", "logging", "http.client", "tarfile", "ssl"}  # fmt: skip
    assert not heavy & set(done.stdout.split())


# --- descriptions of layers that somebody damaged ----------------------------------------------


@pytest.mark.parametrize("text", ["[" * 100_000, '{"size_bytes": 1e400}', "{}", "null", '"x"'])
def test_a_damaged_description_of_a_layer_has_no_size(shelf: Shelf, text: str) -> None:
    (diff_id,) = shelf.image("x").diff_ids
    place = layout.layer_directory(shelf.paths, diff_id, "")
    Path(place, "layer.json").write_text(text, encoding="ascii")
    assert layout.layer_size(shelf.paths, diff_id, "") == 0
    assert usage.layers_bytes(shelf.paths) == {place: 0}
    assert usage.total_bytes(shelf.paths) > 0
    removal.remove_layer(shelf.paths, place)
    assert not os.path.exists(place)


def test_a_directory_in_the_place_of_a_document_is_named(shelf: Shelf) -> None:
    path = f"{shelf.paths.layers}/default-maps"
    os.unlink(path)
    os.mkdir(path)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(IsADirectoryError) as raised:
        layout.maps_suffix(shelf.paths, MAPS)
    assert raised.value.filename == path
    assert os.listdir("/proc/self/fd") == before
