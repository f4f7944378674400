"""The tar reader: what it accepts is what Go's archive/tar accepts; the rest is an ImageError."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.image import tarmaker as tm

from rootlesspy.errors import ImageError
from rootlesspy.image.stream import Stream
from rootlesspy.image.tar import Entry, TarReader, parse_pax


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    """Return all entries of an archive with their content."""
    found = []
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as content:
        source.write(data)
        source.seek(0)
        reader = TarReader(Stream(source.fileno()))
        while (entry := reader.next()) is not None:
            content.seek(0)
            content.truncate()
            if entry.kind == b"0":
                reader.copy(content.fileno(), entry)
            found.append((entry, os.pread(content.fileno(), 1 << 20, 0)))
    return found


def only(data: bytes) -> tuple[Entry, bytes]:
    (found,) = read(data)
    return found


def test_plain_file() -> None:
    entry, content = only(tm.archive(tm.file(b"a/b", b"hello", mode=0o4755, uid=7, gid=8)))
    assert (entry.name, entry.kind, entry.mode, entry.uid, entry.gid) == (
        b"a/b",
        b"0",
        0o4755,
        7,
        8,
    )
    assert (entry.size, entry.mtime_ns, content) == (5, 1700000000 * 10**9, b"hello")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"prefix": b"usr/lib"}, b"usr/lib/f"),
        ({"magic": b"ustar  \0", "prefix": b""}, b"f"),
        ({"magic": bytes(8), "prefix": b"ignored"}, b"f"),
        # Go before 1.8 wrote a prefix where GNU keeps times.
        ({"magic": b"ustar  \0", "prefix": b"usr/lib"}, b"usr/lib/f"),
        ({"magic": b"ustar  \0", "fields": {(345, 12): b"00000000001\0"}}, b"f"),
        ({"prefix": b"p" * 155, "fields": {(508, 4): b"tar\0"}}, b"p" * 131 + b"/f"),
    ],
)
def test_prefix_by_format(changes: dict[str, Any], name: bytes) -> None:
    assert only(tm.archive(tm.file(b"f", **changes)))[0].name == name


def test_long_names_and_links() -> None:
    long = b"d/" + b"n" * 300
    assert only(tm.archive(tm.gnu_long(long), tm.file(b"x")))[0].name == long
    gnu = tm.archive(tm.gnu_long(long, b"K"), tm.symlink(b"x", b"y"))
    assert only(gnu)[0].link == long
    entry = only(tm.archive(tm.pax((b"path", long), (b"linkpath", b"l")), tm.symlink(b"x", b"y")))[
        0
    ]
    assert (entry.name, entry.link) == (long, b"l")
    chain = tm.archive(tm.gnu_long(b"one"), tm.gnu_long(b"two"), tm.file(b"x"))
    assert only(chain)[0].name == b"two"


def test_pax_numbers_replace_fields() -> None:
    records = ((b"size", b"3"), (b"uid", b"5000000"), (b"gid", b"6"), (b"mtime", b"12.5"))
    (first, content), (second, _) = read(
        tm.archive(tm.pax(*records), tm.header(b"f", size=0), tm.padded(b"abc"), tm.file(b"g"))
    )
    assert (first.size, first.uid, first.gid, first.mtime_ns) == (3, 5000000, 6, 12_500_000_000)
    assert content == b"abc"
    assert (second.name, second.uid) == (b"g", 0)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"1", 10**9),
        (b"-1.5", -(15 * 10**8)),
        (b"0.000000001", 1),
        (b"1.0000000019", 10**9 + 1),
        (b"7.", 7 * 10**9),
    ],
)
def test_pax_times(text: bytes, nanoseconds: int) -> None:
    assert only(tm.archive(tm.pax((b"mtime", text)), tm.file(b"f")))[0].mtime_ns == nanoseconds


def test_base256_sizes() -> None:
    entry, content = only(
        tm.archive(tm.header(fields={(124, 12): tm.base256(4, 12)}), tm.padded(b"data"))
    )
    assert (entry.size, content) == (4, b"data")


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_size_of_entries_without_content_is_ignored(kind: bytes) -> None:
    found = read(tm.archive(tm.header(b"x", kind, 4096, link=b"y"), tm.file(b"after")))
    assert [entry.name for entry, _ in found] == [b"x", b"after"]


def test_old_directories_end_in_a_slash() -> None:
    assert only(tm.archive(tm.header(b"d/", b"\0")))[0].kind == b"5"
    assert only(tm.archive(tm.header(b"f", b"\0")))[0].kind == b"0"


def test_xattrs() -> None:
    records = ((b"SCHILY.xattr.user.a", b"1\n=\xff"), (b"LIBARCHIVE.xattr.user.b", b"x"))
    entry = only(tm.archive(tm.pax(*records), tm.file(b"f")))[0]
    assert entry.xattrs == ((b"user.a", b"1\n=\xff"),)


def test_global_headers_have_no_effect() -> None:
    assert only(tm.archive(tm.pax((b"path", b"evil"), kind=b"g"), tm.file(b"f")))[0].name == b"f"


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(1024) + b"trailing" * 99])
def test_ends(end: bytes) -> None:
    assert only(tm.archive(tm.file(b"f", b"x"), end=end))[1] == b"x"


def test_signed_checksums() -> None:
    block = bytearray(tm.header("é".encode()))
    total = sum(b - 256 if b > 127 else b for i, b in enumerate(block) if not 148 <= i < 156) + 256
    block[148:156] = b"%06o\0 " % total
    assert only(tm.archive(bytes(block)))[0].name == "é".encode()


SPARSE = b"D" * 512 + b"E" * 10
EXPECTED = bytes(1000) + b"D" * 512 + bytes(500) + b"E" * 10 + bytes(30)
MAP = (b"1000", b"512", b"2012", b"10")


def gnu_sparse() -> bytes:
    pieces = b"".join(tm.octal(int(n), 12) for n in MAP)
    fields = {(386, 48): pieces, (483, 12): tm.octal(2052, 12)}
    return tm.header(b"s", b"S", 522, magic=b"ustar  \0", fields=fields) + tm.padded(SPARSE)


def gnu_extended() -> bytes:
    empty = tm.octal(0, 12) + tm.octal(0, 12)
    pieces = b"".join(tm.octal(int(n), 12) for n in MAP)
    fields = {(386, 96): empty * 4, (482, 1): b"\1", (483, 12): tm.octal(2052, 12)}
    block = tm.header(b"s", b"S", 522, magic=b"ustar  \0", fields=fields)
    return block + tm.padded(pieces) + tm.padded(SPARSE)


def pax_00() -> bytes:
    keys = (b"GNU.sparse.offset", b"GNU.sparse.numbytes") * 2
    records = [(b"GNU.sparse.size", b"2052"), (b"GNU.sparse.numblocks", b"2")]
    return tm.pax(*records, *zip(keys, MAP, strict=True)) + tm.file(b"s", SPARSE)


def pax_01() -> bytes:
    records = [(b"GNU.sparse.size", b"2052"), (b"GNU.sparse.map", b",".join(MAP))]
    return tm.pax(*records, (b"GNU.sparse.name", b"s")) + tm.file(b"GNUSparseFile.0/s", SPARSE)


def pax_10() -> bytes:
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
               (b"GNU.sparse.name", b"s"), (b"GNU.sparse.realsize", b"2052")]  # fmt: skip
    data = tm.padded(b"\n".join((b"2", *MAP, b""))) + SPARSE
    return tm.pax(*records) + tm.file(b"GNUSparseFile.0/s", data)


@pytest.mark.parametrize("make", [gnu_sparse, gnu_extended, pax_00, pax_01, pax_10])
def test_sparse_files(make: object) -> None:
    assert callable(make)
    (entry, content), (after, _) = read(tm.archive(make(), tm.file(b"after")))
    assert (entry.name, entry.kind, entry.size) == (b"s", b"0", 2052)
    assert content == EXPECTED
    assert after.name == b"after"


def bad_sparse(*pieces: bytes, size: bytes = b"2052", data: bytes = SPARSE) -> bytes:
    return tm.pax((b"GNU.sparse.size", size), (b"GNU.sparse.map", b",".join(pieces))) + tm.file(
        b"s", data
    )


@pytest.mark.row("tar grammar", "what parsers disagree about is refused, or read as Go reads it")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(tm.header(checksum=b"0000001\0"), id="checksum"),
        pytest.param(b"x" * 512, id="garbage"),
        pytest.param(b"x" * 100, id="short garbage"),
        pytest.param(bytes(512) + tm.file(b"f"), id="lone zero block"),
        pytest.param(tm.file(b"f", b"x" * 600)[:-600], id="truncated content"),
        pytest.param(tm.file(b"f")[:200], id="truncated header"),
        pytest.param(tm.header(fields={(124, 12): tm.base256(-1, 12)}), id="negative size"),
        pytest.param(tm.header(fields={(124, 12): b"\x80" + b"\xff" * 11}), id="huge size"),
        pytest.param(tm.header(fields={(124, 12): b"12x\0"}), id="size not octal"),
        pytest.param(tm.header(fields={(124, 12): b"1_0\0"}), id="size with underscore"),
        pytest.param(tm.header(fields={(124, 12): b"-1\0"}), id="size with sign"),
        pytest.param(tm.header(fields={(124, 12): b"9\0"}), id="size with 9"),
        pytest.param(tm.header(fields={(124, 12): b"\xb2\xb2"}), id="size of odd digits"),
        pytest.param(tm.header(kind=b"Z"), id="unknown type"),
        pytest.param(tm.header(kind=b"M"), id="multi-volume"),
        pytest.param(tm.header(kind=b"x", size=1 << 33), id="pax header of 8 GiB"),
        pytest.param(tm.header(kind=b"L", size=1 << 33), id="long name of 8 GiB"),
        pytest.param(
            tm.header(kind=b"x", fields={(124, 12): tm.base256(-5, 12)}), id="negative pax"
        ),
        pytest.param(tm.pax((b"size", b"-1")) + tm.file(b"f"), id="pax size -1"),
        pytest.param(tm.pax((b"size", b"1_0")) + tm.file(b"f"), id="pax size 1_0"),
        pytest.param(tm.pax((b"size", b"9" * 30)) + tm.file(b"f"), id="pax size huge"),
        pytest.param(tm.pax((b"mtime", b"x")) + tm.file(b"f"), id="pax mtime"),
        pytest.param(tm.pax((b"path", b"a\0b")) + tm.file(b"f"), id="NUL in pax path"),
        pytest.param(tm.pax((b"linkpath", b"a\0b")) + tm.file(b"f"), id="NUL in pax linkpath"),
        pytest.param(tm.header(kind=b"3", device=(1 << 40, 0)), id="device number 2^40"),
        pytest.param(bad_sparse(b"1000"), id="odd sparse map"),
        pytest.param(bad_sparse(b"10", b"512", b"0", b"10"), id="sparse map backwards"),
        pytest.param(bad_sparse(b"0", b"512", b"500", b"10"), id="sparse map overlaps"),
        pytest.param(bad_sparse(b"0", b"522", size=b"100"), id="sparse map past the end"),
        pytest.param(bad_sparse(b"0", b"100"), id="sparse map smaller than the data"),
        pytest.param(bad_sparse(b"-5", b"522"), id="sparse map negative"),
        pytest.param(bad_sparse(b"0", b"522", size=b"9" * 25), id="sparse size huge"),
        pytest.param(
            tm.pax((b"GNU.sparse.map", b"0,0")) + tm.directory(b"d"), id="sparse directory"
        ),
        pytest.param(
            tm.pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"))
            + tm.file(b"s", b"9" * 512),
            id="sparse 1.0 without numbers",
        ),
        pytest.param(
            tm.pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"))
            + tm.file(b"s", tm.padded(b"99999999\n")),
            id="sparse 1.0 with too many pieces",
        ),
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        read(tm.archive(data))


@pytest.mark.parametrize("size", [1 << 12, 1 << 45, 1 << 56, (1 << 63) - 1])
def test_what_is_passed_over_ends_in_the_archive(size: int) -> None:
    with tempfile.TemporaryFile() as source:
        source.write(tm.archive(tm.header(fields={(124, 12): tm.base256(size, 12)})))
        source.seek(0)
        reader = TarReader(Stream(source.fileno()))
        assert reader.next() is not None
        with pytest.raises(ImageError, match="truncated"):
            reader.next()


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"5",
        b"999 a=b\n",
        b"6 a=b\n6 a=b",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"5 =b\n",
        b"5 ab\n",
        b"7 a\0=b\n",
        b"6 a=bx",
        b"1_0 aaa=bb\n",
        b"9" * 23 + b" a=b\n",
    ],
)
def test_malformed_pax_records(data: bytes) -> None:
    with pytest.raises(ImageError):
        parse_pax(data)


def test_the_last_of_repeated_pax_records_counts() -> None:
    assert parse_pax(tm.record(b"path", b"a") + tm.record(b"path", b"b")) == {b"path": b"b"}


NAMES = st.text(
    st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=120
).filter(lambda name: name not in (".", ".."))


@given(
    name=NAMES,
    content=st.binary(max_size=2000),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    mtime=st.integers(0, 2**34),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_reads_what_python_writes(
    name: str, content: bytes, mode: int, uid: int, mtime: int, form: int
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uid, info.mtime = len(content), mode, uid, mtime
    buffer = io.BytesIO()
    try:
        with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8") as archive:
            archive.addfile(info, io.BytesIO(content))
    except ValueError:
        return
    entry, data = only(buffer.getvalue())
    assert (entry.name, data, entry.mode) == (name.encode(), content, mode)
    assert (entry.uid, entry.mtime_ns) == (uid, mtime * 10**9)


SAMPLES = [
    tm.archive(tm.file(b"a", b"x" * 700), tm.directory(b"d"), tm.symlink(b"l", b"a")),
    tm.archive(tm.pax((b"path", b"p" * 200), (b"SCHILY.xattr.user.x", b"y")), tm.file(b"f", b"z")),
    tm.archive(tm.gnu_long(b"n" * 300), tm.file(b"f")),
    *(tm.archive(make()) for make in (gnu_sparse, gnu_extended, pax_00, pax_10)),
]


@settings(max_examples=300)
@given(
    sample=st.sampled_from(SAMPLES),
    changes=st.lists(
        st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=4)), max_size=5
    ),
    cut=st.integers(0, 3000),
    fix=st.booleans(),
)
def test_damaged_archives_raise_nothing_else(
    sample: bytes, changes: list[tuple[int, bytes]], cut: int, fix: bool
) -> None:
    data = bytearray(sample)
    for at, piece in changes:
        at %= len(data)
        data[at : at + len(piece)] = piece
    if fix:
        for start in range(0, len(data) - 511, 512):
            block = data[start : start + 512]
            if block[257:262] == b"ustar":
                block[148:156] = b" " * 8
                data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    try:
        read(bytes(data[: len(data) - cut % len(data)]))
    except ImageError:
        return
    except OSError as error:
        # A sparse file that is larger than the file system allows.
        if error.errno not in (errno.EINVAL, errno.EFBIG):
            raise
