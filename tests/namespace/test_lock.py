"""`rp lock` and `--locked`: what a tag meant when it was locked is what runs, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from namespace.imagepush import push
from rig import ociimage
from rig.ociimage import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Completed, Machine
    from rig.ociimage import Image

pytestmark = pytest.mark.namespace

NAME = "docker.io/test/locked:latest"
FILE = '[container.locked]\nimage = "test/locked"\n'


def image_of(text: str) -> Image:
    layer = ociimage.tar([Entry(name="text", data=text.encode())])
    return ociimage.image([layer], config={"Cmd": ["/x"]})


def sh(rig: Machine, script: str, *, check: bool = True, **options: Any) -> Completed:
    return rig.run(["sh", "-c", f"cd ~/lock; {script}"], check=check, timeout=120, **options)


@pytest.fixture
def _place(rig: Machine) -> Iterator[None]:
    if not rig.has_root:
        pytest.skip("needs the registry of the rig")
    rig.run(["sh", "-c", "rm -rf ~/lock; mkdir ~/lock; cat > ~/lock/web.toml"], input=FILE)
    yield
    rig.run(["sh", "-c", "rp rm -af; rp rmi -af; rm -rf ~/lock"], check=False)


@pytest.mark.usefixtures("_place", "leaves_nothing")
def test_a_locked_image_stays_what_it_was(rig: Machine) -> None:
    old, new = image_of("old"), image_of("new")
    push(rig, "test/locked", {"latest": old})
    done = sh(rig, "rp apply --locked --no-start web.toml", check=False)
    assert (done.returncode, "web.toml.lock does not exist" in done.stderr) == (125, True)
    assert sh(rig, "rp lock web.toml").stdout == f"added {NAME} {old.manifest.digest}\n"
    # The tag moves: what is locked does not, and nobody need ask the registry about it again.
    push(rig, "test/locked", {"latest": new})
    assert sh(rig, "rp lock web.toml").stdout == ""
    sh(rig, "rp apply --locked --no-start web.toml")
    used = "rp inspect -f '{{.Image}}' locked"
    assert sh(rig, used).stdout.strip().removeprefix("sha256:") in old.config.digest
    assert sh(rig, "rp plan --locked web.toml", check=False).returncode in (0, 2)
    moved = sh(rig, "rp lock --update web.toml").stdout
    assert moved == f"changed {NAME} {old.manifest.digest} → {new.manifest.digest}\n"
    sh(rig, "rp apply --locked --no-start web.toml")
    assert sh(rig, used).stdout.strip().removeprefix("sha256:") in new.config.digest
    # Anything else is refused before anything is done.
    sh(rig, "sed -i s,test/locked,test/another, web.toml")
    for command in ("plan", "apply --no-start"):
        done = sh(rig, f"rp {command} --locked web.toml", check=False)
        assert done.returncode == 125
        assert "image test/another of container locked is not in" in done.stderr
    assert sh(rig, used).stdout.strip().removeprefix("sha256:") in new.config.digest


@pytest.mark.usefixtures("_place", "leaves_nothing")
def test_an_image_that_is_only_here(rig: Machine) -> None:
    push(rig, "test/locked", {"latest": image_of("old"), "2": image_of("2")})
    sh(rig, f"rp pull -q {NAME} docker.io/test/locked:2; rp tag {NAME} mine; "
            "sed -i s,test/locked,mine, web.toml; rp lock web.toml")  # fmt: skip
    assert "local = true" in sh(rig, "cat web.toml.lock").stdout
    sh(rig, "rp apply --locked --no-start web.toml; rp rm -f locked")
    # Another image takes the name: it is not the one that was locked.
    sh(rig, "rp tag docker.io/test/locked:2 mine")
    done = sh(rig, "rp apply --locked --no-start web.toml", check=False)
    assert done.returncode == 125
    assert "localhost/mine" in done.stderr
    assert sh(rig, "rp ps -aq").stdout == ""
