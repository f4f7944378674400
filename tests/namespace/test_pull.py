"""`rp pull` as an unprivileged user with subordinate ids: trees, owners, whiteouts, hostile layers.

The finer lies of registries are in tests/unit/image; here is what needs real ids, a real overlay
and a real registry.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from namespace.imagepush import push
from namespace.living import until
from rig import ociimage
from rig.ociimage import Entry, directory, hard_link, symlink

if TYPE_CHECKING:
    from rig.machine import Completed, Machine

pytestmark = [pytest.mark.namespace, pytest.mark.usefixtures("needs_registry")]

STORE = "$HOME/.local/share/rootlesspy"
# setcap cap_net_raw+ep, as the kernel's vfs_cap_data version 2.
NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture(scope="module")
def shell(rig: Machine) -> bytes:
    """Return a layer with a static shell: that of the busybox image."""
    command = ["rp", "run", "--rm", "--network=none", "busybox", "cat", "/bin/busybox"]
    binary = rig.run(command, binary=True, timeout=120).stdout
    names = ("sh", "ls", "cat", "stat", "id", "find", "touch")
    links = [hard_link(f"bin/{name}", "/bin/busybox") for name in names]
    return ociimage.tar(
        [directory("bin"), Entry(name="bin/busybox", data=binary, mode=0o755), *links]
    )


def sh(rig: Machine, script: str, *, check: bool = True) -> Completed:
    return rig.run(["sh", "-c", script], check=check, timeout=120)


def run(rig: Machine, image: str, script: str, *options: str) -> str:
    command = ["rp", "run", "--rm", "--network=none", *options, image, "sh", "-c", script]
    return str(rig.run(command, timeout=120).stdout)


def subordinate(rig: Machine, container_id: int) -> int:
    """Return the host id of a container id above 0."""
    line = sh(rig, 'grep "^$(id -un):" /etc/subuid').stdout.split(":")
    return int(line[1]) + container_id - 1


LAYER = [
    directory("."),
    directory("home"),
    directory("home/web", mode=0o750, uid=1000, gid=33),
    Entry(name="home/web/f", data=b"x", mode=0o640, uid=1000, gid=33, mtime=1700000000),
    Entry(name="suid", data=b"x", mode=0o4755, uid=65534, gid=65534),
    Entry(name="pinger", data=b"x", mode=0o755, pax={"SCHILY.xattr.security.capability": NET_RAW}),
    symlink("link", "/home/web/f"),
    Entry(name="null", kind=ociimage.CHARACTER, device=(1, 3)),
]


@pytest.fixture(scope="module")
def owned(rig: Machine, shell: bytes) -> str:
    image = ociimage.image([shell, ociimage.tar(LAYER)])
    return push(rig, "test/owned", {"latest": image})


def test_owners_modes_times_and_capabilities(rig: Machine, owned: str) -> None:
    script = (
        "cd /; stat -c '%u:%g %a %Y %n' home/web home/web/f suid pinger link; ls null 2>&1; true"
    )
    lines = run(rig, owned, script).splitlines()
    assert lines[1:4] == ["1000:33 640 1700000000 home/web/f", "65534:65534 4755 0 suid",
                          "0:0 755 0 pinger"]  # fmt: skip
    assert lines[0].startswith("1000:33 750")
    assert "No such file" in lines[-1]
    (path,) = sh(rig, f"ls {STORE}/layers/sha256/*/diff/pinger").stdout.split()
    shown = sh(rig, f"stat -c %u {path}; stat -c %u $(dirname {path})/suid").stdout.split()
    assert shown == [str(rig.uid), str(subordinate(rig, 65534))]
    attribute = rig.run(
        ["python3", "-c", "import os,sys; print(os.getxattr(sys.argv[1], 'security.capability'))",
         path]
    )  # fmt: skip
    assert "\\x00 \\x00" in attribute.stdout


def test_another_id_map_unpacks_again_without_the_registry(rig: Machine, owned: str) -> None:
    rig.run(["rp", "pull", "-q", owned])
    assert run(rig, owned, "stat -c %u:%g /suid", "--userns=keep-id", "--pull=never",
               "--user=0").strip() == "65534:65534"  # fmt: skip
    assert run(rig, owned, "stat -c %u:%g /home/web/f", "--pull=never").strip() == "1000:33"


def test_whiteouts_hide_what_lies_below(rig: Machine, shell: bytes) -> None:
    below = ociimage.tar(
        [directory("d"), Entry(name="d/old"), directory("gone"), Entry(name="gone/f"),
         Entry(name="file"), directory("again"), Entry(name="again/old")]
    )  # fmt: skip
    above = ociimage.tar(
        [Entry(name="d/.wh..wh..opq"), Entry(name="d/new"), Entry(name=".wh.gone"),
         Entry(name=".wh.file"), Entry(name=".wh.again"), directory("again"),
         Entry(name="again/new")]
    )  # fmt: skip
    name = push(rig, "test/whiteouts", {"latest": ociimage.image([below, shell, above])})
    assert run(rig, name, "cd /; ls -d d/* again/* gone file 2>&1; true").split("\n")[:2] == [
        "ls: gone: No such file or directory", "ls: file: No such file or directory",
    ]  # fmt: skip
    assert run(rig, name, "cd /; ls d again") == "again:\nnew\n\nd:\nnew\n"


def test_an_opaque_root_layer(rig: Machine, shell: bytes) -> None:
    below = ociimage.tar([Entry(name="below")])
    above = ociimage.tar([Entry(name=".wh..wh..opq"), Entry(name="above")])
    name = push(rig, "test/opaque", {"latest": ociimage.image([below, above, shell])})
    assert set(run(rig, name, "ls /").split()) & {"below", "above"} == {"above"}


def test_indexes_and_docker_manifests(rig: Machine, shell: bytes) -> None:
    mine = ociimage.image([shell], docker=True)
    other = ociimage.image([shell], architecture="s390x")
    name = push(rig, "test/index", {"a": mine, "b": other}, index=ociimage.index([other, mine]))
    assert run(rig, name, "echo ok") == "ok\n"
    failed = rig.run(["rp", "pull", "--platform=linux/riscv64", name], check=False)
    assert failed.returncode == 125
    assert "not made for linux/riscv64, only for linux/amd64, linux/s390x" in failed.stderr


HOSTILE = [
    pytest.param([symlink("x", "/home"), Entry(name="x/evil")], "cannot unpack", id="link"),
    pytest.param([hard_link("x", "/etc/passwd")], "no such file to link to", id="hard link"),
    pytest.param([hard_link("x", "../../x")], "'..'", id="hard link up"),
    pytest.param([Entry(name="../evil")], "'..'", id="dots"),
    pytest.param([symlink(".", "/home")], "replace the root", id="root"),
    pytest.param([Entry(name=".wh..")], "whiteout of nothing", id="whiteout"),
    pytest.param([Entry(name="f", uid=70000)], "not mapped", id="owner"),
    pytest.param([Entry(name="f", kind=ociimage.CHARACTER, device=(1 << 40, 0))], "out of range",
                 id="device"),
    pytest.param([Entry(name="f", data=b"x", size=1 << 30)], "truncated", id="truncated"),
    pytest.param([Entry(name="f", checksum=1)], "checksum", id="checksum"),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "words"), HOSTILE)
def test_hostile_layers_change_nothing_outside(
    rig: Machine, request: pytest.FixtureRequest, entries: list[Entry], words: str
) -> None:
    tag = request.node.callspec.id.replace(" ", "-")
    name = push(rig, f"test/hostile-{tag}", {"latest": ociimage.image([ociimage.tar(entries)])})
    rig.run(["sh", "-c", "mkdir -p ~/.canary; echo token > ~/.canary/secret"])
    # %A and %C stay out: looking changes the one, a link count the other.
    state = (
        "find ~ /etc /tmp -path ~/.local/share/rootlesspy/images -prune -o "
        "-path ~/.local/share/rootlesspy/tmp -prune -o -path '*/__pycache__*' -prune -o "
        "-printf '%p %y %m %U %G %s %l %T@\\n' 2>/dev/null; true"
    )
    before = sh(rig, state).stdout
    failed = rig.run(["rp", "pull", name], check=False)
    assert sh(rig, state).stdout == before
    assert failed.returncode == 125
    assert words in failed.stderr
    assert "Traceback" not in failed.stderr
    assert sh(rig, f"ls -A {STORE}/tmp").stdout == ""
    assert name not in rig.run(["rp", "images"]).stdout


def test_links_upwards_end_at_the_root_of_the_layer(rig: Machine) -> None:
    entries = [symlink("x", "../../../../../.."), directory("home"), Entry(name="x/home/kept")]
    name = push(rig, "test/upwards", {"latest": ociimage.image([ociimage.tar(entries)])})
    rig.run(["rp", "pull", "-q", name])
    assert sh(rig, f"ls {STORE}/layers/sha256/*/diff/home/kept").stdout.count("kept") == 1


def test_C2_pulls_at_once(rig: Machine, shell: bytes) -> None:
    layers = [shell, ociimage.tar([Entry(name="big", data=bytes(range(256)) * 100000)])]
    name = push(rig, "test/together", {"latest": ociimage.image(layers)})
    pulls = [rig.popen(["rp", "pull", "-q", name]) for _ in range(8)]
    assert [each.wait(timeout=120) for each in pulls] == [0] * 8
    assert sh(rig, f"ls -A {STORE}/tmp").stdout == ""
    assert run(rig, name, "stat -c %s /big") == "25600000\n"
    failed = rig.run(["rp", "images", "-q", name]).stdout.split()
    assert len(failed) == 1


@pytest.mark.parametrize("after_s", [0.1, 0.4, 0.8, 1.5])
def test_P1_P2_killed_pulls(rig: Machine, shell: bytes, after_s: float) -> None:
    content = str(after_s).encode() * 8_000_000
    layers = [shell, ociimage.tar([Entry(name="big", data=content)])]
    name = push(rig, f"test/killed-{after_s}", {"latest": ociimage.image(layers)})
    pull = rig.popen(["rp", "pull", "-q", name])
    time.sleep(after_s)
    pull.send_signal(signal.SIGKILL)
    pull.wait(timeout=60)
    # What was killed is the door; the command in the machine ends after it.
    until(lambda: rig.root(["pgrep", "-f", f"pull -q {name}"], check=False).returncode, "it lives")
    listed = rig.run(["rp", "images", "-q", name]).stdout.split()
    if listed:
        assert run(rig, name, "stat -c %s /big", "--pull=never") == f"{len(content)}\n"
    assert run(rig, name, "stat -c %s /big") == f"{len(content)}\n"
    # It may have been whole but for what it had to tidy up, which the next one does.
    rig.run(["rp", "pull", "-q", name])
    assert sh(rig, f"ls -A {STORE}/tmp").stdout == ""


def test_a_user_without_subordinate_ids(rig: Machine, owned: str) -> None:
    """Only one id: owners are left out, and the layer says so."""
    done = rig.run(["rp", "pull", "-q", owned], user="bob", check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    script = f"cd {STORE}/layers/sha256; stat -c %u */diff/suid; cat */layer.json"
    shown = rig.run(["sh", "-c", script], user="bob").stdout
    assert shown.startswith(rig.run(["id", "-u"], user="bob").stdout)
    assert '"single_id": true' in shown


def test_nobody_else_can_look_into_the_store(rig: Machine, owned: str) -> None:
    rig.run(["rp", "pull", "-q", owned])
    home = sh(rig, "echo $HOME").stdout.strip()
    store = f"{home}/.local/share/rootlesspy"
    rig.root(["chmod", "755", home])
    try:
        seen = rig.run(
            ["sh", "-c", f"ls {store}; find {store} -name suid; cat {store}/images/index.json"],
            user="bob",
            check=False,
        )
    finally:
        rig.root(["chmod", "700", home])
    assert seen.stdout == ""
    assert seen.returncode != 0
