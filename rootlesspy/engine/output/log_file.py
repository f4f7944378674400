"""The json-file log driver: containers/<id>/log, one JSON object per line, as docker writes them.

    {"log": "text and its line end", "stream": "stdout", "time": "2026-01-02T03:04:05.678901234Z"}

A "log" without line end is a part of a line.  Bytes that are no UTF-8 are lone surrogates (PEP 383)
and come back as they were.  Above max-size the file becomes log.1, that one log.2 and so on,
max-file in all.  Hot: runs in the supervisor.  A full disk never stops the payload: what cannot be
written is counted, and said in the log when there is room again.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from rootlesspy.errors import Unsupported

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

DEFAULT_MAX_SIZE = 10 * 1024 * 1024
DEFAULT_MAX_FILE = 3
"""docker and podman keep one file of any size; docker's manual advises 10m and 3."""
_MAX_PART_BYTES = 64 * 1024
_PARTIAL_S = 0.25


def location(paths: Paths, record: ContainerRecord) -> str:
    """Return the path of a container's log."""
    return record.log_options.get("path") or f"{paths.container(record.id)}/log"


def max_file(record: ContainerRecord) -> int:
    """Return how many files a container's log may have."""
    return int(record.log_options.get("max-file") or DEFAULT_MAX_FILE)


def open_sink(paths: Paths, record: ContainerRecord) -> FileSink:
    """Open a container's log for more; raises Unsupported when that cannot be."""
    size = int(record.log_options.get("max-size") or DEFAULT_MAX_SIZE)
    path = location(paths, record)
    try:
        return FileSink(path, max_size=size, max_file=max_file(record))
    except OSError as error:
        raise Unsupported(
            f"log driver json-file: cannot open {path}: {(error.strerror or '').lower()}",
            hint="name a file that you may write: --log-opt path=FILE",
        ) from error


def timestamp(time_ns: int) -> str:
    """Write a time as RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


class FileSink:
    """Writes one container's output to a rotated file."""

    def __init__(self, path: str, *, max_size: int, max_file: int) -> None:
        self._path = path
        self._max_size = max_size if max_size > 0 else 1 << 62
        self._max_file = max_file
        self._encode = json.JSONEncoder().encode
        self._tails = {"stdout": b"", "stderr": b""}
        self._since_s = {"stdout": 0.0, "stderr": 0.0}
        self._dropped_bytes = 0
        self.lost = ""
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            # Half a line: the power went.
            self._put([b"\n"], 0)

    def write(self, stream: str, data: bytes) -> None:
        """Take what the payload has just written."""
        tail = self._tails[stream]
        if not tail:
            self._since_s[stream] = time.monotonic()
        data = tail + data
        end = data.rfind(b"\n") + 1
        if len(data) - end >= _MAX_PART_BYTES:
            end = len(data)
        self._tails[stream] = data[end:]
        if end:
            self._write_lines(stream, data[:end])

    def full(self) -> bool:
        """Never: a file takes what it is given, or it is lost."""
        return False

    def timeout_ms(self) -> int:
        """Return in how many milliseconds `tick` is due; -1: not at all."""
        waiting = [self._since_s[stream] for stream, tail in self._tails.items() if tail]
        if not waiting:
            return -1
        return max(0, int((min(waiting) + _PARTIAL_S - time.monotonic()) * 1000) + 1)

    def tick(self) -> None:
        """Write parts of lines that have waited long enough."""
        now = time.monotonic()
        for stream, tail in self._tails.items():
            if tail and self._since_s[stream] + _PARTIAL_S <= now:
                self._write_tail(stream)

    def close(self) -> None:
        """Write the last words."""
        for stream, tail in self._tails.items():
            if tail:
                self._write_tail(stream)
        if self._dropped_bytes:
            self._put([], 0)
        os.close(self._fd)

    def _write_tail(self, stream: str) -> None:
        tail, self._tails[stream] = self._tails[stream], b""
        self._write_lines(stream, tail)

    def _write_lines(self, stream: str, data: bytes) -> None:
        encode = self._encode
        end = b'","stream":"%s","time":"%s"}\n' % (
            stream.encode(),
            timestamp(time.time_ns()).encode(),
        )
        text = data.decode("utf-8", "surrogateescape")
        # Not splitlines(): it splits at form feeds and the like too.
        lines = [line + "\n" for line in text.split("\n")]
        lines[-1] = lines[-1][:-1]
        encoded = [b'{"log":' + encode(line).encode()[:-1] + end for line in lines if line]
        total = sum(map(len, encoded))
        if self._size + total <= self._max_size:
            self._put(encoded, len(data))
            return
        for line, plain in zip(encoded, lines, strict=False):
            if self._size and self._size + len(line) > self._max_size:
                self._rotate()
            self._put([line], len(plain))

    def _put(self, lines: list[bytes], plain_bytes: int) -> None:
        """Write whole lines or none; plain_bytes of output are lost when that fails."""
        if self._dropped_bytes:
            lines = [self._loss(), *lines]
        content = b"".join(lines)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self._dropped_bytes += plain_bytes
            self.lost = f"output was lost: {os.strerror(error.errno or 0)}: {self._path}"
            self._cut()
        else:
            self._size += len(content)
            self._dropped_bytes = 0

    def _loss(self) -> bytes:
        text = f"rp: {self._dropped_bytes} bytes of output lost: no space for the log\n"
        return b'{"log":%s,"stream":"stderr","time":"%s"}\n' % (
            self._encode(text).encode(),
            timestamp(time.time_ns()).encode(),
        )

    def _cut(self) -> None:
        """Take back half a line."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            return

    def _rotate(self) -> None:
        """Begin a new file; a failure leaves the old one in use, above its size."""
        try:
            if self._max_file == 1:
                os.unlink(self._path)
            for number in range(self._max_file - 1, 0, -1):
                older = f"{self._path}.{number - 1}" if number > 1 else self._path
                try:
                    os.rename(older, f"{self._path}.{number}")
                except FileNotFoundError:
                    continue
            fd = self._open()
        except OSError as error:
            self.lost = f"log rotation failed: {os.strerror(error.errno or 0)}: {self._path}"
            return
        os.close(self._fd)
        self._fd, self._size = fd, 0

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)
