"""Images out of the store and into it: archives, layouts and registries, with podman and skopeo.

The same configuration digest and the same files whoever wrote and whoever reads.
"""

from __future__ import annotations

import itertools
import json
import signal
import time
from typing import TYPE_CHECKING

import pytest
from namespace.imagepush import push
from rig import ociimage
from rig.ociimage import HARD_LINK, Entry, directory, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Completed, Machine

pytestmark = [pytest.mark.namespace, pytest.mark.usefixtures("needs_registry")]

HOST = "localhost:5000"
NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")
LISTING = (
    "cd {root}; find . -printf '%p %y %m %U:%G %s %l %T@\\n' | sort; sha256sum home/web/f; "
    'python3 -c \'import os; print(os.getxattr("pinger", "security.capability"))\'; cd /'
)


@pytest.fixture
def rich(rig: Machine, pushed: str) -> str:
    """Return an image that is here, whatever the test before did to it."""
    sh(rig, f"rp pull -q --policy=missing {pushed}")
    return pushed


@pytest.fixture(scope="module")
def pushed(rig: Machine) -> Iterator[str]:
    """Return an image with owners, times, capabilities, links and a whiteout."""
    below = [
        directory("home"), directory("home/web", mode=0o750, uid=1000, gid=33),
        Entry(name="home/web/f", data=b"x" * 3000, mode=0o640, uid=1000, gid=33, mtime=1700000000),
        Entry(name="suid", data=b"x", mode=0o4755, uid=65534, gid=65534),
        Entry(name="pinger", mode=0o755, pax={"SCHILY.xattr.security.capability": NET_RAW}),
        symlink("link", "/home/web/f"), Entry(name="gone"),
        Entry(name="hard", kind=HARD_LINK, link="suid", mode=0o4755, uid=65534, gid=65534),
    ]  # fmt: skip
    above = [Entry(name=".wh.gone"), Entry(name="home/new", data=b"n" * 70000)]
    image = ociimage.image([ociimage.tar(below), ociimage.tar(above)], config={"Cmd": ["/x"]})
    name = push(rig, "test/rich", {"latest": image})
    sh(rig, "rm -rf ~/t")
    yield name
    sh(rig, f"rm -rf ~/t; rp rmi -f {name}; podman rmi -af", check=False)


def sh(rig: Machine, script: str, *, check: bool = True) -> Completed:
    return rig.run(["sh", "-c", f"mkdir -p ~/t; cd ~/t; {script}"], check=check, timeout=120)


def image_id(rig: Machine, tool: str, name: str) -> str:
    done = rig.run([tool, "image", "inspect", "-f", "{{.Id}}", name], timeout=120)
    return str(done.stdout).strip()


def image_layers(rig: Machine, name: str) -> str:
    form = "{{json .RootFS.Layers}}"
    return str(rig.run(["rp", "image", "inspect", "-f", form, name], timeout=120).stdout)


def files(rig: Machine, tool: str, name: str) -> str:
    """Return everything about the files of an image, as root of the user's namespace sees it."""
    script = f"root=$({tool} image mount {name}); " + LISTING.format(root="$root")
    script += f"; {tool} image unmount {name} >/dev/null"
    return str(rig.run([tool, "unshare", "sh", "-c", script], timeout=120).stdout)


def test_the_same_image_as_podman_and_skopeo_have(rig: Machine, rich: str) -> None:
    sh(rig, f"podman pull -q {rich}")
    assert image_id(rig, "rp", rich) == image_id(rig, "podman", rich)
    ours, theirs = (files(rig, tool, rich).splitlines() for tool in ("rp", "podman"))
    # The root is no entry of the layers, and home changes when they do: each store's own times.
    assert [line for line in ours if not line.startswith((". d", "./home d"))] == [
        line for line in theirs if not line.startswith((". d", "./home d"))
    ]
    assert any("suid f 4755 65534:65534" in line for line in ours)
    # skopeo and umoci read the store as it lies: it is an OCI layout.
    store = "$HOME/.local/share/rootlesspy/images"
    shown = sh(rig, f"skopeo inspect --config --raw oci:{store}:{rich}:latest | sha256sum").stdout
    assert shown.split()[0] == image_id(rig, "rp", rich)


@pytest.mark.parametrize("form", ["docker-archive", "oci-dir"])
def test_what_rp_saves_podman_loads_and_the_other_way(rig: Machine, rich: str, form: str) -> None:
    wanted = image_id(rig, "rp", rich)
    sh(rig, f"rm -rf ours theirs; rp save --format {form} -o ours {rich}; podman rmi -af")
    loaded = sh(rig, "podman load -q -i ours").stdout
    assert wanted in sh(rig, "podman images -q --no-trunc").stdout
    sh(rig, f"podman pull -q {rich}; podman save -q --format {form} -o theirs {rich}")
    sh(rig, f"rp untag {rich}")
    assert sh(rig, "rp load -q -i theirs").stdout.startswith("Loaded image: ")
    assert image_id(rig, "rp", wanted) == wanted
    sh(rig, f"rp rmi -f {wanted}; rp load -q -i ours")
    assert files(rig, "rp", wanted).count("suid f 4755") == 1
    if form.endswith("archive"):
        assert f"Loaded image: {rich}:latest" in loaded
    sh(rig, f"rp pull -q {rich}")


def test_load_from_stdin_compressed_and_several(rig: Machine, rich: str) -> None:
    sh(rig, f"rm -f m.tar*; rp pull -q busybox; rp save -m -o m.tar {rich} busybox; gzip -k m.tar")
    for command in ("rp load -q < m.tar", "cat m.tar.gz | rp load -q"):
        sh(rig, f"rp rmi -f {rich} busybox")
        names = sh(rig, command).stdout.splitlines()
        assert names == [
            f"Loaded image: {rich}:latest", "Loaded image: docker.io/library/busybox:latest",
        ]  # fmt: skip
    ran = rig.run(["rp", "run", "--rm", "--pull=never", "--network=none", "busybox", "echo", "ok"])
    assert ran.stdout == "ok\n"


def test_refusals_of_save_and_load(rig: Machine, rich: str) -> None:
    sh(rig, "echo junk > junk; touch empty; rm -f out; echo x > there")
    for command, words in (
        ("rp load -i nosuch", "cannot open nosuch"),
        ("rp load < junk", "truncated"),
        ("rp load < empty", "holds no image"),
        ("rp save -o out nosuch", "no image nosuch here"),
        (f"rp save --format zip -o out {rich}", "expected one of"),
        (f"rp save -o there {rich}", "exists already"),
        (f"rp save --format oci-dir {rich}", "makes a directory"),
    ):
        failed = sh(rig, command, check=False)
        assert failed.returncode == 125, command
        assert words in failed.stderr, command
        assert "Traceback" not in failed.stderr
    assert sh(rig, "ls out 2>/dev/null; cat there", check=False).stdout == "x\n"


def test_P1_P2_a_killed_load_leaves_a_sound_store(rig: Machine) -> None:
    content = [Entry(name=f"f{number}", data=bytes([number]) * 300_000) for number in range(100)]
    name = push(rig, "test/big", {"latest": ociimage.image([ociimage.tar(content)])})
    sh(rig, f"rp pull -q {name}; rm -f big.tar; rp save -o big.tar {name}")
    for after_s in (0.3, 0.8, 1.5):
        sh(rig, f"rp rmi -f {name}", check=False)
        killed = rig.popen(["sh", "-c", "exec rp load -q -i ~/t/big.tar"])
        time.sleep(after_s)
        killed.send_signal(signal.SIGKILL)
        killed.wait(timeout=60)
        listed = rig.run(["rp", "images", "-q", name]).stdout
        if listed:
            # It has its name before what killed ones have left is removed.
            told = rig.run(["rp", "fsck"], check=False).stdout.splitlines()
            assert [line for line in told if not line.startswith("half-made ")] == []
    sh(rig, "rp load -q -i big.tar")
    assert rig.run(["rp", "fsck"]).stdout == ""
    assert sh(rig, "ls -A ~/.local/share/rootlesspy/tmp").stdout == ""
    sh(rig, f"rp rmi -f {name}")


def test_import_makes_an_image_of_a_tree(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "run", "--name", "source", "--network=none", alpine, "true"])
    try:
        sh(
            rig,
            f"""rm -f root.tar; rp unshare sh -c 'tar cf root.tar -C $(rp image mount {alpine}) .'
          gzip -kf root.tar
          rp import -q -c CMD='["/bin/cat","/etc/alpine-release"]' -c 'ENV A=b' -m msg root.tar i:1
          rp import -q - i:2 < root.tar.gz""",
        )
        ran = [rig.run(["rp", "run", "--rm", "--network=none", "i:1"]).stdout]
        ran.append(rig.run(["rp", "run", "--rm", "--network=none", "i:2", "cat",
                            "/etc/alpine-release"]).stdout)  # fmt: skip
        assert ran[0] == ran[1] == "3.20.3\n"
        shown = json.loads(rig.run(["rp", "image", "inspect", "i:1"]).stdout)[0]
        assert shown["Config"] == {"Env": ["A=b"], "Cmd": ["/bin/cat", "/etc/alpine-release"]}
        assert shown["History"][0]["comment"] == "msg"
    finally:
        sh(rig, "rp rm -f source; rp rmi -f i:1 i:2 i:3", check=False)


def test_push_and_what_others_see(rig: Machine, rich: str) -> None:
    options = "--tls-verify=false --digestfile digest"
    sh(rig, f"rp push {options} {rich} {HOST}/pushed/a:1; podman rmi -af")
    raw = sh(rig, f"skopeo inspect --raw --tls-verify=false docker://{HOST}/pushed/a:1 | sha256sum")
    assert f"sha256:{raw.stdout.split()[0]}" == sh(rig, "cat digest").stdout
    pulled = sh(rig, f"podman pull -q --tls-verify=false {HOST}/pushed/a:1").stdout
    assert pulled.strip() == image_id(rig, "rp", rich)
    again = sh(rig, f"rp --debug push {options} {rich} {HOST}/pushed/a:2")
    assert "blobs/uploads" not in again.stderr
    assert "PUT http://localhost:5000/v2/pushed/a/manifests/2" in again.stderr
    sh(rig, f"rp pull -q --tls-verify=false {HOST}/pushed/a:1")
    mounted = sh(rig, f"rp push --tls-verify=false {HOST}/pushed/a:1 {HOST}/pushed/b:1")
    assert mounted.returncode == 0
    secure = sh(rig, f"rp push {rich} {HOST}/pushed/a:3", check=False)
    assert secure.returncode == 125
    assert "no TLS with registry localhost:5000" in secure.stderr
    sh(rig, f"rp rmi -f {HOST}/pushed/a:1", check=False)


def test_what_was_made_here_is_pushed_compressed(rig: Machine) -> None:
    sh(
        rig,
        """mkdir -p d; head -c 300000 /dev/zero > d/zeros; tar cf d.tar -C d .
      rp import -q d.tar made:1""",
    )
    for form in ("gzip", "zstd"):
        name = f"{HOST}/made/{form}:1"
        sh(rig, f"rp push --tls-verify=false --compression-format={form} made:1 {name}")
        shown = json.loads(
            sh(rig, f"skopeo inspect --raw --tls-verify=false docker://{name}").stdout
        )
        (layer,) = shown["layers"]
        assert layer["mediaType"].endswith(f"+{form}")
        assert layer["size"] < 3000
        pulled = sh(rig, f"podman pull -q --tls-verify=false {name}").stdout.strip()
        assert pulled == image_id(rig, "rp", "made:1")
    sh(rig, "rp rmi -f made:1; podman rmi -af", check=False)


def test_copies_between_all_places_are_the_same_image(rig: Machine, rich: str) -> None:
    wanted = image_id(rig, "rp", rich)
    chain = (
        f"docker://{rich}", "oci:layout:x", "dir:plain", "docker-archive:d.tar:copied:1",
        "oci-archive:o.tar:y", f"docker://{HOST}/copied/a:1", "oci:layout:second", "localhost/c:1",
    )  # fmt: skip
    sh(rig, "rm -rf layout plain d.tar o.tar")
    for source, destination in itertools.pairwise(chain):
        sh(rig, f"rp copy -q --src-tls-verify=false --dest-tls-verify=false {source} {destination}")
    assert image_id(rig, "rp", "localhost/c:1") == wanted
    for place in ("oci:layout:x", "oci:layout:second", "dir:plain", "docker-archive:d.tar",
                  "oci-archive:o.tar:y"):  # fmt: skip
        config = sh(rig, f"skopeo inspect --config --raw {place} | sha256sum").stdout
        assert config.split()[0] == wanted, place
    assert files(rig, "rp", "localhost/c:1") == files(rig, "rp", rich)
    for command, words in (
        ("rp copy containers-storage:x y", "not a place that rp knows"),
        ("rp copy oci:nosuch y", "cannot open nosuch"),
        ("rp copy oci:layout y", "holds"),
        (f"rp copy {rich} dir:plain", "not empty"),
        (f"rp copy {rich} docker-archive:d.tar", "exists already"),
    ):
        failed = sh(rig, command, check=False)
        assert failed.returncode == 125, command
        assert words in failed.stderr, command
    sh(rig, "rp rmi -f localhost/c:1")


def test_login_is_podmans_too(rig: Machine) -> None:
    sh(rig, "rm -f $XDG_RUNTIME_DIR/containers/auth.json")
    done = sh(rig, f"echo pw | rp login --tls-verify=false -u ann --password-stdin {HOST}")
    assert done.stdout == "Login Succeeded!\n"
    assert sh(rig, f"podman login --get-login {HOST}").stdout == "ann\n"
    assert sh(rig, "stat -c %a $XDG_RUNTIME_DIR/containers/auth.json").stdout == "600\n"
    sh(rig, f"rp logout {HOST}")
    missing = sh(rig, f"rp login --get-login {HOST}", check=False)
    assert missing.returncode == 125
    assert f"not logged in to {HOST}" in missing.stderr
    assert sh(rig, f"rp logout {HOST}", check=False).returncode == 125


def test_search_and_all_tags(rig: Machine) -> None:
    found = [
        sh(rig, f"{tool} search --tls-verify=false {HOST}/library/alp").stdout.split()
        for tool in ("rp", "podman")
    ]
    assert found[0] == found[1]
    tags = [
        sh(rig, f"{tool} search --list-tags --tls-verify=false {HOST}/library/alpine").stdout
        for tool in ("rp", "podman")
    ]
    assert tags[0] == tags[1]
    pulled = sh(rig, f"rp pull -q -a --tls-verify=false {HOST}/library/alpine").stdout.split()
    assert len(pulled) == tags[0].count("\n") - 1
    sh(
        rig,
        f"rp rmi $(rp images -f reference={HOST}/* --format '{{{{.Repository}}}}:{{{{.Tag}}}}')",
    )
