"""The writer of the store: layers and images from here, without a registry."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import signal
from typing import TYPE_CHECKING

import pytest
import zstandard
from unit.image import tarmaker as tm

from rootlesspy.errors import Error, ImageError
from rootlesspy.image import children, layout, writer
from rootlesspy.image.removal import collect
from rootlesspy.image.store import Store
from rootlesspy.image.writer import Writer
from rootlesspy.linux.userns import IdMapping, IdMaps
from rootlesspy.paths import Paths
from rootlesspy.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAPS = IdMaps((IdMapping(0, os.getuid(), 1),), (IdMapping(0, os.getgid(), 1),))
PLAIN = tm.archive(tm.directory(b"etc"), tm.file(b"etc/f", b"content" * 1000))
DIFF_ID = f"sha256:{hashlib.sha256(PLAIN).hexdigest()}"
CONFIG: dict[str, object] = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}}
NAME = "localhost/made:latest"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(f"{tmp_path}/data", None, f"{tmp_path}/config")


def layer_of(data: bytes, paths: Paths) -> tuple[str, str, str]:
    fd = os.memfd_create("layer")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    with Writer(paths, MAPS, Reporter(quiet=True)) as work:
        made = work.add_layer(fd)
    os.close(fd)
    return made.descriptor.media_type, made.descriptor.digest, made.diff_id


@pytest.mark.parametrize(
    ("compress", "suffix", "kept"),
    [
        pytest.param(lambda data: data, "", True, id="plain"),
        pytest.param(lambda data: gzip.compress(data, mtime=0), "+gzip", True, id="gzip"),
        pytest.param(zstandard.ZstdCompressor().compress, "+zstd", True, id="zstd"),
        pytest.param(lzma.compress, "", False, id="xz"),
        pytest.param(bz2.compress, "", False, id="bzip2"),
        pytest.param(lambda d: lzma.compress(d[:99]) + bytes(4) + lzma.compress(d[99:]), "", False,
                     id="xz streams"),
    ],
)  # fmt: skip
def test_layers_in_every_compression(
    paths: Paths, compress: Callable[[bytes], bytes], suffix: str, kept: bool
) -> None:
    data = compress(PLAIN)
    media_type, digest, diff_id = layer_of(data, paths)
    assert media_type == f"application/vnd.oci.image.layer.v1.tar{suffix}"
    assert diff_id == DIFF_ID
    stored = data if kept else PLAIN
    assert digest == f"sha256:{hashlib.sha256(stored).hexdigest()}"
    with open(layout.blob_path(paths, digest), "rb") as file:
        assert file.read() == stored
    with open(f"{layout.layer_directory(paths, DIFF_ID, '')}/diff/etc/f", "rb") as file:
        assert file.read() == b"content" * 1000
    assert os.listdir(paths.tmp) == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lzma.compress(PLAIN)[:-20], id="xz cut"),
        pytest.param(bz2.compress(PLAIN)[:-5], id="bzip2 cut"),
        pytest.param(lzma.compress(PLAIN) + b"x" * 600, id="xz and more"),
        pytest.param(gzip.compress(PLAIN)[:-9], id="gzip cut"),
        pytest.param(b"no tar at all" * 100, id="no tar"),
    ],
)
def test_bad_layers_leave_nothing_listed_and_nothing_half_made(paths: Paths, data: bytes) -> None:
    with pytest.raises(ImageError):
        layer_of(data, paths)
    assert os.listdir(paths.tmp) == []
    assert Store(paths).images() == []
    collect(paths, tuple)
    assert os.listdir(f"{paths.images}/blobs/sha256") == []
    assert (
        not any(os.scandir(f"{paths.layers}/sha256"))
        if os.path.isdir(f"{paths.layers}/sha256")
        else True
    )


def made(paths: Paths, *names: str) -> str:
    fd = os.memfd_create("layer")
    os.write(fd, PLAIN)
    os.lseek(fd, 0, os.SEEK_SET)
    with Writer(paths, MAPS, Reporter(quiet=True)) as work:
        image = work.add_image(CONFIG, [work.add_layer(fd)], names)
    os.close(fd)
    return image.id


def test_an_image_of_a_layer(paths: Paths) -> None:
    image_id = made(paths, NAME, "localhost/other:1")
    image = Store(paths).resolve(NAME)
    assert image.id == image_id
    assert image.names == (NAME, "localhost/other:1")
    assert image.diff_ids == (DIFF_ID,)
    assert image.size_bytes == 7000
    assert Store(paths).layers(image, MAPS) is not None
    with open(layout.blob_path(paths, image.digest), "rb") as file:
        assert json.load(file)["layers"][0]["digest"] == DIFF_ID


def test_a_nameless_image_and_then_a_name(paths: Paths) -> None:
    image_id = made(paths)
    assert [image.names for image in Store(paths).images()] == [()]
    assert made(paths, NAME) == image_id
    assert [image.names for image in Store(paths).images()] == [(NAME,)]


def test_one_image_of_two_manifests_is_not_listed_twice(paths: Paths) -> None:
    """A pulled image, then the same one loaded: the name moves, and nothing nameless stays."""
    fd = os.memfd_create("layer")
    os.write(fd, PLAIN)
    os.lseek(fd, 0, os.SEEK_SET)
    with Writer(paths, MAPS, Reporter(quiet=True)) as work:
        layer = work.add_layer(fd)
        oci = work.add_image(CONFIG, [layer], [NAME])
        docker = work.add_image(CONFIG, [layer], [NAME], docker=True)
    os.close(fd)
    assert oci.id == docker.id
    assert oci.digest != docker.digest
    assert [image.digest for image in Store(paths).images()] == [docker.digest]


def test_a_document_with_another_digest_is_refused(paths: Paths) -> None:
    with Writer(paths, MAPS, Reporter(quiet=True)) as work, pytest.raises(ImageError):
        work.put_document(DIFF_ID, b"something else")


def test_a_full_disk_is_told_with_its_cure(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "write_all", full)
    with pytest.raises(Error, match="no space in"):
        layer_of(PLAIN, paths)
    assert os.listdir(paths.tmp) == []


@pytest.mark.parametrize("step", ["add_layer", "put_document", "sync"])
def test_P1_a_killed_writer_leaves_a_store_that_works(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real = getattr(Writer, step)

    def then_die(self: Writer, *arguments: object) -> object:
        real(self, *arguments)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    with monkeypatch.context() as patched:
        patched.setattr(Writer, step, then_die)
        child = children.fork(lambda: made(paths, NAME))
        with pytest.raises(Error, match="ended with status -9"):
            children.wait(child)
    assert Store(paths).images() == []
    collect(paths, tuple)
    assert os.listdir(f"{paths.images}/blobs/sha256") == []
    made(paths, NAME)
    assert Store(paths).layers(Store(paths).resolve(NAME), MAPS) is not None
    assert os.listdir(paths.tmp) == []
