"""A registry that does what the test says, in a process of its own, on 127.0.0.1.

The script is a function from a request to an answer; it runs in the server, so its own state lives
there.  Every request is logged to a file that the test reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.oci import image_spec

if TYPE_CHECKING:
    from pathlib import Path

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Request(NamedTuple):
    """What the client sent; number counts the requests for this path from 0."""

    path: str
    headers: dict[str, str]
    number: int
    method: str = "GET"
    body: str = ""
    """What came with it, as latin-1 text: the log is JSON."""


class Answer(NamedTuple):
    """What the server sends; a body in pieces is sent as it comes, without Content-Length."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | None = None
    drop: bool = False


Script = Callable[[Request], Answer]


class Running(NamedTuple):
    """A running server."""

    host: str
    log: Path

    def requests(self) -> list[Request]:
        """Return all requests so far."""
        # The last line may be half-written; who asked has no answer yet then.
        lines = self.log.read_text().rpartition("\n")[0].splitlines()
        return [Request(*json.loads(line)) for line in lines]

    def paths(self) -> list[str]:
        """Return the paths asked for so far."""
        return [request.path for request in self.requests()]

    def authorizations(self) -> list[str]:
        """Return the Authorization headers seen so far."""
        found = [request.headers.get("authorization") for request in self.requests()]
        return [value for value in found if value is not None]


@contextmanager
def serve(
    log: Path, script: Callable[[str], Script], *, certificate: Path | None = None
) -> Iterator[Running]:
    """Serve script(host) until the block ends."""
    server = _Server(("127.0.0.1", 0), BaseHTTPRequestHandler)
    host = f"127.0.0.1:{server.server_port}"
    log.write_text("")
    pid = os.fork()
    if pid == 0:
        try:
            _run(server, script(host), log, certificate)
        finally:
            os._exit(1)
    server.server_close()
    try:
        yield Running(host, log)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Twenty at once: a connection that finds no place comes back after seconds.
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that leave early."""


def _run(server: ThreadingHTTPServer, script: Script, log: Path, certificate: Path | None) -> None:
    counts: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            number = counts[self.path] = counts.get(self.path, -1) + 1
            body = self.rfile.read(int(headers.get("content-length", "0"))).decode("latin-1")
            request = Request(self.path, headers, number, self.command, body)
            with log.open("a") as file:
                file.write(json.dumps(request) + "\n")
            self._answer(script(request))

        do_HEAD = do_POST = do_PUT = do_PATCH = do_GET

        def _answer(self, answer: Answer) -> None:
            if answer.raw is not None:
                self.wfile.write(answer.raw)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            names = {name.lower() for name, _ in answer.headers}
            if isinstance(answer.body, bytes):
                if "content-length" not in names:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
            else:
                self.send_header("Connection", "close")
                self.end_headers()
                for piece in answer.body:
                    self.wfile.write(piece)
                    self.wfile.flush()
                self.close_connection = True
            if answer.drop:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server.RequestHandlerClass = Handler
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    server.serve_forever()


class Store:
    """Images as a well-behaved registry holds them."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}

    def blob(self, data: bytes) -> str:
        """Add a blob; return its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def manifest(self, repository: str, tag: str, document: object, media_type: str) -> str:
        """Add a manifest under a tag and its digest; return the digest."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.manifests[f"{repository}:{tag}"] = (media_type, data)
        self.manifests[f"{repository}:{digest}"] = (media_type, data)
        return digest

    def image(
        self,
        repository: str,
        tag: str,
        layers: list[tuple[bytes, bytes]],
        *,
        platform: str = "linux/amd64",
        changes: dict[str, object] | None = None,
        config: dict[str, object] | None = None,
    ) -> str:
        """Add an image of (blob, tar) pairs; return the digest of its manifest."""
        system, architecture = platform.split("/")[:2]
        diff_ids = [f"sha256:{hashlib.sha256(plain).hexdigest()}" for _, plain in layers]
        document = {
            "os": system,
            "architecture": architecture,
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            **(config or {}),
        }
        data = json.dumps(document).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": image_spec.MANIFEST,
            "config": descriptor(image_spec.CONFIG, self.blob(data), len(data)),
            "layers": [descriptor(GZIP_LAYER, self.blob(blob), len(blob)) for blob, _ in layers],
            **(changes or {}),
        }
        return self.manifest(repository, tag, manifest, image_spec.MANIFEST)

    def script(self, host: str) -> Script:
        """Answer as the distribution specification says."""
        del host

        def answer(request: Request) -> Answer:
            repository, _, rest = request.path.removeprefix("/v2/").partition("/manifests/")
            if rest:
                found = self.manifests.get(f"{repository}:{rest}")
                if found is None:
                    return not_found("MANIFEST_UNKNOWN")
                digest = f"sha256:{hashlib.sha256(found[1]).hexdigest()}"
                headers = (("Content-Type", found[0]), ("Docker-Content-Digest", digest))
                return Answer(200, found[1], headers)
            data = self.blobs.get(request.path.rpartition("/blobs/")[2])
            if data is None:
                return not_found("BLOB_UNKNOWN")
            asked = request.headers.get("range", "")
            if asked.startswith("bytes="):
                start = int(asked[6:].rstrip("-"))
                part = f"bytes {start}-{len(data) - 1}/{len(data)}"
                return Answer(206, data[start:], (("Content-Range", part),))
            return Answer(200, data)

        return answer


def descriptor(media_type: str, digest: str, size: int) -> dict[str, object]:
    """A content descriptor."""
    return {"mediaType": media_type, "digest": digest, "size": size}


def not_found(code: str) -> Answer:
    """A 404 with its document."""
    body = json.dumps({"errors": [{"code": code, "message": "not here"}]}).encode()
    return Answer(404, body, (("Content-Type", "application/json"),))


def slowly(data: bytes, pause_s: float) -> Iterator[bytes]:
    """One byte after the other."""
    for byte in data:
        yield bytes((byte,))
        time.sleep(pause_s)


def endless(piece: bytes = b"x" * 65536) -> Iterator[bytes]:
    """A body without an end."""
    while True:
        yield piece


def certificate(directory: Path, name: str, *, subject: str, days: int = 2) -> Path:
    """Make a self-signed certificate with its key in one file."""
    path, key = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", key, "-out", path, "-subj", "/CN=test",
            "-addext", f"subjectAltName={subject}", "-days", str(days),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    (directory / f"{name}.crt").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


@contextmanager
def closed_port() -> Iterator[int]:
    """Hold a port on which nothing listens, and nobody else will."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
