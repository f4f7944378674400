"""Sparse files in tar archives: GNU's old type S and the pax formats 0.0, 0.1 and 1.0.

Source: the GNU tar manual, "Storing Sparse Files".
"""

from __future__ import annotations

import os

from rootlesspy.errors import ImageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.image.stream import Stream

# (offset, length) of each piece that has data, ascending, not overlapping.
Map = tuple[tuple[int, int], ...]

_BLOCK = 512
_MAX_PIECES = 1 << 17
_MAX_INT = (1 << 63) - 1


class Found(NamedTuple):
    """A map (None: not sparse after all), the size with holes, bytes of the data area used up."""

    map: Map | None
    size: int
    consumed: int


def read_gnu(stream: Stream, block: bytes, number: Callable[[bytes], int]) -> Found:
    """Read the map of an old GNU header and of the extension blocks that follow it.

    number parses a numeric field.  Raises ImageError.
    """
    if block[257:265] != b"ustar  \0":
        raise _bad()
    size = number(block[483:495])
    pieces: list[tuple[int, int]] = []
    area, more = block[386:482], block[482]
    while True:
        for start in range(0, len(area), 24):
            if not area[start]:
                break
            pieces.append((number(area[start : start + 12]), number(area[start + 12 : start + 24])))
        if not more:
            return Found(_checked(pieces, size), size, 0)
        if len(pieces) > _MAX_PIECES:
            raise _bad()
        extension = stream.exactly(_BLOCK)
        area, more = extension[:504], extension[504]


def read_pax(stream: Stream, pax: dict[bytes, bytes], stored: int) -> Found:
    """Read the map that pax records describe; format 1.0 keeps it before the data.

    stored is the size of the data area.  Raises ImageError.
    """
    version = (pax.get(b"GNU.sparse.major", b""), pax.get(b"GNU.sparse.minor", b""))
    if version in ((b"0", b"0"), (b"0", b"1")) or (version == (b"", b"") and _map_of(pax)):
        numbers = _decimals(_map_of(pax).split(b",") if _map_of(pax) else [])
        count = pax.get(b"GNU.sparse.numblocks")
        if count is not None and _decimals([count]) != [len(numbers) // 2]:
            raise _bad()
        consumed = 0
    elif version == (b"1", b"0"):
        numbers, consumed = _read_leading_map(stream, stored)
    else:
        # An unknown version is an ordinary file for Go and for those who do not know sparse files.
        return Found(None, stored, 0)
    text = pax.get(b"GNU.sparse.size") or pax.get(b"GNU.sparse.realsize")
    size = _decimals([text])[0] if text else stored
    if len(numbers) % 2:
        raise _bad()
    pieces = list(zip(numbers[::2], numbers[1::2], strict=True))
    return Found(_checked(pieces, size), size, consumed)


def copy(stream: Stream, out_fd: int, pieces: Map, size: int) -> None:
    """Write the pieces where they belong in the new file out_fd and give it its size."""
    for offset, length in pieces:
        os.lseek(out_fd, offset, os.SEEK_SET)
        stream.copy(out_fd, length)
    os.ftruncate(out_fd, size)


def _map_of(pax: dict[bytes, bytes]) -> bytes:
    return pax.get(b"GNU.sparse.map", b"")


def _read_leading_map(stream: Stream, stored: int) -> tuple[list[int], int]:
    """Read newline-separated numbers in whole blocks: a count, then that many pairs."""
    blocks: list[bytes] = []
    newlines, wanted = 0, 1
    while newlines < wanted:
        if (len(blocks) + 1) * _BLOCK > min(stored, 32 * _MAX_PIECES):
            raise _bad()
        blocks.append(stream.exactly(_BLOCK))
        found = blocks[-1].count(b"\n")
        if found and not newlines:
            count = b"".join(blocks).partition(b"\n")[0]
            wanted = 1 + 2 * _decimals([count])[0]
        newlines += found
    lines = b"".join(blocks).split(b"\n")
    return _decimals(lines[1:wanted]), len(blocks) * _BLOCK


def _checked(pieces: list[tuple[int, int]], size: int) -> Map:
    end = 0
    for offset, length in pieces:
        if offset < end or length < 0 or offset + length > size:
            raise _bad()
        end = offset + length
    if not 0 <= size <= _MAX_INT:
        raise _bad()
    return tuple(pieces)


def _decimals(texts: list[bytes]) -> list[int]:
    if len(texts) > 2 * _MAX_PIECES or not all(
        text.isdigit() and len(text) <= 19 for text in texts
    ):
        raise _bad()
    return [int(text) for text in texts]


def _bad() -> ImageError:
    return ImageError("layer is not a valid tar archive: a malformed sparse map")
