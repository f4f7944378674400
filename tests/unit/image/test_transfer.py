"""Bulk data between processes and files: pipes, what stands in for them, and copies."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.errors import ImageError
from rootlesspy.image import transfer
from rootlesspy.image.stream import Stream

if TYPE_CHECKING:
    from pathlib import Path

_DATA = bytes(range(256)) * 4096


@pytest.fixture(params=["pipe", "all pipes of the user are full"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return both ends of what pipe() makes; its reader is a socket where there is no room."""
    true_fcntl = fcntl.fcntl

    def refused(fd: int, command: int, *rest: int) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return 8192 if command == fcntl.F_GETPIPE_SZ else true_fcntl(fd, command, *rest)

    if request.param != "pipe":
        monkeypatch.setattr(fcntl, "fcntl", refused)
    return transfer.pipe()


def test_a_pipe_carries_everything_to_its_end(ends: tuple[int, int]) -> None:
    reader, writer = ends
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        transfer.write_all(writer, _DATA)
        os._exit(0)
    os.close(writer)
    source, found = transfer.File(reader), b""
    while piece := source.read(1 << 18):
        found += piece
    os.close(reader)
    os.waitpid(pid, 0)
    assert found == _DATA


def test_who_writes_to_nobody_is_told(ends: tuple[int, int]) -> None:
    reader, writer = ends
    transfer.write_all(writer, b"never read")
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        transfer.write_all(writer, _DATA)
    os.close(writer)


def test_neither_end_is_inherited(ends: tuple[int, int]) -> None:
    assert [os.get_inheritable(fd) for fd in ends] == [False, False]
    for fd in ends:
        os.close(fd)


def test_a_stream_reads_what_stands_in_for_a_pipe(ends: tuple[int, int], tmp_path: Path) -> None:
    reader, writer = ends
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        transfer.write_all(writer, _DATA)
        os._exit(0)
    os.close(writer)
    assert _copied(reader, tmp_path) == _DATA[10:]
    os.waitpid(pid, 0)


@pytest.mark.parametrize("refusal", [None, errno.EXDEV, errno.EOPNOTSUPP])
def test_a_file_is_copied_by_the_kernel_or_without_it(
    refusal: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: int) -> int:
        raise OSError(refusal, os.strerror(refusal or 0))

    if refusal is not None:
        monkeypatch.setattr(os, "copy_file_range", refused)
    (tmp_path / "in").write_bytes(_DATA)
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    assert _copied(fd, tmp_path) == _DATA[10:]


def test_a_file_that_ends_too_early_is_truncated(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(_DATA)
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    out_fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(ImageError, match="truncated"):
        Stream(fd).copy(out_fd, len(_DATA) + 1)
    os.close(fd)
    os.close(out_fd)


def test_exact_reads_span_refills(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(_DATA)
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    stream = Stream(fd)
    assert stream.exactly(3) == _DATA[:3]
    assert stream.exactly(700_000) == _DATA[3:700_003]
    assert stream.offset() == 700_003
    stream.skip(5)
    assert stream.exactly(2) == _DATA[700_008:700_010]
    with pytest.raises(ImageError):
        stream.exactly(len(_DATA))
    os.close(fd)


def _copied(fd: int, directory: Path) -> bytes:
    """Return what a stream copies out of fd after ten bytes, and close it."""
    out_fd = os.open(directory / "out", os.O_WRONLY | os.O_CREAT)
    stream = Stream(fd)
    assert stream.exactly(10) == _DATA[:10]
    stream.copy(out_fd, len(_DATA) - 10)
    assert stream.at_end()
    os.close(fd)
    os.close(out_fd)
    return (directory / "out").read_bytes()
