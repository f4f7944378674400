"""Where signatures are found, against registries and lookaside servers that lie."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from unit.image import evilregistry
from unit.image.evilregistry import Answer, Request, Running

from rootlesspy.errors import Error, ImageError, RegistryError
from rootlesspy.image.registry import Client
from rootlesspy.image.transport import Transport
from rootlesspy.image.trust import evidence, registries_d, sigstore
from rootlesspy.oci import image_spec
from rootlesspy.report import Reporter
from rootlesspy.settings import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DIGEST = f"sha256:{'a' * 64}"
PAYLOAD = b'{"critical":{}}'
PAYLOAD_DIGEST = f"sha256:{hashlib.sha256(PAYLOAD).hexdigest()}"
LOOKASIDE = f"/sigs/team/app@sha256={'a' * 64}/signature-"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def found(
    stack: ExitStack, directory: Path, script: Callable[[Request], Answer], **table: Any
) -> tuple[evidence.RegistryEvidence, Running]:
    """Return the evidence that a server has; table is what registries.d says of it."""
    server = stack.enter_context(evilregistry.serve(directory / "log", lambda host: script))
    own = {key: value.replace("HOST", server.host) if isinstance(value, str) else value
           for key, value in table.items()}  # fmt: skip
    places = registries_d.Places(
        {}, {k.replace("_", "-"): v for k, v in own.items()}, "/nonexistent"
    )
    reporter = Reporter(quiet=True)
    client = Client(reporter, environment={}, config_directory=str(directory), sleep=lambda s: None)
    stack.callback(client.forget_connections)
    source = Source(server.host, "team/app", True)

    def transport() -> Transport:
        return Transport(
            reporter, environment={}, config_directory=str(directory), sleep=lambda s: None
        )

    return evidence.RegistryEvidence(client, source, DIGEST, places, transport), server


def test_a_lookaside_over_http(stack: ExitStack, tmp_path: Path) -> None:
    def script(request: Request) -> Answer:
        if request.path in (f"{LOOKASIDE}1", f"{LOOKASIDE}2"):
            return Answer(200, request.path[-1].encode())
        return Answer(404 if request.path.startswith("/sigs") else 200)

    signatures, server = found(stack, tmp_path, script, lookaside="http://HOST/sigs")
    assert signatures.simple() == [b"1", b"2"]
    assert server.paths()[-1] == f"{LOOKASIDE}3"
    assert server.authorizations() == []


@pytest.mark.parametrize("answer", [Answer(500), Answer(403), Answer(200, b"x" * ((4 << 20) + 1))])
def test_a_lookaside_that_fails_is_an_error(
    stack: ExitStack, tmp_path: Path, answer: Answer
) -> None:
    signatures, _ = found(
        stack, tmp_path, lambda request: answer if request.path.startswith("/sigs") else Answer(),
        lookaside="http://HOST/sigs",
    )  # fmt: skip
    with pytest.raises((RegistryError, ImageError)):
        signatures.simple()


def test_a_lookaside_without_an_end(stack: ExitStack, tmp_path: Path) -> None:
    signatures, server = found(
        stack, tmp_path, lambda request: Answer(200, b"x"), lookaside="http://HOST/sigs"
    )
    assert len(signatures.simple()) == 128
    assert len(server.paths()) == 129


def test_a_lookaside_in_a_directory(stack: ExitStack, tmp_path: Path) -> None:
    place = tmp_path / f"s p/team/app@sha256={'a' * 64}"
    signatures, _ = found(
        stack, tmp_path, lambda request: Answer(), lookaside=f"file://{tmp_path}/s%20p"
    )
    assert signatures.simple() == []
    place.mkdir(parents=True)
    (place / "signature-1").write_bytes(b"one")
    (place / "signature-3").write_bytes(b"three")
    assert signatures.simple() == [b"one"]
    (place / "signature-2").mkdir()
    with pytest.raises(ImageError, match="cannot read signature"):
        signatures.simple()


SUPPORTS = (("X-Registry-Supports-Signatures", "1"),)


def of_extension(answer: object) -> Callable[[Request], Answer]:
    def script(request: Request) -> Answer:
        if request.path == f"/extensions/v2/team/app/signatures/{DIGEST}":
            return Answer(200, json.dumps(answer).encode())
        return Answer(200 if request.path == "/v2/" else 404, b"", SUPPORTS)

    return script


def test_the_registrys_own_signatures(stack: ExitStack, tmp_path: Path) -> None:
    def entry(content: bytes, **more: object) -> dict[str, object]:
        text = base64.b64encode(content).decode()
        return {"schemaVersion": 2, "type": "atomic", "name": "x", "content": text, **more}

    answer = {"signatures": [entry(b"one"), entry(b"two", type="x"), entry(b"3", schemaVersion=1)]}
    signatures, _ = found(stack, tmp_path, of_extension(answer))
    assert signatures.simple() == [b"one"]


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"signatures": None}, {"signatures": [{}] * 129},
     {"signatures": [{"schemaVersion": 2, "type": "atomic", "content": "%"}]},
     {"signatures": [{"schemaVersion": 2, "type": "atomic"}]}],
)  # fmt: skip
def test_the_registrys_own_signatures_malformed(
    stack: ExitStack, tmp_path: Path, answer: object
) -> None:
    signatures, _ = found(stack, tmp_path, of_extension(answer))
    with pytest.raises(ImageError, match="signatures from"):
        signatures.simple()


# --- attachments ------------------------------------------------------------------------------


def attached(**changes: Any) -> dict[str, Any]:
    layer = {
        "mediaType": sigstore.PAYLOAD_TYPE, "digest": PAYLOAD_DIGEST, "size": len(PAYLOAD),
        "annotations": {"a": "b"},
    }  # fmt: skip
    return {"schemaVersion": 2, "layers": [{**layer, **changes}]}


def of_attachments(manifest: object) -> Callable[[Request], Answer]:
    headers = (("Content-Type", image_spec.MANIFEST),)

    def script(request: Request) -> Answer:
        if request.path == f"/v2/team/app/manifests/sha256-{'a' * 64}.sig":
            return Answer(200, json.dumps(manifest).encode(), headers)
        if request.path.startswith("/v2/team/app/blobs/"):
            return Answer(200, PAYLOAD)
        return Answer(404)

    return script


def test_attachments(stack: ExitStack, tmp_path: Path) -> None:
    table = {"use_sigstore_attachments": True}
    signatures, _ = found(stack, tmp_path, of_attachments(attached()), **table)
    assert signatures.attachments() == [sigstore.Attachment(PAYLOAD, {"a": "b"})]


def test_attachments_only_where_they_are_wanted(stack: ExitStack, tmp_path: Path) -> None:
    signatures, server = found(stack, tmp_path, of_attachments(attached()))
    assert signatures.attachments() == []
    assert server.paths() == []


def test_other_layers_and_no_manifest(stack: ExitStack, tmp_path: Path) -> None:
    table = {"use_sigstore_attachments": True}
    other = attached(mediaType="application/x", digest="../../etc", size=-1)
    signatures, server = found(stack, tmp_path, of_attachments(other), **table)
    assert signatures.attachments() == []
    assert not any("blobs" in path for path in server.paths())


def test_no_attachments(stack: ExitStack, tmp_path: Path) -> None:
    table = {"use_sigstore_attachments": True}
    signatures, _ = found(stack, tmp_path, lambda request: Answer(404), **table)
    assert signatures.attachments() == []


@pytest.mark.parametrize(
    "manifest",
    [
        {}, [], {"layers": None}, {"layers": [1]}, {"layers": [{}] * 129},
        attached(digest="sha256:../../x"), attached(digest=None), attached(size=-1),
        attached(size=5 << 20), attached(size=True), attached(size="15"), attached(annotations=[]),
        attached(annotations={"a": 1}), attached(digest=f"sha256:{'b' * 64}"),
    ],
)  # fmt: skip
def test_malformed_attachments(stack: ExitStack, tmp_path: Path, manifest: object) -> None:
    table = {"use_sigstore_attachments": True}
    signatures, _ = found(stack, tmp_path, of_attachments(manifest), **table)
    with pytest.raises(Error):
        signatures.attachments()
