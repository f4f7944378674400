"""Decompression: every format, several members, and bombs that must not grow this process."""

from __future__ import annotations

import gzip
import io
import sys
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from unit.image.memory import growth_bytes

from rootlesspy.errors import ImageError
from rootlesspy.image import decompress
from rootlesspy.image.decompress import Reader

TEXT = b"layer content " * 5000


def read_all(data: bytes, step: int = 1 << 18) -> bytes:
    reader = Reader(io.BytesIO(data))
    found = b""
    while piece := reader.read(step):
        assert len(piece) <= step
        found += piece
    return found


def read_through(data: bytes) -> None:
    reader = Reader(io.BytesIO(data))
    while reader.read(1 << 18):
        pass


@pytest.fixture(params=["isal", "zlib"])
def inflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    else:
        pytest.importorskip("isal")


@pytest.mark.usefixtures("inflater")
@pytest.mark.parametrize("step", [1, 100, 1 << 18])
def test_formats(step: int) -> None:
    text = TEXT[:3000] if step == 1 else TEXT
    assert read_all(gzip.compress(text), step) == text
    assert read_all(zstandard.compress(text), step) == text
    assert read_all(text, step) == text


@pytest.mark.usefixtures("inflater")
def test_several_members() -> None:
    parts = [gzip.compress(TEXT), gzip.compress(b""), gzip.compress(b"end")]
    assert read_all(b"".join(parts)) == TEXT + b"end"
    frames = [
        zstandard.compress(TEXT),
        b"\x50\x2a\x4d\x18\x03\0\0\0abc",
        zstandard.compress(b"end"),
    ]
    assert read_all(b"".join(frames)) == TEXT + b"end"


@pytest.mark.parametrize("data", [b"", b"\x1f", b"abc"])
def test_short_input_is_plain(data: bytes) -> None:
    assert read_all(data) == data


@pytest.mark.usefixtures("inflater")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(gzip.compress(TEXT)[:-1], id="truncated gzip"),
        pytest.param(gzip.compress(TEXT)[:50], id="gzip cut in the middle"),
        pytest.param(gzip.compress(TEXT) + b"garbage", id="garbage after gzip"),
        pytest.param(gzip.compress(TEXT)[:-5] + b"xxxxx", id="wrong gzip checksum"),
        pytest.param(b"\x1f\x8b" + b"x" * 100, id="no gzip at all"),
        pytest.param(gzip.compress(TEXT)[:100] + b"x" * 1000, id="damaged gzip"),
        pytest.param(b"\x28\xb5\x2f\xfd" + b"x" * 100, id="no zstd at all"),
        pytest.param(zstandard.compress(TEXT) + b"garbage!", id="garbage after zstd"),
    ],
)
def test_damaged_input(data: bytes) -> None:
    with pytest.raises(ImageError):
        read_all(data)


def test_zstd_windows_beyond_128_mib_are_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(b"x") + compressor.flush()
    with pytest.raises(ImageError, match="zstd"):
        read_all(data)


@pytest.mark.row("bombs", "refused in little memory")
@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_bombs_are_noticed_and_take_no_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompress, "_SUSPICIOUS_BYTES", 64 << 20)
    zeros = bytes(1 << 20)
    if kind == "gzip":
        gzipper = zlib.compressobj(9, wbits=31)
        data = b"".join(gzipper.compress(zeros) for _ in range(256)) + gzipper.flush()
    else:
        zipper = zstandard.ZstdCompressor().compressobj()
        data = b"".join(zipper.compress(zeros) for _ in range(256)) + zipper.flush()

    def work() -> None:
        with pytest.raises(ImageError, match="bomb"):
            read_through(data)

    assert growth_bytes(work) < 40 << 20


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd"]))
def test_anything_else_is_an_image_error(data: bytes, magic: bytes) -> None:
    try:
        read_all(magic + data)
    except ImageError:
        return
