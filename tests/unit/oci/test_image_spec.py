"""Documents from registries: what is accepted, and that all the rest is one kind of error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.oci import image_spec
from rootlesspy.oci.image_spec import MalformedError

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 3}
CONFIG = {"mediaType": image_spec.CONFIG, "digest": DIGEST, "size": 2}
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": image_spec.MANIFEST,
    "config": CONFIG,
    "layers": [LAYER],
}
INDEX = {
    "schemaVersion": 2,
    "mediaType": image_spec.INDEX,
    "manifests": [
        {
            "mediaType": image_spec.MANIFEST,
            "digest": DIGEST,
            "size": 9,
            "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
        }
    ],
}
IMAGE = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": None, "User": ""},
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
}


def encoded(document: object, **changes: object) -> bytes:
    merged = {**document, **changes} if isinstance(document, dict) else document
    return json.dumps(merged).encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        HEX,
        DIGEST[:-1],
        DIGEST + "0",
        DIGEST.upper(),
        f"SHA256:{HEX}",
        f"md5:{'0' * 32}",
        "sha256:../../x",
        f"sha256:{HEX}/..",
        f"sha256:{'0' * 128}",
        f"sha512:{HEX}",
        f" {DIGEST}",
        f"{DIGEST}\n",
        "sha256:" + "\uff10" * 64,
        f"sha256:{HEX[:-1]}\0",
        None,
        1,
        ["sha256"],
        DIGEST.encode(),
    ],
)
@pytest.mark.row("CVE-2024-3727", "only lower-case sha256 and sha512 of the right length")
def test_CVE_2024_3727_digest_strings_are_checked(text: object) -> None:
    assert not image_spec.is_digest(text)
    with pytest.raises(MalformedError):
        image_spec.check_digest(text, "layer")
    for key in ("config", "layers"):
        bad = {**LAYER, "digest": text} if not isinstance(text, bytes) else {**LAYER, "digest": 0}
        document = {**MANIFEST, key: [bad] if key == "layers" else {**CONFIG, **bad}}
        with pytest.raises(MalformedError):
            image_spec.parse_manifest(encoded(document))


def test_digests_that_are_understood() -> None:
    assert image_spec.is_digest(DIGEST)
    assert image_spec.is_digest(f"sha512:{HEX}{HEX}")


@pytest.mark.row("CVE-2021-41190", "refused")
def test_manifest_of_both_kinds() -> None:
    manifest = image_spec.parse_manifest(encoded(MANIFEST), image_spec.MANIFEST)
    assert manifest.layers[0].digest == DIGEST
    assert manifest.config.size == 2
    docker = encoded(MANIFEST, mediaType=image_spec.DOCKER_MANIFEST)
    assert image_spec.parse_manifest(docker).media_type == image_spec.DOCKER_MANIFEST
    plain = {key: value for key, value in MANIFEST.items() if key != "mediaType"}
    assert image_spec.parse_manifest(encoded(plain), image_spec.MANIFEST) == manifest


def test_index_platforms() -> None:
    (entry,) = image_spec.parse_index(encoded(INDEX))
    assert entry.platform == "linux/arm/v7"


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        pytest.param({**MANIFEST, "manifests": []}, None, id="CVE-2021-41190 both kinds"),
        pytest.param({**INDEX, "config": CONFIG}, None, id="index with config"),
        pytest.param(MANIFEST, image_spec.INDEX, id="sent as an index"),
        pytest.param(MANIFEST, "text/html", id="sent as a web page"),
        pytest.param({**MANIFEST, "mediaType": image_spec.INDEX}, None, id="says index"),
        pytest.param({**MANIFEST, "schemaVersion": 1}, None, id="schema 1"),
        pytest.param({**MANIFEST, "schemaVersion": True}, None, id="schema true"),
        pytest.param({**MANIFEST, "schemaVersion": "2"}, None, id="schema text"),
        pytest.param({**MANIFEST, "layers": None}, None, id="layers null"),
        pytest.param({**MANIFEST, "layers": {}}, None, id="layers object"),
        pytest.param({**MANIFEST, "layers": [LAYER] * 501}, None, id="501 layers"),
        pytest.param({**MANIFEST, "config": None}, None, id="config null"),
        pytest.param({**MANIFEST, "config": {**CONFIG, "mediaType": "a/b"}}, None, id="artifact"),
        *(
            pytest.param({**MANIFEST, "layers": [{**LAYER, "size": size}]}, None, id=f"size {size}")
            for size in (-1, 2**63, 1.0, "3", None, True, [3])
        ),
        *(
            pytest.param({**MANIFEST, "layers": [{**LAYER, "mediaType": kind}]}, None, id=kind)
            for kind in (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                "application/x-tar",
            )
        ),
    ],
)
def test_manifests_refused(document: object, content_type: str | None) -> None:
    with pytest.raises(MalformedError):
        image_spec.parse_manifest(encoded(document), content_type)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"a":1,"a":2}', id="duplicate key"),
        pytest.param(b'{"a":{"b":1,"b":1}}', id="duplicate key inside"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":-Infinity}', id="infinity"),
        pytest.param(b'{"a":1e999}', id="infinity in disguise"),
        pytest.param(b'{"a":"\\ud800"}', id="lone surrogate"),
        pytest.param(b'{"\\ud800":1}', id="lone surrogate key"),
        pytest.param(b'{"a":"x\\u0000"}', id="NUL"),
        pytest.param(b'{"x\\u0000":""}', id="NUL in a key"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="number of 5,000 digits"),
        pytest.param(b'{"a":' * 10000 + b"1" + b"}" * 10000, id="deep objects"),
        pytest.param(b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}", id="deep lists"),
        pytest.param(b'{"a":"' + b"x" * 4194304 + b'"}', id="too long"),
    ],
)
@pytest.mark.row("CVE-2021-21285", "refused: depth, size, duplicate keys, NaN, huge numbers")
def test_CVE_2021_21285_documents_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        image_spec.parse_document(data, "manifest")


def test_a_backslash_before_u0000_is_no_nul() -> None:
    assert image_spec.parse_document(rb'{"a":"\\u0000"}', "x") == {"a": r"\u0000"}


def test_config_leaves_nulls_out() -> None:
    config = image_spec.parse_config(encoded(IMAGE, author=None))
    assert "Labels" not in config["config"]
    assert "author" not in config
    assert config["config"]["Env"] == ["PATH=/bin"]
    assert image_spec.platform_of(config) == "linux/amd64"
    assert image_spec.parse_config(encoded(IMAGE, config=None))["config"] == {}


@pytest.mark.parametrize(
    "env", [["HOSTSECRET"], ["*"], ["H*"], ["=x"], [""], ["A=B\0C"], [1], [None], "A=B", {"A": "B"}]
)
@pytest.mark.row("CVE-2026-57231", "refused")
def test_CVE_2026_57231_odd_environment_is_refused(env: object) -> None:
    with pytest.raises(MalformedError):
        image_spec.parse_config(encoded(IMAGE, config={"Env": env}))


@pytest.mark.parametrize(
    "changes",
    [
        {"rootfs": None},
        {"rootfs": {"type": "layers"}},
        {"rootfs": {"type": "x", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:../x"]}},
        {"architecture": 1},
        {"config": []},
        {"config": {"Cmd": "sh"}},
        {"config": {"Entrypoint": [1]}},
        {"config": {"User": 0}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"Volumes": ["/x"]}},
    ],
)
def test_configs_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        image_spec.parse_config(encoded(IMAGE, **changes))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["schemaVersion", "mediaType", "config", "layers", "manifests", "rootfs", "os", "size", "Env"]
)


@given(
    base=st.sampled_from([MANIFEST, INDEX, IMAGE]),
    changes=st.dictionaries(KEYS, JSON, max_size=3),
    cut=st.integers(0, 400),
)
def test_parsers_raise_nothing_but_malformed(
    base: dict[str, object], changes: dict[str, object], cut: int
) -> None:
    data = encoded(base, **changes)
    for document in (data, data[: -cut or None]):
        for parse in (
            image_spec.parse_manifest,
            image_spec.parse_index,
            image_spec.parse_config,
        ):
            try:
                parse(document)
            except MalformedError:
                continue
