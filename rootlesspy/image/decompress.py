"""Compressed layers as plain bytes: gzip, zstd, xz, bzip2 or nothing, told by the first bytes.

The media type is not asked: images lie about it, and the diff ID decides in the end.  Everything
is pulled in bounded pieces, so that no bomb can make this process grow.
"""

from __future__ import annotations

import zlib

from rootlesspy.errors import ImageError
from rootlesspy.light_typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
_XZ = b"\xfd7zXZ\0"
_BZIP2 = b"BZh"
_MAX_XZ_BYTES = 1 << 27
_MAX_ZSTD_WINDOW = 1 << 27
_CHUNK = 1 << 17
# A layer of zeros is 1:1000; from this size on such a ratio is an attack, not a file.
_SUSPICIOUS_BYTES = 8 << 30
_MAX_RATIO = 250


class Source(Protocol):
    """Where compressed bytes come from."""

    def read(self, size: int) -> bytes:
        """Return at most size bytes, nothing at the end."""


class Reader:
    """Reads the decompressed form of a source; format is gzip, zstd, xz, bzip2 or nothing."""

    def __init__(self, source: Source) -> None:
        self._source = _Counted(source)
        self._read: Callable[[int], bytes]
        head = self._source.peek(6)
        self.format = ""
        if head[:2] == _GZIP:
            self._read, self.format = _Gzip(self._source).read, "gzip"
        elif head[:4] == _ZSTD or head[1:4] == _ZSTD_SKIPPABLE:
            self._read, self.format = _zstd(self._source), "zstd"
        elif head == _XZ:
            self._read, self.format = _xz(self._source), "xz"
        elif head[:3] == _BZIP2:
            self._read, self.format = _bzip2(self._source), "bzip2"
        else:
            self._read = self._source.read
        self._total = 0

    def read(self, size: int) -> bytes:
        """Return at most size bytes, nothing at the end.  Raises ImageError."""
        data = self._read(size)
        self._total += len(data)
        if self._total > _SUSPICIOUS_BYTES and self._total > _MAX_RATIO * self._source.total:
            raise ImageError("layer is a decompression bomb")
        return data


class _Counted:
    """A source that counts, and whose beginning can be looked at."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._head = b""
        self.total = 0

    def peek(self, count: int) -> bytes:
        while len(self._head) < count:
            more = self._source.read(count - len(self._head))
            if not more:
                break
            self._head += more
        return self._head

    def read(self, size: int) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
        else:
            data = self._source.read(size)
        self.total += len(data)
        return data


def media_suffix(format_name: str) -> str | None:
    """Return what OCI appends to the type of a layer so compressed; None for what it lacks."""
    return {"": "", "gzip": "+gzip", "zstd": "+zstd"}.get(format_name)


class _Gzip:
    """Members one after the other, as gzip(1) reads them; nothing else may follow one."""

    def __init__(self, source: _Counted) -> None:
        self._source = source
        self._new, self._errors = _inflate()
        self._inflate = self._new()
        self._pending = b""
        self._at_start = True

    def read(self, size: int) -> bytes:
        while True:
            if self._inflate.eof:
                self._pending = self._inflate.unused_data
                self._inflate = self._new()
                self._at_start = True
            if not self._pending:
                self._pending = self._source.read(_CHUNK)
                if not self._pending:
                    if self._at_start:
                        return b""
                    raise ImageError("layer is truncated: its gzip data ends too early")
            try:
                data: bytes = self._inflate.decompress(self._pending, size)
            except self._errors as error:
                raise ImageError(f"layer is not valid gzip data: {error}") from None
            self._at_start = False
            self._pending = self._inflate.unconsumed_tail
            if data:
                return data


def _inflate() -> tuple[Callable[[], Any], tuple[type[Exception], ...]]:
    """Return a maker of inflaters: isal's, which are twice as fast, or zlib's."""
    try:
        from isal import isal_zlib
    except ImportError:
        return (lambda: zlib.decompressobj(wbits=31)), (zlib.error,)
    errors = cast("tuple[type[Exception], ...]", (zlib.error, isal_zlib.error))
    return (lambda: isal_zlib.decompressobj(wbits=31)), errors


def _zstd(source: _Counted) -> Callable[[int], bytes]:
    import zstandard

    stream = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW).stream_reader(
        source,  # type: ignore[arg-type]  # needs read() only
        read_size=_CHUNK,
        read_across_frames=True,
    )

    def read(size: int) -> bytes:
        try:
            return stream.read(size)
        except zstandard.ZstdError as error:
            raise ImageError(f"layer is not valid zstd data: {error}") from None

    return read


def _xz(source: _Counted) -> Callable[[int], bytes]:
    import lzma

    errors = (lzma.LZMAError, MemoryError)
    return _Streams(
        source, lambda: lzma.LZMADecompressor(memlimit=_MAX_XZ_BYTES), errors, "xz"
    ).read


def _bzip2(source: _Counted) -> Callable[[int], bytes]:
    import bz2

    return _Streams(source, bz2.BZ2Decompressor, (OSError, ValueError), "bzip2").read


class _Streams:
    """Streams one after the other, as xz(1) and bzip2(1) write them; zeros may lie between."""

    def __init__(
        self,
        source: _Counted,
        new: Callable[[], Any],
        errors: tuple[type[Exception], ...],
        name: str,
    ) -> None:
        self._source = source
        self._new = new
        self._errors = errors
        self._name = name
        self._inflate = new()

    def read(self, size: int) -> bytes:
        while True:
            pending = b""
            if self._inflate.eof:
                pending = self._inflate.unused_data.lstrip(b"\0")
                while not pending:
                    chunk = self._source.read(_CHUNK)
                    if not chunk:
                        return b""
                    pending = chunk.lstrip(b"\0")
                self._inflate = self._new()
            elif self._inflate.needs_input:
                pending = self._source.read(_CHUNK)
                if not pending:
                    raise ImageError(f"layer is truncated: its {self._name} data ends too early")
            try:
                data: bytes = self._inflate.decompress(pending, size)
            except self._errors as error:
                raise ImageError(f"layer is not valid {self._name} data: {error}") from None
            if data:
                return data
