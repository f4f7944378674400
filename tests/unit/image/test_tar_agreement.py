"""The tar reader beside GNU tar and Python's tarfile: what all accept they understand alike.

Parsers that disagree on where an entry ends or what it is called are how a scanner is shown other
files than a container gets (SECURITY.md H, tar grammar).  What tar.py refuses may be accepted
elsewhere; never the other way round with another meaning.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig.effort import effort
from unit.image import tarmaker as tm

from rootlesspy.errors import ImageError
from rootlesspy.image.stream import Stream
from rootlesspy.image.tar import TarReader

PART = st.sampled_from([b"a", b"b", b"long" * 20, b"x.y", "ü".encode(), b"-c", b"a b"])
NAME = st.lists(PART, min_size=1, max_size=4).map(b"/".join)
DATA = st.binary(max_size=1500)
KINDS = {tarfile.REGTYPE: b"0", tarfile.AREGTYPE: b"0", tarfile.CONTTYPE: b"0",
         tarfile.GNUTYPE_SPARSE: b"0"}  # fmt: skip


def _named(name: bytes, entry: bytes) -> bytes:
    """Give an entry a name that does not fit into its header, by one of the two ways."""
    return (tm.gnu_long(name) if len(name) % 2 else tm.pax((b"path", name))) + entry


def _sized(data: bytes) -> bytes:
    """Return a file whose size is in a pax record, not in the header."""
    size = b"%d" % len(data)
    return tm.pax((b"size", size)) + tm.header(b"sized", size=0) + tm.padded(data)


def _base256(data: bytes) -> bytes:
    fields = {(124, 12): tm.base256(len(data), 12)}
    return tm.header(b"base", fields=fields) + tm.padded(data)


ENTRY = st.one_of(
    st.builds(lambda name, data: _named(name, tm.file(b"x", data)), NAME, DATA),
    st.builds(lambda name, data: tm.file(name[:90], data), NAME, DATA),
    st.builds(lambda name: tm.directory(name[:90]), NAME),
    st.builds(lambda name, target: tm.symlink(name[:90], target[:90]), NAME, NAME),
    st.builds(_sized, DATA),
    st.builds(_base256, DATA),
    # Repeated keys, records without effect.
    st.builds(lambda one, two: tm.pax((b"path", one), (b"path", two)) + tm.file(b"x"), NAME, NAME),
    st.builds(lambda name: tm.pax((b"comment", b"c"), kind=b"g") + tm.file(name[:90]), NAME),
)  # fmt: skip
# Python takes the first of many long names, GNU tar and Go the last.
CHAIN = st.builds(lambda one, two: tm.gnu_long(one) + tm.gnu_long(two) + tm.file(b"x"), NAME, NAME)
END = st.sampled_from([bytes(1024), bytes(10240), bytes(1024) + b"after the end" * 99])


def ours(data: bytes) -> list[tuple[bytes, bytes, int]] | None:
    """Return name, kind and size of each entry; None for an archive that is refused."""
    found = []
    with tempfile.TemporaryFile() as source:
        source.write(data)
        source.seek(0)
        reader = TarReader(Stream(source.fileno()))
        try:
            while (entry := reader.next()) is not None:
                size = entry.size if entry.kind == b"0" else 0
                found.append((entry.name.rstrip(b"/"), entry.kind, size))
        except ImageError:
            return None
    return found


def pythons(data: bytes) -> list[tuple[bytes, bytes, int]] | None:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as archive:
            return [
                (each.name.encode("utf-8", "surrogateescape").rstrip(b"/"),
                 KINDS.get(each.type, each.type), each.size if each.isreg() else 0)
                for each in archive
            ]  # fmt: skip
    except tarfile.TarError:
        return None


def gnus(data: bytes) -> list[bytes] | None:
    argv = ["tar", "--list", "--quoting-style=literal", "--show-transformed-names", "--file=-"]
    done = subprocess.run(argv, input=data, capture_output=True, check=False)
    if done.returncode:
        return None
    return [line.rstrip(b"/") for line in done.stdout.splitlines()]


@settings(max_examples=effort(60, 3000), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ENTRY, min_size=1, max_size=6), END)
@pytest.mark.row("tar grammar", "accepted as GNU tar and Python understand it, or refused")
def test_python_and_rp_agree(entries: list[bytes], end: bytes) -> None:
    data = tm.archive(*entries, end=end)
    understood, theirs = ours(data), pythons(data)
    assert understood is not None
    assert theirs is None or understood == theirs


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@settings(max_examples=effort(40, 1500), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ENTRY | CHAIN, min_size=1, max_size=6), END)
@pytest.mark.row("tar grammar", "accepted as GNU tar and Python understand it, or refused")
def test_gnu_tar_and_rp_agree(entries: list[bytes], end: bytes) -> None:
    data = tm.archive(*entries, end=end)
    understood, theirs = ours(data), gnus(data)
    assert understood is not None
    assert theirs is None or [name for name, _, _ in understood] == theirs


@settings(max_examples=effort(100, 5000), suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(ENTRY, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=4),
)
@pytest.mark.row("tar grammar", "what is damaged is refused, or understood as elsewhere")
def test_damaged_headers_with_right_checksums(
    entries: list[bytes], changes: list[tuple[int, int]]
) -> None:
    """The first file after damage has no other length than for Python, where both go on."""
    data = bytearray(tm.archive(*entries))
    for at, value in changes:
        data[at % len(data)] = value
    for start in range(0, len(data) - 511, 512):
        block = data[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    # Never another exception than the one for bad archives.
    ours(bytes(data))
