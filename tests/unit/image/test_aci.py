"""App Container Images: what their manifests become, what is refused, and the layer's bytes."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.image import tarmaker as tm
from unit.image.test_store import MAPS

from rootlesspy.errors import Error, ImageError
from rootlesspy.image import aci, aci_isolators, aci_manifest, files, layout, tar
from rootlesspy.image.store import Image, Store
from rootlesspy.image.stream import Stream
from rootlesspy.image.writer import Writer
from rootlesspy.paths import Paths
from rootlesspy.report import Reporter

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN: dict[str, Any] = {
    "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/worker",
}  # fmt: skip
APP: dict[str, Any] = {"exec": ["/bin/worker", "-q"], "user": "100", "group": "300"}
ROOT = tm.header(b"rootfs/", b"5", mode=0o755)


def manifest(**members: Any) -> bytes:
    return json.dumps({**PLAIN, **members}).encode()


def app(**members: Any) -> bytes:
    return manifest(app={**APP, **members})


def archive(data: bytes = b"", *entries: bytes) -> bytes:
    parts = (tm.file(b"manifest", data or app()), ROOT, *entries)
    return b"".join(parts) + tm.END


class Loader:
    """Loads archives into a store."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.paths = Paths(data=str(base / "data"), runtime=None, config=str(base))

    def load(self, data: bytes) -> Image:
        path = self.base / "app.aci"
        path.write_bytes(data)
        with (
            Writer(self.paths, MAPS, Reporter(debug=False)) as writer,
            files.Opened(self.paths, str(path)) as opened,
        ):
            found = aci.manifest_of(opened.files)
            assert found is not None
            return aci.load(writer, self.paths, opened.files, found, Reporter(debug=False))

    def layer(self, image: Image) -> list[tar.Entry]:
        """Return the entries of an image's only layer."""
        fd = os.open(layout.blob_path(self.paths, image.diff_ids[0]), os.O_RDONLY)
        try:
            reader = tar.TarReader(Stream(fd))
            found = []
            while (entry := reader.next()) is not None:
                found.append(entry)
            return found
        finally:
            os.close(fd)


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    return Loader(tmp_path)


# --- manifests -------------------------------------------------------------------------------


def test_all_that_an_app_says() -> None:
    found = aci_manifest.parse(
        manifest(
            labels=[
                {"name": "version", "value": "1.0.0+git"}, {"name": "os", "value": "linux"},
                {"name": "arch", "value": "aarch64"}, {"name": "env", "value": "canary"},
            ],
            annotations=[
                {"name": "created", "value": "2014-10-27T19:32:27Z"},
                {"name": "authors", "value": "Carly"}, {"name": "x", "value": "y"},
            ],
            app={
                **APP,
                "workingDirectory": "/opt/work",
                "environment": [{"name": "DEBUG", "value": "a b"}],
                "ports": [{"name": "ftp", "port": 20, "count": 2, "protocol": "tcp"}],
                "mountPoints": [{"name": "work", "path": "/var/lib/work"}],
                "userLabels": {"team": "net"},
            },
        )
    )  # fmt: skip
    assert found.name == "example.com/worker:1.0.0-git"
    assert found.platform == "linux/arm64"
    assert (found.user, found.group) == ("100", "300")
    assert (found.created, found.author) == ("2014-10-27T19:32:27Z", "Carly")
    labels = found.config.pop("Labels")
    assert found.config == {
        "Entrypoint": ["/bin/worker", "-q"], "WorkingDir": "/opt/work",
        "Env": ["AC_APP_NAME=example.com/worker", "DEBUG=a b"],
        "ExposedPorts": {"20/tcp": {}, "21/tcp": {}}, "Volumes": {"/var/lib/work": {}},
    }  # fmt: skip
    assert labels["io.appc.name"] == "example.com/worker"
    assert labels["io.appc.label.env"] == "canary"
    assert labels["io.appc.label.team"] == "net"
    assert labels["io.appc.annotation.x"] == "y"
    assert labels["org.opencontainers.image.version"] == "1.0.0+git"
    assert found.notices == ()


def test_nothing_is_left_out_silently() -> None:
    found = aci_manifest.parse(
        app(
            eventHandlers=[{"name": "pre-start", "exec": ["/pre", "-x"]}],
            mountPoints=[{"name": "w", "path": "/w", "readOnly": True}],
            ports=[{"name": "h", "port": 80, "protocol": "tcp", "socketActivated": True}],
            supplementaryGIDs=[5, 6],
            isolators=[
                {"name": "resource/cpu", "value": {"limit": "500m"}},
                {"name": "resource/memory", "value": {"limit": "1Gi", "request": "1K"}},
                {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_KILL"]}},
                {"name": "os/linux/seccomp-remove-set", "value": {"set": ["reboot"]}},
                {"name": "resource/block-iops", "value": {"default": True, "limit": "1"}},
            ],
            surprise=1,
        )
    )
    told = "\n".join(found.notices)
    for words in (
        "pre-start is not run: /pre -x", "-v SOURCE:/w:ro", "port h wants socket activation",
        "--group-add=5 --group-add=6", "surprise is not known",
        "--cpus=0.5 --memory=1073741824 --memory-reservation=1000 --cap-drop=all --cap-add=CAP_K",
        "os/linux/seccomp-remove-set is not applied", "resource/block-iops is not applied",
    ):  # fmt: skip
        assert words in told, words
    assert json.loads(found.config["Labels"]["io.appc.isolator.resource/cpu"]) == {"limit": "500m"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "JSON"), (b"[]", "object"), (b'{"acKind":"a","acKind":"b"}', "twice"),
        (manifest(acKind="PodManifest"), "acKind"), (manifest(acVersion="new"), "acVersion"),
        (manifest(acVersion=None), "acVersion"), (manifest(name="Upper"), "name"),
        (manifest(name="a//b"), "name"), (manifest(name=1), "name"),
        (manifest(labels={"a": "b"}), "labels is not a list"),
        (manifest(labels=[{"name": "a", "value": "1"}] * 2), "twice"),
        (manifest(labels=[{"name": "name", "value": "1"}]), "cannot be called"),
        (manifest(labels=[{"name": "a", "value": 1}]), "no text"),
        (manifest(labels=[{"name": "os", "value": "freebsd"}]), "freebsd"),
        (manifest(labels=[{"name": "arch", "value": "vax"}]), "vax"),
        (manifest(annotations=[{"name": "created", "value": "today"}]), "not a time"),
        (manifest(dependencies=[{"imageName": "example.com/base"}]), "example.com/base"),
        (manifest(dependencies=[{}]), "imageName"),
        (manifest(pathWhitelist=["etc"]), "pathWhitelist"),
        (manifest(pathWhitelist=["/a/../b"]), "pathWhitelist"),
        (manifest(app=[]), "object"), (app(exec=[]), "exec"), (app(exec=["bin"]), "exec"),
        (app(exec="/bin/sh"), "exec"), (app(user=""), "user"), (app(group=None), "group"),
        (app(user=0), "user"), (app(workingDirectory="x"), "workingDirectory"),
        (app(environment=[{"name": "a-b", "value": ""}]), "environment"),
        (app(environment=[{"name": "a", "value": ""}] * 2), "twice"),
        (app(ports=[{"name": "p", "port": 0, "protocol": "tcp"}]), "port"),
        (app(ports=[{"name": "p", "port": True, "protocol": "tcp"}]), "port"),
        (app(ports=[{"name": "p", "port": 65535, "count": 2, "protocol": "tcp"}]), "port"),
        (app(ports=[{"name": "p", "port": 1, "protocol": "ipx"}]), "ipx"),
        (app(ports=[{"name": "p", "port": 1, "protocol": "tcp"}] * 2), "twice"),
        (app(mountPoints=[{"name": "w", "path": "w"}]), "path"),
        (app(mountPoints=[{"name": "w", "path": "/w", "readOnly": 1}]), "readOnly"),
        (app(eventHandlers=[{"name": "boot", "exec": ["/x"]}]), "boot"),
        (app(eventHandlers=[{"name": "pre-start", "exec": []}]), "no command"),
        (app(isolators=[{"name": "a"}]), "no value"),
        (app(isolators=[{"name": "resource/cpu", "value": {"limit": "much"}}]), "amount"),
        (app(isolators=[{"name": "resource/cpu", "value": 1}]), "amount"),
        (app(isolators=[{"name": "os/linux/capabilities-retain-set", "value": {"set": ["x"]}}]),
         "capabilities"),
        (app(isolators=[{"name": "os/linux/capabilities-retain-set", "value": {"set": []}}]),
         "set"),
        (app(isolators=[
            {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_KILL"]}},
            {"name": "os/linux/capabilities-remove-set", "value": {"set": ["CAP_KILL"]}},
        ]), "exclude"),
        (app(supplementaryGIDs=["a"]), "supplementaryGIDs"),
    ],
)  # fmt: skip
def test_malformed_manifests(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        aci_manifest.parse(data)
    assert "\n" not in caught.value.message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
_MEMBERS = st.dictionaries(
    st.sampled_from([*APP, "isolators", "ports", "mountPoints", "eventHandlers", "environment"]),
    _JSON | st.lists(st.fixed_dictionaries({"name": _JSON, "value": _JSON}), max_size=2),
)


@given(_MEMBERS, st.dictionaries(st.sampled_from(sorted(PLAIN)), _JSON))
def test_no_other_error_escapes(members: dict[str, Any], top: dict[str, Any]) -> None:
    try:
        data = json.dumps({**PLAIN, "app": {**APP, **members}, **top}).encode()
        aci_manifest.parse(data)
    except Error:
        return


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1", 1), ("0.5", 0.5), ("250m", 0.25), ("2K", 2000), ("2Ki", 2048), ("1.5G", 1.5e9),
     ("1Ei", 2**60)],
)  # fmt: skip
def test_amounts(text: str, amount: float) -> None:
    [told] = aci_isolators.notices([("resource/memory", {"limit": text})])
    assert told.endswith(f"--memory={int(amount)}")
    for bad in (text + "x", "-" + text, text + " ", "", "m", "Ki", "1e5", "٣"):
        with pytest.raises(ValueError, match="amount"):
            aci_isolators.notices([("resource/memory", {"limit": bad})])


# --- archives --------------------------------------------------------------------------------

TREE = (
    tm.directory(b"./rootfs/bin"),
    tm.file(b"rootfs/bin/worker", b"elf" * 1000, mode=0o4755, uid=7, gid=8),
    tm.hard_link(b"rootfs/bin/again", b"rootfs/bin/worker"),
    tm.symlink(b"rootfs/link", b"/bin/worker"),
)


def test_the_root_of_the_layer_is_rootfs(loader: Loader) -> None:
    image = loader.load(archive(b"", *TREE))
    assert image.names == ("example.com/worker:latest",)
    entries = loader.layer(image)
    assert [(each.name, each.kind, each.link) for each in entries] == [
        (b"./", b"5", b""), (b"bin/", b"5", b""), (b"bin/worker", b"0", b""),
        (b"bin/again", b"1", b"bin/worker"), (b"link", b"2", b"/bin/worker"),
    ]  # fmt: skip
    worker = entries[2]
    assert (worker.mode, worker.uid, worker.gid, worker.size) == (0o4755, 7, 8, 3000)
    assert worker.mtime_ns == 1700000000 * 10**9


def test_the_same_archive_is_the_same_image_however_it_is_compressed(loader: Loader) -> None:
    data = archive(b"", *TREE)
    ids = {
        loader.load(each(data)).id
        for each in (bytes, gzip.compress, bz2.compress, lzma.compress, gzip.compress)
    }
    assert len(ids) == 1
    assert len(Store(loader.paths).images()) == 1


def test_users_by_the_owner_of_a_file(loader: Loader) -> None:
    image = loader.load(archive(app(user="/bin/worker", group="/bin/worker"), *TREE))
    assert image.config["config"]["User"] == "7:8"


def test_only_what_the_whitelist_names(loader: Loader) -> None:
    data = manifest(app=APP, pathWhitelist=["/bin/worker"])
    names = [each.name for each in loader.layer(loader.load(archive(data, *TREE)))]
    assert names == [b"./", b"bin/", b"bin/worker"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: archive(b"", tm.file(b"other", b"x")), "neither manifest nor in rootfs"),
        (lambda: archive(b"", tm.file(b"rootfs/../x", b"x")), "not a path"),
        (lambda: archive(b"", tm.file(b"/rootfs/x", b"x")), "not a path"),
        (lambda: archive(b"", ROOT), "twice"),
        (lambda: archive(b"", tm.file(b"rootfs/.wh.x", b"")), "would remove"),
        (lambda: archive(b"", tm.hard_link(b"rootfs/x", b"manifest")), "leads out"),
        (lambda: archive(b"", tm.hard_link(b"rootfs/x", b"rootfs/y")), "before"),
        (lambda: tm.file(b"manifest", app()) + tm.END, "no rootfs"),
        (lambda: tm.file(b"manifest", app()) + tm.file(b"rootfs", b"x") + tm.END, "directory"),
        (lambda: archive(app(user="/nosuch"), *TREE), "/nosuch"),
        (lambda: archive(app(user="a:b"), *TREE), "one name"),
        (lambda: archive(b"{}", *TREE), "acKind"),
    ],
)  # fmt: skip
def test_nothing_is_stored_of_a_bad_archive(
    loader: Loader, make: Callable[[], bytes], words: str
) -> None:
    with pytest.raises(ImageError, match=words):
        loader.load(make())
    assert Store(loader.paths).images() == []
    assert os.listdir(f"{loader.paths.images}/blobs/sha256") == []
    assert os.listdir(loader.paths.tmp) == []


def test_a_sparse_file_is_written_out(loader: Loader) -> None:
    sparse = tm.pax(
        (b"GNU.sparse.map", b"512,512"), (b"GNU.sparse.size", b"4096"),
        (b"GNU.sparse.name", b"rootfs/holes"),
    ) + tm.file(b"rootfs/x", b"d" * 512)  # fmt: skip
    image = loader.load(archive(b"", sparse))
    entry = loader.layer(image)[1]
    assert (entry.name, entry.size) == (b"holes", 4096)
    content = Path(layout.blob_path(loader.paths, image.diff_ids[0])).read_bytes()
    assert hashlib.sha256(content).hexdigest() == image.diff_ids[0][7:]
    assert bytes(512) + b"d" * 512 + bytes(3072) in content
