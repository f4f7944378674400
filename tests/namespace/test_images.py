"""`rp images` and `rp rmi` on a store that was filled by pulls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from namespace.imagepush import push
from rig import ociimage
from rig.ociimage import Entry, directory

if TYPE_CHECKING:
    from rig.machine import Machine

pytestmark = [pytest.mark.namespace, pytest.mark.usefixtures("needs_registry")]

STORE = "$HOME/.local/share/rootlesspy"


def make(rig: Machine, repository: str, *contents: str) -> str:
    """Push an image with a layer per text, some of them shared; return its name."""
    layers = [
        ociimage.tar([directory("d", uid=1000), Entry(name=f"d/{text}", data=text.encode())])
        for text in contents
    ]
    return push(rig, repository, {"latest": ociimage.image(layers)})


def layers(rig: Machine) -> set[str]:
    return set(rig.run(["sh", "-c", f"ls {STORE}/layers/sha256"]).stdout.split())


def test_removing_an_image_frees_what_only_it_needs(rig: Machine) -> None:
    rig.run(["rp", "pull", "-q", "alpine"], timeout=120)
    before = layers(rig)
    one = make(rig, "test/one", "shared", "one")
    two = make(rig, "test/two", "shared", "two")
    rig.run(["rp", "pull", "-q", one, two], timeout=120)
    assert len(layers(rig) - before) == 3
    removed = rig.run(["rp", "rmi", one]).stdout
    assert f"Untagged: {one}:latest\nDeleted: " in removed
    assert len(layers(rig) - before) == 2
    rig.run(["rp", "rmi", two])
    assert layers(rig) == before
    listed = rig.run(["rp", "images"]).stdout
    assert "test/one" not in listed
    assert "alpine" in listed
    assert rig.run(["sh", "-c", f"ls -A {STORE}/tmp"]).stdout == ""


def test_names_and_ids(rig: Machine) -> None:
    name = make(rig, "test/names", "names")
    image_id = rig.run(["rp", "pull", "-q", name], timeout=120).stdout.strip()
    assert len(image_id) == 64
    assert image_id[:12] in rig.run(["rp", "images", "test/names"]).stdout
    missing = rig.run(["rp", "rmi", "0123456789ab"], check=False)
    assert missing.returncode == 1
    assert "no image 0123456789ab here" in missing.stderr
    rig.run(["rp", "rmi", image_id[:10]])
    assert rig.run(["rp", "rmi", image_id], check=False).returncode == 1


def test_an_image_in_use_stays(rig: Machine) -> None:
    rig.run(["rp", "run", "--name", "keeper", "--network=none", "busybox", "true"], timeout=120)
    try:
        refused = rig.run(["rp", "rmi", "busybox"], check=False)
        assert refused.returncode == 2
        assert "in use by container keeper" in refused.stderr
        assert "busybox" in rig.run(["rp", "images"]).stdout
    finally:
        rig.run(["rp", "rm", "-f", "keeper"])


def test_a_missing_image_names_the_cure(rig: Machine) -> None:
    for argv in (["rp", "pull", "nosuch/image"], ["rp", "run", "--rm", "nosuch/image", "true"]):
        failed = rig.run(argv, check=False, timeout=120)
        assert failed.returncode == 125
        assert "nosuch/image" in failed.stderr
        assert len(failed.stderr.splitlines()) <= 2
    never = rig.run(["rp", "run", "--rm", "--pull=never", "nosuch/image", "true"], check=False)
    assert never.returncode == 125
    assert "hint: rp pull nosuch/image" in never.stderr
