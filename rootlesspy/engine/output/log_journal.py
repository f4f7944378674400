"""The journald log driver: the payload's lines become journal records.

While the budget of records lasts every line is a record.  Output that comes faster is gathered and
many lines go into one record, at most 1 MiB: no line is lost to journald's rate limit, and readers
(`engine.logs_journal`, journalctl) show the same lines.  What a record stands for is its MESSAGE
and a line end, or with CONTAINER_PARTIAL_MESSAGE=true its MESSAGE alone.

Hot: runs in the supervisor, which it keeps waiting for milliseconds at most, and holds at most
2 MiB for each stream.  When journald takes nothing the payload has to wait (`full`), for 30 s;
then its output is dropped, counted, and the loss is said in the log and to `lost`.
"""

from __future__ import annotations

import time

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.engine.output.log_budget import Budget
    from rootlesspy.systemd import journal

MAX_RECORD_BYTES = 1 << 20
CRLF = b"RP_LINE_END=crlf\n"
"""Every line end of the record was CR LF: without the CR journalctl shows text, not a blob."""
_PARTIAL = b"CONTAINER_PARTIAL_MESSAGE=true\n"
_PRIORITIES = {"stdout": b"PRIORITY=6\n", "stderr": b"PRIORITY=3\n"}
_LOSS_PRIORITY = b"PRIORITY=4\n"
# More in one read is fast output, whatever the budget says.
_SINGLE_LINES, _SINGLE_BYTES = 200, 1 << 17
_GATHER_S = 0.1
_PARTIAL_S = 0.25
_POOR_S = 0.02
_RETRY_S, _LONGEST_RETRY_S = 0.01, 0.16
_PATIENCE_S = 30.0
_LAST_WORDS_S = 5.0
_OVERFULL_S = 0.25


class _Stream:
    """What one stream has said and journald has not."""

    __slots__ = ("head", "pending", "since_s")

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.pending = bytearray()
        self.since_s = 0.0


class JournalSink:
    """Writes one container's output to the journal."""

    def __init__(self, head: bytes, budget: Budget, connection: journal.Journal) -> None:
        self._head = head
        self._budget = budget
        self._journal = connection
        self._streams = {name: _Stream(head + value) for name, value in _PRIORITIES.items()}
        self._retry_s = 0.0
        self._pause_s = _RETRY_S
        self._stalled_since_s = 0.0
        self._dropped_bytes = 0
        self.lost = ""

    def write(self, stream: str, data: bytes) -> None:
        """Take what the payload has just written."""
        chosen = self._streams[stream]
        now = time.monotonic()
        if len(chosen.pending) >= MAX_RECORD_BYTES:
            self._make_room(chosen, now)
            if len(chosen.pending) >= 2 * MAX_RECORD_BYTES or (
                self._gave_up(now) and len(chosen.pending) >= MAX_RECORD_BYTES
            ):
                self._dropped_bytes += len(data)
                return
        if not chosen.pending:
            chosen.since_s = now
        chosen.pending += data
        self._flush(chosen, now)

    def full(self) -> bool:
        """Say that the payload has to wait: do not read its output before the next `tick`."""
        full = any(len(each.pending) >= MAX_RECORD_BYTES for each in self._streams.values())
        return full and not self._gave_up(time.monotonic())

    def timeout_ms(self) -> int:
        """Return in how many milliseconds `tick` is due; -1: not at all."""
        now = time.monotonic()
        due = [self._due_s(each) for each in self._streams.values() if each.pending]
        if self._dropped_bytes:
            due.append(max(self._retry_s, now + _PARTIAL_S))
        return max(0, int((min(due) - now) * 1000) + 1) if due else -1

    def tick(self) -> None:
        """Send what has waited long enough."""
        now = time.monotonic()
        for each in sorted(self._streams.values(), key=lambda stream: stream.since_s):
            if each.pending and self._due_s(each) <= now:
                self._flush(each, now)
        if self._dropped_bytes and self._retry_s <= now:
            self._tell_loss(now)

    def close(self) -> None:
        """Send the last words; waits up to 5 s until journald has received everything."""
        deadline = time.monotonic() + _LAST_WORDS_S
        self._retry_s = 0.0
        while not self._send_all():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            self._journal.wait(left_s)
        self._dropped_bytes += sum(len(each.pending) for each in self._streams.values())
        if self._dropped_bytes:
            self._tell_loss(time.monotonic())
        while self._journal.queued_bytes() and time.monotonic() < deadline:
            # No descriptor says when it has been received.
            time.sleep(0.001)
        self._journal.close()
        self._budget.close()

    def _due_s(self, stream: _Stream) -> float:
        window_s = _GATHER_S if b"\n" in stream.pending else _PARTIAL_S
        if len(stream.pending) >= MAX_RECORD_BYTES:
            window_s = 0.0
        return max(stream.since_s + window_s, self._retry_s)

    def _flush(self, stream: _Stream, now: float) -> None:
        """Send what may go now: lines one by one, a full or old buffer as one record."""
        if now < self._retry_s:
            return
        is_short = len(stream.pending) <= _SINGLE_BYTES
        lines = stream.pending.count(b"\n") if is_short else 0
        if 0 < lines <= _SINGLE_LINES and self._budget.take(lines, spare=True):
            self._send_lines(stream, now)
        while stream.pending and self._due_s(stream) <= now:
            if not self._budget.take(1):
                self._retry_s = now + _POOR_S
            elif not self._send_block(stream, now):
                return

    def _make_room(self, stream: _Stream, now: float) -> None:
        """Try to send what is full, and when it is overfull wait for journald a moment.

        Only what an ended payload left in its pipes comes although the sink is full.
        """
        self._flush(stream, now)
        if len(stream.pending) >= 2 * MAX_RECORD_BYTES and not self._gave_up(now):
            self._journal.wait(_OVERFULL_S)
            self._budget.force(1)
            self._send_block(stream, now)

    def _send_all(self) -> bool:
        """Send everything, whatever it costs; False when journald did not take it."""
        now = time.monotonic()
        for each in sorted(self._streams.values(), key=lambda stream: stream.since_s):
            while each.pending:
                self._budget.force(1)
                if not self._send_block(each, now):
                    return False
        return True

    def _send_lines(self, stream: _Stream, now: float) -> None:
        start = 0
        with memoryview(stream.pending) as view:
            while (end := stream.pending.find(b"\n", start)) >= 0:
                if end - start >= MAX_RECORD_BYTES or not self._send(
                    stream.head, view[start : end + 1], now
                ):
                    break
                start = end + 1
        self._drop(stream, start, now)

    def _send_block(self, stream: _Stream, now: float) -> bool:
        """Send the lines there are as one record, or a part of a line."""
        end = stream.pending.rfind(b"\n", 0, MAX_RECORD_BYTES) + 1
        end = end or min(len(stream.pending), MAX_RECORD_BYTES)
        with memoryview(stream.pending) as view:
            sent = self._send(stream.head, view[:end], now)
        if sent:
            self._drop(stream, end, now)
        return sent

    def _drop(self, stream: _Stream, count: int, now: float) -> None:
        del stream.pending[:count]
        stream.since_s = now

    def _send(self, head: bytes, text: memoryview, now: float) -> bool:
        """Send whole lines or, without line end, a part of one."""
        message: bytes | memoryview = text
        end = bytes(text[-2:])
        if end.endswith(b"\n"):
            message = text[:-1]
        else:
            head += _PARTIAL
        if end == b"\r\n":
            whole = bytes(text)
            if whole.count(b"\r") == whole.count(b"\r\n") == whole.count(b"\n"):
                head += CRLF
                message = whole.replace(b"\r\n", b"\n")[:-1]
        try:
            taken = self._journal.send(head, message)
        except OSError:
            # Nothing that journald says may end the container; the loss will be told.
            taken = False
        if not taken:
            self._stalled_since_s = self._stalled_since_s or now
            self._pause(now)
            return False
        self._stalled_since_s = self._retry_s = 0.0
        self._pause_s = _RETRY_S
        return True

    def _pause(self, now: float) -> None:
        self._retry_s = now + self._pause_s
        self._pause_s = min(_LONGEST_RETRY_S, self._pause_s * 2)

    def _gave_up(self, now: float) -> bool:
        return bool(self._stalled_since_s) and now - self._stalled_since_s > _PATIENCE_S

    def _tell_loss(self, now: float) -> None:
        """Write into the log how much of it is missing."""
        text = f"{self._dropped_bytes} bytes of output lost: the journal did not take them"
        self.lost = self.lost or text
        if self._send(self._head + _LOSS_PRIORITY, memoryview(f"rp: {text}\n".encode()), now):
            self._dropped_bytes = 0
