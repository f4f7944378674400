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
rp rm --all --force
rp rmi --all --force
podman rm --all --force --time 0 >/dev/null
podman rmi --all --force >/dev/null
"""
_STOPPED = """\
wanted=$1
each() {
    i=$1
    shift
    while [ "$i" -lt "$wanted" ]; do
        "$@" --network=none --name "bench-$i" alpine true
        i=$((i + 1))
    done
}
each "$(rp ps -aq | wc -l)" rp run & rp=$!
each "$(podman ps -aq | wc -l)" \\
    podman --events-backend=none run --pids-limit=0 --log-driver=none
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
    """Pull the small image with both, leave one stopped container in each, make crun's bundle."""
    machine.run(["sh", "-euc", _CLEAN, "sh", work.HOME], timeout=300)
    timer(machine)
    both(machine, "{p} pull --quiet alpine")
    stopped(machine, 1)
    bundle(machine)


def timer(machine: Machine) -> None:
    """Put the timer where it is looked for."""
    text = Path(__file__).with_name("timer.py").read_text(encoding="utf-8")
    machine.run(["mkdir", "-p", work.HOME])
    write(machine, work.TIMER, text)


def both(machine: Machine, line: str, timeout: float = 300) -> None:
    """Run a shell's command line with each program."""
    for words in work.PROGRAMS.values():
        machine.run(["sh", "-c", line.format(**words)], timeout=timeout)


def stopped(machine: Machine, wanted: int) -> None:
    """Run containers without --rm until there are `wanted` of each program's."""
    machine.run(["sh", "-euc", _STOPPED, "sh", str(wanted)], timeout=600)


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
    write(machine, f"{directory}/config.json", json.dumps(spec))


def big_image(bench: work.Bench) -> BigLayer:
    """Put an image with one large layer of Debian files in the rig's registry."""
    rig = bench.rig
    if rig is None:
        raise location.RigError("the virtual machine's registry takes no large image")
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
    bench.machine.root(["chown", "-R", "docker-registry:", "/var/lib/docker-registry"])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = sum(1 for _ in archive)
    return BigLayer(bytes=len(content), files=files)


def write(machine: Machine, path: str, text: str) -> None:
    """Write a file in the rig, as alice."""
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
