"""Signature policies against real signatures: cosign's by skopeo, OpenPGP's; what else is refused.

Where podman can verify the same, it is asked too: both accept and both refuse.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from namespace.imagepush import push
from rig import ociimage
from rig.ociimage import Blob, Entry, Image, directory, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rig.machine import Completed, Machine

pytestmark = [pytest.mark.namespace, pytest.mark.usefixtures("needs_registry")]

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
HOST = "localhost:5000"
SIGNED, OTHER = "docker.io/test/signed", "docker.io/test/other"
ANY_TAG = {"type": "matchRepository"}
OPTION = "--signature-policy=policy.json"


class Signed(NamedTuple):
    """An image in the registry, and what skopeo made as its signature."""

    image: Image
    payload: bytes
    signature: str


def sh(rig: Machine, script: str, *, check: bool = True, **options: Any) -> Completed:
    return rig.run(["sh", "-c", f"cd ~/trust; {script}"], check=check, timeout=120, **options)


def write(rig: Machine, path: str, data: bytes) -> None:
    script = f"mkdir -p $(dirname {path}); base64 -d > {path}"
    sh(rig, script, input=base64.b64encode(data).decode())


def requirement(kind: str, key: str, identity: Mapping[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "keyPath": f"/home/alice/trust/{key}"}
    if kind == "signedBy":
        found["keyType"] = "GPGKeys"
    if identity is not None:
        found["signedIdentity"] = identity
    return found


def policy(*requirements: Mapping[str, Any], transport: str = "docker") -> str:
    """Return a script that writes a policy: what does not fulfil the requirements is rejected."""
    document = {
        "default": [{"type": "reject"}],
        "transports": {transport: {"": requirements}},
    }
    text = base64.b64encode(json.dumps(document).encode()).decode()
    return f"echo {text} | base64 -d > policy.json"


def image_of(text: str) -> Image:
    return ociimage.image([ociimage.tar([Entry(name="text", data=text.encode())])])


@pytest.fixture(scope="module")
def _place(rig: Machine) -> Iterator[None]:
    rig.run(
        ["sh", "-c", "rm -rf ~/trust; mkdir ~/trust; mkdir -p ~/.config/containers/registries.d"]
    )
    write(
        rig,
        "~/.config/containers/registries.d/rig.yaml",
        b"docker:\n  localhost:5000:\n    use-sigstore-attachments: true\n"
        b"    lookaside: file:///home/alice/trust/lookaside\n",
    )
    yield
    script = "rp rmi -af; podman rmi -af; rm -rf ~/trust ~/.config/containers"
    rig.run(["sh", "-c", script], check=False)


@pytest.fixture(scope="module")
def signed(rig: Machine, _place: None) -> Signed:
    """Return an image that skopeo has signed as docker.io/test/signed:1; key.pub is its key."""
    image, other = image_of("signed"), image_of("other")
    push(rig, "test/source", {"1": image})
    push(rig, "test/other", {"1": other, "2": image_of("second")})
    sh(
        rig,
        "echo secret > pass; for name in key other; do skopeo generate-sigstore-key "
        "--output-prefix $name --passphrase-file pass; done; "
        "skopeo copy -q --src-tls-verify=false --dest-tls-verify=false "
        "--sign-by-sigstore-private-key key.private --sign-passphrase-file pass "
        f"--sign-identity {SIGNED}:1 docker://{HOST}/test/source:1 docker://{HOST}/test/signed:1; "
        "skopeo copy -q --src-tls-verify=false --dest-tls-verify=false "
        f"--remove-signatures docker://{HOST}/test/signed:1 docker://{HOST}/test/signed:2",
    )
    tag = image.manifest.digest.replace(":", "-") + ".sig"
    raw = sh(rig, f"skopeo inspect --raw --tls-verify=false docker://{HOST}/test/signed:{tag}")
    # In a kept rig those of earlier runs stand before it.
    layer = json.loads(raw.stdout)["layers"][-1]
    read = (
        "import sys, urllib.request; sys.stdout.write(urllib.request.urlopen("
        f"'http://{HOST}/v2/test/signed/blobs/{layer['digest']}').read().decode())"
    )
    payload = rig.run(["python3", "-I", "-c", read]).stdout
    return Signed(image, str(payload).encode(), layer["annotations"][SIGNATURE])


def attach(rig: Machine, repository: str, to: Image, *signatures: tuple[bytes, str]) -> None:
    """Put signatures of an image into a repository, as cosign does: payloads and base64 texts."""
    config = Blob("application/vnd.oci.image.config.v1+json", b'{"rootfs":{}}')
    layers = tuple(Blob(PAYLOAD_TYPE, payload) for payload, _ in signatures)
    entries = [
        layer.descriptor(annotations={SIGNATURE: text})
        for layer, (_, text) in zip(layers, signatures, strict=True)
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor(),
        "layers": entries,
    }
    made = Image(
        Blob("application/vnd.oci.image.manifest.v1+json", json.dumps(manifest).encode()),
        config, layers, {},
    )  # fmt: skip
    push(rig, repository, {to.manifest.digest.replace(":", "-") + ".sig": made})


def refused(rig: Machine, name: str, option: str, *words: str, podman: bool = False) -> None:
    """Expect one line with the words, exit code 125, nothing stored; podman refuses as well."""
    done = sh(
        rig,
        f"{option}; rp rmi -af >/dev/null; rp pull -q {OPTION} {name}; code=$?; "
        "rp images -q; ls ~/.local/share/rootlesspy/layers/sha256; exit $code",
        check=False,
    )
    assert (done.returncode, done.stdout) == (125, "")
    message, *hints = str(done.stderr).splitlines()
    assert message.startswith("rp: image ")
    assert "is refused by the signature policy" in message
    for word in words:
        assert word in message
    assert len(hints) == 1
    if podman:
        assert sh(rig, f"podman pull -q {OPTION} {name}", check=False).returncode == 125


def accepted(rig: Machine, name: str, option: str, *, podman: bool = False) -> None:
    script = f"set -e; {option}; rp rmi -af; rp pull -q {OPTION} {name}; rp image exists {name}"
    if podman:
        script += f"; podman pull -q {OPTION} {name}; podman rmi {name}"
    sh(rig, script)


# --- sigstore ---------------------------------------------------------------------------------


def test_skopeos_signature_is_accepted(rig: Machine, signed: Signed) -> None:
    option = policy(requirement("sigstoreSigned", "key.pub"))
    accepted(rig, f"{SIGNED}:1", option, podman=True)
    accepted(rig, f"{SIGNED}@{signed.image.manifest.digest}", option)
    option = policy(requirement("sigstoreSigned", "key.pub", ANY_TAG))
    accepted(rig, f"{SIGNED}:2", option)
    several = {**requirement("sigstoreSigned", "key.pub"), "keyPaths": ["other.pub", "key.pub"]}
    del several["keyPath"]
    several["keyPaths"] = [f"/home/alice/trust/{each}" for each in several["keyPaths"]]
    accepted(rig, f"{SIGNED}:1", policy(several))


def test_another_key(rig: Machine, signed: Signed) -> None:
    option = policy(requirement("sigstoreSigned", "other.pub"))
    refused(rig, f"{SIGNED}:1", option, "docker:: sigstoreSigned", "does not verify with the key",
            podman=True)  # fmt: skip


def test_all_requirements_count(rig: Machine, signed: Signed) -> None:
    keys = [requirement("sigstoreSigned", each) for each in ("key.pub", "other.pub")]
    refused(rig, f"{SIGNED}:1", policy(keys[0], {"type": "reject"}), "docker:: reject")


def test_another_tag(rig: Machine, signed: Signed) -> None:
    option = policy(requirement("sigstoreSigned", "key.pub"))
    refused(rig, f"{SIGNED}:2", option, f"{SIGNED}:1", "matchRepoDigestOrExact", podman=True)


def test_no_signature(rig: Machine, signed: Signed) -> None:
    option = policy(requirement("sigstoreSigned", "key.pub"))
    refused(rig, f"{OTHER}:1", option, "it has no signature")


def test_a_replayed_signature(rig: Machine, signed: Signed) -> None:
    """A signature of one image proves nothing about another, nor in another repository."""
    name = "test/replayed"
    evil = image_of("evil")
    push(rig, name, {"1": evil, "2": signed.image})
    for image in (evil, signed.image):
        attach(rig, name, image, (signed.payload, signed.signature))
    option = policy(requirement("sigstoreSigned", "key.pub", ANY_TAG))
    refused(rig, f"docker.io/{name}:1", option, "it is for the manifest")
    refused(rig, f"docker.io/{name}:2", option, f"{SIGNED}:1")


def test_tampered_signatures(rig: Machine, signed: Signed) -> None:
    """Changed payloads, garbage and an empty signature, beside each other; then a good one too."""
    name = "test/tampered"
    image = image_of("tampered")
    payload = json.loads(signed.payload)
    payload["critical"]["image"]["docker-manifest-digest"] = image.manifest.digest
    payload["critical"]["identity"]["docker-reference"] = f"docker.io/{name}:1"
    changed = json.dumps(payload).encode()
    push(rig, name, {"1": image})
    bad = [(changed, signed.signature), (b"garbage", signed.signature), (changed, "%%%"),
           (changed, ""), (changed + b" ", "AAAA")]  # fmt: skip
    attach(rig, name, image, *bad)
    option = policy(requirement("sigstoreSigned", "key.pub"))
    refused(rig, f"docker.io/{name}:1", option, "none of its 5 signatures counts", "not base64")
    attach(rig, "test/signed", signed.image, *bad, (signed.payload, signed.signature))
    accepted(rig, f"{SIGNED}:1", option, podman=False)


def test_run_and_copy_obey(rig: Machine, signed: Signed) -> None:
    option = policy(requirement("sigstoreSigned", "other.pub"))
    commands = (
        f"rp run --rm {OPTION} {SIGNED}:1 /x",
        f"rp create --name made {OPTION} {SIGNED}:1 /x",
        f"rp copy {OPTION} docker://{SIGNED}:1 here",
        f"rp copy {OPTION} docker://{SIGNED}:1 oci:layout:x",
        f"rp copy --all {OPTION} docker://{SIGNED}:1 dir:copied",
    )
    sh(rig, f"{option}; rp rmi -af")
    for command in commands:
        done = sh(rig, command, check=False)
        assert (done.returncode, "refused by the signature policy" in done.stderr) == (125, True)
    assert sh(rig, "rp images -q; rp ps -aq; ls -d layout copied", check=False).stdout == ""
    option = policy(requirement("sigstoreSigned", "key.pub"))
    sh(rig, f"{option}; rp copy {OPTION} docker://{SIGNED}:1 oci:layout:x; rm -r layout")


# --- OpenPGP ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(rig: Machine, _place: None) -> dict[str, Any]:
    openpgp = pytest.importorskip("unit.image.openpgp")
    made = {name: openpgp.Key(f"{name} <{name}@example.org>") for name in ("alice", "bob")}
    for name, key in made.items():
        write(rig, f"{name}.gpg", key.armored() if name == "alice" else key.public())
    return made


def statement(name: str, digest: str, **more: object) -> bytes:
    return json.dumps(
        {
            "critical": {
                "type": "atomic container signature",
                "image": {"docker-manifest-digest": digest},
                "identity": {"docker-reference": name},
                **more,
            },
            "optional": {"creator": "test", "timestamp": 1},
        }
    ).encode()


def look_aside(rig: Machine, digest: str, *signatures: bytes) -> None:
    sh(rig, "rm -rf lookaside")
    place = f"lookaside/test/other@{digest.replace(':', '=')}"
    for number, signature in enumerate(signatures, 1):
        write(rig, f"{place}/signature-{number}", signature)


def test_openpgp_signatures(rig: Machine, signed: Signed, keys: dict[str, Any]) -> None:
    """What else there is of bad ones is in tests/unit/image/trust."""
    digest = image_of("other").manifest.digest
    good = keys["alice"].sign(statement(f"{OTHER}:1", digest))
    tampered = good.replace(b"other:1", b"other:2")
    option = policy(requirement("signedBy", "alice.gpg"))
    look_aside(rig, "")
    refused(rig, f"{OTHER}:1", option, "docker:: signedBy", "it has no signature")
    look_aside(rig, digest, tampered, keys["bob"].sign(statement(f"{OTHER}:1", digest)))
    refused(rig, f"{OTHER}:1", option, "does not verify", "another key", podman=True)
    look_aside(rig, digest, tampered, good)
    accepted(rig, f"{OTHER}:1", option, podman=True)
    accepted(rig, f"{OTHER}@{digest}", option)


def test_signatures_in_a_directory(rig: Machine, signed: Signed, keys: dict[str, Any]) -> None:
    digest = image_of("other").manifest.digest
    exact = {"type": "exactReference", "dockerReference": f"{OTHER}:1"}
    option = policy(requirement("signedBy", "alice.gpg", exact), transport="dir")
    sh(rig, f"{option}; rm -rf dir; skopeo copy -q --remove-signatures docker://{OTHER}:1 dir:dir")
    done = sh(rig, f"rp load {OPTION} -i dir", check=False)
    assert (done.returncode, "it has no signature" in done.stderr) == (125, True)
    write(rig, "dir/signature-1", keys["alice"].sign(statement(f"{OTHER}:1", digest)))
    sh(rig, f"rp load {OPTION} -i dir")
    sh(rig, f"rp copy {OPTION} dir:dir oci:copied; rm -r copied dir")


# --- scopes and files -------------------------------------------------------------------------


def test_archives_obey_their_scopes(rig: Machine, signed: Signed) -> None:
    sh(
        rig,
        "rm -rf good; mkdir good; rp pull -q docker.io/test/other:1; "
        "rp save -o docker.tar docker.io/test/other:1; "
        "rp save -o good/oci.tar --format oci-archive docker.io/test/other:1; "
        "cp good/oci.tar oci.tar; rp rmi -af",
    )
    scopes = {"/home/alice/trust/good": [{"type": "insecureAcceptAnything"}]}
    document = {"default": [{"type": "reject"}], "transports": {"oci-archive": scopes}}
    write(rig, "policy.json", json.dumps(document).encode())
    for command in ("-i docker.tar", "-i oci.tar", "< oci.tar", "< docker.tar"):
        done = sh(rig, f"rp load --signature-policy=policy.json {command}", check=False)
        assert (done.returncode, "default: reject" in done.stderr) == (125, True), command
    assert sh(rig, "rp images -q").stdout == ""
    sh(rig, "rp load --signature-policy policy.json -i good/oci.tar")
    sh(rig, "cd good; rp load --signature-policy ../policy.json -i oci.tar")


def test_the_users_policy_is_what_counts(rig: Machine, signed: Signed) -> None:
    """Without --signature-policy; set and shown by rp image trust, and understood by podman."""
    sh(rig, "rm -f ~/.config/containers/policy.json")
    sh(rig, f"rp image trust set -t reject {OTHER}; rp image trust set -t sigstoreSigned "
            f"-f key.pub {SIGNED}")  # fmt: skip
    try:
        done = sh(rig, f"rp pull {OTHER}:1", check=False)
        assert f"(docker:{OTHER}: reject)" in done.stderr
        sh(rig, f"rp pull -q {SIGNED}:1")
        shown = sh(rig, "rp image trust show").stdout.splitlines()
        theirs = sh(rig, "podman image trust show").stdout.splitlines()
        assert [line.split() for line in shown] == [line.split() for line in theirs]
        assert [line.split()[:3] for line in shown] == [
            ["TRANSPORT", "NAME", "TYPE"],
            ["all", "default", "accept"],
            ["repository", OTHER, "reject"],
            ["repository", SIGNED, "sigstoreSigned"],
        ]
        ours, podmans = (
            json.loads(sh(rig, f"{tool} image trust show --json").stdout)
            for tool in ("rp", "podman")
        )
        assert ours == podmans
        raw = json.loads(sh(rig, "rp image trust show --raw").stdout)
        assert set(raw["transports"]["docker"]) == {OTHER, SIGNED}
    finally:
        sh(rig, "rm -f ~/.config/containers/policy.json")


def test_a_policy_that_is_not_understood_stops_everything(rig: Machine, signed: Signed) -> None:
    content = b'{"default": [{"type": "insecureAcceptAnything"}], "defaults": []}'
    write(rig, "policy.json", content)
    done = sh(rig, f"rp rmi -af; rp pull --signature-policy policy.json {SIGNED}:1", check=False)
    assert (done.returncode, "unknown key 'defaults'" in done.stderr) == (125, True)
    assert sh(rig, "rp images -q").stdout == ""


# --- verification -----------------------------------------------------------------------------

# From the last difference to the first in the order in which they are looked for.
_DAMAGES = (
    ("printf X | dd of=etc/text conv=notrunc 2>/dev/null; touch -d @0 etc/text",
     "etc/text: its content"),
    ("chmod u+s etc/text", "etc/text: its mode is 4644 instead of 0644"),
    ("touch etc/more", "etc/more was added"),
)  # fmt: skip
"""What else there may be is in tests/unit/image/test_verify.py."""


@pytest.fixture(scope="module")
def victim(rig: Machine, _place: None) -> str:
    """Return an image whose lower layer has etc/text and etc/link."""
    entries = [
        directory("etc"), Entry(name="etc/text", data=b"t" * 9), symlink("etc/link", "text"),
    ]  # fmt: skip
    busybox = rig.run(["sh", "-c", "base64 -w0 $(command -v busybox)"]).stdout
    program = Entry(name="busybox", data=base64.b64decode(busybox), mode=0o755)
    image = ociimage.image([ociimage.tar(entries), ociimage.tar([program])],
                           config={"Cmd": ["/busybox", "echo", "ran"]})  # fmt: skip
    return push(rig, "test/victim", {"latest": image})


def test_damage_is_found(rig: Machine, victim: str) -> None:
    sh(rig, f"rp rmi -af; rp pull -q {victim}")
    layer = sh(rig, "dirname $(dirname $(find ~/.local/share/rootlesspy/layers -name text))")
    assert sh(rig, f"rp image verify {victim}").stdout == f"{victim}:latest: 2 layers verified\n"
    for script, words in _DAMAGES:
        change = f"rp unshare sh -c 'cd {layer.stdout.strip()}; {script}'"
        done = sh(rig, f"{change}; rp image verify {victim}", check=False)
        assert (done.returncode, done.stdout) == (125, "")
        assert words in done.stderr
    done = sh(rig, f"rp run --rm --verify-always {victim}", check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert "is not what its digest says" in done.stderr
    assert sh(rig, "rp ps -aq; ls ~/.local/share/rootlesspy/tmp").stdout == ""


def test_each_start_verifies(rig: Machine, victim: str) -> None:
    sh(rig, f"rp rmi -af; rp pull -q {victim}")
    assert sh(rig, f"rp run --name checked --verify-always {victim}").stdout == "ran\n"
    assert "ran" in sh(rig, "rp start -a checked").stdout
    find = "find ~/.local/share/rootlesspy/layers -name text"
    path = sh(rig, find).stdout.strip()
    sh(rig, f"rp unshare sh -c 'echo >> {path}'")
    done = sh(rig, "rp start -a checked", check=False)
    assert (done.returncode, "is not what its digest says" in done.stderr) == (125, True)
    sh(rig, "rp rm checked")
    # What is wrong is gone with the image, and comes back right.
    sh(rig, f"rp rmi {victim}; rp pull -q {victim}; rp image verify {victim}")
