"""Tar archives byte by byte, also such as no tar program would write."""

from __future__ import annotations

from typing import Any

BLOCK = 512
END = bytes(2 * BLOCK)


def octal(value: int, width: int) -> bytes:
    """A numeric field: octal, or base-256 where that does not fit."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return base256(value, width)


def base256(value: int, width: int) -> bytes:
    """A numeric field in GNU's binary form."""
    data = bytearray((value % (1 << (8 * width))).to_bytes(width, "big"))
    data[0] |= 0x80
    return bytes(data)


def header(
    name: bytes = b"f",
    kind: bytes = b"0",
    size: int = 0,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 1700000000,
    link: bytes = b"",
    magic: bytes = b"ustar\00000",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    fields: dict[tuple[int, int], bytes] | None = None,
    checksum: bytes | None = None,
) -> bytes:
    """One header block; fields replaces raw bytes at (offset, length)."""
    block = bytearray(BLOCK)

    def put(at: int, length: int, data: bytes) -> None:
        block[at : at + length] = data[:length].ljust(length, b"\0")

    put(0, 100, name)
    put(100, 8, octal(mode, 8))
    put(108, 8, octal(uid, 8))
    put(116, 8, octal(gid, 8))
    put(124, 12, octal(size, 12))
    put(136, 12, octal(mtime, 12))
    put(156, 1, kind)
    put(157, 100, link)
    put(257, 8, magic)
    put(329, 8, octal(device[0], 8))
    put(337, 8, octal(device[1], 8))
    if prefix:
        put(345, 155, prefix)
    for (at, length), data in (fields or {}).items():
        put(at, length, data)
    put(148, 8, b" " * 8)
    put(148, 8, b"%06o\0 " % sum(block) if checksum is None else checksum)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """Data in whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    """One pax record with its own length in front."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """A pax header with its records."""
    body = b"".join(record(key, value) for key, value in records)
    return header(b"PaxHeaders/x", kind, len(body)) + padded(body)


def gnu_long(name: bytes, kind: bytes = b"L") -> bytes:
    """A GNU long name (L) or long link (K)."""
    return header(b"././@LongLink", kind, len(name) + 1, magic=b"ustar  \0") + padded(name + b"\0")


def file(name: bytes, data: bytes = b"", **changes: Any) -> bytes:
    """A regular file with its content."""
    return _entry(name, b"0", size=len(data), **changes) + padded(data)


def directory(name: bytes, mode: int = 0o755, **changes: Any) -> bytes:
    """A directory."""
    return _entry(name, b"5", mode=mode, **changes)


def symlink(name: bytes, target: bytes) -> bytes:
    """A symbolic link."""
    return _entry(name, b"2", link=target, mode=0o777)


def hard_link(name: bytes, target: bytes) -> bytes:
    """A hard link."""
    return _entry(name, b"1", link=target)


def _entry(name: bytes, kind: bytes, *, link: bytes = b"", **changes: Any) -> bytes:
    """A header, with pax records for what does not fit into it."""
    long = [(b"path", name)] if len(name) > 100 else []
    long += [(b"linkpath", link)] if len(link) > 100 else []
    block = header(name, kind, link=link, **changes)
    return pax(*long) + block if long else block


def archive(*entries: bytes, end: bytes = END) -> bytes:
    """Entries and the end marker."""
    return b"".join(entries) + end
