"""Whatever arrives, no process of rp grows beyond 200 MiB, and nothing stays (SECURITY.md G, H)."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
from typing import TYPE_CHECKING, NamedTuple

import pytest
import zstandard
from rig import ociimage
from rig.ociimage import Blob, Entry, Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from rig.machine import Machine

pytestmark = pytest.mark.namespace

LIMIT_KIB = 200 << 10
PLACE = "/home/alice/bomb"
# The largest process that was waited for, by rp or below it.
_MEASURED = """
import json, os, resource, subprocess, sys
argv = ["rp", "load", "--quiet", "--input", sys.argv[1]]
done = subprocess.run(argv, capture_output=True, text=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([done.returncode, done.stderr, peak]))
"""


class Outcome(NamedTuple):
    """What a load of an image did."""

    code: int
    stderr: str
    peak_kib: int


def _load(rig: Machine, image: Image, index: bytes | None = None) -> Outcome:
    """Load an image from an OCI archive; the store is as it was before, whatever happens."""
    buffer = io.BytesIO()
    listed = {"schemaVersion": 2, "manifests": [image.manifest.descriptor()]}
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in (
            ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
            ("index.json", index or json.dumps(listed).encode()),
            *((f"blobs/{each.digest.replace(':', '/')}", each.data)
              for each in (image.manifest, image.config, *image.layers)),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    rig.run(["sh", "-c", f"cat >{PLACE}"], input=gzip.compress(buffer.getvalue(), 1))
    done = rig.run(["python3", "-I", "-c", _MEASURED, PLACE], timeout=220)
    outcome = Outcome(*json.loads(done.stdout))
    rig.run(["rp", "rmi", "--all", "--force"], check=False)
    left = "find ~/.local/share/rootlesspy/tmp ~/.local/share/rootlesspy/layers -mindepth 2"
    assert rig.run(["sh", "-c", left], check=False).stdout == ""
    rig.run(["rm", PLACE])
    assert outcome.peak_kib < LIMIT_KIB
    assert "Traceback" not in outcome.stderr
    assert "internal error" not in outcome.stderr
    return outcome


def _zeros(compress: Callable[[bytes], bytes], count: int) -> bytes:
    """Return a compressed layer with one file of zeros, count times 16 MiB."""
    piece = bytes(16 << 20)
    whole = ociimage.tar([Entry("zeros", data=b"", size=count * len(piece))], end=False)
    return compress(whole + piece * count + bytes(1024))


@pytest.mark.row("bombs", "each process below 200 MiB; nothing stays")
@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        ("+zstd", lambda data: zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
        ).compress(data)),
        ("+gzip", lambda data: lzma.compress(
            data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 96 << 20}])),
    ],
    ids=["zstd with the largest window", "xz with a large dictionary"],
)  # fmt: skip
def test_H_zeros_in_every_compression(
    rig: Machine, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    blob = Blob(ociimage.OCI_LAYER + suffix, _zeros(compress, 10))
    # It is refused in the end, when all of it was seen.
    outcome = _load(rig, ociimage.assemble((blob,), [ociimage.digest(b"another")]))
    assert outcome.code == 125
    assert "diff ID mismatch" in outcome.stderr


def _layers() -> list[tuple[str, list[Entry]]]:
    megabyte = "x" * 1_000_000
    many = {f"SCHILY.xattr.user.n{number}": "v" for number in range(20_000)}
    return [
        ("megabytes of pax", [Entry(f"f{n}", pax={"comment": megabyte}) for n in range(40)]),
        ("20,000 attributes", [Entry(f"f{n}", pax=many) for n in range(3)]),
        ("9,000 empty files", [Entry(f"d{n % 300}/f{n}") for n in range(9_000)]),
        ("a directory 1,500 deep", [Entry("d/" * 1500 + "f")]),
    ]  # fmt: skip


@pytest.mark.row("bombs", "each process below 200 MiB; nothing stays")
@pytest.mark.parametrize(
    "entries", [each[1] for each in _layers()], ids=[each[0] for each in _layers()]
)
def test_H_headers_and_entries(rig: Machine, entries: list[Entry]) -> None:
    _load(rig, ociimage.image([ociimage.tar(entries)], compress=lambda d: gzip.compress(d, 1)))


@pytest.mark.parametrize(
    ("where", "filling"),
    [("index", b"[" * 1000), ("manifest", b'{"":0},'), ("config", b'"\\u0100",')],
    ids=["nesting in an index", "objects in a manifest", "texts in a config"],
)
@pytest.mark.row("CVE-2021-21285", "125 within the limits; no memory taken")
def test_CVE_2021_21285_huge_documents(rig: Machine, where: str, filling: bytes) -> None:
    image = ociimage.image([ociimage.tar([Entry("f")])])
    room = (4 << 20) - 2000
    more = b',"x":[' + filling * (room // len(filling)) + b"0]}"
    index = None
    if where == "manifest":
        image = image._replace(manifest=_with(image.manifest, more))
    elif where == "config":
        config = _with(image.config, more)
        manifest = json.loads(image.manifest.data)
        manifest["config"] = config.descriptor()
        changed = Blob(image.manifest.media_type, json.dumps(manifest).encode())
        image = image._replace(manifest=changed, config=config)
    else:
        listed = {"schemaVersion": 2, "manifests": [image.manifest.descriptor()]}
        index = json.dumps(listed).encode()[:-1] + more
    outcome = _load(rig, image, index)
    assert outcome.code in (0, 125)


def _with(blob: Blob, more: bytes) -> Blob:
    return Blob(blob.media_type, blob.data.rstrip()[:-1] + more)
