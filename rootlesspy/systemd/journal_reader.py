"""Reads the journal by journalctl: `-o export`, which is exact for every byte.  Cold.

https://systemd.io/JOURNAL_EXPORT_FORMATS.  Records of other users never match: whoever asks for
fields that anybody may write has `_UID=`, which journald itself writes, added to every match.
"""

from __future__ import annotations

import os

from rootlesspy.errors import Unsupported
from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Record = dict[str, bytes]

CURSOR = "__CURSOR"
_READ_BYTES = 1 << 18


class Parser:
    """Turns the export format, as it comes, into records."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted = 0
        self._record: Record = {}

    def feed(self, data: bytes) -> Iterator[Record]:
        """Take more of the stream; yield the records that are complete."""
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= self._wanted:
            end = self._buffer.find(b"\n", at)
            if end < 0:
                break
            if end == at:
                at += 1
                if self._record:
                    record, self._record = self._record, {}
                    yield record
                continue
            stop = self._field(at, end)
            if stop > len(self._buffer):
                self._wanted = stop - at
                break
            self._wanted = 0
            at = stop
        del self._buffer[:at]

    def _field(self, start: int, end: int) -> int:
        """Read the field of the line from start to end; return where it stops, if it is whole."""
        buffer = self._buffer
        equals = buffer.find(b"=", start, end)
        if equals >= 0:
            self._record[buffer[start:equals].decode()] = bytes(buffer[equals + 1 : end])
            return end + 1
        data = end + 9
        if len(buffer) < data:
            return data
        size = int.from_bytes(buffer[end + 1 : data], "little")
        if len(buffer) > data + size:
            self._record[buffer[start:end].decode()] = bytes(buffer[data : data + size])
        return data + size + 1


class Reader:
    """One running journalctl."""

    def __init__(
        self,
        matches: Sequence[str],
        *,
        fields: Sequence[str],
        follow: bool = False,
        reverse: bool = False,
        since_s: float | None = None,
        until_s: float | None = None,
        after: str = "",
    ) -> None:
        """Start to read records that match.

        matches: FIELD=value, "+" between alternatives.  since_s and until_s are rounded outwards to
        seconds: the caller looks at the time of every record.  after: a cursor.  Raises Unsupported
        without journalctl.
        """
        argv = ["journalctl", "--quiet", "--no-pager", "--output=export"]
        argv.append(f"--output-fields={','.join(fields)}")
        argv += ["--follow", "--no-tail"] if follow else []
        argv += ["--reverse"] if reverse else []
        argv += [f"--since=@{int(since_s)}"] if since_s is not None and since_s > 0 else []
        argv += [f"--until=@{int(until_s) + 1}"] if until_s is not None else []
        argv += [f"--after-cursor={after}"] if after else []
        self._pid, self._fd = _spawn([*argv, *matches])
        self._parser = Parser()
        self.done = False

    def fileno(self) -> int:
        """Return the descriptor that is readable when `read` has something."""
        return self._fd

    def read(self) -> list[Record]:
        """Return the next records, perhaps none; sets `done` at the end."""
        data = os.read(self.fileno(), _READ_BYTES)
        if not data:
            self.done = True
        return list(self._parser.feed(data))

    def close(self) -> None:
        """End journalctl."""
        self.done = True
        if self._pid:
            os.close(self._fd)
            # Not waited for yet: the number is still its own.
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)
            self._pid, self._fd = 0, -1


def _spawn(argv: list[str]) -> tuple[int, int]:
    """Execute a program; return its pid and what its stdout is read from.  Raises Unsupported."""
    reader, writer = os.pipe()
    try:
        pid = os.posix_spawnp(
            argv[0],
            argv,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writer, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            # ctrl-c is for rp alone, which ends it.
            setpgroup=0,
            # Which Python ignores.
            setsigdef=(signal.SIGPIPE,),
        )
    except OSError:
        os.close(reader)
        raise Unsupported("journalctl is not in PATH", hint="apt install systemd") from None
    finally:
        os.close(writer)
    return pid, reader
