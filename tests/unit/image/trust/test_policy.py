"""containers-policy.json: what is understood, what is refused, and which part of it decides."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.errors import UsageError
from rootlesspy.image.reference import parse as reference
from rootlesspy.image.trust import change, identity, policy
from rootlesspy.image.trust.identity import Identity
from rootlesspy.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

ACCEPT: dict[str, object] = {"type": "insecureAcceptAnything"}
REJECT: dict[str, object] = {"type": "reject"}
GPG: dict[str, object] = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k.gpg"}
COSIGN: dict[str, object] = {"type": "sigstoreSigned", "keyPath": "/k.pub"}


def parse(document: object) -> policy.Policy:
    return policy.parse(json.dumps(document).encode(), "p.json")


def one(requirement: object) -> policy.Requirement:
    return parse({"default": [requirement]}).default[0]


def paths_of(directory: Path) -> Paths:
    return Paths(data=f"{directory}/data/rootlesspy", runtime=None, config=f"{directory}/config")


@pytest.mark.parametrize(
    ("name", "decides"),
    [
        ("docker.io/library/alpine:3.20", "docker:docker.io/library/alpine:3.20"),
        ("docker.io/library/alpine:latest", "docker:docker.io/library/alpine"),
        ("docker.io/library/busybox", "docker:docker.io/library"),
        ("docker.io/other/busybox", "docker:docker.io"),
        ("a.example.com/x", "docker:a.example.com"),
        ("b.example.com/x", "docker:*.example.com"),
        ("c.b.example.com:5000/x", "docker:*.example.com"),
        ("b.example.org:5000/y/x", "docker:b.example.org:5000/y"),
        ("b.example.org:5001/y/x", "docker:"),
        ("example.com/x", "docker:"),
        ("docker.io/librarian/x", "docker:docker.io"),
        (f"quay.io/a@sha256:{'0' * 64}", f"docker:quay.io/a@sha256:{'0' * 64}"),
    ],
)
def test_the_narrowest_scope_decides(name: str, decides: str) -> None:
    scopes = (
        "docker.io/library/alpine:3.20", "docker.io/library/alpine", "docker.io/library",
        "docker.io", "a.example.com", "*.example.com", "b.example.org:5000/y", "",
        f"quay.io/a@sha256:{'0' * 64}",
    )  # fmt: skip
    table = {each: [ACCEPT] for each in scopes}
    found = parse({"default": [REJECT], "transports": {"docker": table}})
    scopes_of = tuple(identity.namespaces(reference(name)))
    assert found.requirements("docker", scopes_of) == (
        decides,
        (policy.Requirement("insecureAcceptAnything"),),
    )
    assert found.requirements("dir", ("/x",))[0] == "default"


def test_paths_are_scopes_of_files() -> None:
    found = parse({"default": [ACCEPT], "transports": {"dir": {"/a/b": [REJECT], "": [COSIGN]}}})
    for path, place in (("/a/b", "dir:/a/b"), ("/a/b/c/d", "dir:/a/b"), ("/a/bc", "dir:")):
        assert found.requirements("dir", tuple(identity.path_scopes(path)))[0] == place
    assert found.requirements("oci", ("/a/b",))[0] == "default"


@pytest.mark.parametrize(
    ("requirement", "keys"),
    [
        (GPG, policy.Keys(paths=("/k.gpg",))),
        ({**GPG, "keyPaths": ["/a", "/b"], "keyPath": None}, policy.Keys(paths=("/a", "/b"))),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyData": "aGk="}, policy.Keys(data=(b"hi",))),
        (
            {"type": "sigstoreSigned", "keyDatas": ["aGk=", "aG8="]},
            policy.Keys(data=(b"hi", b"ho")),
        ),
    ],
)
def test_keys(requirement: dict[str, Any], keys: policy.Keys) -> None:
    assert one({k: v for k, v in requirement.items() if v is not None}).keys == keys


def test_sigstore_with_a_transparency_log() -> None:
    found = one({**COSIGN, "rekorPublicKeyPath": "/rekor.pub"})
    assert (found.keys.paths, found.rekor.paths, found.unsupported) == (
        ("/k.pub",),
        ("/rekor.pub",),
        "",
    )
    assert one({"type": "sigstoreSigned", "fulcio": {"caPath": "/x"}}).unsupported == "fulcio"
    assert one({"type": "sigstoreSigned", "pki": {}}).unsupported == "pki"
    assert one({**GPG, "keyType": "X509Certificates"}).unsupported == "keyType X509Certificates"
    base = {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}
    assert one(base).unsupported == "signedBaseLayer"


DEFAULT = {"default": [ACCEPT]}


def identified(kind: str, **fields: object) -> dict[str, object]:
    return {"default": [{**GPG, "signedIdentity": {"type": kind, **fields}}]}


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({}, "default is not a list"),
        ({"default": []}, "default is an empty list"),
        ({"default": {}}, "default is not a list"),
        ({"default": [ACCEPT], "x": 1}, "unknown key 'x'"),
        ({"default": ["accept"]}, "is not a table"),
        ({"default": [{}]}, "unknown type of requirement None"),
        ({"default": [{"type": "Reject"}]}, "unknown type of requirement 'Reject'"),
        ({"default": [{"type": ["reject"]}]}, "unknown type of requirement"),
        ({"default": [{**REJECT, "keyPath": "/x"}]}, "unknown key 'keyPath'"),
        ({"default": [{**GPG, "keytype": "GPGKeys"}]}, "unknown key 'keytype'"),
        ({"default": [{**GPG, "keyData": "aGk="}]}, "keyPath and keyData exclude each other"),
        ({"default": [{"type": "signedBy", "keyType": "GPGKeys"}]}, "keyPath, keyPaths or keyData"),
        ({"default": [{"type": "signedBy", "keyPath": "/x"}]}, "keyType is not"),
        ({"default": [{**GPG, "keyPath": ""}]}, "keyPath is not a string"),
        ({"default": [{**GPG, "keyPath": 1}]}, "keyPath is not a string"),
        ({"default": [{"type": "sigstoreSigned"}]}, "is missing"),
        ({"default": [{**COSIGN, "fulcio": {}}]}, "exclude each other"),
        ({"default": [{"type": "sigstoreSigned", "keyPaths": []}]}, "not a list of strings"),
        ({"default": [{"type": "sigstoreSigned", "keyData": "*"}]}, "keyData is not base64"),
        (identified("matchAll"), "unknown type 'matchAll'"),
        (identified("matchExact", x=1), "unknown key 'x'"),
        (identified("exactReference"), "dockerReference"),
        (identified("exactReference", dockerReference="a.io/b"),
         "dockerReference 'a.io/b'"),
        (identified("exactRepository", dockerRepository="a.io/b:1"),
         "dockerRepository 'a.io/b:1'"),
        (identified("remapIdentity", prefix="a.io"), "signedPrefix"),
        ({**DEFAULT, "transports": []}, "transports is not a table"),
        ({**DEFAULT, "transports": {"docker": []}}, "transports.docker is not a table"),
        ({**DEFAULT, "transports": {"docker": {"a.io": []}}}, "transports.docker.a.io is an empty"),
        ({**DEFAULT, "transports": {"dir": {"a": [REJECT]}}}, "absolute path"),
        ({**DEFAULT, "transports": {"dir": {"/": [REJECT]}}}, "absolute path"),
        ({**DEFAULT, "transports": {"oci": {"/a/../b": [REJECT]}}}, "absolute path"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(document: object, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(document)
    assert complaint in caught.value.message
    assert caught.value.message.startswith("signature policy p.json: ")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b'{"default":[],"default":[]}', b"\xff",
     b'{"default":[{"type":"reject","type":"x"}]}', b'{"default":NaN}', b"[" * 100_000],
)  # fmt: skip
def test_bytes_that_are_no_policy(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"p\.json"):
        policy.parse(data, "p.json")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8)
    | st.sampled_from(["reject", "signedBy", "sigstoreSigned", "GPGKeys", "matchExact"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["default", "transports", "docker", "type", "keyType", "keyPath",
                         "keyData", "signedIdentity", "prefix", "fulcio", "dir", "/"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(_JSON)
def test_no_other_error_escapes(document: object) -> None:
    try:
        parse(document)
    except UsageError:
        return
    assert isinstance(document, dict)
    assert document["default"]


def test_where_the_policy_is(tmp_path: Path) -> None:
    paths = paths_of(tmp_path)
    chosen = tmp_path / "mine.json"
    chosen.write_text(json.dumps({"default": [REJECT]}))
    assert policy.load(paths, str(chosen)).default[0].type == "reject"
    user = tmp_path / "config/containers/policy.json"
    user.parent.mkdir(parents=True)
    user.write_text(json.dumps({"default": [COSIGN]}))
    assert policy.load(paths).path == str(user)
    user.unlink()
    user.symlink_to("/nonexistent")
    with pytest.raises(UsageError, match="No such file"):
        policy.load(paths)
    with pytest.raises(UsageError, match=r"nothing\.json"):
        policy.load(paths, str(tmp_path / "nothing.json"))


# --- identities -------------------------------------------------------------------------------

REMAPPED = Identity("remapIdentity", "m.io/mirror", "v.io")
D0, D1 = (f"sha256:{digit * 64}" for digit in "01")


@pytest.mark.parametrize(
    ("wanted", "asked", "signed", "matches"),
    [
        (Identity("matchExact"), "a.io/b:1", "a.io/b:1", True),
        (Identity("matchExact"), "a.io/b:1", "a.io/b:2", False),
        (Identity("matchExact"), "a.io/b:latest", "a.io/b", False),
        (Identity("matchExact"), f"a.io/b@{D0}", "a.io/b:1", False),
        (Identity("matchExact"), f"a.io/b@{D0}", f"a.io/b@{D0}", True),
        (identity.DEFAULT, "a.io/b:1", "a.io/b:1", True),
        (identity.DEFAULT, "a.io/b:1", f"a.io/b@{D0}", False),
        (identity.DEFAULT, "a.io/b:1", "a.io/c:1", False),
        (identity.DEFAULT, f"a.io/b@{D0}", "a.io/b:1", True),
        (identity.DEFAULT, f"a.io/b@{D0}", "a.io/b", True),
        (identity.DEFAULT, f"a.io/b@{D0}", f"a.io/b@{D1}", True),
        (identity.DEFAULT, f"a.io/b@{D0}", "a.io/c:1", False),
        (Identity("matchRepository"), "a.io/b:1", "a.io/b:2", True),
        (Identity("matchRepository"), "a.io/b:1", "a.io/b", True),
        (Identity("matchRepository"), "a.io/b:1", "b.io/b:1", False),
        (Identity("exactReference", "c.io/d:9"), "a.io/b:1", "c.io/d:9", True),
        (Identity("exactReference", "c.io/d:9"), "a.io/b:1", "a.io/b:1", False),
        (Identity("exactReference", "c.io/d:9"), None, "c.io/d:9", True),
        (Identity("exactRepository", "c.io/d"), None, "c.io/d:7", True),
        (Identity("exactRepository", "c.io/d"), "c.io/e:7", "c.io/e:7", False),
        (identity.DEFAULT, None, "a.io/b:1", False),
        (Identity("matchRepository"), None, "a.io/b:1", False),
        (REMAPPED, "m.io/mirror/x:1", "v.io/x:1", True),
        (REMAPPED, "m.io/mirror/x:1", "m.io/mirror/x:1", False),
        (REMAPPED, "m.io/mirrors/x:1", "v.io/x:1", False),
        (REMAPPED, "m.io/mirrors/x:1", "m.io/mirrors/x:1", True),
        (Identity("remapIdentity", "m.io", "v.io"), "m.io:5000/x:1", "v.io:5000/x:1", False),
        (Identity("remapIdentity", "m.io/x", "v.io/y"), "m.io/x:1", "v.io/y:1", True),
        (Identity("matchRepository"), "docker.io/library/a:1", "a:2", True),
        (identity.DEFAULT, "a.io/b:1", "not a reference", False),
        (identity.DEFAULT, "a.io/b:1", "", False),
    ],
)  # fmt: skip
def test_which_names_a_signature_speaks_for(
    wanted: Identity, asked: str | None, signed: str, matches: bool
) -> None:
    named = None if asked is None else reference(asked)
    assert identity.matches(wanted, named, signed) is matches


# --- changing it ------------------------------------------------------------------------------


def test_a_change_keeps_everything_else(tmp_path: Path) -> None:
    paths = paths_of(tmp_path)
    file = tmp_path / "config/containers/policy.json"
    file.parent.mkdir(parents=True)
    before = {
        "default": [REJECT],
        "transports": {"oci": {"/x": [ACCEPT]}, "docker": {"z.io": [GPG]}},
    }
    file.write_text(json.dumps(before))
    key = tmp_path / "key.pub"
    key.write_text("key")
    change.put(paths, "a.io/b", "sigstoreSigned", [str(key)])
    after = json.loads(file.read_text())
    assert after["transports"]["docker"]["a.io/b"] == [
        {"type": "sigstoreSigned", "keyPath": str(key)}
    ]
    del after["transports"]["docker"]["a.io/b"]
    assert after == before
    change.put(paths, "default", "accept", [])
    assert json.loads(file.read_text())["default"] == [ACCEPT]
    assert [each.name for each in file.parent.iterdir()] == ["policy.json"]


@pytest.mark.parametrize(
    ("scope", "kind", "keys", "complaint"),
    [
        ("a.io", "signedBy", [], "needs a public key"),
        ("a.io", "accept", ["/etc/passwd"], "takes no public key"),
        ("a.io", "signedBy", ["/nonexistent"], "there is no key"),
        ("Bad Name", "reject", [], "'Bad Name'"),
        ("a.io/B", "reject", [], "'a.io/B'"),
        ("../x", "reject", [], "'../x'"),
        ("", "reject", [], "''"),
    ],
)
def test_a_change_that_makes_no_sense(
    tmp_path: Path, scope: str, kind: str, keys: list[str], complaint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        change.put(paths_of(tmp_path), scope, kind, keys)
    assert complaint in caught.value.message
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize(
    "scope", ["a.io", "*.a.io", "a.io:5000/b/c", "a.io/b:tag", "docker.io/library"]
)
def test_scopes(tmp_path: Path, scope: str) -> None:
    change.put(paths_of(tmp_path), scope, "reject", [])
    found = policy.load(paths_of(tmp_path))
    assert found.transports["docker"][scope][0].type == "reject"


def test_key_data_is_bytes() -> None:
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    assert one({"type": "signedBy", "keyType": "GPGKeys", "keyData": text}).keys.data == (data,)
