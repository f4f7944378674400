"""The images that every rig's registry serves as docker.io/library/alpine and busybox.

The real ones where `../shared/images` beside the project (or the directory RP_IMAGES) has them,
else images made from Debian's busybox-static.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
from pathlib import Path

from rig import location, ociimage

SHARED = Path(os.environ.get("RP_IMAGES", location.REPOSITORY.parent / "shared" / "images"))
_CONFIG = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Cmd": ["/bin/sh"],
}
# The accounts that Alpine has and tests use.
_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
bin:x:1:1:bin:/bin:/sbin/nologin
daemon:x:2:2:daemon:/sbin:/sbin/nologin
mail:x:8:12:mail:/var/mail:/sbin/nologin
guest:x:405:100:guest:/dev/null:/sbin/nologin
nobody:x:65534:65534:nobody:/:/sbin/nologin
"""
_GROUP = """\
root:x:0:root
bin:x:1:root,bin,daemon
daemon:x:2:root,bin,daemon
sys:x:3:root,bin
tty:x:5:
disk:x:6:root
wheel:x:10:root
mail:x:12:mail
audio:x:18:
video:x:27:root
users:x:100:games
nobody:x:65534:
"""
_ALPINE_TAGS = ("latest", "3.20", "3.20.3")


def fill_registry(tree: Path, storage: Path) -> str:
    """Write the images into a registry's storage; return one line that says what they are."""
    rootfs = next(iter(SHARED.glob("alpine-minirootfs-*-x86_64.tar.gz")), None)
    alpine = _from_rootfs(rootfs) if rootfs else from_busybox(tree, "alpine")
    archive = next(iter(SHARED.glob("busybox-*.oci.tar")), None)
    busybox = _from_archive(archive) if archive else from_busybox(tree, "busybox")
    ociimage.write_registry(storage, "library/alpine", dict.fromkeys(_ALPINE_TAGS, alpine))
    ociimage.write_registry(storage, "library/busybox", {"latest": busybox})
    if rootfs:
        return f"alpine is {rootfs.name}"
    return "alpine is made from Debian's busybox-static (no ../shared/images)"


def from_busybox(tree: Path, name: str) -> ociimage.Image:
    """Make an image of the busybox-static in a Debian root file system, laid out as Alpine is."""
    applets = subprocess.run(
        ["chroot", os.fspath(tree), "busybox", "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    binary = (tree / "usr" / "bin" / "busybox").read_bytes()
    # fmt: off
    directories = ("bin", "dev", "etc", "etc/apk", "home", "lib", "media", "mnt",
                   "opt", "proc", "root", "run", "sbin",
                   "srv", "sys", "usr", "usr/bin", "usr/sbin", "usr/local", "usr/local/bin", "var",
                   "var/log", "var/mail")
    # fmt: on
    release = f'NAME="BusyBox as {name}"\nID={name}\nPRETTY_NAME="BusyBox from Debian"\n'
    files = {
        "etc/passwd": _PASSWD,
        "etc/group": _GROUP,
        "etc/os-release": release,
        "etc/motd": "Welcome\n",
        "etc/hostname": "localhost\n",
        "etc/hosts": "127.0.0.1\tlocalhost\n",
    }
    if name == "alpine":
        files["etc/alpine-release"] = "3.20.3\n"
    entries = [ociimage.directory(path) for path in directories]
    entries += [ociimage.directory(path, mode=0o1777) for path in ("tmp", "var/tmp")]
    entries += [ociimage.Entry(name="bin/busybox", data=binary, mode=0o755)]
    entries += [
        ociimage.symlink(f"bin/{applet}", "busybox") for applet in applets if applet != "busybox"
    ]
    entries += [ociimage.Entry(name=path, data=text.encode()) for path, text in files.items()]
    entries += _getent(tree)
    return ociimage.image([ociimage.tar(entries)], _CONFIG)


def _getent(tree: Path) -> list[ociimage.Entry]:
    """Return getent, which Alpine has, with the C library that it needs: Debian's."""
    (libc,) = tree.glob("usr/lib/*-linux-gnu/libc.so.6")
    loader = next(libc.parent.glob("ld-linux*.so.*"))
    directory = f"lib/{libc.parent.name}"
    return [
        ociimage.directory("lib64"),
        ociimage.directory(directory),
        ociimage.Entry(name=f"{directory}/libc.so.6", data=libc.read_bytes(), mode=0o755),
        # Where programs of either family look for it.
        ociimage.Entry(name=f"lib64/{loader.name}", data=loader.read_bytes(), mode=0o755),
        ociimage.symlink(f"lib/{loader.name}", f"../lib64/{loader.name}"),
        ociimage.Entry(
            name="usr/bin/getent", data=(tree / "usr/bin/getent").read_bytes(), mode=0o755
        ),
        ociimage.Entry(name="etc/nsswitch.conf", data=b"hosts: files dns\n"),
    ]


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
