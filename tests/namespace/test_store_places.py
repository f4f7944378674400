"""The image store on file systems that lack something: user attributes, overlay, space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from namespace.imagepush import push
from rig import ociimage
from rig.ociimage import Entry, directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.namespace

PLACE = "/home/alice/place"
ENV = {"XDG_DATA_HOME": PLACE}


@pytest.fixture
def mounted(rig: Machine, request: pytest.FixtureRequest) -> Iterator[None]:
    """Mount a file system at PLACE that is alice's; the parameter is its type and options."""
    if not rig.has_root:
        pytest.skip("needs root to mount")
    kind, options = request.param
    rig.run(["mkdir", "-p", PLACE])
    rig.root(["mount", "-t", kind, "-o", f"mode=700{options}", "none", PLACE])
    rig.root(["chown", "alice:alice", PLACE])
    yield
    rig.root(["umount", PLACE])
    rig.run(["rmdir", PLACE])


@pytest.fixture(scope="module")
def cut(rig: Machine) -> str:
    """Return an image whose upper layer hides what the lower one has in /srv, and /gone."""
    base = ociimage.tar(
        [directory("srv"), Entry("srv/below", data=b"1"), Entry("gone", data=b"1"),
         directory("bin"), Entry("bin/sh", data=_busybox(rig), mode=0o755)]
    )  # fmt: skip
    above = ociimage.tar(
        [directory("srv"), Entry("srv/.wh..wh..opq"), Entry("srv/above", data=b"1"),
         Entry(".wh.gone")]
    )  # fmt: skip
    image = ociimage.image([base, above], {"Cmd": ["/bin/sh"]})
    return push(rig, "places/cut", {"latest": image})


def _busybox(rig: Machine) -> bytes:
    content: bytes = rig.run(["cat", "/bin/busybox"], binary=True).stdout
    return content


@pytest.mark.row("D4", "another driver, and that is said")
@pytest.mark.parametrize("mounted", [("ramfs", "")], indirect=True)
@pytest.mark.parametrize("driver", ["fuse-overlayfs", "copy"])
def test_S6_without_user_attributes_another_driver_is_used_and_that_is_said(
    rig: Machine, cut: str, mounted: None, leaves_nothing: None, driver: str
) -> None:
    env = ENV if driver == "fuse-overlayfs" else {**ENV, "RP_STORAGE_DRIVER": "copy"}
    rig.run(["rp", "pull", "--quiet", cut], env=env)
    script = "cd /; echo *; echo srv/*; rm -r srv; mkdir srv; echo srv/*"
    ran = rig.run(["rp", "run", "--rm", "--network=none", cut, "sh", "-c", script], env=env)
    names, shown, emptied = ran.stdout.splitlines()
    assert "srv" in names.split()
    assert "gone" not in names.split()
    assert shown == "srv/above"
    assert emptied == "srv/*"
    if driver == "fuse-overlayfs":
        assert "no user extended attributes" in ran.stderr
        assert "using fuse-overlayfs" in ran.stderr
    assert rig.run(["rp", "fsck"], env=env).stdout == ""
    rig.run(["rp", "rmi", cut], env=env)


@pytest.mark.row("D4", "works")
@pytest.mark.parametrize("mounted", [("tmpfs", ",size=64m")], indirect=True)
def test_S6_tmpfs_holds_a_store(
    rig: Machine, cut: str, mounted: None, leaves_nothing: None
) -> None:
    rig.run(["rp", "pull", "--quiet", cut], env=ENV)
    ran = rig.run(["rp", "run", "--rm", "--network=none", cut, "sh", "-c", "echo srv/*"], env=ENV)
    assert ran.stdout == "srv/above\n"
    assert ran.stderr == ""


@pytest.mark.row("R1", "one line, nothing left")
@pytest.mark.parametrize(
    "mounted", [("tmpfs", f",size={size}") for size in ("600k", "2400k")], indirect=True
)
def test_D1_a_full_disk_is_one_line_and_leaves_nothing(
    rig: Machine, cut: str, mounted: None, leaves_nothing: None
) -> None:
    pulled = rig.run(["rp", "pull", "--quiet", cut], env=ENV, check=False)
    assert pulled.returncode == 125
    error, hint = pulled.stderr.splitlines()
    assert "no space" in error
    assert hint.startswith("hint: ")
    assert rig.run(["rp", "images", "--quiet"], env=ENV).stdout == ""
    left = rig.run(["find", f"{PLACE}/rootlesspy", "-type", "f", "-size", "+64k"]).stdout
    assert left == ""
    assert rig.run(["ls", f"{PLACE}/rootlesspy/tmp"]).stdout == ""


def test_a_store_of_another_place_is_named_on_the_command_line(
    rig: Machine, leaves_nothing: None
) -> None:
    rig.run(["rp", "--store", PLACE, "pull", "--quiet", "alpine"])
    assert rig.run(["rp", f"--store={PLACE}", "images", "--quiet"]).stdout != ""
    command = ["run", "--detach", "--network=none", "--name", "there", "alpine", "sleep", "600"]
    rig.run(["rp", "--store", PLACE, *command])
    assert "there" in rig.run(["rp", "--store", PLACE, "ps"]).stdout
    assert "there" not in rig.run(["rp", "ps", "--all"]).stdout
    rig.run(["rp", "--store", PLACE, "rm", "--force", "--time", "0", "there"])
    rig.run(["rp", "--store", PLACE, "rmi", "alpine"])
    rig.run(["rm", "-rf", PLACE])
