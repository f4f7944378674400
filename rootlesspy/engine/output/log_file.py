"""The json-file log driver: containers/<id>/log, one JSON object per line, as docker writes them.

    {"log": "text and its line end", "stream": "stdout", "time": "2026-01-02T03:04:05.678901234Z"}

A "log" without line end is a part of a line.  Bytes that are no UTF-8 are lone surrogates (PEP 383)
and come back as they were.  Above max-size the file becomes log.1, that one log.2 and so on,
max-file in all.  Hot: runs in the supervisor.  A full disk never stops the payload: what cannot be
written is counted, and said in the log when there is room again.
"""

from __future__ import annotations

import os
import time

from rootlesspy.engine.output import log_lines
from rootlesspy.errors import Unsupported
from rootlesspy.light_typing import TYPE_CHECKING

try:
    from _json import encode_basestring_ascii as _encode
except ImportError:
    # Another Python than CPython.
    from json.encoder import py_encode_basestring_ascii as _encode

if TYPE_CHECKING:
    from rootlesspy.engine.record import ContainerRecord
    from rootlesspy.paths import Paths

DEFAULT_MAX_SIZE = 10 * 1024 * 1024
DEFAULT_MAX_FILE = 3
"""docker and podman keep one file of any size; docker's manual advises 10m and 3."""
_MAX_PART_BYTES = 64 * 1024
_PARTIAL_S = 0.25
# The backslash first: the others become one.
_ESCAPES = (
    (b"\\", b"\\\\"), (b'"', b'\\"'), (b"\t", b"\\t"), (b"\r", b"\\r"), (b"\x1b", b"\\u001b"),
)  # fmt: skip
_KNOWN = bytes(range(0x20, 0x100)) + b"\n\t\r\x1b"
"""All that text mostly is made of: the encoder of JSON takes five times as long."""


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
        self._tails = {"stdout": b"", "stderr": b""}
        self._since_s = {"stdout": 0.0, "stderr": 0.0}
        self._dropped_bytes = 0
        self.lost = ""
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            # Half a line: the power went.
            self._put(b"\n", 0)

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
            self._put(b"", 0)
        os.close(self._fd)

    def _write_tail(self, stream: str) -> None:
        tail, self._tails[stream] = self._tails[stream], b""
        self._write_lines(stream, tail)

    def _write_lines(self, stream: str, data: bytes) -> None:
        content = _records(stream, data, time.time_ns())
        if self._size + len(content) <= self._max_size:
            self._put(content, len(data))
            return
        for record, line in zip(log_lines.split(content), log_lines.split(data), strict=True):
            if self._size and self._size + len(record) > self._max_size:
                self._rotate()
            self._put(record, len(line))

    def _put(self, content: bytes, plain_bytes: int) -> None:
        """Write whole lines or none; plain_bytes of output are lost when that fails."""
        if self._dropped_bytes:
            content = self._loss() + content
        view = memoryview(content)
        try:
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
        return _records("stderr", text.encode(), time.time_ns())

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


def _records(stream: str, data: bytes, time_ns: int) -> bytes:
    """Return a JSON object for each line of data, the last of which may be a part of one."""
    end = b'","stream":"%s","time":"%s"}\n' % (stream.encode(), timestamp(time_ns).encode())
    *lines, last = _escaped(data).split(b"\n")
    between = b'\\n%s{"log":"' % end
    records = b'{"log":"%s\\n%s' % (between.join(lines), end) if lines else b""
    return b'%s{"log":"%s%s' % (records, last, end) if last else records


def _escaped(data: bytes) -> bytes:
    """Return text as it is within a JSON string, but with its line ends."""
    try:
        # Whatever is UTF-8 may stay; this also says that it is.
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("utf-8", "surrogateescape")
    else:
        if not data.translate(None, _KNOWN):
            for character, escape in _ESCAPES:
                if character in data:
                    data = data.replace(character, escape)
            return data
    # Each backslash of the text is two now.  No NUL is left in JSON.
    escaped = _encode(text)[1:-1].replace("\\\\", "\0").replace("\\n", "\n")
    return escaped.replace("\0", "\\\\").encode("ascii")
