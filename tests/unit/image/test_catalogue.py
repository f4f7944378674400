"""Rows of SECURITY.md G, H and I about images that no test elsewhere is named after.

G: CVE-2020-15157 and 2024-3727 (urls and digests of layers), 2019-10214 (TLS of token servers),
2021-41092 (credential helpers).  H: CVE-2025-47290 (races), 2021-20291 (decoders that die),
2024-24557 (names in archives).  I: tar headers that loop, HTTP that lies (CVE-2025-13836).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING

import pytest
from rig.effort import effort
from unit.image import evilregistry
from unit.image import tarmaker as tm
from unit.image.evilregistry import GZIP_LAYER, Answer, Request, descriptor
from unit.image.test_pull import BASE, HOST, Bench, bench, nothing_happened, zipped
from unit.image.test_unpack import Place, place

from rootlesspy.errors import Error, ImageError, RegistryError
from rootlesspy.image import children, hashing, layer, layout, transfer
from rootlesspy.image.auth import Credentials
from rootlesspy.image.registry import Client
from rootlesspy.image.stream import Stream
from rootlesspy.image.tar import TarReader
from rootlesspy.oci import image_spec
from rootlesspy.paths import Paths
from rootlesspy.report import Reporter
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["bench", "place"]

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_TRIES = effort(10, 3000)


def _other(bench: Bench) -> evilregistry.Running:
    """Return a server that is not the registry and wants a password."""
    challenge = (("WWW-Authenticate", 'Basic realm="x"'),)
    log = bench.directory / "other"
    return bench.stack.enter_context(
        evilregistry.serve(log, lambda host: lambda request: Answer(401, b"", challenge))
    )


@pytest.mark.parametrize(
    "media_type",
    [GZIP_LAYER, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
     "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"],
)  # fmt: skip
@pytest.mark.row("CVE-2020-15157", "nothing is asked of the addresses that a layer names")
def test_CVE_2020_15157_urls_of_a_layer_are_never_asked(bench: Bench, media_type: str) -> None:
    other, made = _other(bench), evilregistry.Store()
    blob, plain = zipped(BASE)
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    foreign = {**descriptor(media_type, digest, len(blob)), "urls": [f"http://{other.host}/"]}
    made.image("library/app", "latest", [(blob, plain)], platform=HOST,
               changes={"layers": [foreign]})  # fmt: skip
    del made.blobs[digest]
    bench.serve(made.script)
    with pytest.raises(Error):
        bench.ensure()
    assert other.paths() == []
    nothing_happened(bench)


@pytest.mark.parametrize(
    "digest",
    ["sha256:../../../../x", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 128,
     "md5:" + "a" * 32, "sha256:" + "a" * 60 + "/../", "", "sha256:" + "a" * 64 + "\n"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["config", "layers"])
@pytest.mark.row("CVE-2024-3727", "refused before a file is made")
def test_CVE_2024_3727_no_file_is_made_for_an_odd_digest(
    bench: Bench, digest: str, where: str
) -> None:
    made = evilregistry.Store()
    odd = descriptor(GZIP_LAYER if where == "layers" else image_spec.CONFIG, digest, 10)
    made.image("library/app", "latest", [zipped(BASE)], platform=HOST,
               changes={where: [odd] if where == "layers" else odd})  # fmt: skip
    server = bench.serve(made.script)
    with pytest.raises(ImageError, match="digest"):
        bench.ensure()
    assert len(server.paths()) == 1
    nothing_happened(bench)
    assert bench.blobs() == set()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.row("CVE-2019-10214", "the token server is verified as the registry is")
def test_CVE_2019_10214_a_token_server_is_verified_too(tmp_path: Path) -> None:
    own = evilregistry.certificate(tmp_path, "own", subject="IP:127.0.0.1")

    def token(request: Request) -> Answer:
        return Answer(200, b'{"token":"x"}')

    with evilregistry.serve(tmp_path / "t", lambda host: token, certificate=own) as server:
        realm = f'Bearer realm="https://{server.host}/token"'

        def ask(request: Request) -> Answer:
            return Answer(401, b"", (("WWW-Authenticate", realm),))

        with evilregistry.serve(tmp_path / "r", lambda host: ask) as asked:
            given = Credentials("user", "hunter2")
            client = Client(Reporter(quiet=True), config_directory=str(tmp_path), given=given)
            with pytest.raises(RegistryError):
                client.manifest(Source(asked.host, "a/b", insecure=True), "latest")
            client.forget_connections()
        assert server.paths() == []


@pytest.mark.row("CVE-2021-41092", "125, and no request with a password")
def test_CVE_2021_41092_without_its_helper_nothing_is_asked_with_a_password(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = evilregistry.Store()
    made.image("library/app", "latest", [zipped(BASE)], platform=HOST)

    def script(host: str) -> Callable[[Request], Answer]:
        challenge = (("WWW-Authenticate", 'Basic realm="x"'),)
        return lambda request: Answer(401, b"", challenge)

    server = bench.serve(script)
    auth = bench.directory / "auth.json"
    auth.write_text(json.dumps({"credHelpers": {server.host: "not-there", "docker.io": "nor-he"}}))
    auth.chmod(0o600)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth))
    with pytest.raises(Error):
        bench.ensure()
    assert server.authorizations() == []


@pytest.mark.row("CVE-2025-47290", "every name is resolved below the layer's own root")
def test_CVE_2025_47290_a_directory_that_is_swapped_while_it_is_filled(place: Place) -> None:
    entries = [tm.directory(b"x"), *(tm.file(b"x/f%d" % number, b"x") for number in range(150))]
    pid = os.fork()
    if pid == 0:
        _swap(place.root / "x", place.outside)
    try:
        for _ in range(_TRIES):
            # Confined or refused; Place.unpack compares what is outside.
            try:
                place.unpack(*entries)
            except ImageError:
                continue
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _swap(directory: Path, target: Path) -> None:
    """Exchange a directory and a link to target until killed."""
    libc = ctypes.CDLL(None)
    link = directory.with_name("swapped")
    link.symlink_to(target)
    names = os.fsencode(directory), os.fsencode(link)
    while True:
        libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)


@pytest.mark.row("CVE-2021-20291", "exit 125; nothing is locked, the next pull works")
@pytest.mark.parametrize(
    ("place", "victim"),
    [
        pytest.param(transfer.Transfer, "run", id="fetches"),
        pytest.param(layer._Pipeline, "_decompress", id="decompresses"),
    ],
)
def test_CVE_2021_20291_a_process_of_the_pull_that_is_killed_ends_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, place: type, victim: str
) -> None:
    made = evilregistry.Store()
    made.image("library/app", "latest", [zipped(BASE)], platform=HOST)
    bench.serve(made.script)

    def die(*_arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    with monkeypatch.context() as patched:
        patched.setattr(place, victim, die)
        with pytest.raises(Error, match="ended with status -9"):
            bench.ensure()
    nothing_happened(bench)
    bench.ensure()


def test_CVE_2021_20291_so_does_the_one_that_hashes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = evilregistry.Store()
    plain = tm.archive(tm.file(b"large", os.urandom(6 << 20)))
    made.image("library/app", "latest", [zipped(plain)], platform=HOST)
    bench.serve(made.script)
    real = children.fork

    def fork(function: Callable[[], object]) -> children.Child:
        child = real(function)
        os.kill(child.pid, signal.SIGKILL)
        return child

    with monkeypatch.context() as patched:
        patched.setattr(hashing, "children", _Patched(fork))
        with pytest.raises(Error, match="ended with status -9"):
            bench.ensure()
    nothing_happened(bench)


class _Patched:
    """The module of children with another fork()."""

    def __init__(self, fork: Callable[[Callable[[], object]], children.Child]) -> None:
        self.fork = fork
        self.wait = children.wait
        self.Child = children.Child


@pytest.mark.parametrize("length", ["4611686018427387904", "9" * 30, "-1", "1e9", "0x10", " 7"])
@pytest.mark.row("CVE-2025-13836", "bodies are read in pieces up to their limit")
def test_CVE_2025_13836_lengths_that_lie_take_no_memory(bench: Bench, length: str) -> None:
    header = f"HTTP/1.1 200 OK\r\nContent-Type: {image_spec.MANIFEST}\r\n"
    raw = f"{header}Content-Length: {length}\r\n\r\n{{}}".encode()
    bench.serve(lambda host: lambda request: Answer(raw=raw))
    with pytest.raises((RegistryError, ImageError)):
        bench.ensure()
    nothing_happened(bench)


@pytest.mark.parametrize("chunk", [b"ffffffffffffffff", b"-5", b"zz", b"5;" + b"x" * 70000, b""])
@pytest.mark.row("CVE-2025-13836", "one line, 125")
def test_I_chunks_that_lie(bench: Bench, chunk: bytes) -> None:
    header = f"HTTP/1.1 200 OK\r\nContent-Type: {image_spec.MANIFEST}\r\n".encode()
    raw = header + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"\r\n{}\r\n"
    bench.serve(lambda host: lambda request: Answer(raw=raw))
    with pytest.raises((RegistryError, ImageError)):
        bench.ensure()
    nothing_happened(bench)


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("CVE_2025_8194 negative size", tm.header(b"f", fields={(124, 12): b"\xff" * 12})),
        ("CVE_2019_20907 a record without length",
         tm.header(b"f", kind=b"x", size=8) + b"0 a=b\n".ljust(512, b"\0")),
        ("CVE_2024_6232 digits without end",
         tm.header(b"f", kind=b"x", size=512) + b"9" * 512),
        ("a global record of 8 GiB", tm.header(b"f", kind=b"g", size=8 << 30)),
        ("a long name of 8 GiB", tm.header(b"f", kind=b"L", size=8 << 30)),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)  # fmt: skip
@pytest.mark.row("CVE-2019-20907", "an error of the archive")
def test_I_headers_that_loop(name: str, archive: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(archive + tm.END)
        file.seek(0)
        reader = TarReader(Stream(file.fileno()))
        with pytest.raises(ImageError):
            _read_all(reader)


def _read_all(reader: TarReader) -> None:
    while reader.next() is not None:
        pass


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
@pytest.mark.row("CVE-2019-20907", "read without recursion, up to the limits")
def test_I_any_number_of_headers_is_read_without_recursion(kind: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(tm.header(b"f", kind=kind, size=0) * 20_000 + tm.file(b"last") + tm.END)
        file.seek(0)
        reader = TarReader(Stream(file.fileno()))
        entry = reader.next()
        assert entry is not None
        assert entry.name == b"last"
        assert reader.next() is None


def test_D1_a_disk_so_full_that_the_store_has_no_directory(tmp_path: Path) -> None:
    paths = Paths(data=str(tmp_path / "not/there"), runtime=None, config="")
    assert layout.no_space(paths, 5 << 20).message.startswith(f"no space in {tmp_path}/not/there: ")
