"""What is written as a tar entry is read back the same, by rp and by others."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.image import pax, tar
from rootlesspy.image.stream import Stream

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = st.binary(min_size=1, max_size=300).filter(
    lambda name: b"\0" not in name and not name.endswith(b"/")
)
_IDS = st.integers(0, (1 << 32) - 2)
_ENTRIES = st.builds(
    tar.Entry,
    name=_NAMES,
    kind=st.sampled_from((tar.REGULAR, tar.DIRECTORY, tar.SYMLINK, tar.HARD_LINK, tar.FIFO)),
    mode=st.integers(0, 0o7777),
    uid=_IDS,
    gid=_IDS,
    size=st.just(0),
    mtime_ns=st.integers(-(10**19), 10**19),
    link=_NAMES,
    device=st.just((0, 0)),
    xattrs=st.lists(
        st.tuples(
            st.binary(min_size=1, max_size=30).filter(lambda x: not set(x) & set(b"\0=")),
            st.binary(max_size=200),
        ),
        max_size=3,
        unique_by=lambda pair: pair[0],
    ).map(lambda pairs: tuple(sorted(pairs))),
)
_PLAIN = tar.Entry(b"a", tar.REGULAR, 0o644, 0, 0, 0, 0, b"", (0, 0), ())


def _read(path: Path) -> list[tuple[tar.Entry, bytes]]:
    found = []
    with open(path, "rb") as file, open(path.with_name("content"), "w+b") as content:
        reader = tar.TarReader(Stream(file.fileno()))
        while (entry := reader.next()) is not None:
            content.seek(0)
            content.truncate()
            if entry.kind == tar.REGULAR:
                reader.copy(content.fileno(), entry)
            content.seek(0)
            found.append((entry, content.read()))
    return found


@given(entries=st.lists(_ENTRIES, max_size=4), content=st.binary(max_size=1500))
def test_entries_come_back(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tar.Entry], content: bytes
) -> None:
    path = tmp_path_factory.mktemp("pax") / "archive"
    with open(path, "wb") as file:
        writer = pax.PaxWriter(file.fileno())
        for entry in entries:
            writer.add(entry, content if entry.kind == tar.REGULAR else b"")
        writer.close()
    expected = [
        (entry._replace(size=len(content)), content) if entry.kind == tar.REGULAR else (entry, b"")
        for entry in entries
    ]
    assert _read(path) == expected


@given(key=st.binary(min_size=1, max_size=20), value=st.binary(max_size=1100))
def test_a_pax_record_counts_its_own_length(key: bytes, value: bytes) -> None:
    record = pax.pax_record(key, value)
    assert int(record.split(b" ")[0]) == len(record)


def test_others_read_it(tmp_path: Path) -> None:
    name = b"d/" + b"n" * 200
    with open(tmp_path / "archive", "wb") as file:
        writer = pax.PaxWriter(file.fileno())
        writer.add(_PLAIN._replace(name=name, uid=1 << 22, mtime_ns=1_500_000_000), b"text")
        writer.add(_PLAIN._replace(name=b"link", kind=tar.SYMLINK, link=b"t" * 150))
        writer.close()
    with tarfile.open(tmp_path / "archive") as archive:
        first, second = archive.getmembers()
        assert (first.name, first.uid, first.mtime) == (os.fsdecode(name), 1 << 22, 1.5)
        text = archive.extractfile(first)
        assert text is not None
        assert text.read() == b"text"
        assert (second.issym(), second.linkname) == (True, "t" * 150)


def test_holes_stay_holes(tmp_path: Path) -> None:
    source, archive, target = (tmp_path / name for name in ("source", "archive", "target"))
    with open(source, "wb") as file:
        file.truncate(64 << 20)
        file.seek(8 << 20)
        file.write(b"data" * 1024)
    with open(source, "rb") as file, open(archive, "wb") as out:
        if os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0:
            pytest.skip("this file system has no holes")
        writer = pax.PaxWriter(out.fileno())
        writer.add_file(_PLAIN._replace(name=b"x/holes", size=64 << 20), file.fileno())
        writer.close()
    assert archive.stat().st_size < 1 << 20
    with open(archive, "rb") as file, open(target, "wb") as out:
        reader = tar.TarReader(Stream(file.fileno()))
        entry = reader.next()
        assert entry is not None
        assert (entry.name, entry.size) == (b"x/holes", 64 << 20)
        reader.copy(out.fileno(), entry)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks < 1 << 12
    with tarfile.open(archive) as other:
        member = other.getmember("x/holes")
        assert member.size == 64 << 20


def test_a_file_that_became_shorter_is_filled_up(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    with open(tmp_path / "short", "rb") as file, open(tmp_path / "archive", "wb") as out:
        writer = pax.PaxWriter(out.fileno())
        writer.add_file(_PLAIN._replace(size=300_000), file.fileno())
        writer.add(_PLAIN._replace(name=b"next"))
        writer.close()
    first, second = _read(tmp_path / "archive")
    assert first[1] == b"abc" + bytes(299_997)
    assert second[0].name == b"next"


def test_the_same_entries_give_the_same_bytes() -> None:
    entry = _PLAIN._replace(xattrs=((b"user.b", b"1"), (b"user.a", b"2")))
    swapped = entry._replace(xattrs=entry.xattrs[::-1])
    assert pax.header(entry) == pax.header(swapped)
    assert io.BytesIO(pax.header(entry)).getbuffer().nbytes % 512 == 0
