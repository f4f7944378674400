"""Names, descriptions, histories and the store as a whole, compared with podman's words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from namespace.imagepush import push
from namespace.living import journaled
from rig import ociimage
from rig.ociimage import Entry, directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Completed, Machine

pytestmark = [pytest.mark.namespace, pytest.mark.usefixtures("needs_registry")]

STORE = "$HOME/.local/share/rootlesspy"


@pytest.fixture(scope="module")
def two_layers(rig: Machine) -> Iterator[str]:
    """Return an image of two layers with a history, that podman has too."""
    layers = [
        ociimage.tar([directory("etc"), Entry(name="etc/a", data=b"a" * 5000)]),
        ociimage.tar([Entry(name="etc/b", data=b"b" * 100, uid=5), Entry(name="etc/.wh.a")]),
    ]
    image = ociimage.image(
        layers,
        config={
            "Cmd": ["/bin/sh"], "User": "7", "Env": ["PATH=/bin", "A=b"], "Labels": {"l": "m"},
            "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGINT", "WorkingDir": "/srv",
        },
        history=[
            {"created": "2024-01-01T00:00:00Z", "created_by": "first step"},
            {"created": "2024-01-02T00:00:00Z", "created_by": "an empty one", "empty_layer": True},
            {"created": "2024-01-03T00:00:00Z", "created_by": "x" * 60, "comment": "last"},
        ],
    )  # fmt: skip
    name = push(rig, "test/described", {"latest": image})
    rig.run(["rp", "pull", "-q", name], timeout=120)
    yield name
    rig.run(["rp", "rmi", "-f", name], check=False)


def sh(rig: Machine, script: str, *, check: bool = True) -> Completed:
    return rig.run(["sh", "-c", script], check=check, timeout=120)


def as_json(rig: Machine, *argv: str) -> Any:
    return json.loads(rig.run(list(argv), timeout=120).stdout)


def test_inspect_and_history_say_what_podman_says(rig: Machine, two_layers: str) -> None:
    sh(rig, f"podman pull -q {two_layers}")
    ours = as_json(rig, "rp", "image", "inspect", two_layers)[0]
    theirs = as_json(rig, "podman", "image", "inspect", two_layers)[0]
    assert list(ours) == list(theirs)
    # Where layers lie and what they take on disk is each store's own.
    for name in ("Size", "VirtualSize", "GraphDriver", "NamesHistory", "RepoTags"):
        ours.pop(name), theirs.pop(name)
    assert ours == theirs
    rows = as_json(rig, "rp", "history", "--format", "json", two_layers)
    podmans = as_json(rig, "podman", "history", "--format", "json", two_layers)
    for row in (*rows, *podmans):
        row.pop("size")
    assert rows == podmans
    form = "{{.ID}} {{.CreatedBy}} {{.Comment}}"
    shown = [
        rig.run([tool, "history", "--format", form, two_layers]).stdout for tool in ("rp", "podman")
    ]
    assert shown[0] == shown[1]


def test_tree_and_what_stands_on_an_image(rig: Machine, two_layers: str) -> None:
    def layers(tool: str, *options: str) -> list[str]:
        """Return the lines of the tree without ids and sizes: both are each store's own."""
        text = rig.run([tool, "image", "tree", *options, two_layers]).stdout
        lines = [line for line in text.splitlines() if line.startswith(("├", "└"))]
        return [line.split()[0] + line.partition("Top Layer of")[2] for line in lines]

    sh(rig, f"podman pull -q {two_layers}")
    assert layers("rp") == layers("podman")
    assert len(layers("rp", "--whatrequires")) == 1


def test_names_come_and_go(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "tag", alpine, "mine", "localhost/other:2"])
    ids = {
        rig.run(["rp", "image", "inspect", "-f", "{{.Id}}", name]).stdout
        for name in (alpine, "mine", "localhost/mine:latest", "other:2")
    }
    assert len(ids) == 1
    assert rig.run(["rp", "run", "--rm", "--network=none", "mine", "echo", "ok"]).stdout == "ok\n"
    refused = rig.run(["rp", "untag", alpine, "nosuch"], check=False)
    assert refused.returncode == 125
    assert "no name nosuch" in refused.stderr
    rig.run(["rp", "untag", alpine, "mine"])
    assert rig.run(["rp", "image", "exists", "mine"], check=False).returncode == 1
    journaled(rig)
    told = rig.run(["rp", "events", "--since=5m", "--stream=false", "--filter=type=image"]).stdout
    for event in ("tag", "untag"):
        assert any(
            f" image {event} " in line and line.endswith(" localhost/mine:latest")
            for line in told.splitlines()
        )
    rig.run(["rp", "rmi", "other:2"])
    assert rig.run(["rp", "image", "exists", alpine]).returncode == 0
    for argv in (["tag", "nosuch", "x"], ["image", "inspect", "nosuch"], ["history", "nosuch"]):
        failed = rig.run(["rp", *argv], check=False)
        assert failed.returncode == 125
        assert "no image nosuch here" in failed.stderr


def test_prune_takes_what_is_nameless_or_unused(rig: Machine, alpine: str, two_layers: str) -> None:
    rig.run(["rp", "tag", two_layers, "pruned:1"])
    rig.run(["rp", "untag", two_layers, two_layers, "pruned:1"], check=False)
    image_id = rig.run(["rp", "images", "-q", "--no-trunc", "-f", "dangling=true"]).stdout.strip()
    asked = rig.run(["rp", "image", "prune"], input="n\n")
    assert "removes all dangling images" in asked.stdout
    assert image_id.removeprefix("sha256:") in rig.run(["rp", "image", "prune", "-f"]).stdout
    assert rig.run(["rp", "image", "exists", alpine]).returncode == 0
    rig.run(["rp", "pull", "-q", two_layers])
    rig.run(["rp", "run", "--name", "user", "--network=none", alpine, "true"])
    try:
        rig.run(["rp", "image", "prune", "-a", "-f", "--filter", "label=l=m"])
        assert rig.run(["rp", "image", "exists", two_layers], check=False).returncode == 1
        rig.run(["rp", "image", "prune", "-a", "-f", "--filter", "reference=alpine"])
        assert rig.run(["rp", "image", "exists", alpine]).returncode == 0
    finally:
        rig.run(["rp", "rm", "-f", "user"])
    rig.run(["rp", "pull", "-q", two_layers])


def test_filters_by_age(rig: Machine, alpine: str, two_layers: str) -> None:
    def names(*filters: str) -> str:
        options = [word for each in filters for word in ("--filter", each)]
        done = rig.run(["rp", "images", "--format", "{{.Repository}}", *options])
        return str(done.stdout)

    assert "test/described" not in names(f"since={two_layers}")
    assert "test/described" in names("until=24h")
    assert "test/described" not in names("until=2023-01-01T00:00:00Z")
    assert "test/described" in names("label=l=m")
    assert "test/described" not in names("label!=l=m")
    assert names("readonly=true") == ""


def test_fsck_finds_and_cures(rig: Machine, two_layers: str) -> None:
    rig.run(["rp", "fsck", "--repair"], check=False)
    rig.run(["rp", "pull", "-q", two_layers, "alpine", "busybox"], timeout=120)
    assert rig.run(["rp", "fsck"]).stdout == ""
    sh(
        rig,
        f"""cd {STORE}; for layer in $(rp image inspect -f '{{{{.Digest}}}}' {two_layers} |
      cut -d: -f2); do grep -o 'sha256:[0-9a-f]*' images/blobs/sha256/$layer | tail -n1; done |
      cut -d: -f2 > /tmp/hit; chmod u+w images/blobs/sha256/$(cat /tmp/hit)
      echo more >> images/blobs/sha256/$(cat /tmp/hit)
      mkdir tmp/image-dead; echo x > images/blobs/sha256/{"0" * 64}""",
    )
    found = rig.run(["rp", "fsck"], check=False)
    assert found.returncode == 1
    hit = sh(rig, "cat /tmp/hit").stdout.strip()
    assert f"blob sha256:{hit}: damaged, of {two_layers}" in found.stdout
    assert f"orphan sha256:{'0' * 64}" in found.stdout
    assert "half-made" in found.stdout
    left = rig.run(["rp", "fsck", "--repair"], check=False)
    assert left.returncode == 1
    assert f"left: blob sha256:{hit}: missing" in left.stdout
    rig.run(["rp", "pull", "-q", two_layers])
    assert rig.run(["rp", "fsck"]).returncode == 0


def test_D1_a_damaged_index_is_made_again(rig: Machine, alpine: str, two_layers: str) -> None:
    sh(rig, f"echo junk > {STORE}/images/index.json")
    failed = rig.run(["rp", "images"], check=False)
    assert failed.returncode == 125
    assert "hint: rp fsck --repair" in failed.stderr
    assert rig.run(["rp", "fsck", "--repair"]).returncode == 0
    assert "<none>" in rig.run(["rp", "images"]).stdout
    sh(rig, f"rm {STORE}/images/index.json.bad")
    rig.run(["rp", "pull", "-q", alpine, "busybox", two_layers], timeout=120)
    assert rig.run(["rp", "image", "exists", alpine]).returncode == 0


def test_df_and_prune_of_everything(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "run", "--name", "written", "--network=none", "-v", "kept:/v", alpine,
             "sh", "-c", "head -c 5000 /dev/zero > /f; head -c 70 /dev/zero > /v/f"])  # fmt: skip
    images, containers, volumes = as_json(rig, "rp", "system", "df", "--format", "json")
    assert images["Active"] == 1
    assert (containers["Total"], containers["RawSize"]) == (1, 5000)
    assert (volumes["Total"], volumes["Active"], volumes["RawSize"]) == (1, 1, 70)
    assert "written" in rig.run(["rp", "system", "df", "-v"]).stdout
    done = rig.run(["rp", "system", "prune", "-f"]).stdout
    assert "Deleted Containers" in done
    assert "kept" not in done
    assert "Deleted Volumes\nkept" in rig.run(["rp", "system", "prune", "-f", "--volumes"]).stdout
    assert rig.run(["rp", "image", "exists", alpine]).returncode == 0


def test_unshare_and_mounted_images(rig: Machine, two_layers: str) -> None:
    outside = rig.run(["rp", "image", "mount", two_layers], check=False)
    assert outside.returncode == 125
    assert "rp unshare" in outside.stderr
    script = f"""id -u; d=$(rp image mount {two_layers}); ls $d/etc; stat -c %u $d/etc/b
      touch $d/x 2>/dev/null && echo writable; rp image mount | grep -c {two_layers}
      rp image unmount {two_layers} >/dev/null; ls $d 2>/dev/null; true"""
    shown = rig.run(["rp", "unshare", "sh", "-c", script]).stdout.split()
    assert shown == ["0", "b", "5", "1"]
    for argv, code in ((["sh", "-c", "exit 3"], 3), (["nosuch"], 127), (["/etc/passwd"], 126),
                       (["sh", "-c", "kill -9 $$"], 137)):  # fmt: skip
        assert rig.run(["rp", "unshare", *argv], check=False).returncode == code
    maps = [
        rig.run([tool, "unshare", "cat", "/proc/self/uid_map"]).stdout for tool in ("rp", "podman")
    ]
    assert maps[0] == maps[1]
