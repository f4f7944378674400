"""Pushing to a registry that keeps what it is sent, and to ones that do not behave."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from unit.image import evilregistry
from unit.image import tarmaker as tm
from unit.image.evilregistry import Answer, Request, Running

from rootlesspy.errors import ImageError, RegistryError
from rootlesspy.image import compress, layout, push, save, upload
from rootlesspy.image.auth import Credentials
from rootlesspy.image.progress import NoProgress
from rootlesspy.image.registry import Client
from rootlesspy.image.writer import Writer
from rootlesspy.linux.userns import IdMapping, IdMaps
from rootlesspy.oci.image_spec import Descriptor
from rootlesspy.paths import Paths
from rootlesspy.report import Reporter
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAPS = IdMaps((IdMapping(0, os.getuid(), 1),), (IdMapping(0, os.getgid(), 1),))
PLAIN = tm.archive(tm.file(b"f", b"content" * 1000))
ZIPPED = gzip.compress(PLAIN, mtime=0)
BLOB = bytes(range(256)) * 100
BLOB_DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"


class Keeper:
    """A registry that takes uploads as the distribution specification says; lives in the server."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}

    def __call__(self, request: Request) -> Answer:
        path, _, query = request.path.partition("?")
        body = request.body.encode("latin-1")
        if "/blobs/uploads/" in path:
            return self._upload(request, path, query, body)
        if "/blobs/" in path:
            known = path.rpartition("/")[2] in self.blobs
            return Answer(200 if known else 404)
        if "/manifests/" in path and request.method == "PUT":
            return Answer(201)
        return Answer(404)

    def _upload(self, request: Request, path: str, query: str, body: bytes) -> Answer:
        name = path.rpartition("/")[2]
        if request.method == "POST":
            self.uploads["one"] = b""
            return Answer(202, headers=(("Location", f"{path}one?state=x"),))
        if request.method == "PATCH":
            start = int(request.headers["content-range"].partition("-")[0])
            if start != len(self.uploads[name]):
                return Answer(416)
            self.uploads[name] += body
        elif request.method == "PUT":
            digest = query.partition("digest=")[2]
            content = self.uploads.pop(name) + body
            if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
                return Answer(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
            self.blobs[digest] = content
            return Answer(201)
        reached = len(self.uploads[name])
        status = 202 if request.method == "PATCH" else 204
        return Answer(
            status,
            headers=(("Location", f"{path}?state=y"), ("Range", f"0-{max(reached - 1, 0)}")),
        )


class Bench:
    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self._count = 0

    def serve(self, script: Callable[[str], evilregistry.Script] = Keeper) -> Running:
        self._count += 1
        log = self.directory / f"log{self._count}"
        return self.stack.enter_context(evilregistry.serve(log, script))

    def uploader(self, server: Running, **sizes: int) -> upload.Uploader:
        client = Client(
            Reporter(quiet=True), environment={"HOME": str(self.directory)}, sleep=lambda s: None
        )
        return upload.Uploader(client, Source(server.host, "a/b", insecure=True), **sizes)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(tmp_path, stack)


def pieces(offset: int) -> Iterator[bytes]:
    return upload.from_offset(iter([BLOB[:7000], BLOB[7000:]]), offset)


def ignore(n_bytes: int) -> None:
    """Nobody watches."""


DESCRIPTOR = Descriptor("application/octet-stream", BLOB_DIGEST, len(BLOB))


def methods(server: Running) -> list[str]:
    return [request.method for request in server.requests()]


def test_a_small_blob_goes_in_one_request(bench: Bench) -> None:
    server = bench.serve()
    uploader = bench.uploader(server)
    assert not uploader.has(BLOB_DIGEST)
    assert uploader.blob(DESCRIPTOR, pieces, advanced=ignore) == "sent"
    assert uploader.has(BLOB_DIGEST)
    assert methods(server) == ["HEAD", "POST", "PUT", "HEAD"]
    assert f"state=x&digest={BLOB_DIGEST}" in server.paths()[2]


def test_a_large_blob_goes_in_parts(bench: Bench) -> None:
    server = bench.serve()
    uploader = bench.uploader(server, whole_bytes=100, part_bytes=10000)
    told: list[int] = []
    uploader.blob(DESCRIPTOR, pieces, advanced=told.append)
    assert methods(server) == ["POST", "PATCH", "PATCH", "PATCH", "PUT"]
    ranges = [r.headers.get("content-range") for r in server.requests() if r.method == "PATCH"]
    assert ranges == ["0-9999", "10000-19999", "20000-25599"]
    assert sum(told) == len(BLOB)
    assert uploader.has(BLOB_DIGEST)


def test_a_broken_line_resumes_where_it_was(bench: Bench) -> None:
    class Breaking(Keeper):
        broken = False

        def __call__(self, request: Request) -> Answer:
            starts_later = not request.headers.get("content-range", "").startswith("0-")
            if request.method == "PATCH" and not self.broken and starts_later:
                self.broken = True
                # Half of the part arrived.
                self.uploads["one"] += request.body.encode("latin-1")[:5000]
                return Answer(raw=b"")
            return super().__call__(request)

    server = bench.serve(Breaking)
    uploader = bench.uploader(server, whole_bytes=100, part_bytes=10000)
    uploader.blob(DESCRIPTOR, pieces, advanced=ignore)
    assert uploader.has(BLOB_DIGEST)
    ranges = [r.headers.get("content-range") for r in server.requests() if r.method == "PATCH"]
    assert ranges == ["0-9999", "10000-19999", "15000-24999", "25000-25599"]


def test_parts_are_as_long_as_the_registry_wants_them(bench: Bench) -> None:
    class Picky(Keeper):
        def __call__(self, request: Request) -> Answer:
            answer = super().__call__(request)
            if request.method == "POST":
                more = (("OCI-Chunk-Min-Length", "20000"),)
                return answer._replace(headers=answer.headers + more)
            return answer

    server = bench.serve(Picky)
    bench.uploader(server, whole_bytes=100, part_bytes=10).blob(DESCRIPTOR, pieces, advanced=ignore)
    assert methods(server).count("PATCH") == 2


def test_a_blob_of_a_sister_repository_is_mounted(bench: Bench) -> None:
    server = bench.serve(lambda host: lambda request: Answer(201))
    how = bench.uploader(server).blob(DESCRIPTOR, pieces, mount_from="c/d", advanced=ignore)
    assert how == "mounted"
    assert server.paths() == [f"/v2/a/b/blobs/uploads/?mount={BLOB_DIGEST}&from=c/d"]


def test_a_registry_that_will_not_mount_is_sent_the_blob(bench: Bench) -> None:
    server = bench.serve()
    how = bench.uploader(server).blob(DESCRIPTOR, pieces, mount_from="c/d", advanced=ignore)
    assert how == "sent"


def test_refusals_are_told(bench: Bench) -> None:
    text = b'{"errors":[{"code":"DENIED","message":"quota"}]}'
    server = bench.serve(lambda host: lambda request: Answer(413, text))
    with pytest.raises(RegistryError, match="413: quota"):
        bench.uploader(server).blob(DESCRIPTOR, pieces, advanced=ignore)


@pytest.mark.row("CVE-2026-50151", "an upload goes elsewhere without credentials")
def test_G_credentials_do_not_follow_an_upload_to_another_origin(bench: Bench) -> None:
    """SECURITY.md G: the place of an upload is the registry's to choose, who is told is not."""
    other = bench.serve(lambda host: lambda request: Answer(201))

    def script(host: str) -> evilregistry.Script:
        def answer(request: Request) -> Answer:
            if "authorization" not in request.headers:
                challenge = f'Bearer realm="http://{host}/token",service="x"'
                if request.path.startswith("/token"):
                    return Answer(body=b'{"token":"secret-token"}')
                return Answer(401, headers=(("WWW-Authenticate", challenge),))
            return Answer(202, headers=(("Location", f"http://{other.host}/upload"),))

        return answer

    server = bench.serve(script)
    bench.uploader(server).blob(DESCRIPTOR, pieces, advanced=ignore)
    assert "Bearer secret-token" in server.authorizations()
    assert other.requests()
    assert other.authorizations() == []


def test_G_the_scope_that_is_asked_for(bench: Bench) -> None:
    def script(host: str) -> evilregistry.Script:
        def answer(request: Request) -> Answer:
            if request.path.startswith("/token"):
                return Answer(body=b'{"token":"t"}')
            if "authorization" not in request.headers:
                challenge = f'Bearer realm="http://{host}/token",service="x"'
                return Answer(401, headers=(("WWW-Authenticate", challenge),))
            return Answer(201)

        return answer

    server = bench.serve(script)
    bench.uploader(server).blob(DESCRIPTOR, pieces, mount_from="c/d", advanced=ignore)
    (token,) = [path for path in server.paths() if path.startswith("/token")]
    assert "scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%2Fd%3Apull" in token


def test_G_a_given_password_is_not_sent_without_tls(bench: Bench) -> None:
    challenge = ("WWW-Authenticate", 'Basic realm="x"')
    server = bench.serve(lambda host: lambda request: Answer(401, headers=(challenge,)))
    client = Client(
        Reporter(quiet=True), environment={}, given=Credentials("u", "p"), sleep=lambda s: None
    )
    with pytest.raises(RegistryError, match="plain http"):
        upload.Uploader(client, Source(server.host, "a/b", insecure=True)).has(BLOB_DIGEST)
    assert server.authorizations() == []


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(f"{tmp_path}/data", None, f"{tmp_path}/config")


def stored(paths: Paths, data: bytes, *, docker: bool = False) -> save.Copyable:
    fd = os.memfd_create("layer")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    with Writer(paths, MAPS, Reporter(quiet=True)) as writer:
        config: dict[str, object] = {"architecture": "amd64", "os": "linux", "config": {}}
        image = writer.add_image(
            config, [writer.add_layer(fd)], ("localhost/x:latest",), docker=docker
        )
    os.close(fd)
    return save.stored(paths, image)


@pytest.mark.parametrize("form", ["gzip", "zstd"])
@pytest.mark.parametrize("docker", [False, True])
def test_plain_layers_are_compressed(paths: Paths, form: str, docker: bool) -> None:
    image = stored(paths, PLAIN, docker=docker)
    made = compress.compressed(paths, image, form, None, force=False)
    (layer,) = made.original.manifest.layers
    assert layer.media_type.endswith(form)
    assert ("docker" in layer.media_type) is docker
    assert made.original.manifest.config == image.original.manifest.config
    assert b"".join(save.plain(made, layer, made.original.diff_ids[0])) == PLAIN
    again = compress.compressed(paths, image, form, None, force=False)
    assert again.original.digest == made.original.digest


def test_compressed_layers_stay_unless_forced(paths: Paths) -> None:
    image = stored(paths, ZIPPED)
    assert compress.compressed(paths, image, "zstd", None, force=False) is image
    made = compress.compressed(paths, image, "zstd", None, force=True)
    assert made.original.manifest.layers[0].media_type.endswith("zstd")


def test_a_damaged_blob_is_not_pushed(bench: Bench, paths: Paths) -> None:
    image = stored(paths, ZIPPED)
    (layer,) = image.original.manifest.layers
    with open(layout.blob_path(paths, layer.digest), "r+b") as file:
        file.seek(20)
        file.write(b"\xff\xff")
    server = bench.serve()
    client = Client(Reporter(quiet=True), environment={}, sleep=lambda s: None)
    with pytest.raises((ImageError, RegistryError)):
        push.push(
            client, image, Source(server.host, "a/b", True), "latest", elsewhere={},
            progress=NoProgress(),
        )  # fmt: skip
    assert not [path for path in server.paths() if "/manifests/" in path]


def test_a_whole_push(bench: Bench, paths: Paths) -> None:
    image = stored(paths, ZIPPED)
    server = bench.serve()
    client = Client(Reporter(quiet=True), environment={}, sleep=lambda s: None)
    target = Source(server.host, "a/b", True)
    for _ in range(2):
        digest = push.push(client, image, target, "v1", elsewhere={}, progress=NoProgress())
        assert digest == image.original.digest
    sent = [request for request in server.requests() if request.method == "PUT"]
    assert [request.path.partition("?")[0].rpartition("/")[2] for request in sent] == [
        "one", "one", "v1", "v1",
    ]  # fmt: skip
    assert json.loads(sent[-1].body) == json.loads(image.original.data)
    assert sent[-1].headers["content-type"] == image.original.manifest.media_type
