"""Layers and archives that lie, and what containers leave to be removed: SECURITY.md H.

Each is loaded between two looks at what an escape would reach, and at the layers that were there
before.  What a single entry can do is in tests/unit/image/test_unpack.py.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest
from namespace import hostile
from namespace.hostile import ACCOUNTS, OUT, TOKEN_FILE, UP, Host, harmless
from rig import ociimage
from rig.effort import effort
from rig.ociimage import Entry, directory, hard_link, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rig.machine import Machine

pytestmark = pytest.mark.limit(900)

PLACE = "/home/alice/unpack"
RUN = ("rp", "run", "--rm", "--net=none")
LAYERS = ("cd ~/.local/share/rootlesspy/layers; find . -printf '%p %y %m %s %T@ %l %n\\n' | sort; "
          "find . -type f | sort | xargs sha256sum; true")  # fmt: skip
LINKS = [symlink("x", OUT), symlink("y", UP + OUT), symlink("z", ".."), directory("d"),
         Entry("d/kept", data=b"kept"), Entry("file", data=b"lower")]  # fmt: skip
CHAIN = [symlink(f"c{number}", f"c{number + 1}") for number in range(40)]
OVERLAY = {f"SCHILY.xattr.user.overlay.{name}": "y"
           for name in ("redirect", "opaque", "metacopy", "whiteout", "origin")}  # fmt: skip
OVERLAY |= {
    "LIBARCHIVE.xattr.user.overlay.opaque": "eQ==",
    "SCHILY.xattr.trusted.overlay.opaque": "y",
}
# Directories and links whose path is longer than the kernel takes: CVE-2025-4517.
DEEP = [
    entry
    for number in range(16)
    for entry in (
        directory("/".join(["d" * 247] * number + ["d" * 247])),
        symlink("/".join(["d" * 247] * number + [f"s{number}"]), "d" * 247),
    )
]
ESCAPE = "/".join(f"s{number}" for number in range(16))
# What stands in the layer above LINKS, and which codes may come.
TRAPS: dict[str, tuple[Sequence[Entry], tuple[int, ...]]] = {
    "lower link": ([Entry("x/f", data=b"x"), Entry("y/f"), Entry("z/f")], (0,)),
    "lower link as parent": ([directory("x"), Entry("x/a/b", data=b"x")], (0,)),
    "own link": ([symlink("o", OUT), Entry("o/f", data=b"x")], (125,)),
    "own link upwards": ([symlink("o", UP + OUT), Entry("o/f", data=b"x")], (125,)),
    "chain": ([*CHAIN, symlink("c40", OUT), Entry("c0/f", data=b"x")], (125,)),
    "back and forth": ([directory("b"), symlink("b", OUT), directory("b"), Entry("b/f")], (0,)),
    "hard link outside": ([hard_link("h", TOKEN_FILE)], (125,)),
    "hard link upwards": ([hard_link("h", UP + TOKEN_FILE)], (125,)),
    "hard link below a link": ([symlink("o", "/tmp/rig"), hard_link("h", "o/secret")], (125,)),
    "hard link to a link": ([symlink("s", TOKEN_FILE), hard_link("h", "s")], (0,)),
    "hard link below": ([hard_link("h", "file")], (125,)),
    "metadata through a link": ([Entry("f", mode=0o777), symlink("f", TOKEN_FILE),
                                 Entry("f", mode=0o4777)], (0,)),
    "whiteout of nothing": ([Entry(".wh...")], (125,)),
    "whiteout of the root": ([Entry(".wh..")], (125,)),
    "whiteout below a link": ([Entry("x/.wh.f"), Entry("x/.wh..wh..opq")], (0,)),
    "whiteout up": ([Entry(f".wh.{UP}/tmp/rig/f")], (125,)),
    "whiteouts": ([Entry("d/.wh..wh..opq"), Entry(".wh.file"), Entry(".wh..wh.plnk")], (0,)),
    "overlay": ([Entry("d/o", pax=OVERLAY), directory("d"), Entry("d/p", pax=OVERLAY)], (0,)),
    "devices": ([Entry("file", kind=ociimage.CHARACTER), Entry("sda", kind=ociimage.BLOCK,
                 device=(8, 0)), Entry("d/kept", kind=ociimage.CHARACTER)], (0,)),
    "longer than a path": ([*DEEP, symlink(f"{ESCAPE}/{'l' * 254}", "../" * 16),
                            symlink("e", f"{ESCAPE}/{'l' * 254}/..{OUT}"), Entry("e/f")], (125,)),
    "device number": ([Entry("n", kind=ociimage.CHARACTER, device=(1 << 40, 1))], (125,)),
}  # fmt: skip


@pytest.fixture(scope="module")
def host(rig: Machine, _fresh_start: None) -> Iterator[Host]:
    """Return the machine with canaries and the lower layer in its store."""
    for made in hostile.prepare(rig):
        rig.run(["sh", "-c", f"rm -rf {PLACE}; mkdir {PLACE}"])
        yield made
        rig.run(["rm", "-rf", PLACE])


@pytest.fixture(scope="module")
def below(host: Host, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Return the layers below every trap, which are in the store."""
    build = tmp_path_factory.mktemp("racer")
    entries = [*hostile.base(host.machine, build), *ACCOUNTS, hostile.racer(build)]
    layers = [ociimage.tar(entries), ociimage.tar(LINKS)]
    hostile.load(host.machine, {"below": ociimage.image(layers, {"Cmd": ["/probe"]})})
    return layers


@pytest.mark.row("CVE-2026-17106", "resolved below the layer's own root, or refused")
@pytest.mark.row("GHSA-9rww", "a hard link is to a file of the same layer, never through a link")
@pytest.mark.row("CVE-2021-32760", "metadata is set on the descriptor of what was just made")
@pytest.mark.row("whiteouts", "they hide what lower layers have; the lower layers stay as they are")
@pytest.mark.row("overlay xattrs", "overlay's own attributes are left out")
@pytest.mark.row("devices in layers", "left out, and hide nothing; odd numbers are refused")
@pytest.mark.row("tarfile", "links of every kind, also past the longest path: inside, or refused")
def test_traps_in_layers(host: Host, below: list[bytes]) -> None:
    machine = host.machine
    before = machine.run(["sh", "-c", LAYERS]).stdout.splitlines()
    commands = []
    for number, (entries, _) in enumerate(TRAPS.values()):
        image = ociimage.image([*below, ociimage.tar(entries)], {"Cmd": ["/probe"]})
        machine.run(
            ["sh", "-c", f"cat >{PLACE}/{number}"], input=hostile.layout({f"t{number}": image})
        )
        commands.append(["rp", "load", "-q", "-i", f"{PLACE}/{number}"])
    for (name, (_, codes)), outcome in zip(TRAPS.items(), host.attempt(commands), strict=True):
        assert outcome.code in codes, (name, outcome.stderr)
        harmless(outcome, codes)
    after = set(machine.run(["sh", "-c", LAYERS]).stdout.splitlines())
    # Directories of all layers have one more entry each; the layers themselves are as they were.
    assert [line for line in before if line not in after and "/diff" in line.split()[0]] == []
    numbers = {name: number for number, name in enumerate(TRAPS)}
    shown = {
        "whiteouts": "ls -A /d; ls /file 2>/dev/null", "devices": "cat /file /d/kept; ls /sda",
        "overlay": "cat /d/kept; ls /d/o /d/p", "lower link": f"ls {OUT} /f; ls /x",
    }  # fmt: skip
    seen = {
        name: machine.run([*RUN, f"localhost/t{numbers[name]}", "sh", "-c", script], check=False)
        for name, script in shown.items()
    }
    assert seen["whiteouts"].stdout == ""
    assert seen["devices"].stdout == "lowerkept"
    assert seen["overlay"].stdout.split() == ["kept/d/o", "/d/p"]
    assert "f" in seen["lower link"].stdout
    assert host.holders_of_the_token() == ""


OUTER = {
    "manifest is a link": ("manifest.json", tarfile.SYMTYPE, "/etc/passwd"),
    "manifest is a link upwards": ("manifest.json", tarfile.SYMTYPE, UP + TOKEN_FILE),
    "manifest is a hard link": ("manifest.json", tarfile.LNKTYPE, TOKEN_FILE),
    "manifest is a FIFO": ("manifest.json", tarfile.FIFOTYPE, ""),
    "manifest is a directory": ("manifest.json", tarfile.DIRTYPE, ""),
    "layer is a link": ("layer.tar", tarfile.SYMTYPE, TOKEN_FILE),
    "layer is a link upwards": ("layer.tar", tarfile.SYMTYPE, UP + TOKEN_FILE),
    "layer is a hard link": ("layer.tar", tarfile.LNKTYPE, "/etc/passwd"),
    "layer is a FIFO": ("layer.tar", tarfile.FIFOTYPE, ""),
    "layer is a device": ("layer.tar", tarfile.CHRTYPE, ""),
    "config is a link": ("config.json", tarfile.SYMTYPE, "/proc/self/environ"),
    "a name upwards": (UP + OUT + "/f", tarfile.REGTYPE, ""),
}


def docker_archive(odd: tuple[str, bytes, str]) -> bytes:
    """Return an archive as `docker save` makes it, with one member replaced or added."""
    layer = ociimage.tar([Entry("f", data=b"x")])
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [ociimage.digest(layer)]}}  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": ["outer:1"], "Layers": ["layer.tar"]}]
    members = {"manifest.json": json.dumps(manifest).encode(), "layer.tar": layer,
               "config.json": json.dumps(config).encode()}  # fmt: skip
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        lying = tarfile.TarInfo(odd[0])
        lying.type, lying.linkname = odd[1], odd[2]
        archive.addfile(lying)
        for name, data in members.items():
            if name != odd[0]:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.row("CVE-2025-11395", "members are read from the archive alone, never extracted")
def test_cve_2025_11395_saved_images_whose_members_are_links(host: Host) -> None:
    commands = []
    for number, odd in enumerate(OUTER.values()):
        host.machine.run(["sh", "-c", f"cat >{PLACE}/o{number}"], input=docker_archive(odd))
        commands.append(["rp", "load", "-q", "-i", f"{PLACE}/o{number}"])
    for name, outcome in zip(OUTER, host.attempt(commands), strict=True):
        harmless(outcome, (0,) if name == "a name upwards" else (125,))
    assert host.machine.run(["ls", "-A", OUT]).stdout == ""
    # The import of an archive, and links in the directory of a layout.
    layout = f"mkdir {PLACE}/layout; cd {PLACE}/layout; ln -s /etc/passwd index.json"
    host.machine.run(["sh", "-c", f"{layout}; ln -s {TOKEN_FILE} oci-layout"])
    harmless(host.one("rp", "load", "-q", "-i", f"{PLACE}/layout"), (125,))
    assert host.holders_of_the_token() == ""


@pytest.mark.row("CVE-2021-20291", "exit 125; nothing is locked, the next load works")
def test_cve_2021_20291_decoders_that_fail(host: Host, below: list[bytes]) -> None:
    layer = ociimage.tar([Entry("big", data=bytes(range(256)) * 8192)])
    good = gzip.compress(layer, 1)
    for bad in (good[: len(good) // 2] + b"garbage" * 999, good[:-9], good[:40], b"\x1f\x8b" * 9):
        image = ociimage.image([*below, layer])
        blob = image.layers[-1]._replace(data=bad)
        changed = ociimage.assemble((*image.layers[:-1], blob), [
            *(ociimage.digest(each) for each in below), ociimage.digest(layer)])  # fmt: skip
        host.machine.run(["sh", "-c", f"cat >{PLACE}/bad"], input=hostile.layout({"bad": changed}))
        harmless(host.one("rp", "load", "-q", "-i", f"{PLACE}/bad"), (125,))
    hostile.load(host.machine, {"bad": ociimage.image([*below, layer])})
    host.machine.run(["rp", "rmi", "localhost/bad"])
    left = host.machine.run(["sh", "-c", "ls -A ~/.local/share/rootlesspy/tmp"]).stdout
    assert left == ""


@pytest.mark.row("deleting", "no link followed, no mount crossed, any depth, closed directories")
def test_deleting_what_containers_leave(host: Host, below: list[bytes]) -> None:
    machine = host.machine
    depth = effort(3_500, 8_000)
    machine.run(["sh", "-c", f"mkdir {PLACE}/data {PLACE}/bound; echo mine >{PLACE}/data/f"])
    script = f"""
        /racer dig {depth} /deep; /racer dig 3000 /bound/deep
        mkdir -p /closed/in/side /mnt; touch /closed/in/f
        chmod 0 /closed/in/side /closed/in /closed
        ln -s {OUT} /link; ln -s / /root-link; mkdir /other; touch /other/f
        /bin/busybox chown -R 33:44 /other; chmod 0 /other"""
    argv = ["rp", "run", "--net=none", "--name", "left", "-v", f"{PLACE}/bound:/bound"]
    machine.run([*argv, "localhost/below", "sh", "-c", script], timeout=400)
    found = machine.run(["rp", "inspect", "-f", "{{.Id}}", "left"]).stdout.strip()
    directory_of = f"/home/alice/.local/share/rootlesspy/containers/{found}"
    if machine.has_root:
        machine.root(["mount", "--bind", f"{PLACE}/data", f"{directory_of}/upper/mnt"])
        outcome = host.one("rp", "rm", "left")
        assert outcome.code == 125
        assert machine.run(["cat", f"{PLACE}/data/f"]).stdout == "mine\n"
        mounts = machine.root(["sh", "-c", "grep unpack/data /proc/self/mountinfo | cut -d' ' -f5"])
        for target in mounts.stdout.split():
            machine.root(["umount", target])
    harmless(host.one("rp", "rm", "--force", "left"), (0,))
    # What the mount kept back the next command removes.
    machine.run(["rp", "rm", "--all"], timeout=400)
    left = "ls -A ~/.local/share/rootlesspy/containers ~/.local/share/rootlesspy/tmp"
    assert machine.run(["sh", "-c", left]).stdout.split() == [
        "/home/alice/.local/share/rootlesspy/containers:",
        "/home/alice/.local/share/rootlesspy/tmp:",
    ]
    # What was bound is the user's: it stays.
    assert machine.run(["ls", f"{PLACE}/bound"]).stdout == "deep\n"
    assert machine.run(["cat", f"{PLACE}/data/f"]).stdout == "mine\n"
