"""Archives and layouts: what others write, what rp writes, and what nobody should.

The rows of SECURITY.md (H: archives) that concern loading are named in the tests.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from unit.image import tarmaker as tm
from unit.image.memory import growth_bytes

from rootlesspy.errors import Conflict, Error, ImageError, NotFound
from rootlesspy.image import children, files, layout, save, saved
from rootlesspy.image.load import load
from rootlesspy.image.store import Image, Store
from rootlesspy.image.tarwrite import TarWriter
from rootlesspy.image.writer import Writer
from rootlesspy.linux.userns import IdMapping, IdMaps
from rootlesspy.oci import image_spec
from rootlesspy.paths import Paths
from rootlesspy.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rootlesspy.oci.image_spec import Descriptor

MAPS = IdMaps((IdMapping(0, os.getuid(), 1),), (IdMapping(0, os.getgid(), 1),))
PLAIN = tm.archive(tm.directory(b"etc"), tm.file(b"etc/f", b"content" * 1000))
OTHER = tm.archive(tm.file(b"g", b"other"))


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config_of(*layers: bytes) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            # A member that rp does not know, and an order that it would not choose.
            "zzz": {"b": 1, "a": 2},
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
    ).encode()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(f"{tmp_path}/data", None, f"{tmp_path}/config")


def archive(tmp_path: Path, members: dict[str, bytes], name: str = "x.tar") -> str:
    path = tmp_path / name
    path.write_bytes(tm.archive(*(tm.file(key.encode(), value) for key, value in members.items())))
    return str(path)


def docker(*layers: bytes, names: list[str] | None = None) -> dict[str, bytes]:
    config = config_of(*layers)
    manifest = {
        "Config": "config.json",
        "RepoTags": ["alpine:3"] if names is None else names,
        "Layers": [f"{number}/layer.tar" for number in range(len(layers))],
    }
    members = {f"{number}/layer.tar": layer for number, layer in enumerate(layers)}
    return {**members, "config.json": config, "manifest.json": json.dumps([manifest]).encode()}


def oci(layer: bytes = PLAIN, blob: bytes | None = None, **entry: Any) -> dict[str, bytes]:
    blob = gzip.compress(layer, mtime=0) if blob is None else blob
    config = config_of(layer)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": image_spec.MANIFEST,
            "config": {"mediaType": image_spec.CONFIG, "digest": digest(config),
                       "size": len(config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                        "digest": digest(blob), "size": len(blob)}],
        }
    ).encode()  # fmt: skip
    entry = {
        "mediaType": image_spec.MANIFEST, "digest": digest(manifest), "size": len(manifest),
        "annotations": {image_spec.REF_NAME: "r.example/a:1"}, **entry,
    }  # fmt: skip
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        **{f"blobs/sha256/{digest(data)[7:]}": data for data in (config, manifest, blob)},
    }


def loaded(paths: Paths, path: str) -> list[Image]:
    with Writer(paths, MAPS, Reporter(quiet=True)) as writer, files.Opened(paths, path) as opened:
        return [
            load(writer, opened.files, original, original.names)
            for original in saved.images(opened.files)
        ]


def refused(paths: Paths, path: str, words: str, kind: type[Error] = ImageError) -> None:
    with pytest.raises(kind, match=words):
        loaded(paths, path)
    assert Store(paths).images() == []
    assert os.listdir(paths.tmp) == []


def test_a_docker_archive(tmp_path: Path, paths: Paths) -> None:
    members = docker(PLAIN, OTHER)
    (image,) = loaded(paths, archive(tmp_path, members))
    assert image.id == digest(members["config.json"])
    assert image.names == ("docker.io/library/alpine:3",)
    assert Store(paths).layers(image, MAPS) is not None


def test_a_docker_archive_with_compressed_layers_and_links(tmp_path: Path, paths: Paths) -> None:
    zipped = gzip.compress(PLAIN, mtime=0)
    members = docker(PLAIN)
    members["0/layer.tar"] = zipped
    entries = [tm.file(b"real", zipped), tm.symlink(b"0/layer.tar", b"../real")]
    entries += [tm.file(k.encode(), v) for k, v in members.items() if k != "0/layer.tar"]
    path = tmp_path / "x.tar"
    path.write_bytes(tm.archive(*entries))
    (image,) = loaded(paths, str(path))
    assert image.diff_ids == (digest(PLAIN),)


@pytest.mark.parametrize("as_directory", [False, True])
def test_an_oci_layout(tmp_path: Path, paths: Paths, as_directory: bool) -> None:
    members = oci()
    path = f"{tmp_path}/layout"
    if as_directory:
        for name, data in members.items():
            os.makedirs(os.path.dirname(f"{path}/{name}"), exist_ok=True)
            with open(f"{path}/{name}", "wb") as file:
                file.write(data)
    else:
        path = archive(tmp_path, members)
    (image,) = loaded(paths, path)
    assert image.names == ("r.example/a:1",)
    assert image.diff_ids == (digest(PLAIN),)


def test_several_images_and_nested_indexes(tmp_path: Path, paths: Paths) -> None:
    one, two = oci(), oci(OTHER)
    entry = json.loads(two["index.json"])["manifests"][0]
    entry["annotations"] = {}
    nested = json.dumps({"schemaVersion": 2, "mediaType": image_spec.INDEX, "manifests": [
        {**entry, "platform": {"os": "linux", "architecture": "amd64"}}]}).encode()  # fmt: skip
    index = json.loads(one["index.json"])
    index["manifests"].append(
        {"mediaType": image_spec.INDEX, "digest": digest(nested), "size": len(nested),
         "annotations": {image_spec.REF_NAME: "short"}}
    )  # fmt: skip
    members = {
        **two, **one, "index.json": json.dumps(index).encode(),
        f"blobs/sha256/{digest(nested)[7:]}": nested,
    }  # fmt: skip
    images = loaded(paths, archive(tmp_path, members))
    assert [image.names for image in images] == [("r.example/a:1",), ("localhost/short:latest",)]


def round_trip(paths: Paths, again: Paths, image: Image, form: str, path: str) -> Image:
    copyable = save.stored(paths, image)
    if form == "dir":
        save.directory(save.DirectoryTarget(path), copyable)
    elif form == "oci":
        save.oci_layout(save.DirectoryTarget(path), [(copyable, image.names)])
    else:
        write = save.docker_archive if form == "docker-archive" else save.oci_archive
        save.write_file(path, lambda fd: write(TarWriter(fd), [(copyable, image.names)]))
    return loaded(again, path)[0]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci", "dir"])
@pytest.mark.parametrize("origin", [docker(PLAIN, OTHER), oci()], ids=["docker", "oci"])
def test_what_is_saved_is_the_same_image_again(
    tmp_path: Path, paths: Paths, form: str, origin: dict[str, bytes]
) -> None:
    (image,) = loaded(paths, archive(tmp_path, origin))
    again = paths._replace(data=f"{tmp_path}/again")
    copy = round_trip(paths, again, image, form, f"{tmp_path}/out")
    assert copy.id == image.id
    assert copy.diff_ids == image.diff_ids
    assert copy.names == (() if form == "dir" else image.names)
    assert layout.read_blob(again, copy.id) == layout.read_blob(paths, image.id)


def test_an_image_that_is_here_is_not_stored_twice(tmp_path: Path, paths: Paths) -> None:
    (image,) = loaded(paths, archive(tmp_path, oci()))
    before = sorted(os.listdir(f"{paths.images}/blobs/sha256"))
    copyable, path = save.stored(paths, image), f"{tmp_path}/out"
    save.write_file(path, lambda fd: save.docker_archive(TarWriter(fd), [(copyable, ["a.b/c:d"])]))
    (again,) = loaded(paths, path)
    assert again.digest == image.digest
    assert set(again.names) == {*image.names, "a.b/c:d"}
    assert sorted(os.listdir(f"{paths.images}/blobs/sha256")) == before


@pytest.mark.parametrize("is_known", [True, False])
def test_archives_are_the_same_through_a_pipe(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    (image,) = loaded(paths, archive(tmp_path, oci()))
    copyable = save.stored(paths, image)
    if not is_known:
        # Unpacked before its size was kept.
        copyable = copyable._replace(plain_size=lambda _: 0)
    path = f"{tmp_path}/out.tar"
    save.write_file(path, lambda fd: save.docker_archive(TarWriter(fd), [(copyable, ["a/b:c"])]))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    inflated: list[str] = []
    plain = save.plain

    def counting(image: save.Copyable, layer: Descriptor, diff_id: str) -> Iterator[bytes]:
        inflated.append(diff_id)
        return plain(image, layer, diff_id)

    monkeypatch.setattr(save, "plain", counting)
    save.docker_archive(TarWriter(writer), [(copyable, ["a/b:c"])])
    os.close(writer)
    with open(reader, "rb") as pipe, open(path, "rb") as file:
        written = file.read()
        assert pipe.read() == written
    assert len(inflated) == len(image.diff_ids) * (1 if is_known else 2)
    names = tarfile.open(fileobj=io.BytesIO(written)).getnames()
    assert names[-1] == "manifest.json"


def test_nothing_half_written_stays(tmp_path: Path, paths: Paths) -> None:
    (image,) = loaded(paths, archive(tmp_path, oci()))
    blob = layout.blob_path(paths, save.stored(paths, image).original.manifest.layers[0].digest)
    with open(blob, "r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"xyz")
    copyable = save.stored(paths, image)
    with pytest.raises(ImageError, match="digest mismatch"):
        save.write_file(
            f"{tmp_path}/out.tar",
            lambda fd: save.oci_archive(TarWriter(fd), [(copyable, ["a/b:c"])]),
        )
    assert [name for name in os.listdir(tmp_path) if name.startswith("out")] == []
    os.mkdir(f"{tmp_path}/full")
    (tmp_path / "full/x").touch()
    with pytest.raises(Conflict):
        save.DirectoryTarget(f"{tmp_path}/full")


def test_another_layer_is_not_saved(tmp_path: Path, paths: Paths) -> None:
    """A blob of the right size that is valid gzip, but of something else."""
    (image,) = loaded(paths, archive(tmp_path, oci()))
    copyable = save.stored(paths, image)
    (layer,) = copyable.original.manifest.layers
    other = gzip.compress(OTHER, mtime=0)
    # A file name in the header makes it as long as the true one.
    name = b"n" * (layer.size - len(other) - 1) + b"\0"
    other = other[:3] + b"\x08" + other[4:10] + name + other[10:]
    with open(layout.blob_path(paths, layer.digest), "wb") as file:
        file.write(other)
    with pytest.raises(ImageError, match="diff ID mismatch"):
        save.write_file(
            f"{tmp_path}/out.tar",
            lambda fd: save.docker_archive(TarWriter(fd), [(copyable, ["a.b/c:d"])]),
        )
    assert not os.path.exists(f"{tmp_path}/out.tar")


def changed(members: dict[str, bytes], name: str, data: bytes | None) -> dict[str, bytes]:
    made = {key: value for key, value in members.items() if key != name}
    return made if data is None else {**made, name: data}


DOCKER, OCI = docker(PLAIN), oci()
BLOB = next(name for name in OCI if digest(OCI[name])[7:] in name and OCI[name][:2] == b"\x1f\x8b")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        pytest.param(changed(DOCKER, "0/layer.tar", None), "lacks", id="no layer"),
        pytest.param(changed(DOCKER, "0/layer.tar", OTHER), "mismatch", id="another layer"),
        pytest.param(changed(DOCKER, "config.json", b"{}"), "rootfs", id="config"),
        pytest.param(changed(DOCKER, "manifest.json", b"[1]"), "not a list", id="no images"),
        pytest.param(changed(DOCKER, "manifest.json", b"[" * 100000), "nested", id="deep"),
        pytest.param(changed(DOCKER, "manifest.json", b"[{}]"), "Config", id="no config"),
        pytest.param(
            changed(DOCKER, "manifest.json", DOCKER["manifest.json"].replace(b"0/l", b"../../0/x")),
            "lacks", id="upwards"),
        pytest.param(changed(OCI, BLOB, b"\x1f\x8bjunk"), "bytes instead of", id="another blob"),
        pytest.param(
            changed(OCI, BLOB, OCI[BLOB][:-8] + bytes(8)), "mismatch|gzip", id="changed blob"),
        pytest.param(changed(OCI, "oci-layout", None), "oci-layout", id="no layout"),
        pytest.param(changed(OCI, "index.json", b"{}"), "schemaVersion|manifest", id="index"),
        pytest.param({"readme": b"x"}, "holds no image", id="nothing"),
        pytest.param(
            changed(OCI, "index.json", OCI["index.json"].replace(b"sha256:", b"sha256:../")),
            "digest", id="digest as path"),
        pytest.param(changed(OCI, "index.json", bytes(5 << 20)), "bytes long", id="long document"),
    ],
)  # fmt: skip
def test_H_archives_that_lie_are_refused(
    tmp_path: Path, paths: Paths, members: dict[str, bytes], words: str
) -> None:
    refused(paths, archive(tmp_path, members), words)


def test_H_a_blob_that_is_missing(tmp_path: Path, paths: Paths) -> None:
    refused(paths, archive(tmp_path, changed(OCI, BLOB, None)), "has no blob", NotFound)


def test_H_a_file_twice(tmp_path: Path, paths: Paths) -> None:
    entries = [tm.file(name.encode(), data) for name, data in DOCKER.items()]
    path = tmp_path / "x.tar"
    path.write_bytes(tm.archive(*entries, tm.file(b"./manifest.json", b"[]")))
    refused(paths, str(path), "holds manifest.json twice")


def test_H_a_truncated_archive(tmp_path: Path, paths: Paths) -> None:
    path = archive(tmp_path, DOCKER)
    os.truncate(path, 3000)
    refused(paths, path, "truncated")


@pytest.mark.row("CVE-2025-11395", "members are read from the archive alone, never extracted")
def test_H_links_do_not_leave_the_archive(tmp_path: Path, paths: Paths) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(DOCKER["manifest.json"])
    for target in (str(secret), "../" * 20 + str(secret)):
        path = tmp_path / "x.tar"
        path.write_bytes(tm.archive(tm.symlink(b"manifest.json", target.encode())))
        refused(paths, str(path), "holds no image")
    directory = tmp_path / "layout"
    directory.mkdir()
    (directory / "manifest.json").symlink_to(secret)
    refused(paths, str(directory), "holds no image")


def test_H_links_in_a_circle(tmp_path: Path, paths: Paths) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tm.archive(tm.symlink(b"manifest.json", b"a"), tm.symlink(b"a", b"a")))
    refused(paths, str(path), "without end")


def test_H_a_fifo_in_a_layout_is_not_waited_for(tmp_path: Path, paths: Paths) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    refused(paths, str(tmp_path), "holds no image")


def test_H_memory_stays_flat(tmp_path: Path, paths: Paths) -> None:
    """A layer of 300 MiB in a gzipped archive: no process grows by 64 MiB."""
    path = tmp_path / "x.tar.gz"

    def make() -> None:
        layer = tm.archive(tm.file(b"zeros", bytes(300 << 20)))
        members = docker(layer, names=[])
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(tm.archive(*(tm.file(k.encode(), v) for k, v in members.items())))

    children.wait(children.fork(make))
    growth = children.wait(children.fork(lambda: growth_bytes(lambda: loaded(paths, str(path)))))
    assert isinstance(growth, int)
    assert growth < 64 << 20
    assert Store(paths).images()[0].size_bytes == 300 << 20
