"""Tar entries as they are written for trees of files: the same tree always gives the same bytes.

ustar headers, with a pax header before them for what does not fit: long names, ids, sizes, parts of
a second, extended attributes, holes.  GNU tar, bsdtar, Go and tar.py read all of it back.

Source: POSIX.1-2017 pax; the GNU tar manual, "Storing Sparse Files" (format 1.0).
"""

from __future__ import annotations

import os

from rootlesspy.image import tar
from rootlesspy.image.transfer import write_all
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.image.tar import Entry

_BLOCK = 512
_FLUSH_BYTES = 1 << 18
# Below this one more copy costs less than a system call of its own.
_SENDFILE_MIN = 1 << 16
_SENDFILE_MAX = 1 << 30
_NAME_BYTES = 100
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777
_SECOND_NS = 1_000_000_000
_MAX_SECONDS = 0o77777777777


class PaxWriter:
    """Writes entries to a descriptor, which stays the caller's; close() ends the archive."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()

    def add(self, entry: Entry, content: bytes = b"") -> None:
        """Write an entry whose content is at hand; its size is what content has."""
        self._buffer += header(entry._replace(size=len(content)))
        self._buffer += content + bytes(-len(content) % _BLOCK)
        self._flush_full()

    def add_file(self, entry: Entry, file_fd: int) -> None:
        """Write a regular file of entry.size bytes from file_fd, holes as holes.

        What is missing because the file became shorter meanwhile is written as zeros.
        """
        pieces = _pieces(file_fd, entry.size)
        if pieces is None:
            self._buffer += header(entry)
            self._copy(file_fd, 0, entry.size)
            self._pad(entry.size)
        else:
            self._add_sparse(entry, file_fd, pieces)
        self._flush_full()

    def add_part(self, entry: Entry, fd: int, offset: int) -> None:
        """Write a regular file whose entry.size bytes are in fd from offset on."""
        self._buffer += header(entry)
        self._copy(fd, offset, entry.size)
        self._pad(entry.size)
        self._flush_full()

    def close(self) -> None:
        """Write the end of the archive; the descriptor stays open."""
        self._buffer += bytes(2 * _BLOCK)
        self._flush()

    def _add_sparse(self, entry: Entry, file_fd: int, pieces: Sequence[tuple[int, int]]) -> None:
        numbers = [len(pieces), *(number for piece in pieces for number in piece)]
        sizes = b"".join(b"%d\n" % number for number in numbers)
        sizes += bytes(-len(sizes) % _BLOCK)
        stored = len(sizes) + sum(length for _, length in pieces)
        records = {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": entry.name,
            b"GNU.sparse.realsize": b"%d" % entry.size,
        }
        head, slash, last = entry.name.rpartition(b"/")
        plain = head + slash + b"GNUSparseFile.0/" + last
        self._buffer += header(entry._replace(name=plain, size=stored), records)
        self._buffer += sizes
        for offset, length in pieces:
            self._copy(file_fd, offset, length)
        self._pad(stored)

    def _copy(self, file_fd: int, offset: int, count: int) -> None:
        if count >= _SENDFILE_MIN:
            self._flush()
        end = offset + count
        while offset < end:
            if end - offset >= _SENDFILE_MIN:
                done = os.sendfile(self._fd, file_fd, offset, min(end - offset, _SENDFILE_MAX))
            else:
                data = os.pread(file_fd, end - offset, offset)
                self._buffer += data
                done = len(data)
            if done == 0:
                self._zeros(end - offset)
                return
            offset += done

    def _zeros(self, count: int) -> None:
        while count > 0:
            step = min(count, _FLUSH_BYTES)
            self._buffer += bytes(step)
            self._flush_full()
            count -= step

    def _pad(self, size: int) -> None:
        self._buffer += bytes(-size % _BLOCK)

    def _flush_full(self) -> None:
        if len(self._buffer) >= _FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        write_all(self._fd, bytes(self._buffer))
        self._buffer.clear()


def header(entry: Entry, records: dict[bytes, bytes] | None = None) -> bytes:
    """Return the blocks that stand before an entry's content; records are more pax records."""
    pax = {**_overflowing(entry), **(records or {})}
    for name, value in entry.xattrs:
        pax[b"SCHILY.xattr." + name] = value
    seconds = min(max(entry.mtime_ns // _SECOND_NS, 0), _MAX_SECONDS)
    block = block_of(
        entry._replace(
            name=entry.name[:_NAME_BYTES],
            link=entry.link[:_NAME_BYTES],
            uid=min(entry.uid, _MAX_ID),
            gid=min(entry.gid, _MAX_ID),
            size=min(entry.size, _MAX_SIZE),
        ),
        seconds,
    )
    if not pax:
        return block
    data = b"".join(pax_record(key, pax[key]) for key in sorted(pax))
    special = tar.Entry(
        name=b"PaxHeaders.0/" + entry.name.rpartition(b"/")[2][:80],
        kind=b"x",
        mode=0o644,
        uid=0,
        gid=0,
        size=len(data),
        mtime_ns=0,
        link=b"",
        device=(0, 0),
        xattrs=(),
    )
    return block_of(special, 0) + data + bytes(-len(data) % _BLOCK) + block


def pax_record(key: bytes, value: bytes) -> bytes:
    """Return "length key=value\\n", whose length counts its own digits."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest)
    while len(rest) + len(str(length)) != length:
        length = len(rest) + len(str(length))
    return b"%d%s" % (length, rest)


def _overflowing(entry: Entry) -> dict[bytes, bytes]:
    """Return pax records for what does not fit into the header's fields."""
    found: dict[bytes, bytes] = {}
    # Readers of old take a trailing slash of a file for a directory; it comes with directories.
    if len(entry.name) > _NAME_BYTES:
        found[b"path"] = entry.name
    if len(entry.link) > _NAME_BYTES:
        found[b"linkpath"] = entry.link
    for key, value, limit in (
        (b"uid", entry.uid, _MAX_ID),
        (b"gid", entry.gid, _MAX_ID),
        (b"size", entry.size, _MAX_SIZE),
    ):
        if value > limit:
            found[key] = b"%d" % value
    seconds, fraction = divmod(abs(entry.mtime_ns), _SECOND_NS)
    if fraction or entry.mtime_ns < 0 or seconds > _MAX_SECONDS:
        text = b"%s%d" % (b"-" if entry.mtime_ns < 0 else b"", seconds)
        found[b"mtime"] = text + (b".%09d" % fraction).rstrip(b"0") if fraction else text
    return found


def block_of(entry: Entry, seconds: int = 0) -> bytes:
    """Return the header block alone: of names and ids that fit; a long size is in base 256."""
    block = bytearray(_BLOCK)
    block[0 : len(entry.name)] = entry.name
    block[100:108] = b"%07o\0" % (entry.mode & 0o7777)
    block[108:116] = b"%07o\0" % entry.uid
    block[116:124] = b"%07o\0" % entry.gid
    block[124:136] = (
        b"%011o\0" % entry.size
        if entry.size <= _MAX_SIZE
        else b"\x80" + entry.size.to_bytes(11, "big")
    )
    block[136:148] = b"%011o\0" % seconds
    block[148:156] = b" " * 8
    block[156:157] = entry.kind
    block[157 : 157 + len(entry.link)] = entry.link
    block[257:265] = b"ustar\00000"
    if entry.kind in (tar.CHARACTER_DEVICE, tar.BLOCK_DEVICE):
        block[329:337] = b"%07o\0" % entry.device[0]
        block[337:345] = b"%07o\0" % entry.device[1]
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _pieces(fd: int, size: int) -> list[tuple[int, int]] | None:
    """Return where a file has data; None when it has no holes.

    st_blocks counts 512 bytes (inode(7)); the map ends with the size, as GNU tar writes it.
    """
    if os.fstat(fd).st_blocks * 512 >= size:
        return None
    pieces: list[tuple[int, int]] = []
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:
            # ENXIO: no data up to the end; EINVAL: a file system that knows no holes.
            break
        if start >= size:
            break
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        pieces.append((start, end - start))
    if pieces == [(0, size)]:
        return None
    if end < size:
        pieces.append((size, 0))
    return pieces
