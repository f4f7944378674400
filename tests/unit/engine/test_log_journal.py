"""The journald driver, with a journal and a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootlesspy.engine.output import log_journal_reader
from rootlesspy.engine.output.log_journal import MAX_RECORD_BYTES, JournalSink
from rootlesspy.systemd.journal_reader import Parser

TEXT = st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"\r", b"\xff\0", b"b" * 50])).map(b"".join)


class Journal:
    """Takes records, or does not."""

    def __init__(self) -> None:
        self.records: list[dict[str, bytes]] = []
        self.stalled = False

    def send(self, head: bytes, message: bytes) -> bool:
        if not self.stalled:
            (record,) = Parser().feed(head + b"\n")
            self.records.append({**record, "MESSAGE": bytes(message)})
        return not self.stalled

    def wait(self, timeout_s: float) -> None:
        CLOCK.now += timeout_s

    def queued_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True


class Budget:
    """Gives away so many records."""

    def __init__(self, left: int = 1_000_000) -> None:
        self.left = left
        self.spare = left // 2
        self.forced = 0

    def take(self, count: int, *, spare: bool = False) -> bool:
        if self.left - count < (self.spare if spare else 0):
            return False
        self.left -= count
        return True

    def force(self, count: int) -> None:
        self.forced += count

    def close(self) -> None:
        self.closed = True


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", CLOCK)


def sink(budget: int = 1_000_000) -> tuple[JournalSink, Journal, Budget]:
    journal, bucket = Journal(), Budget(budget)
    made: Any = JournalSink(b"CONTAINER_NAME=x\n", bucket, journal)  # type: ignore[arg-type]
    return made, journal, bucket


def messages(journal: Journal) -> list[bytes]:
    return [each["MESSAGE"] for each in journal.records]


def text(journal: Journal, priority: bytes = b"6") -> bytes:
    """Return what the reader makes of the records of one stream."""
    entries = (
        log_journal_reader._entry({**each, "__REALTIME_TIMESTAMP": b"0"})
        for each in journal.records
        if each["PRIORITY"] == priority
    )
    return b"".join(entry.text for entry in entries)


def run_for(made: JournalSink, seconds: float) -> None:
    """Let time pass, and the supervisor call tick when it is due."""
    end = CLOCK.now + seconds
    while (due_ms := made.timeout_ms()) >= 0 and CLOCK.now + due_ms / 1000 <= end:
        CLOCK.now += due_ms / 1000
        made.tick()
    CLOCK.now = end


def test_a_line_is_a_record_as_soon_as_it_ends() -> None:
    made, journal, _ = sink()
    made.write("stdout", b"one\n\ntw")
    made.write("stderr", b"bad\n")
    assert [(each["PRIORITY"], each["MESSAGE"]) for each in journal.records] == [
        (b"6", b"one"), (b"6", b""), (b"3", b"bad"),
    ]  # fmt: skip
    made.write("stdout", b"o\n")
    assert messages(journal)[-1] == b"two"
    assert made.timeout_ms() == -1


def test_a_prompt_is_shown_after_a_moment_and_marked_as_a_part() -> None:
    made, journal, _ = sink()
    made.write("stdout", b"login: ")
    assert journal.records == []
    assert 0 < made.timeout_ms() <= 251
    run_for(made, 1)
    assert journal.records[0]["CONTAINER_PARTIAL_MESSAGE"] == b"true"
    made.write("stdout", b"me\n")
    assert "CONTAINER_PARTIAL_MESSAGE" not in journal.records[1]
    assert text(journal) == b"login: me\n"


@settings(deadline=None)
@given(chunks=st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), TEXT)),
       budget=st.sampled_from([0, 1, 5, 1_000_000]), ticks=st.booleans())  # fmt: skip
def test_every_byte_comes_back_whatever_the_budget(
    chunks: list[tuple[str, bytes]], budget: int, ticks: bool
) -> None:
    made, journal, _ = sink(budget)
    for stream, chunk in chunks:
        made.write(stream, chunk)
        if ticks:
            run_for(made, 0.3)
    made.close()
    for stream, priority in (("stdout", b"6"), ("stderr", b"3")):
        assert text(journal, priority) == b"".join(c for s, c in chunks if s == stream)
    assert made.lost == ""


def test_fast_output_goes_many_lines_to_a_record() -> None:
    made, journal, budget = sink(100)
    for number in range(2000):
        made.write("stdout", b"%d\n" % number)
        run_for(made, 0.001)
    run_for(made, 1)
    assert text(journal) == b"".join(b"%d\n" % number for number in range(2000))
    # Half of the budget as single lines, then a record each 100 ms.
    assert 50 < len(journal.records) < 90
    assert budget.left >= 0


def test_lines_of_windows_are_text_to_journalctl() -> None:
    made, journal, _ = sink()
    made.write("stdout", b"one\r\n")
    assert journal.records[0]["MESSAGE"] == b"one"
    assert text(journal) == b"one\r\n"


def test_no_record_is_larger_than_the_largest() -> None:
    made, journal, _ = sink()
    line = b"x" * (MAX_RECORD_BYTES + 5)
    made.write("stdout", line + b"\n" + line[:10] + b"\n")
    made.close()
    assert max(map(len, messages(journal))) == MAX_RECORD_BYTES
    assert text(journal) == line + b"\n" + line[:10] + b"\n"


def test_without_budget_the_payload_waits_instead_of_losing() -> None:
    made, journal, budget = sink(0)
    made.write("stdout", b"y" * MAX_RECORD_BYTES)
    assert made.full()
    assert 0 < made.timeout_ms() < 50
    run_for(made, 60)
    assert made.full()
    budget.left = 5
    run_for(made, 0.05)
    assert not made.full()
    assert text(journal) == b"y" * MAX_RECORD_BYTES


def test_a_journal_that_takes_nothing_holds_the_payload_for_thirty_seconds_then_loss_is_told() -> (
    None
):
    made, journal, _ = sink()
    journal.stalled = True
    made.write("stdout", b"kept\n" + b"z" * MAX_RECORD_BYTES)
    assert made.full()
    run_for(made, 29)
    assert made.full()
    run_for(made, 2)
    assert not made.full()
    made.write("stdout", b"dropped\n")
    journal.stalled = False
    run_for(made, 2)
    made.close()
    assert text(journal) == b"kept\n" + b"z" * MAX_RECORD_BYTES
    assert [each["MESSAGE"] for each in journal.records if each["PRIORITY"] == b"4"] == [
        b"rp: 8 bytes of output lost: the journal did not take them"
    ]
    assert "8 bytes" in made.lost


def test_a_stalled_journal_is_asked_less_and_less_often() -> None:
    made, journal, _ = sink()
    journal.stalled = True
    made.write("stdout", b"line\n")
    wakeups = 0
    end = CLOCK.now + 10
    while CLOCK.now < end:
        CLOCK.now += made.timeout_ms() / 1000
        made.tick()
        wakeups += 1
    assert wakeups < 80


def test_the_last_words_need_no_budget_and_what_cannot_be_said_is_told() -> None:
    made, journal, budget = sink(0)
    made.write("stdout", b"farewell")
    made.close()
    assert text(journal) == b"farewell"
    assert budget.forced == 1
    made, journal, _ = sink()
    journal.stalled = True
    made.write("stderr", b"unheard")
    made.close()
    assert made.lost.startswith("7 bytes of output lost")


def test_memory_stays_bounded_when_nobody_respects_full() -> None:
    made, journal, _ = sink()
    journal.stalled = True
    for _ in range(100):
        made.write("stdout", b"w" * 65536)
    held = sum(len(each.pending) for each in made._streams.values())
    assert held <= 2 * MAX_RECORD_BYTES + 65536
    journal.stalled = False
    made.close()
    assert len(text(journal)) + int(made.lost.split()[0]) == 100 * 65536
