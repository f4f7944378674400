"""Manifest lists and copies of whole indexes, beside podman's and skopeo's of the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from namespace.imagepush import push
from rig import ociimage
from rig.ociimage import Entry, directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Completed, Machine

pytestmark = [pytest.mark.namespace, pytest.mark.usefixtures("needs_registry")]

HOST = "localhost:5000"
STORE = "oci:$HOME/.local/share/rootlesspy/images"
FROM, TO = "--src-tls-verify=false", "--dest-tls-verify=false"
# Not in podman's: an id of its own, and when it was made.
OWN = ("Id", "Created", "CreatedAt", "Digest", "RepoDigests", "Size", "VirtualSize", "History")


@pytest.fixture(scope="module")
def two(rig: Machine) -> Iterator[tuple[str, str]]:
    """Return two images that are here, in rp's store and in podman's."""
    names = []
    for word in ("one", "two"):
        layer = ociimage.tar([directory("d"), Entry(name=f"d/{word}", data=word.encode() * 999)])
        image = ociimage.image([layer], config={"Cmd": [f"/{word}"]})
        names.append(push(rig, f"lists/{word}", {"latest": image}) + ":latest")
    for name in names:
        sh(rig, f"rp pull -q {name}; podman pull -q {name}")
    yield names[0], names[1]
    sh(rig, "rp rmi -af; podman rmi -af; rm -rf ~/l", check=False)


def sh(rig: Machine, script: str, *, check: bool = True) -> Completed:
    return rig.run(["sh", "-ec", f"mkdir -p ~/l; cd ~/l; {script}"], check=check, timeout=120)


def both(rig: Machine, script: str) -> tuple[Any, Any]:
    """Return what rp and podman print as JSON for the same words."""
    ours, theirs = (sh(rig, script.format(tool=tool)).stdout for tool in ("rp", "podman"))
    return json.loads(ours), json.loads(theirs)


def raw(rig: Machine, name: str) -> str:
    """Return the digest of what the registry has under a name."""
    shown = f"skopeo inspect --raw --tls-verify=false docker://{HOST}/{name} | sha256sum"
    return str(sh(rig, shown).stdout.split()[0])


def test_lists_are_podmans(rig: Machine, two: tuple[str, str]) -> None:
    script = (
        "{tool} manifest rm -i first >/dev/null; {tool} manifest create first >/dev/null; "
        f"{{tool}} manifest add first {two[0]} >/dev/null; "
        "{tool} manifest add --arch arm64 --variant v8 --os linux --os-version 1.2 "
        f"--annotation a=b first {two[1]} >/dev/null; "
    )
    ours, theirs = both(rig, script + "{tool} manifest inspect first")
    # podman puts images that are here in another order than they came; so do we not.
    by_digest = [sorted(each["manifests"], key=str) for each in (ours, theirs)]
    assert by_digest[0] == by_digest[1]
    assert {**ours, "manifests": 0} == {**theirs, "manifests": 0}
    second = ours["manifests"][1]["digest"]
    script = (
        f"{{tool}} manifest annotate --arch riscv64 --annotation q=r first {second} >/dev/null; "
        "{tool} manifest annotate --index --annotation top=level first >/dev/null; "
        "{tool} manifest inspect first"
    )
    ours, theirs = both(rig, script)
    assert sorted(ours["manifests"], key=str) == sorted(theirs["manifests"], key=str)
    assert ours["annotations"] == theirs["annotations"] == {"top": "level"}
    rows = both(rig, "{tool} images --format json --filter reference=localhost/first")
    kept = [[{k: v for k, v in row.items() if k not in OWN} for row in each] for each in rows]
    ours_row, theirs_row = kept[0][0], kept[1][0]
    assert {key: ours_row[key] for key in theirs_row} == theirs_row
    ours, theirs = both(
        rig, f"{{tool}} manifest remove first {second} >/dev/null; {{tool}} manifest inspect first"
    )
    assert ours == theirs


def test_exit_codes_are_podmans(rig: Machine, two: tuple[str, str]) -> None:
    for tool in ("rp", "podman"):
        sh(rig, f"{tool} manifest rm -i second; {tool} manifest create second {two[0]}")
    digest = "sha256:" + "0" * 64
    for words, code in (
        ("exists second", 0), ("exists nosuch", 1), (f"exists {two[0]}", 125),
        ("create second", 125),
        ("create --amend second", 0), (f"rm {two[0]}", 125), ("rm nosuch", 1), ("rm -i nosuch", 0),
        (f"remove second {digest}", 125), ("remove second junk", 125),
        (f"remove {two[0]} {digest}", 125),
        (f"annotate --os x second {digest}", 125), (f"annotate --os x nosuch {digest}", 125),
        ("add nosuch " + two[0], 125), (f"push {two[0]} dir:x", 125), ("push nosuch dir:x", 125),
    ):  # fmt: skip
        for tool in ("rp", "podman"):
            done = sh(rig, f"{tool} manifest {words}", check=False)
            assert done.returncode == code, (tool, words, done.stderr)
            assert "Traceback" not in done.stderr
    removed = sh(rig, "rp manifest rm second").stdout
    assert removed.startswith("Untagged: localhost/second:latest\nDeleted: ")


def test_pushed_read_and_kept_whole(rig: Machine, two: tuple[str, str]) -> None:
    sh(
        rig,
        f"""rp manifest rm -i c; rp manifest create c {two[0]}
        rp manifest add --arch s390x c docker://{two[1].replace("docker.io", HOST)} \
            --tls-verify=false
        rp manifest push -q --tls-verify=false --digestfile digest c {HOST}/lists/c:1
        rm -rf whole part; skopeo copy -q --all {STORE}:localhost/c:latest dir:whole
        skopeo copy -q --all {FROM} docker://{HOST}/lists/c:1 dir:part; diff -r whole part""",
    )
    assert sh(rig, "cat digest").stdout == f"sha256:{raw(rig, 'lists/c:1')}"
    assert sh(rig, "rp fsck").stdout == ""
    sh(rig, f"rp manifest push -q --tls-verify=false --format v2s2 c {HOST}/lists/c:2")
    docker = f"skopeo inspect --raw --tls-verify=false docker://{HOST}/lists/c:2"
    kinds = json.loads(sh(rig, docker).stdout)
    assert kinds["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    # What podman reads of it, and what it would say of the list that it pulled.
    theirs = json.loads(
        sh(rig, f"podman manifest inspect --tls-verify=false {HOST}/lists/c:1").stdout
    )
    ours = json.loads(sh(rig, f"rp manifest inspect --tls-verify=false {HOST}/lists/c:1").stdout)
    assert ours == theirs == json.loads(sh(rig, "rp manifest inspect c").stdout)
    sh(rig, f"rp manifest push -q --rm --tls-verify=false c {HOST}/lists/c:3")
    assert sh(rig, "rp manifest exists c", check=False).returncode == 1
    assert raw(rig, "lists/c:3") == raw(rig, "lists/c:1")


def test_a_list_runs_and_outlives_its_images(rig: Machine, alpine: str) -> None:
    sh(
        rig,
        f"""rp manifest rm -i d; rp manifest create d {alpine}; rp pull -q busybox
        rp manifest add --arch arm64 d busybox; rp rmi busybox""",
    )
    run = ["rp", "run", "--rm", "--network=none"]
    assert rig.run([*run, "d", "cat", "/etc/alpine-release"]).stdout == "3.20.3\n"
    other = rig.run([*run, "--platform=linux/arm64", "d", "sh", "-c", "ls /etc/alpine-release"],
                    check=False)  # fmt: skip
    assert other.returncode == 1, other.stderr
    missing = rig.run([*run, "--platform=linux/s390x", "d", "true"], check=False)
    assert missing.returncode == 125
    assert "not made for linux/s390x" in missing.stderr
    assert sh(rig, "rp fsck").stdout == ""
    sh(rig, "rp tag d e:1; rp rmi d")
    assert sh(rig, "rp image exists d", check=False).returncode == 1
    assert sh(rig, "rp manifest inspect e:1 | grep -c digest").stdout == "2\n"
    sh(rig, "rp untag e:1; rp image prune -f")
    assert "<none>" not in sh(rig, "rp images").stdout
    assert sh(rig, "rp fsck").stdout == ""


def test_copies_of_an_index_are_skopeos(rig: Machine, two: tuple[str, str]) -> None:
    source = f"{FROM} docker://{HOST}/lists/f:1"
    script = f"""rm -rf *; rp manifest rm -i f
        rp manifest create --annotation x=y f {two[0]}; rp manifest add --arch arm64 f {two[1]}
        rp manifest push -q --tls-verify=false f {HOST}/lists/f:1
        """
    for kind, name in (("oci", ":x"), ("oci-archive", ":x"), ("dir", "")):
        ours, theirs = (f"{kind}:{whose}-{kind}{name}" for whose in ("ours", "theirs"))
        script += f"""rp copy -q --all {source} {ours}; skopeo copy -q --all {source} {theirs}
            rp copy -q --all --preserve-digests {TO} {ours} docker://{HOST}/lists/f:{kind}
            """
    script += "diff -r ours-dir theirs-dir; diff -r ours-oci/blobs theirs-oci/blobs"
    sh(rig, script)
    wanted = raw(rig, "lists/f:1")
    assert {raw(rig, f"lists/f:{kind}") for kind in ("oci", "oci-archive", "dir")} == {wanted}
    sh(rig, f"rp copy -q --multi-arch=index-only {FROM} {TO} docker://{HOST}/lists/f:1 "
            f"docker://{HOST}/lists/f:alone")  # fmt: skip
    assert raw(rig, "lists/f:alone") == wanted
    sh(rig, f"rp copy -q --all {FROM} docker://{HOST}/lists/f:1 kept")
    sh(rig, f"rp copy -q --all {TO} kept docker://{HOST}/lists/f:again; rp manifest rm kept")
    assert raw(rig, "lists/f:again") == wanted
    for words, told in (
        (f"--all {source} docker-archive:da.tar", "several platforms"),
        (f"--preserve-digests --format v2s2 {source} dir:no",
         "another manifest"),
        (f"--all --multi-arch system {source} dir:no", "exclude"),
        (f"--all --preserve-digests --dest-compress-format zstd {source} dir:no",
         "another manifest"),
    ):  # fmt: skip
        failed = sh(rig, f"rp copy -q {words}", check=False)
        assert failed.returncode == 125
        assert told in failed.stderr
    assert sh(rig, "ls -d no da.tar 2>/dev/null || true").stdout == ""


def test_layers_are_written_as_asked(rig: Machine, two: tuple[str, str]) -> None:
    name = two[0].replace("docker.io", HOST)
    sh(
        rig,
        f"""rm -rf plain theirs z
        rp copy -q --dest-decompress {FROM} docker://{name} dir:plain
        skopeo copy -q --dest-decompress {FROM} docker://{name} dir:theirs
        diff -r plain theirs
        rp copy -q --dest-compress-format zstd {FROM} docker://{name} oci:z:x""",
    )
    shown = sh(rig, "skopeo inspect --raw oci:z:x").stdout
    assert [each["mediaType"] for each in json.loads(shown)["layers"]] == [
        "application/vnd.oci.image.layer.v1.tar+zstd"
    ]


def test_pulls_from_places_are_podmans(rig: Machine, two: tuple[str, str]) -> None:
    name = two[0].replace("docker.io", HOST)
    places = (
        "oci:$PWD/p/a:foo:1", "oci-archive:$PWD/p/b:bar:2", "docker-archive:$PWD/p/c:baz:3",
        "dir:$PWD/p/d",
    )  # fmt: skip
    copies = "; ".join(f"skopeo copy -q {FROM} docker://{name} {place}" for place in places)
    sh(rig, f"rm -rf p; mkdir p; {copies}")
    listed = []
    for tool in ("rp", "podman"):
        sh(rig, f"{tool} rmi -af")
        pulled = "; ".join(f"{tool} pull -q {place}" for place in (*places, "oci:$PWD/p/a"))
        ids = sh(rig, pulled).stdout.split()
        assert len(set(ids)) == 1, tool
        listed.append(
            sorted(sh(rig, f"{tool} images --format '{{{{.Repository}}}}:{{{{.Tag}}}}'")
                   .stdout.split())
        )  # fmt: skip
        sh(rig, f"{tool} pull -q {two[0]} {two[1]}")
    assert listed[0] == listed[1]
    assert "docker.io/library/baz:3" in listed[0]
