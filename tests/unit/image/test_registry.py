"""The registry client against a registry that lies, breaks, stalls and steals (SECURITY.md G)."""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import os
import shutil
import ssl
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from unit.image import evilregistry
from unit.image.evilregistry import Answer, Request, Running, Script, endless, slowly
from unit.image.memory import growth_bytes

from rootlesspy.errors import Error, NotFound, RegistryError, UsageError
from rootlesspy.image import body, http_rules, tls, transport
from rootlesspy.image.registry import Client
from rootlesspy.image.transfer import Interrupted
from rootlesspy.oci import image_spec
from rootlesspy.report import Reporter
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rootlesspy.image.documents import Document

MANIFEST = json.dumps({"schemaVersion": 2}).encode()
MANIFEST_HEADERS = (("Content-Type", image_spec.MANIFEST),)
BLOB = b"0123456789" * 1000
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
CUT = (("Content-Length", "10000"),)
PASSWORD = base64.b64encode(b"user:hunter2").decode()


class Bench:
    """A client whose waits are recorded, and servers that end with the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.waits: list[float] = []
        self.environment: dict[str, str] = {}
        self.stack = ExitStack()
        self._count = 0

    def serve(self, script: Callable[[Request], Answer], **options: Any) -> Running:
        self._count += 1
        log = self.directory / f"log{self._count}"
        return self.stack.enter_context(evilregistry.serve(log, lambda host: script, **options))

    def client(self) -> Client:
        made = Client(
            Reporter(quiet=True),
            environment=self.environment,
            config_directory=str(self.directory),
            sleep=self.waits.append,
        )
        self.stack.callback(made.forget_connections)
        return made

    def manifest(self, server: Running, *, insecure: bool = True) -> Document:
        return self.client().manifest(Source(server.host, "team/app", insecure), "latest")

    def blob(self, server: Running, *, offset: int = 0) -> bytes:
        source = Source(server.host, "team/app", insecure=True)
        opened = self.client().blob(source, DIGEST, offset=offset, size=len(BLOB))
        try:
            return opened.whole(len(BLOB) - opened.offset)
        finally:
            opened.close()

    def log_in(self, host: str, mode: int = 0o600) -> None:
        path = self.directory / "containers/auth.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"auths": {host: {"auth": PASSWORD}}}))
        path.chmod(mode)


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    with made.stack:
        yield made


def always(answer: Answer) -> Script:
    return lambda request: answer


def in_turn(*answers: Answer) -> Script:
    return lambda request: answers[min(request.number, len(answers) - 1)]


GOOD = Answer(200, MANIFEST, MANIFEST_HEADERS)


def test_a_manifest(bench: Bench) -> None:
    server = bench.serve(always(GOOD))
    document = bench.manifest(server)
    assert document.data == MANIFEST
    assert document.media_type == image_spec.MANIFEST
    assert document.digest == f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
    (request,) = server.requests()
    assert request.path == "/v2/team/app/manifests/latest"
    assert image_spec.DOCKER_LIST in request.headers["accept"]
    assert request.headers["user-agent"].startswith("rootlesspy/")


def test_connections_are_kept(bench: Bench) -> None:
    server = bench.serve(always(GOOD))
    client = bench.client()
    source = Source(server.host, "a/b", insecure=True)
    for _ in range(3):
        client.manifest(source, "latest")
    (pool,) = [
        pool.connection_from_url(f"http://{server.host}")
        for (_, scheme, host, _), pool in client._pools.items()
        if (scheme, host) == ("http", server.host)
    ]
    # The first connection was the attempt to speak TLS.
    assert pool.num_requests == 3
    assert pool.num_connections == 1


def test_no_authorities_are_read_where_nobody_asks_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []
    context = tls.context

    def counting(host: str, *, insecure: bool, **more: Any) -> ssl.SSLContext:
        made.append(insecure)
        return context(host, insecure=insecure, **more)

    def reading(*_: object, **__: object) -> ssl.SSLContext:
        raise AssertionError("the system's authorities were read")

    monkeypatch.setattr(tls, "context", counting)
    monkeypatch.setattr(ssl, "create_default_context", reading)
    server = bench.serve(always(GOOD))
    bench.manifest(server)
    # Of the attempt to speak TLS; what is asked without needs none.
    assert made == [True]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(404), NotFound, "has no team/app manifests/latest"),
        (Answer(401), RegistryError, "denies access to team/app"),
        (Answer(403, b'{"errors":[{"message":"go away\\u001b[2J"}]}'), RegistryError, "go away"),
        (Answer(400, b"<html>"), RegistryError, "answers 400"),
        (Answer(500), RegistryError, "answers 500"),
        (Answer(503, b'{"errors":[{"code":"BUSY"}]}'), RegistryError, "answers 503: BUSY"),
        (Answer(429), RegistryError, "answers 429"),
        (Answer(204), RegistryError, "answers 204"),
        (Answer(302), RegistryError, "answers 302"),
        (Answer(200, b"x" * (4 * 1024 * 1024 + 1)), RegistryError, "longer than"),
        (Answer(200, raw=b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000), RegistryError, "unreachable"),
        (
            Answer(200, raw=b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"),
            RegistryError,
            "unreachable",
        ),
        (Answer(200, raw=b"SSH-2.0-x\r\n"), RegistryError, "unreachable"),
        (Answer(200, raw=b""), RegistryError, "unreachable"),
        (
            Answer(200, MANIFEST, (*MANIFEST_HEADERS, ("Docker-Content-Digest", "sha256:../../x"))),
            RegistryError,
            "sent the digest",
        ),
        (
            Answer(200, MANIFEST, (*MANIFEST_HEADERS, ("Docker-Content-Digest", DIGEST))),
            RegistryError,
            "digest mismatch",
        ),
        (
            Answer(200, MANIFEST, (("Content-Length", "99"),), drop=True),
            RegistryError,
            "ended after",
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else None,
)
@pytest.mark.row("G4", "one line with host and status, 125")
def test_answers_that_are_errors(
    bench: Bench, answer: Answer, kind: type[Error], words: str
) -> None:
    server = bench.serve(always(answer))
    with pytest.raises(kind, match=words):
        bench.manifest(server)
    assert sum(bench.waits) < 60


@pytest.mark.row("I7", "what never ends is cut at its limit")
@pytest.mark.row("G3", "4 MiB, then 125")
def test_G3_an_endless_manifest_stops_at_the_limit(bench: Bench) -> None:
    server = bench.serve(lambda request: Answer(200, endless(), MANIFEST_HEADERS))

    def work() -> None:
        with pytest.raises(RegistryError, match="longer than"):
            bench.manifest(server)

    assert growth_bytes(work) < 50 << 20


@pytest.mark.row("I7", "bytes that are not what their digest says are refused")
@pytest.mark.row("lies on content", "refused; nothing is stored")
def test_by_digest_the_bytes_decide(bench: Bench) -> None:
    server = bench.serve(always(GOOD))
    source = Source(server.host, "a/b", insecure=True)
    digest = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
    assert bench.client().manifest(source, digest).digest == digest
    long = f"sha512:{hashlib.sha512(MANIFEST).hexdigest()}"
    assert bench.client().manifest(source, long).digest == long
    with pytest.raises(RegistryError, match="digest mismatch"):
        bench.client().manifest(source, DIGEST)


# --- trying again ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.row("G4", "tried again, with pauses")
def test_failures_that_pass(bench: Bench, status: int) -> None:
    server = bench.serve(in_turn(Answer(status), Answer(status), GOOD))
    assert bench.manifest(server).data == MANIFEST
    assert len(bench.waits) == 2


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("9999999999", 60, 60),
        ("-5", 0.3, 1),
        ("soon", 0.3, 1),
        ("\uff17", 0.3, 1),
        ("Wed, 21 Oct 1998 07:28:00 GMT", 0, 0),
        ("Wed, 21 Oct 2998 07:28:00 GMT", 60, 60),
        ("", 0.3, 1),
        (None, 0.3, 1),
    ],
)
@pytest.mark.row("G4", "Retry-After up to a minute")
def test_G4_retry_after_is_honoured_up_to_a_minute(
    value: str | None, least: float, most: float
) -> None:
    assert least <= http_rules.retry_after_s(value, 0.5) <= most


@pytest.mark.row("G1", "tried again")
def test_a_connection_that_breaks(bench: Bench) -> None:
    server = bench.serve(in_turn(Answer(raw=b""), Answer(raw=b"HTTP/1.1 2"), GOOD))
    source = Source(server.host, "a/b", insecure=True)
    client = bench.client()
    client._plain_http.add(server.host)
    assert client.manifest(source, "latest").data == MANIFEST


@pytest.mark.row("G1", "125 when nothing comes for 30 s")
def test_G1_a_stalled_registry(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib3

    # Long enough for a busy machine to send the headers: they have to come.
    monkeypatch.setattr(transport, "_TIMEOUT", urllib3.Timeout(connect=60, read=5))
    server = bench.serve(lambda request: Answer(200, slowly(b"xx", 600), MANIFEST_HEADERS))
    with pytest.raises(RegistryError, match=r"broke: .*timed out"):
        bench.manifest(server)


@pytest.mark.row("G1", "125 when it is too slow")
def test_G1_one_byte_per_second(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_STALL_S", 0.3)
    server = bench.serve(lambda request: Answer(200, slowly(BLOB, 0.05)))
    with pytest.raises(Interrupted, match="stalled"):
        bench.blob(server)


@pytest.mark.row("G5", "one line that names the host")
def test_unreachable(bench: Bench) -> None:
    with (
        evilregistry.closed_port() as port,
        pytest.raises(RegistryError, match=r"unreachable: .*refused") as caught,
    ):
        bench.client().manifest(Source(f"127.0.0.1:{port}", "a/b", insecure=False), "latest")
    assert caught.value.hint is not None
    assert bench.waits == []
    with pytest.raises(RegistryError, match="unreachable"):
        bench.client().manifest(Source("nowhere.invalid", "a/b", insecure=False), "latest")


# --- blobs -----------------------------------------------------------------------------------


def test_a_blob_and_its_rest(bench: Bench) -> None:
    store = evilregistry.Store()
    store.blob(BLOB)
    server = bench.serve(store.script(""))
    assert bench.blob(server) == BLOB
    assert bench.blob(server, offset=100) == BLOB[100:]


@pytest.mark.row("G2", "the blob is fetched from its beginning")
def test_G2_a_registry_without_ranges_begins_again(bench: Bench) -> None:
    server = bench.serve(always(Answer(200, BLOB)))
    assert bench.blob(server, offset=100) == BLOB


@pytest.mark.parametrize(
    ("answer", "offset"),
    [
        pytest.param(Answer(206, BLOB[5:], (("Content-Range", "bytes 5-9/10"),)), 100, id="range"),
        pytest.param(Answer(206, BLOB[5:]), 100, id="no range"),
        pytest.param(Answer(206, BLOB), 0, id="206 for 200"),
        pytest.param(Answer(200, BLOB[:-1]), 0, id="shorter"),
        pytest.param(Answer(200, BLOB + b"x"), 0, id="longer"),
        pytest.param(Answer(200, BLOB, (("Content-Encoding", "gzip"),)), 0, id="encoding"),
        pytest.param(
            Answer(200, BLOB[:50], (("Content-Length", "10000"),), drop=True), 0, id="cut"
        ),
        pytest.param(Answer(200, iter([BLOB[:50]])), 0, id="cut without a length"),
    ],
)
@pytest.mark.row("G2", "not taken")
def test_G2_wrong_parts_are_not_taken(bench: Bench, answer: Answer, offset: int) -> None:
    server = bench.serve(always(answer))
    with pytest.raises(Interrupted):
        bench.blob(server, offset=offset)


@pytest.mark.row("G3", "one byte beyond its size, then 125")
def test_G3_an_endless_blob_stops_one_byte_late(bench: Bench) -> None:
    server = bench.serve(lambda request: Answer(200, endless()))
    with pytest.raises(RegistryError, match="more than 10000 bytes"):
        bench.blob(server)


# --- who learns the password -----------------------------------------------------------------


def token_script(host_of_realm: Callable[[], str], scheme: str = "http") -> Script:
    def answer(request: Request) -> Answer:
        if request.headers.get("authorization") == "Bearer secret-token":
            return GOOD
        realm = f'Bearer realm="{scheme}://{host_of_realm()}/token",service="s",scope="x"'
        return Answer(401, b"", (("WWW-Authenticate", realm),))

    return answer


def test_a_token_from_the_registry_itself(bench: Bench) -> None:
    def answer(request: Request) -> Answer:
        if request.path.startswith("/token"):
            return Answer(200, b'{"token":"secret-token"}')
        return token_script(lambda: request.headers["host"])(request)

    server = bench.serve(answer)
    bench.log_in(server.host)
    client = bench.client()
    source = Source(server.host, "team/app", insecure=True)
    assert client.manifest(source, "latest").data == MANIFEST
    client.manifest(source, "latest")
    token_requests = [path for path in server.paths() if path.startswith("/token")]
    assert token_requests == ["/token?service=s&scope=repository%3Ateam%2Fapp%3Apull"]
    # Over plain http the password itself is never sent.
    assert set(server.authorizations()) == {"Bearer secret-token"}


@pytest.mark.row("G6", "the token is renewed once")
def test_a_token_that_has_expired_is_renewed(bench: Bench) -> None:
    given: list[str] = []

    def answer(request: Request) -> Answer:
        # The server is a process of its own: its list grows with its tokens.
        if request.path.startswith("/token"):
            given.append(f"token-{len(given)}")
            return Answer(200, json.dumps({"token": given[-1]}).encode())
        if given and request.headers.get("authorization") == f"Bearer {given[-1]}":
            # Each token is good for one request.
            given.append("expired")
            return GOOD
        realm = f'Bearer realm="http://{request.headers["host"]}/token",service="s",scope="x"'
        return Answer(401, b"", (("WWW-Authenticate", realm),))

    server = bench.serve(answer)
    client = bench.client()
    source = Source(server.host, "team/app", insecure=True)
    for _ in range(3):
        assert client.manifest(source, "latest").data == MANIFEST
    assert len([path for path in server.paths() if path.startswith("/token")]) == 3


@pytest.mark.row("realm", "a token server elsewhere over http is refused")
def test_GHSA_token_servers_over_http_elsewhere_are_refused(bench: Bench) -> None:
    thief = bench.serve(always(Answer(200, b'{"token":"x"}')))
    server = bench.serve(token_script(lambda: thief.host))
    bench.log_in(server.host)
    # The same address on another port is another origin, but the same host: asked without password.
    with pytest.raises(RegistryError):
        bench.manifest(server)
    assert thief.authorizations() == []
    named = bench.serve(token_script(lambda: "token.example.com"))
    with pytest.raises(RegistryError, match="it is not https"):
        bench.manifest(named)


@pytest.mark.row("realm", "no password over http")
def test_a_password_is_not_sent_over_http(bench: Bench) -> None:
    server = bench.serve(always(Answer(401, b"", (("WWW-Authenticate", 'Basic realm="x"'),))))
    bench.log_in(server.host)
    with pytest.raises(RegistryError, match="over plain http: not sent"):
        bench.manifest(server)
    assert server.authorizations() == []


@pytest.mark.row("redirects", "the token stays with the origin that it was given for")
def test_CVE_2020_15157_a_redirect_does_not_take_the_token_along(bench: Bench) -> None:
    thief = bench.serve(
        always(Answer(401, b"", (("WWW-Authenticate", 'Bearer realm="http://127.0.0.1/t"'),)))
    )

    def answer(request: Request) -> Answer:
        if request.path.startswith("/token"):
            return Answer(200, b'{"token":"secret-token"}')
        if request.headers.get("authorization"):
            return Answer(307, b"", (("Location", f"http://{thief.host}/blob"),))
        return token_script(lambda: request.headers["host"])(request)

    server = bench.serve(answer)
    with pytest.raises(RegistryError, match="denies access"):
        bench.manifest(server)
    assert thief.paths() == ["/blob"]
    assert thief.authorizations() == []
    assert server.authorizations() == ["Bearer secret-token"]


@pytest.mark.row("redirects", "five at most")
@pytest.mark.row("G3", "five redirects at most")
def test_redirects_are_followed_at_most_five_times(bench: Bench) -> None:
    server = bench.serve(
        lambda request: (
            GOOD
            if request.path.endswith("xxxxx")
            else Answer(302, b"", (("Location", request.path + "x"),))
        )
    )
    assert bench.manifest(server).data == MANIFEST
    loop = bench.serve(lambda request: Answer(302, b"", (("Location", request.path),)))
    with pytest.raises(RegistryError, match="redirects more than 5 times"):
        bench.manifest(loop)
    assert len(loop.paths()) == 6


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "gopher://x",
        "http://",
        "//",
        "http://a\\b/",
        "x://y",
    ],
)
@pytest.mark.row("redirects", "refused")
def test_redirects_to_odd_places(bench: Bench, target: str) -> None:
    server = bench.serve(
        lambda request: (
            Answer(302, b"", (("Location", target),)) if request.number == 0 else Answer(404)
        )
    )
    with pytest.raises((RegistryError, NotFound)):
        bench.manifest(server)


@pytest.mark.row("G3", "two rounds of authentication")
def test_authentication_ends_after_two_rounds(bench: Bench) -> None:
    def answer(request: Request) -> Answer:
        if request.path.startswith("/token"):
            return Answer(200, b'{"token":"%d"}' % request.number)
        host = request.headers["host"]
        return Answer(401, b"", (("WWW-Authenticate", f'Bearer realm="http://{host}/token"'),))

    server = bench.serve(answer)
    with pytest.raises(RegistryError, match="denies access"):
        bench.manifest(server)
    assert len(server.paths()) == 5


@pytest.mark.parametrize(
    "token",
    [b"", b"[]", b"{}", b'{"token":""}', b'{"token":1}', b'{"token":"a\\r\\nHost: b"}',
     b'{"token":"a b"}', b'{"token":"\\u00e9"}', b"[" * 100000, b"x" * (1 << 20) + b"y"],
)  # fmt: skip
def test_tokens_that_are_none(bench: Bench, token: bytes) -> None:
    def answer(request: Request) -> Answer:
        if request.path.startswith("/token"):
            return Answer(200, token)
        host = request.headers["host"]
        return Answer(401, b"", (("WWW-Authenticate", f'Bearer realm="http://{host}/token"'),))

    with pytest.raises(RegistryError, match=r"sent no token|longer than"):
        bench.manifest(bench.serve(answer))


@pytest.mark.row("redirects", "a token request follows none")
def test_CVE_oras_token_requests_follow_no_redirect(bench: Bench) -> None:
    thief = bench.serve(always(Answer(200, b'{"token":"x"}')))

    def answer(request: Request) -> Answer:
        if request.path.startswith("/token"):
            return Answer(302, b"", (("Location", f"http://{thief.host}/"),))
        host = request.headers["host"]
        return Answer(401, b"", (("WWW-Authenticate", f'Bearer realm="http://{host}/token"'),))

    with pytest.raises(RegistryError, match="302"):
        bench.manifest(bench.serve(answer))
    assert thief.paths() == []


@pytest.mark.row("image names", "nothing unescaped reaches a URL")
def test_names_never_reach_a_url_unchecked(bench: Bench) -> None:
    for name, repository in [
        ("a.io", "../x"),
        ("a.io/x", "y"),
        ("a.io\r\nX: y", "z"),
        ("u:p@a.io", "z"),
        ("a.io", "a?b"),
    ]:
        with pytest.raises(RegistryError, match="is not a repository"):
            bench.client().manifest(Source(name, repository, insecure=True), "latest")


# --- TLS -------------------------------------------------------------------------------------

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@needs_openssl
@pytest.mark.row("TLS verification", "refused, unless this call says --tls-verify=false")
@pytest.mark.row("G5", "one line with the reason")
def test_G5_tls_is_always_verified(bench: Bench) -> None:
    own = evilregistry.certificate(bench.directory, "own", subject="IP:127.0.0.1")
    server = bench.serve(always(GOOD), certificate=own)
    with pytest.raises(RegistryError, match="is not trusted: self-signed") as caught:
        bench.manifest(server, insecure=False)
    assert caught.value.hint is not None
    assert f"certs.d/{server.host}" in caught.value.hint
    trusted = bench.directory / f"containers/certs.d/{server.host}"
    trusted.mkdir(parents=True)
    shutil.copy(bench.directory / "own.crt", trusted / "ca.crt")
    assert bench.manifest(server, insecure=False).data == MANIFEST
    (trusted / "ca.crt").write_text("rubbish")
    with pytest.raises(RegistryError, match="cannot use"):
        bench.manifest(server, insecure=False)


@needs_openssl
def test_insecure_means_tls_without_verification(bench: Bench) -> None:
    own = evilregistry.certificate(bench.directory, "own", subject="DNS:else.example")
    server = bench.serve(always(GOOD), certificate=own)
    assert bench.manifest(server).data == MANIFEST


@needs_openssl
@pytest.mark.row("TLS verification", "refused")
@pytest.mark.row("G5", "one line with the reason")
def test_G5_certificates_for_another_name(bench: Bench) -> None:
    other = evilregistry.certificate(bench.directory, "other", subject="DNS:else.example")
    server = bench.serve(always(GOOD), certificate=other)
    trusted = bench.directory / f"containers/certs.d/{server.host}"
    trusted.mkdir(parents=True)
    shutil.copy(bench.directory / "other.crt", trusted / "ca.crt")
    with pytest.raises(RegistryError, match="is for another name"):
        bench.manifest(server, insecure=False)


@pytest.mark.row("TLS verification", "refused")
def test_no_tls_where_tls_is_wanted(bench: Bench) -> None:
    server = bench.serve(always(GOOD))
    with pytest.raises(RegistryError, match="no TLS with registry") as caught:
        bench.manifest(server, insecure=False)
    assert "insecure = true" in (caught.value.hint or "")


@needs_openssl
@pytest.mark.row("redirects", "from https to http refused")
def test_redirects_from_https_to_http_are_refused(bench: Bench) -> None:
    plain = bench.serve(always(GOOD))
    own = evilregistry.certificate(bench.directory, "own", subject="IP:127.0.0.1")
    server = bench.serve(
        always(Answer(302, b"", (("Location", f"http://{plain.host}/"),))), certificate=own
    )
    with pytest.raises(RegistryError, match="from https to http"):
        bench.manifest(server)
    assert plain.paths() == []


@needs_openssl
def test_a_password_goes_to_its_registry_over_tls(bench: Bench) -> None:
    own = evilregistry.certificate(bench.directory, "own", subject="IP:127.0.0.1")

    def answer(request: Request) -> Answer:
        if request.headers.get("authorization") == f"Basic {PASSWORD}":
            return GOOD
        return Answer(401, b"", (("WWW-Authenticate", 'Basic realm="x"'),))

    server = bench.serve(answer, certificate=own)
    with pytest.raises(RegistryError, match="denies access"):
        bench.manifest(server)
    bench.log_in(server.host)
    assert bench.manifest(server).data == MANIFEST


# --- proxies ---------------------------------------------------------------------------------


@pytest.mark.row("HTTP client", "proxies of the environment are used")
def test_proxies_of_the_environment(bench: Bench) -> None:
    proxy = bench.serve(always(GOOD))
    client = bench.client()
    client._plain_http.add("registry.example.com")
    client._environment["http_proxy"] = f"http://u:p@{proxy.host}"
    source = Source("registry.example.com", "a/b", insecure=True)
    assert client.manifest(source, "latest").data == MANIFEST
    (request,) = proxy.requests()
    assert request.path == "http://registry.example.com/v2/a/b/manifests/latest"
    assert request.headers["proxy-authorization"] == f"Basic {base64.b64encode(b'u:p').decode()}"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"https_proxy": "p:1"}, "http://p:1"),
        ({"all_proxy": "http://p:1"}, "http://p:1"),
        ({"http_proxy": "http://p:1"}, None),
        ({"https_proxy": "http://p:1", "no_proxy": "a.io"}, None),
        ({"https_proxy": "http://p:1", "NO_PROXY": "b.io"}, "http://p:1"),
        ({"https_proxy": "http://p:1", "no_proxy": "*"}, None),
    ],
)
def test_which_proxy(environment: dict[str, str], expected: str | None) -> None:
    assert http_rules.proxy("https://a.io/v2/", environment) == expected


@pytest.mark.row("HTTP client", "HTTP_PROXY of a CGI program is not")
def test_CVE_httpoxy() -> None:
    environment = {"HTTP_PROXY": "http://evil", "REQUEST_METHOD": "GET"}
    assert http_rules.proxy("http://a.io", environment) is None


def test_nothing_is_left_open(bench: Bench) -> None:
    server = bench.serve(in_turn(Answer(500), Answer(401), GOOD))
    # What earlier tests left to the collector must not be counted.
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    client = bench.client()
    source = Source(server.host, "a/b", insecure=True)
    with pytest.raises(RegistryError):
        client.manifest(source, "latest")
    client.manifest(source, "latest")
    with pytest.raises(RegistryError):
        client.blob(source, DIGEST, offset=0, size=1)
    client.forget_connections()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_typed_url_is_fetched_without_credentials(bench: Bench) -> None:
    server = bench.serve(lambda request: Answer(body=b"archive"))
    body = bench.client().fetch(f"http://{server.host}/a.tar")
    assert body.length() == 7
    assert body.read(100) == b"archive"
    body.close()
    assert server.authorizations() == []
    for url in ("ftp://x/y", "http:///y", "https://u:p@x/y", "file:///etc/passwd", "http://x/\n"):
        with pytest.raises(UsageError):
            bench.client().fetch(url)
