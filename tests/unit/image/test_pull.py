"""Pulling through the whole pipeline, from registries that behave and registries that do not.

Everything is real but the registry: processes, user namespace (with a single id, which needs no
privilege), store.  What must hold after every failure: nothing is listed, nothing is left in tmp/.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import time
import traceback
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from unit.image import evilregistry
from unit.image import tarmaker as tm
from unit.image.evilregistry import Answer, Request, Running, descriptor, slowly

from rootlesspy.errors import Error, ImageError, NotFound, RegistryError, UsageError
from rootlesspy.image import layout, locks, platforms, pull, registry, transfer
from rootlesspy.image.progress import NoProgress
from rootlesspy.image.store import Image, Store
from rootlesspy.linux.userns import IdMapping, IdMaps
from rootlesspy.oci import image_spec
from rootlesspy.paths import Paths
from rootlesspy.report import Reporter
from rootlesspy.settings import Mirror, Registry, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NAME = "docker.io/library/app:latest"
BASE = tm.archive(tm.directory(b"etc"), tm.file(b"etc/base", b"base"), tm.file(b"gone"))
TOP = tm.archive(tm.file(b".wh.gone"), tm.file(b"etc/top", b"top" * 100000))
MAPS = IdMaps((IdMapping(0, os.getuid(), 1),), (IdMapping(0, os.getgid(), 1),))
HOST = platforms.host()


def zipped(plain: bytes) -> tuple[bytes, bytes]:
    return gzip.compress(plain, mtime=0), plain


class Recorder(NoProgress):
    """Keeps what a pull reports."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def start(self, id: str, label: str, total_bytes: int) -> None:
        self.events.append(("start", id, total_bytes))

    def advance(self, id: str, n_bytes: int) -> None:
        self.events.append(("advance", id, n_bytes))

    def finish(self, id: str) -> None:
        self.events.append(("finish", id))


class Bench:
    """A user with an empty store, whose docker.io is mirrored by the servers of the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.paths = Paths(data=str(directory / "data"), runtime=None, config=str(directory))
        self.stack = ExitStack()
        self.mirrors: list[str] = []
        self.progress = Recorder()

    def serve(self, script: Callable[[str], Callable[[Request], Answer]]) -> Running:
        log = self.directory / f"log{len(self.mirrors)}"
        server = self.stack.enter_context(evilregistry.serve(log, script))
        self.mirrors.append(server.host)
        return server

    def settings(self) -> Settings:
        mirrors = tuple(Mirror(host, True, "all") for host in self.mirrors[:-1])
        last = self.mirrors[-1] if self.mirrors else "127.0.0.1:1"
        return Settings(
            registries=(Registry("docker.io", last, True, False, mirrors),),
            aliases=(("short", "docker.io/library/app"),),
        )

    def ensure(
        self, text: str = "app", *, policy: str = "always", platform: str | None = None
    ) -> Image:
        return pull.ensure(
            text,
            paths=self.paths,
            settings=self.settings(),
            maps=MAPS,
            policy=policy,
            platform=platform,
            progress=self.progress,
            reporter=Reporter(quiet=True),
        )

    @property
    def store(self) -> Store:
        return Store(self.paths)

    def trees(self, image: Image) -> list[Path]:
        found = self.store.layers(image, MAPS)
        assert found is not None
        return [self.directory / path for path in found]

    def blobs(self) -> set[str]:
        directory = self.directory / "data/images/blobs/sha256"
        return set(os.listdir(directory)) if directory.exists() else set()

    def layer_names(self) -> set[str]:
        directory = self.directory / "data/layers/sha256"
        return set(os.listdir(directory)) if directory.exists() else set()

    def is_clean(self) -> bool:
        """Say whether the next command finds nothing half-made, or only what nobody owns."""
        locks.sweep(self.paths, MAPS)
        return os.listdir(self.paths.tmp) == []


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(registry.Client, "pause", lambda self, attempt: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Bench(tmp_path)
    with made.stack:
        yield made
    assert not os.path.exists(made.paths.tmp) or made.is_clean()


@pytest.fixture
def content() -> evilregistry.Store:
    made = evilregistry.Store()
    made.image("library/app", "latest", [zipped(BASE), zipped(TOP)], platform=HOST)
    return made


# --- what works ------------------------------------------------------------------------------


def test_an_image_of_two_layers(bench: Bench, content: evilregistry.Store) -> None:
    server = bench.serve(content.script)
    image = bench.ensure()
    assert image.names == (NAME,)
    assert image.platform == HOST
    assert image.size_bytes == 4 + 300000
    base, top = bench.trees(image)
    assert (base / "etc/base").read_bytes() == b"base"
    assert (top / "etc/top").read_bytes() == b"top" * 100000
    assert (top / "gone").is_char_device()
    assert bench.store.resolve("app") == image
    assert bench.store.images() == [image]
    paths = server.paths()
    assert len(paths) == len(set(paths)) == 4
    starts = [event[2] for event in bench.progress.events if event[0] == "start"]
    advanced = sum(int(str(e[2])) for e in bench.progress.events if e[0] == "advance")
    assert sum(int(str(size)) for size in starts) == advanced
    assert len([event for event in bench.progress.events if event[0] == "finish"]) == 2


@pytest.mark.row("I8", "0700 and 0600 everywhere")
def test_everything_is_private(bench: Bench, content: evilregistry.Store) -> None:
    bench.serve(content.script)
    old = os.umask(0)
    try:
        image = bench.ensure()
    finally:
        os.umask(old)
    trees = [str(tree) for tree in bench.trees(image)]
    for directory, _, names in os.walk(bench.paths.data):
        if directory.startswith(tuple(trees)):
            continue
        assert os.stat(directory).st_mode & 0o777 == 0o700, directory
        for name in names:
            assert os.stat(f"{directory}/{name}").st_mode & 0o777 == 0o600, name


@pytest.mark.parametrize("kind", ["zstd", "plain"])
def test_other_compressions(bench: Bench, kind: str) -> None:
    made = evilregistry.Store()
    blob = zstandard.compress(BASE) if kind == "zstd" else BASE
    made.image("library/app", "latest", [(blob, BASE)], platform=HOST)
    bench.serve(made.script)
    (tree,) = bench.trees(bench.ensure())
    assert (tree / "etc/base").exists()


def test_an_image_without_layers(bench: Bench) -> None:
    made = evilregistry.Store()
    made.image("library/app", "latest", [], platform=HOST)
    bench.serve(made.script)
    assert bench.trees(bench.ensure()) == []


def test_an_opaque_root_hides_the_layers_below(bench: Bench) -> None:
    made = evilregistry.Store()
    opaque = tm.archive(tm.file(b".wh..wh..opq"), tm.file(b"only"))
    made.image("library/app", "latest", [zipped(BASE), zipped(opaque), zipped(TOP)], platform=HOST)
    bench.serve(made.script)
    first, second = bench.trees(bench.ensure())
    assert (first / "only").exists()
    assert (second / "etc/top").exists()


def index_of(made: evilregistry.Store, *wanted: str) -> str:
    entries = []
    for platform in wanted:
        digest = made.image("library/app", platform, [zipped(BASE)], platform=platform)
        system, architecture = platform.split("/")
        entry = descriptor(
            image_spec.MANIFEST, digest, len(made.manifests[f"library/app:{digest}"][1])
        )
        entry["platform"] = {
            "os": system,
            "architecture": architecture,
        }
        entries.append(entry)
    document = {"schemaVersion": 2, "mediaType": image_spec.INDEX, "manifests": entries}
    return made.manifest("library/app", "latest", document, image_spec.INDEX)


def test_the_platform_of_this_machine_is_chosen(bench: Bench) -> None:
    made = evilregistry.Store()
    digest = index_of(made, "linux/s390x", HOST, "windows/amd64")
    bench.serve(made.script)
    image = bench.ensure()
    assert image.platform == HOST
    assert bench.ensure("app", platform="linux/s390x").platform == "linux/s390x"
    assert bench.ensure("app", policy="missing", platform=HOST).platform == HOST
    by_digest = bench.ensure(f"app@{digest}", policy="missing")
    assert by_digest.digest == image.digest
    with pytest.raises(NotFound, match="not made for linux/riscv64, only for linux/"):
        bench.ensure("app", platform="linux/riscv64")


def test_pull_by_digest(bench: Bench, content: evilregistry.Store) -> None:
    server = bench.serve(content.script)
    digest = f"sha256:{hashlib.sha256(content.manifests['library/app:latest'][1]).hexdigest()}"
    image = bench.ensure(f"app@{digest}")
    assert image.digest == digest
    assert image.names == (f"docker.io/library/app@{digest}",)
    count = len(server.paths())
    assert bench.ensure(f"app@{digest}", policy="missing") == image
    assert len(server.paths()) == count


def test_an_alias_finds_its_image_again(bench: Bench, content: evilregistry.Store) -> None:
    bench.serve(content.script)
    image = bench.ensure("short")
    assert image.names == (NAME,)
    assert bench.store.resolve("short").id == image.id


# --- policies --------------------------------------------------------------------------------


def test_policies(bench: Bench, content: evilregistry.Store) -> None:
    server = bench.serve(content.script)
    with pytest.raises(NotFound, match="--pull=never"):
        bench.ensure(policy="never")
    assert server.paths() == []
    image = bench.ensure(policy="missing")
    count = len(server.paths())
    assert bench.ensure(policy="missing") == image
    assert bench.ensure(policy="never") == image
    assert bench.ensure(image.id, policy="always") == image
    assert len(server.paths()) == count
    assert bench.ensure(policy="always") == image
    assert bench.ensure(policy="newer") == image
    # Two manifests, but no blob again.
    assert server.paths()[count:] == ["/v2/library/app/manifests/latest"] * 2


@pytest.mark.row("G7", "no request at all")
def test_G7_present_images_need_no_network(bench: Bench, content: evilregistry.Store) -> None:
    with bench.stack:
        bench.serve(content.script)
        image = bench.ensure()
    assert bench.ensure(policy="missing") == image
    assert bench.ensure(policy="newer") == image
    with pytest.raises(RegistryError, match="unreachable"):
        bench.ensure(policy="always")


@pytest.mark.row("G6", "the digest that was resolved first is what is pulled")
def test_a_tag_that_moves_leaves_the_old_image_nameless(
    bench: Bench, content: evilregistry.Store
) -> None:
    moved = evilregistry.Store()
    moved.image("library/app", "latest", [zipped(TOP)], platform=HOST)

    def script(host: str) -> Callable[[Request], Answer]:
        old, new = content.script(host), moved.script(host)
        state = {"manifests": 0}

        def answer(request: Request) -> Answer:
            state["manifests"] += "/manifests/" in request.path
            return (old if state["manifests"] == 1 else new)(request)

        return answer

    bench.serve(script)
    first, second = bench.ensure(), bench.ensure()
    assert first.id != second.id
    assert bench.store.resolve("app") == second
    nameless = next(image for image in bench.store.images() if image.id == first.id)
    assert nameless.names == ()
    assert bench.store.resolve(first.id[7:19]) == nameless


def test_layers_that_are_missing_come_from_their_blobs(
    bench: Bench, content: evilregistry.Store
) -> None:
    with bench.stack:
        bench.serve(content.script)
        image = bench.ensure()
    (bench.trees(image)[0].parent).rename(bench.directory / "lost")
    assert bench.store.layers(image, MAPS) is None
    assert bench.ensure(policy="missing") == image
    assert (bench.trees(image)[0] / "etc/base").exists()


# --- lies ------------------------------------------------------------------------------------


def nothing_happened(bench: Bench) -> None:
    assert bench.store.images() == []
    assert bench.layer_names() == set()
    assert bench.is_clean()


@pytest.mark.row("CVE-2024-24557", "every diff ID is verified")
def test_CVE_2024_24557_diff_ids_are_verified(bench: Bench) -> None:
    made = evilregistry.Store()
    blob, _ = zipped(BASE)
    made.image("library/app", "latest", [(blob, TOP)], platform=HOST)
    bench.serve(made.script)
    with pytest.raises(ImageError, match="diff ID mismatch"):
        bench.ensure()
    nothing_happened(bench)
    assert bench.blobs() == set()


@pytest.mark.row("CVE-2024-24557", "a layer is found by the digest of its content")
def test_CVE_2024_24557_layers_of_others_are_not_taken_on_trust(
    bench: Bench, content: evilregistry.Store
) -> None:
    """Blob and layer are here, each verified, but never together."""
    content.image("library/evil", "latest", [(zipped(BASE)[0], TOP)], platform=HOST)
    bench.serve(content.script)
    good = bench.ensure()
    with pytest.raises(ImageError, match="diff ID mismatch"):
        bench.ensure("evil")
    assert bench.store.images() == [good]


@pytest.mark.parametrize("diff_ids", [[], ["sha256:" + "0" * 64] * 3])
@pytest.mark.row("CVE-2024-24557", "refused")
def test_the_number_of_diff_ids_must_fit(bench: Bench, diff_ids: list[str]) -> None:
    made = evilregistry.Store()
    rootfs: dict[str, object] = {"rootfs": {"type": "layers", "diff_ids": diff_ids}}
    made.image("library/app", "latest", [zipped(BASE)], platform=HOST, config=rootfs)
    bench.serve(made.script)
    with pytest.raises(ImageError, match="differ in number"):
        bench.ensure()
    nothing_happened(bench)


class Liar:
    """A good registry whose blobs go through a function first."""

    def __init__(
        self, content: evilregistry.Store, lie: Callable[[Request, Answer], Answer]
    ) -> None:
        self.content = content
        self.lie = lie

    def script(self, host: str) -> Callable[[Request], Answer]:
        good = self.content.script(host)

        def answer(request: Request) -> Answer:
            truth = good(request)
            is_layer = "/blobs/" in request.path and b'"rootfs"' not in bytes(truth.body)  # type: ignore[arg-type]  # good registries answer with bytes
            return self.lie(request, truth) if is_layer else truth

        return answer


def data(answer: Answer) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


def other_layer(size: int) -> bytes:
    return zipped(BASE[:1024] + tm.END)[0].ljust(size, b"\0")[:size]


@pytest.mark.row("G2", "fetched once more")
@pytest.mark.row("lies on content", "fetched once more, then 125")
def test_G2_wrong_bytes_are_refetched_once(bench: Bench, content: evilregistry.Store) -> None:
    def lie(request: Request, truth: Answer) -> Answer:
        return truth if request.number else truth._replace(body=data(truth)[::-1])

    server = bench.serve(Liar(content, lie).script)
    bench.ensure()
    assert len(server.paths()) == 6


@pytest.mark.row("I7", "nothing is stored under a digest that it has not")
@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda r, t: t._replace(body=data(t)[::-1]), id="other bytes"),
        pytest.param(lambda r, t: t._replace(body=other_layer(len(data(t)))), id="other layer"),
        pytest.param(lambda r, t: t._replace(body=data(t)[:-1] + b"x"), id="last byte"),
    ],
)  # fmt: skip
@pytest.mark.row("G2", "125, nothing is stored")
@pytest.mark.row("lies on content", "125, nothing is stored")
def test_G2_digest_mismatch(bench: Bench, content: evilregistry.Store, lie: Any) -> None:
    bench.serve(Liar(content, lie).script)
    with pytest.raises(ImageError, match="digest mismatch"):
        bench.ensure()
    nothing_happened(bench)
    assert bench.blobs() == set()


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda r, t: t._replace(body=data(t) + b"tail"), id="longer"),
        pytest.param(lambda r, t: t._replace(body=data(t)[:-9]), id="shorter"),
        pytest.param(lambda r, t: Answer(200, evilregistry.endless()), id="endless"),
        pytest.param(lambda r, t: Answer(404), id="gone"),
        pytest.param(lambda r, t: Answer(403), id="forbidden"),
        pytest.param(lambda r, t: Answer(200, raw=b"rubbish"), id="no HTTP"),
    ],
)
@pytest.mark.row("G6", "125, nothing is listed")
def test_registries_that_fail_in_the_middle(
    bench: Bench, content: evilregistry.Store, lie: Any
) -> None:
    bench.serve(Liar(content, lie).script)
    with pytest.raises((RegistryError, NotFound)):
        bench.ensure()
    nothing_happened(bench)


@pytest.mark.row("G1", "resumed where it broke")
def test_G1_broken_transfers_are_resumed(bench: Bench, content: evilregistry.Store) -> None:
    def lie(request: Request, truth: Answer) -> Answer:
        whole = data(truth)
        length = (*truth.headers, ("Content-Length", str(len(whole))))
        cut = truth._replace(body=whole[: max(len(whole) // 3, 1)], headers=length, drop=True)
        return cut if request.number < 3 else truth

    server = bench.serve(Liar(content, lie).script)
    bench.ensure()
    ranges = [r.headers["range"] for r in server.requests() if "range" in r.headers]
    assert len(ranges) >= 3
    assert len(set(ranges)) == len(ranges)


@pytest.mark.row("G1", "begun again")
def test_G1_resuming_where_there_are_no_ranges(bench: Bench, content: evilregistry.Store) -> None:
    layers = {zipped(BASE)[0], zipped(TOP)[0]}

    def lie(request: Request, truth: Answer) -> Answer:
        digest = request.path.rpartition("/")[2]
        whole = next(b for b in layers if digest.endswith(hashlib.sha256(b).hexdigest()))
        length = (("Content-Length", str(len(whole))),)
        if request.number < 2:
            return Answer(200, whole[:50], length, drop=True)
        return Answer(200, whole)

    bench.serve(Liar(content, lie).script)
    bench.ensure()


def test_hostile_layers_leave_nothing(bench: Bench) -> None:
    made = evilregistry.Store()
    evil = tm.archive(tm.file(b"good", b"x" * 100000), tm.symlink(b"/", b"/"))
    made.image("library/app", "latest", [zipped(BASE), zipped(evil)], platform=HOST)
    bench.serve(made.script)
    with pytest.raises(ImageError, match="replace the root directory"):
        bench.ensure()
    assert bench.store.images() == []
    assert bench.is_clean()


def test_a_gzip_stream_that_breaks_off(bench: Bench) -> None:
    made = evilregistry.Store()
    made.image("library/app", "latest", [(zipped(TOP)[0][:-20], TOP)], platform=HOST)
    bench.serve(made.script)
    with pytest.raises(ImageError, match="truncated"):
        bench.ensure()
    nothing_happened(bench)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"manifests": []}, "an image and an index at once"),
        ({"mediaType": image_spec.INDEX}, "was sent as"),
        ({"schemaVersion": 1}, "schemaVersion"),
        ({"layers": None}, "layers is not a list"),
        ({"config": None}, "config is not an object"),
    ],
)
@pytest.mark.row("CVE-2021-41190", "refused")
def test_CVE_2021_41190_manifests(bench: Bench, changes: dict[str, object], words: str) -> None:
    made = evilregistry.Store()
    made.image("library/app", "latest", [zipped(BASE)], platform=HOST, changes=changes)
    bench.serve(made.script)
    with pytest.raises(ImageError, match=words):
        bench.ensure()
    nothing_happened(bench)


@pytest.mark.row("G4", "refused by its media type")
def test_html_is_no_manifest(bench: Bench) -> None:
    page = Answer(200, b"<html>log in", (("Content-Type", "text/html"),))
    bench.serve(lambda host: lambda request: page)
    with pytest.raises(ImageError, match="JSON"):
        bench.ensure()


@pytest.mark.row("lies on content", "125, nothing is stored")
def test_an_index_that_lies_about_its_manifest(bench: Bench) -> None:
    made = evilregistry.Store()
    digest = made.image("library/app", "x", [zipped(BASE)], platform=HOST)
    entry = descriptor(image_spec.MANIFEST, digest, 7)
    document = {"schemaVersion": 2, "mediaType": image_spec.INDEX, "manifests": [entry]}
    made.manifest("library/app", "latest", document, image_spec.INDEX)
    bench.serve(made.script)
    with pytest.raises(ImageError, match="describes another manifest"):
        bench.ensure()


@pytest.mark.row("CVE-2024-24557", "refused")
def test_a_config_with_another_digest(bench: Bench, content: evilregistry.Store) -> None:
    config = json.loads(content.manifests["library/app:latest"][1])["config"]["digest"]
    content.blobs[config] = content.blobs[config].replace(b"sh", b"rm")
    bench.serve(content.script)
    with pytest.raises(ImageError, match=r"configuration .*digest mismatch"):
        bench.ensure()
    nothing_happened(bench)


@pytest.mark.row("T5", "written again")
def test_T5_documents_that_a_crash_left_empty_are_written_again(
    bench: Bench, content: evilregistry.Store
) -> None:
    bench.serve(content.script)
    layout.prepare(bench.paths)
    manifest = hashlib.sha256(content.manifests["library/app:latest"][1]).hexdigest()
    config = json.loads(content.manifests["library/app:latest"][1])["config"]["digest"]
    for digest in (f"sha256:{manifest}", config):
        with open(layout.blob_path(bench.paths, digest), "wb"):
            pass
    assert bench.store.resolve(bench.ensure().id).names == (NAME,)


# --- mirrors ---------------------------------------------------------------------------------


def test_mirrors_are_asked_in_order(bench: Bench, content: evilregistry.Store) -> None:
    empty = bench.serve(evilregistry.Store().script)
    good = bench.serve(content.script)
    bench.ensure()
    assert empty.paths() == ["/v2/library/app/manifests/latest"]
    assert len(good.paths()) == 4


def test_a_mirror_without_the_blobs(bench: Bench, content: evilregistry.Store) -> None:
    half = evilregistry.Store()
    half.manifests = content.manifests
    bench.serve(half.script)
    bench.serve(content.script)
    bench.ensure()


def test_an_image_that_is_nowhere(bench: Bench) -> None:
    bench.serve(evilregistry.Store().script)
    bench.serve(evilregistry.Store().script)
    with pytest.raises(NotFound, match="no image app:latest in 127") as caught:
        bench.ensure()
    assert all(host in caught.value.message for host in bench.mirrors)


@pytest.mark.row("image names", "one line, 125")
def test_odd_names_are_usage_errors(bench: Bench) -> None:
    for text in ("../x", "App", "a:b:c", "-v", ""):
        with pytest.raises(UsageError):
            bench.ensure(text)


# --- several at once, and sudden ends --------------------------------------------------------


def in_child(function: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def child_pids() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(file.read().split())


def slow_blobs(content: evilregistry.Store, pause_s: float) -> Callable[[str], Any]:
    def lie(request: Request, truth: Answer) -> Answer:
        time.sleep(pause_s)
        return truth

    return Liar(content, lie).script


@pytest.mark.row("C2", "each blob is fetched once")
def test_C2_twenty_pulls_fetch_each_blob_once(bench: Bench, content: evilregistry.Store) -> None:
    server = bench.serve(slow_blobs(content, 0.3))
    pids = [in_child(bench.ensure) for _ in range(20)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 20
    layers = {f"/v2/library/app/blobs/{digest}" for digest in content.blobs}
    fetched = [path for path in server.paths() if path in layers]
    config = json.loads(content.manifests["library/app:latest"][1])["config"]["digest"]
    assert sorted({p for p in fetched if config not in p}) == sorted(
        p for p in fetched if config not in p
    )
    assert len(bench.store.images()) == 1
    assert bench.is_clean()


@pytest.mark.row("P1", "another one takes over")
@pytest.mark.row("C2", "another one takes over")
def test_P1_a_killed_leader_lets_another_take_over(
    bench: Bench, content: evilregistry.Store
) -> None:
    server = bench.serve(slow_blobs(content, 0.7))
    leader = in_child(bench.ensure)
    while not any("/blobs/" in path for path in server.paths()):
        time.sleep(0.02)
    follower = in_child(bench.ensure)
    time.sleep(0.2)
    os.kill(leader, signal.SIGKILL)
    os.waitpid(leader, 0)
    assert os.waitstatus_to_exitcode(os.waitpid(follower, 0)[1]) == 0
    bench.ensure(policy="missing")
    assert bench.is_clean()


@pytest.mark.row("P2", "nothing is listed, the next pull works")
@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.3, 0.5, 0.8])
def test_P1_P2_killed_pulls_list_nothing_and_the_next_works(
    bench: Bench, content: evilregistry.Store, after_s: float
) -> None:
    def lie(request: Request, truth: Answer) -> Answer:
        pieces = [data(truth)[i : i + 50] for i in range(0, len(data(truth)), 50)]
        return Answer(200, (p for piece in pieces for p in _pause(piece)))

    bench.serve(Liar(content, lie).script)
    pid = in_child(bench.ensure)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for image in bench.store.images():
        assert bench.store.layers(image, MAPS) is not None
    found = bench.ensure(policy="missing")
    assert len(bench.trees(found)) == 2


def _pause(piece: bytes) -> Iterator[bytes]:
    time.sleep(0.03)
    yield piece


@pytest.mark.row("X1", "all its processes end")
def test_ctrl_c_ends_all_processes(
    bench: Bench, content: evilregistry.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.serve(
        lambda host: Liar(content, lambda r, t: Answer(200, slowly(data(t), 5))).script(host)
    )

    class Interrupting(NoProgress):
        def phase(self, id: str, text: str) -> None:
            raise KeyboardInterrupt

    bench.progress = Interrupting()  # type: ignore[assignment]  # another display
    # The registry, and what earlier tests may have left.
    before = child_pids()
    with pytest.raises(KeyboardInterrupt):
        bench.ensure()
    assert bench.is_clean()
    assert child_pids() <= before


@pytest.mark.row("C4", "the one that is waited for is named")
def test_C4_waiting_for_a_holder_is_told(
    bench: Bench, content: evilregistry.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_NOTICE_AFTER_S", 0.2)
    bench.serve(content.script)
    layout.prepare(bench.paths)
    digest = next(d for d, blob in content.blobs.items() if blob == zipped(BASE)[0])
    notices: list[str] = []
    lock = locks.lock_blob(bench.paths, digest, lambda pid: None)

    class Listening(Reporter):
        def notice(self, text: str) -> None:
            notices.append(text)
            lock.release()

    pull.ensure(
        "app", paths=bench.paths, settings=bench.settings(), maps=MAPS, policy="always",
        platform=None, progress=NoProgress(), reporter=Listening(quiet=True),
    )  # fmt: skip
    assert notices == [f"layer {digest[7:19]}: waiting for process {os.getpid()}"]


@pytest.mark.row("R1", "one line, 125")
def test_full_disk(
    bench: Bench, content: evilregistry.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer, "write_all", full)
    bench.serve(content.script)
    with pytest.raises(Error, match=r"no space in .*: need \d+ MiB, have \d+ MiB"):
        bench.ensure()
    nothing_happened(bench)
