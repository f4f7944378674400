"""The json-file driver: what is written is what is read, across rotation, faults and crashes."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootlesspy.engine import record
from rootlesspy.engine.output import log_file, log_file_reader, logs
from rootlesspy.engine.output.log_file import FileSink
from rootlesspy.engine.output.log_file_reader import FileReader
from rootlesspy.engine.output.logs import Selection
from rootlesspy.errors import Unsupported
from rootlesspy.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

    from rootlesspy.engine.output.log_lines import Entry

CONTAINER = record._unknown("c" * 64)


def open_sink(directory: str, max_size: int = -1, max_file: int = 3) -> FileSink:
    return FileSink(f"{directory}/log", max_size=max_size, max_file=max_file)


def reader(directory: str, max_file: int = 3, **selection: Any) -> FileReader:
    options = {"path": f"{directory}/log", "max-file": str(max_file)}
    paths = Paths(data=directory, runtime=None, config="/x")
    return FileReader(paths, CONTAINER._replace(log_options=options), Selection(**selection))


def read_all(of: FileReader) -> list[Entry]:
    """Read until nothing more is there."""
    found = of.read()
    while not of.done and (of.fileno() < 0 or found):
        more = of.read()
        found += more
        if not more and of.fileno() >= 0:
            break
    return found


def text(directory: str, stream: str = "stdout", **options: Any) -> bytes:
    of = reader(directory, **options)
    try:
        return b"".join(entry.text for entry in read_all(of) if entry.stream == stream)
    finally:
        of.close()


@pytest.fixture
def _running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the container never end."""
    monkeypatch.setattr(logs.Watch, "look", lambda _self: None)


def files(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if name.startswith("log"))


@settings(deadline=None)
@given(
    chunks=st.lists(
        st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=60) | st.just(b"\n"))
    ),
    splits=st.booleans(),
)
def test_every_byte_comes_back(chunks: list[tuple[str, bytes]], splits: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        made = open_sink(directory)
        for stream, chunk in chunks:
            made.write(stream, chunk)
            if splits:
                made._since_s = dict.fromkeys(made._since_s, 0.0)
                made.tick()
        made.close()
        for stream in ("stdout", "stderr"):
            expected = b"".join(chunk for of, chunk in chunks if of == stream)
            assert text(directory, stream) == expected


def test_a_line_is_an_object_as_docker_writes_it(tmp_path: Path) -> None:
    made = open_sink(str(tmp_path))
    made.write("stderr", 'gr\u00fc\u00df"e\n'.encode())
    made.close()
    line = json.loads((tmp_path / "log").read_bytes())
    assert line["log"] == 'gr\u00fc\u00df"e\n'
    assert line["stream"] == "stderr"
    assert len(line["time"]) == len("2026-01-02T03:04:05.678901234Z")
    assert os.stat(tmp_path / "log").st_mode & 0o777 == 0o600


def test_the_oldest_files_go_and_no_line_in_between(tmp_path: Path) -> None:
    made = open_sink(str(tmp_path), max_size=2000)
    for number in range(200):
        made.write("stdout", b"%d\n" % number)
    made.close()
    assert files(tmp_path) == ["log", "log.1", "log.2"]
    assert all(os.stat(tmp_path / name).st_size <= 2000 for name in files(tmp_path))
    lines = text(str(tmp_path)).split()
    assert lines == [b"%d" % number for number in range(200 - len(lines), 200)]
    assert len(lines) > 50


def test_one_chunk_larger_than_a_file_fills_several(tmp_path: Path) -> None:
    made = open_sink(str(tmp_path), max_size=2000, max_file=100)
    made.write("stdout", b"".join(b"%d\n" % number for number in range(200)))
    made.close()
    assert len(files(tmp_path)) > 5
    expected = b"".join(b"%d\n" % number for number in range(200))
    assert text(str(tmp_path), max_file=100) == expected


def test_a_single_file_begins_anew(tmp_path: Path) -> None:
    made = open_sink(str(tmp_path), max_size=1000, max_file=1)
    for number in range(100):
        made.write("stdout", b"%d\n" % number)
    made.close()
    assert files(tmp_path) == ["log"]
    assert os.stat(tmp_path / "log").st_size <= 1000
    assert text(str(tmp_path), max_file=1).split()[-1] == b"99"


def test_a_container_that_starts_again_goes_on_in_the_same_log(tmp_path: Path) -> None:
    for word in (b"first\n", b"second\n"):
        made = open_sink(str(tmp_path))
        made.write("stdout", word)
        made.close()
    assert text(str(tmp_path)) == b"first\nsecond\n"


def test_half_a_line_of_a_crash_hides_no_other(tmp_path: Path) -> None:
    made = open_sink(str(tmp_path))
    made.write("stdout", b"before\n")
    made.close()
    with open(tmp_path / "log", "ab") as file:
        file.write(b'{"log":"half')
    made = open_sink(str(tmp_path))
    made.write("stdout", b"after\n")
    made.close()
    with open(tmp_path / "log", "ab") as file:
        file.write(b'[]\n{"log":1,"stream":"stdout","time":"x"}\nnonsense\n' + b"[" * 10_000)
    assert text(str(tmp_path)) == b"before\nafter\n"


def test_a_full_disk_costs_output_and_says_so_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = open_sink(str(tmp_path))
    made.write("stdout", b"before\n")
    write = os.write

    def full(fd: int, data: memoryview) -> int:
        if len(data) > 10:
            return write(fd, data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        made.write("stdout", b"lost\n")
        made.write("stdout", b"lost too\n")
    made.write("stdout", b"after\n")
    made.close()
    assert text(str(tmp_path)) == b"before\nafter\n"
    loss = b"rp: 14 bytes of output lost: no space for the log\n"
    assert text(str(tmp_path), "stderr") == loss
    assert "No space left on device" in made.lost


def test_a_place_where_no_log_can_be_is_said(tmp_path: Path) -> None:
    paths = Paths(data=str(tmp_path), runtime=None, config="/x")
    for place in (tmp_path, tmp_path / "none" / "log"):
        of = CONTAINER._replace(log_options={"path": str(place)})
        with pytest.raises(Unsupported, match=f"cannot open {place}: "):
            log_file.open_sink(paths, of)


def test_a_link_in_the_place_of_the_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=str(tmp_path)) as error:
        open_sink(str(tmp_path))
    assert error.value.errno == errno.ELOOP
    assert not (tmp_path / "precious").exists()


@pytest.mark.parametrize("count", [0, 1, 3, 50, 1000])
def test_the_last_lines_are_found_from_the_end(
    tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file_reader, "_LAST_BYTES", 100)
    made = open_sink(str(tmp_path), max_size=3000)
    for number in range(60):
        made.write("stdout", b"%d\n" % number)
    made.close()
    lines = text(str(tmp_path), tail=count).split()
    assert lines == [b"%d" % number for number in range(max(0, 60 - count), 60)]


@pytest.mark.usefixtures("_running")
@pytest.mark.parametrize("tail", [None, 2])
@pytest.mark.parametrize("max_file", [1, 2, 40])
def test_a_follower_reads_on_through_rotation(
    tmp_path: Path, tail: int | None, max_file: int
) -> None:
    made = open_sink(str(tmp_path), max_size=500, max_file=max_file)
    made.write("stdout", b"a\nb\nc\n")
    of = reader(str(tmp_path), max_file=max_file, follow=True, tail=tail)
    found = b"".join(entry.text for entry in read_all(of))
    assert found == (b"a\nb\nc\n" if tail is None else b"b\nc\n")
    for number in range(100):
        made.write("stdout", b"%d\n" % number)
        found += b"".join(entry.text for entry in read_all(of))
    made.close()
    of.close()
    assert found.split()[-100:] == [b"%d" % number for number in range(100)]


@pytest.mark.usefixtures("_running")
def test_a_follower_that_slept_goes_on_with_what_is_still_there(tmp_path: Path) -> None:
    made = open_sink(str(tmp_path), max_size=500, max_file=2)
    made.write("stdout", b"a\n")
    of = reader(str(tmp_path), max_file=2, follow=True)
    read_all(of)
    for number in range(100):
        made.write("stdout", b"%d\n" % number)
    numbers = [int(line) for entry in read_all(of) for line in entry.text.split()]
    jumps = [after for before, after in pairwise(numbers) if after != before + 1]
    assert (numbers[0], numbers[-1], len(jumps)) == (0, 99, 1)
    made.close()
    of.close()


def test_times_choose(tmp_path: Path) -> None:
    lines = [
        {"log": f"{second}\n", "stream": "stdout", "time": f"2026-01-02T03:04:0{second}.5Z"}
        for second in range(9)
    ]
    (tmp_path / "log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    at = 1767323040.0
    assert text(str(tmp_path), since_s=at + 6) == b"6\n7\n8\n"
    assert text(str(tmp_path), until_s=at + 2) == b"0\n1\n"
    assert text(str(tmp_path), until_s=at + 5, tail=2) == b"3\n4\n"
    assert log_file.timestamp(int((at + 6.5) * 1e9)) == "2026-01-02T03:04:06.500000000Z"
