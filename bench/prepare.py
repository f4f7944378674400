"""Prepare a rig for the benchmark: images, caches, crun's bundle, the large image."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rig import location, ociimage

from bench import work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.instance import Instance
    from rig.machine import Machine

# Together they give a layer of about 240 MB, the size of a large Debian image's.
_BIG_FILES = 13_500
_GIANT_BYTES = 3_000_000
_SMALL_BYTES = 50_000
# What an earlier run left in a rig that was kept.
_CLEAN = """\
mkdir -p "$1"
podman unshare rm -rf "$1/bundle" "$1/stores"
mkdir "$1/stores"
rp rm --all
podman rm --all >/dev/null
"""
_STOPPED = """\
each() {
    i=$first
    while [ "$i" -lt "$last" ]; do
        "$@" --network=none --name "bench-$i" alpine true
        i=$((i + 1))
    done
}
first=$1 last=$2
each rp run & rp=$!
each podman --events-backend=none run --pids-limit=0 --log-driver=none
wait "$rp"
"""
# A directory of its own for crun and bwrap, with the files and owners that rp's layer has.
_BUNDLE = """\
set -eu
layers=$HOME/.local/share/rootlesspy/layers/sha256
podman unshare cp -a "$layers"/*/diff "$1/rootfs"
podman unshare touch "$1/rootfs/etc/hostname" "$1/rootfs/etc/resolv.conf"
cat "$HOME"/.local/share/rootlesspy/containers/*/config.json
"""


class BigLayer(NamedTuple):
    """What the large image holds."""

    bytes: int
    files: int


def images(machine: Machine) -> None:
    """Pull the small image with both, and leave one stopped container in each."""
    machine.run(["sh", "-euc", _CLEAN, "sh", work.HOME])
    timer = Path(__file__).with_name("timer.py").read_text(encoding="utf-8")
    _write(machine, work.TIMER, timer)
    machine.run(["rp", "pull", "--quiet", work.IMAGE], timeout=120)
    machine.run(["podman", "pull", "--quiet", work.IMAGE], timeout=120)
    stopped(machine, 0, 1)


def stopped(machine: Machine, present: int, wanted: int) -> None:
    """Run containers without --rm until there are `wanted` of each program's."""
    machine.run(["sh", "-euc", _STOPPED, "sh", str(present), str(wanted)], timeout=600)


def bundle(machine: Machine) -> None:
    """Make the bundle for crun from what rp wrote for its first container."""
    directory = f"{work.HOME}/bundle"
    machine.run(["mkdir", "-p", directory])
    spec = json.loads(machine.run(["sh", "-c", _BUNDLE, "sh", directory]).stdout)
    spec["root"] = {"path": f"{directory}/rootfs", "readonly": False}
    # /etc/hosts and its like were files of a container that has ended.
    spec["mounts"] = [
        mount for mount in spec["mounts"] if not mount["destination"].startswith("/etc/")
    ]
    spec["linux"].pop("resources", None)
    spec["linux"].pop("cgroupsPath", None)
    _write(machine, f"{directory}/config.json", json.dumps(spec))


def big_image(rig: Instance, machine: Machine) -> BigLayer:
    """Put an image with one large layer of Debian files in the rig's registry."""
    tree = Path(rig.tree)
    cached = location.cache() / f"bench-layer-{_GIANT_BYTES}-{tree.name}.tar.gz"
    if not cached.exists():
        half = cached.with_suffix(".half")
        half.write_bytes(gzip.compress(_tar(tree), compresslevel=6, mtime=0))
        half.rename(cached)
    data = cached.read_bytes()
    content = gzip.decompress(data)
    layer = ociimage.Blob(ociimage.OCI_LAYER + "+gzip", data)
    image = ociimage.assemble((layer,), ["sha256:" + hashlib.sha256(content).hexdigest()], {})
    storage = rig.root / "var" / "lib" / "docker-registry"
    ociimage.write_registry(storage, "bench/debian", {"latest": image})
    machine.root(["chown", "-R", "docker-registry:", "/var/lib/docker-registry"])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = sum(1 for _ in archive)
    return BigLayer(bytes=len(content), files=files)


def pull_big(machine: Machine) -> None:
    """Have the large image in both stores, and in an archive."""
    machine.run(["rp", "pull", "--quiet", work.BIG_IMAGE], timeout=300)
    machine.run(["podman", "pull", "--quiet", work.BIG_IMAGE], timeout=300)
    script = f"rm -f {work.SAVED}; podman save --quiet -o {work.SAVED} {work.BIG_IMAGE}"
    machine.run(["sh", "-c", script], timeout=300)


def _write(machine: Machine, path: str, text: str) -> None:
    machine.run(["sh", "-c", 'cat >"$1"', "sh", path], input=text)


def _tar(tree: Path) -> bytes:
    """Return a tar of the tree's usr without its giants, and its small files once more."""
    buffer = io.BytesIO()
    count = 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for limit_bytes, below in ((_GIANT_BYTES, ""), (_SMALL_BYTES, "srv/")):
            for source, name in _walk(tree, limit_bytes):
                if count < _BIG_FILES:
                    archive.add(source, below + name, recursive=False)
                    count += 1
    return buffer.getvalue()


def _walk(tree: Path, limit_bytes: int) -> Iterator[tuple[str, str]]:
    for path, directories, files in os.walk(tree / "usr"):
        directories.sort()
        for name in sorted(directories + files):
            source = os.path.join(path, name)
            if os.lstat(source).st_size <= limit_bytes:
                yield source, os.path.relpath(source, tree)
