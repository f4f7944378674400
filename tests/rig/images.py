"""The images that every rig's registry serves as docker.io/library/alpine and busybox.

The real ones where `../shared/images` beside the project has them, else one made from Debian's
busybox-static, which is then served under both names.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

from rig import location, ociimage

if TYPE_CHECKING:
    from pathlib import Path

SHARED = location.REPOSITORY.parent / "shared" / "images"
_CONFIG = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Cmd": ["/bin/sh"],
}
_ALPINE_TAGS = ("latest", "3.20", "3.20.3")


def fill_registry(tree: Path, storage: Path) -> str:
    """Write the images into a registry's storage; return one line that says what they are."""
    rootfs = next(iter(SHARED.glob("alpine-minirootfs-*-x86_64.tar.gz")), None)
    alpine = _from_rootfs(rootfs) if rootfs else from_busybox(tree)
    archive = next(iter(SHARED.glob("busybox-*.oci.tar")), None)
    busybox = _from_archive(archive) if archive else from_busybox(tree)
    ociimage.write_registry(storage, "library/alpine", dict.fromkeys(_ALPINE_TAGS, alpine))
    ociimage.write_registry(storage, "library/busybox", {"latest": busybox})
    if rootfs:
        return f"alpine is {rootfs.name}"
    return "alpine is made from Debian's busybox-static (no ../shared/images)"


def from_busybox(tree: Path) -> ociimage.Image:
    """Make an image of the busybox-static in a Debian root file system."""
    applets = subprocess.run(
        ["chroot", os.fspath(tree), "busybox", "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    binary = (tree / "usr" / "bin" / "busybox").read_bytes()
    entries = [ociimage.directory(name) for name in ("bin", "etc", "root", "var", "usr", "home")]
    entries += [ociimage.directory("tmp", mode=0o1777), ociimage.directory("usr/bin")]
    entries += [ociimage.Entry(name="bin/busybox", data=binary, mode=0o755)]
    entries += [ociimage.symlink(f"bin/{applet}", "busybox") for applet in applets
                if applet != "busybox"]  # fmt: skip
    for name, text in (
        ("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ("group", "root:x:0:\nnobody:x:65534:\n"),
        ("os-release", 'ID=busybox\nNAME="BusyBox from Debian"\nPRETTY_NAME="BusyBox"\n'),
    ):
        entries.append(ociimage.Entry(name=f"etc/{name}", data=text.encode()))
    return ociimage.image([ociimage.tar(entries)], _CONFIG)


def _from_rootfs(archive: Path) -> ociimage.Image:
    data = archive.read_bytes()
    layer = ociimage.Blob(ociimage.OCI_LAYER + "+gzip", data)
    return ociimage.assemble((layer,), [ociimage.digest(gzip.decompress(data))], _CONFIG)


def _from_archive(path: Path) -> ociimage.Image:
    """Read the first image of an OCI archive, with its own bytes and digests."""
    with tarfile.open(path) as archive:

        def read(name: str) -> bytes:
            member = archive.extractfile(name)
            return b"" if member is None else member.read()

        def blob(descriptor: ociimage.Json) -> ociimage.Blob:
            name = "blobs/" + descriptor["digest"].replace(":", "/")
            return ociimage.Blob(descriptor["mediaType"], read(name))

        manifest = blob(json.loads(read("index.json"))["manifests"][0])
        content = json.loads(manifest.data)
        return ociimage.Image(
            manifest=manifest,
            config=blob(content["config"]),
            layers=tuple(blob(layer) for layer in content["layers"]),
            platform={"architecture": "amd64", "os": "linux"},
        )
