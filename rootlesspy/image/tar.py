"""A strict reader of tar streams: one pass, no seeking, nothing trusted, nothing extracted.

Accepts what Go's archive/tar accepts (other tools' images are made with it): v7, ustar, star, GNU
and pax headers, base-256 numbers, GNU long names, sparse files.  What parsers are known to disagree
about is decided as Go decides it, or refused.  Python's tarfile is not used: its header loops and
its extraction were broken again and again (SECURITY.md I).

Source: POSIX.1-2017 pax, tar(5), Go archive/tar (facts only).
"""

from __future__ import annotations

from zlib import adler32

from rootlesspy.errors import ImageError
from rootlesspy.image import sparse
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rootlesspy.image.stream import Stream

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
# What Go allows for a pax header or a GNU long name.
_MAX_SPECIAL_BYTES = 1 << 20
# Types whose size field says nothing about data that follows.
_HEADER_ONLY = frozenset((HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO))
_KNOWN = _HEADER_ONLY | {REGULAR, b"7"}
_MAX_INT = (1 << 63) - 1


class Entry(NamedTuple):
    """One member of the archive, as its headers say; names are the raw bytes."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]


class TarReader:
    """Yields the entries of a stream; content must be taken before the next entry."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._stored = 0
        self._padding = 0
        self._map: sparse.Map | None = None

    def next(self) -> Entry | None:
        """Return the next entry, or None at the end of the archive.  Raises ImageError."""
        self._stream.skip(self._stored + self._padding)
        self._stored = self._padding = 0
        self._map = None
        pax: dict[bytes, bytes] = {}
        long_name = long_link = b""
        while (block := self._header()) is not None:
            kind = block[156:157]
            if kind in b"xgLK":
                data = self._special(_number(block[124:136]))
                if kind == b"x":
                    pax = parse_pax(data)
                elif kind == b"L":
                    long_name = data.partition(b"\0")[0]
                elif kind == b"K":
                    long_link = data.partition(b"\0")[0]
                else:
                    # Checked, but without effect, as in Go: global records come from git archive.
                    parse_pax(data)
                continue
            return self._entry(block, pax, long_name, long_link)
        return None

    def is_sparse(self) -> bool:
        """Say whether the entry just returned has holes that its data leaves out."""
        return self._map is not None

    def copy(self, out_fd: int, entry: Entry) -> None:
        """Write the content of the entry just returned to out_fd, holes kept as holes."""
        if self._map is None:
            self._stream.copy(out_fd, self._stored)
        else:
            sparse.copy(self._stream, out_fd, self._map, entry.size)
        self._stored = 0

    def _header(self) -> bytes | None:
        """Return the next header block, None at the end marker or the end of the stream."""
        if self._stream.at_end():
            return None
        block = self._stream.exactly(_BLOCK)
        if block == _ZEROS:
            if self._stream.at_end():
                return None
            if self._stream.exactly(_BLOCK) != _ZEROS:
                raise _bad("a lone zero block")
            return None
        _verify_checksum(block)
        return block

    def _special(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_SPECIAL_BYTES:
            raise _bad(f"a header of {size} bytes")
        data = self._stream.exactly(size)
        self._stream.skip(-size % _BLOCK)
        return data

    def _entry(
        self, block: bytes, pax: dict[bytes, bytes], long_name: bytes, long_link: bytes
    ) -> Entry:
        kind = block[156:157]
        if kind == b"\0":
            kind = REGULAR
        size = _number(block[124:136])
        fields = _overrides(pax) if pax else {}
        name = long_name or pax.get(b"path") or _name(block)
        if block[156] in b"\0" and name.endswith(b"/"):
            kind = DIRECTORY
        size = fields.get(b"size", size)
        if not 0 <= size <= _MAX_INT:
            raise _bad("a negative size")
        self._stored = 0 if kind in _HEADER_ONLY else size
        self._padding = -self._stored % _BLOCK
        if kind == b"S" or b"GNU.sparse.map" in pax or b"GNU.sparse.major" in pax:
            kind, name, size = self._sparse(block, kind, name, pax)
        if kind not in _KNOWN:
            raise _bad(f"an entry of unknown type {kind!r}")
        return Entry(
            name=name,
            kind=REGULAR if kind == b"7" else kind,
            mode=_number(block[100:108]),
            uid=fields[b"uid"] if b"uid" in fields else _number(block[108:116]),
            gid=fields[b"gid"] if b"gid" in fields else _number(block[116:124]),
            size=size,
            mtime_ns=(
                fields[b"mtime"] if b"mtime" in fields else _number(block[136:148]) * 1_000_000_000
            ),
            link=long_link or pax.get(b"linkpath") or block[157:257].partition(b"\0")[0],
            device=_device(block) if kind in (CHARACTER_DEVICE, BLOCK_DEVICE) else (0, 0),
            xattrs=_xattrs(pax) if pax else (),
        )

    def _sparse(
        self, block: bytes, kind: bytes, name: bytes, pax: dict[bytes, bytes]
    ) -> tuple[bytes, bytes, int]:
        """Read the map of a sparse file; return its type, name and size with the holes."""
        if kind not in (REGULAR, b"S", b"7"):
            raise _bad("a sparse map on something else than a file")
        if kind == b"S":
            found = sparse.read_gnu(self._stream, block, _number)
        else:
            found = sparse.read_pax(self._stream, pax, self._stored)
            name = pax.get(b"GNU.sparse.name") or name
        self._stored -= found.consumed
        if found.map is None:
            return kind, name, found.size
        if sum(length for _, length in found.map) != self._stored:
            raise _bad("a sparse map that does not fit its data")
        self._map = found.map
        return REGULAR, name, found.size


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Parse "length key=value\\n" records; a later one wins.  Raises ImageError.

    The offsets of sparse format 0.0, whose keys repeat, become its 0.1 form.
    """
    records: dict[bytes, bytes] = {}
    offsets: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > 0 else b""
        if not digits.isdigit():
            raise _bad("a malformed pax header")
        end = at + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n":
            raise _bad("a malformed pax header")
        if not key or not equals or b"\0" in key:
            raise _bad("a malformed pax record")
        if b"\0" in value and key in (b"path", b"linkpath", b"uname", b"gname", b"GNU.sparse.name"):
            raise _bad("a NUL in a pax record")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            wanted = b"GNU.sparse.numbytes" if len(offsets) % 2 else b"GNU.sparse.offset"
            if key != wanted or b"," in value:
                raise _bad("a malformed sparse map")
            offsets.append(value)
        else:
            records[key] = value
        at = end
    if offsets:
        records[b"GNU.sparse.map"] = b",".join(offsets)
    return records


def _overrides(pax: dict[bytes, bytes]) -> dict[bytes, int]:
    """Return the numbers that pax records put in place of the header's fields."""
    numbers = {}
    for key in (b"size", b"uid", b"gid"):
        # An empty value takes back a record, as in Go.
        if value := pax.get(key):
            numbers[key] = decimal(value)
    if value := pax.get(b"mtime"):
        numbers[b"mtime"] = _nanoseconds(value)
    return numbers


def decimal(text: bytes) -> int:
    """Parse a decimal of a pax record; raise ImageError for anything but digits and a sign."""
    digits = text[1:] if text[:1] in (b"-", b"+") else text
    if not digits.isdigit() or len(digits) > 19:
        raise _bad("a malformed number")
    return int(text)


def _nanoseconds(text: bytes) -> int:
    seconds, _, fraction = text.partition(b".")
    if fraction and not fraction.isdigit():
        raise _bad("a malformed time")
    nanoseconds = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    whole = decimal(seconds) * 1_000_000_000
    return whole - nanoseconds if text.startswith(b"-") else whole + nanoseconds


def _xattrs(pax: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    prefix = b"SCHILY.xattr."
    return tuple((key[13:], value) for key, value in pax.items() if key.startswith(prefix))


def _name(block: bytes) -> bytes:
    """Return the name of a header, with the prefix where its format has one."""
    name = block[:100].partition(b"\0")[0]
    prefix = b""
    if block[257:265] == b"ustar\00000":
        # star keeps times where ustar's prefix ends.
        length = 131 if block[508:512] == b"tar\0" else 155
        prefix = block[345 : 345 + length].partition(b"\0")[0]
    elif block[257:265] == b"ustar  \0" and _is_misplaced_prefix(block):
        prefix = block[345:500].partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _is_misplaced_prefix(block: bytes) -> bool:
    """Say whether a GNU header holds a name where its times belong.

    Go before 1.8 wrote such headers, and so did every Docker of that time.
    """
    for field in (block[345:357], block[357:369]):
        if field[0]:
            try:
                _number(field)
            except ImageError:
                return block[345:500].partition(b"\0")[0].isascii()
    return False


def _device(block: bytes) -> tuple[int, int]:
    major, minor = _number(block[329:337]), _number(block[337:345])
    if not (0 <= major < 1 << 32 and 0 <= minor < 1 << 32):
        raise _bad("a device number out of range")
    return major, minor


def _number(field: bytes) -> int:
    """Parse an octal or base-256 field; raise ImageError."""
    # What nearly all writers write: digits up to the last byte.
    if field[:-1].isdigit() and field[-1] in b"\0 ":
        try:
            return int(field[:-1], 8)
        except ValueError:
            raise _bad("a malformed number") from None
    if field[0] & 0x80:
        value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if not -_MAX_INT - 1 <= value <= _MAX_INT:
            raise _bad("a number out of range")
        return value
    text = field.strip(b" \0").partition(b"\0")[0]
    if not text:
        return 0
    try:
        # int() alone would take signs, underscores and white space.
        if text.isdigit():
            return int(text, 8)
    except ValueError:
        pass
    raise _bad("a malformed number")


def _verify_checksum(block: bytes) -> None:
    """Compare the sum of the header with its field, which counts as blanks.  Raises ImageError."""
    field = block[148:156]
    stored = _number(field)
    # Adler-32 of so few bytes has their sum in its lower half, and is many times as fast as sum().
    halves = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    unsigned = halves - sum(field) + 8 * 32
    if stored == unsigned:
        return
    # Some old programs added signed bytes.
    signed = unsigned - 256 * sum(
        byte >= 128 for index, byte in enumerate(block) if not 148 <= index < 156
    )
    if stored != signed:
        raise _bad("a wrong checksum")


def _bad(what: str) -> ImageError:
    return ImageError(f"layer is not a valid tar archive: {what}")
