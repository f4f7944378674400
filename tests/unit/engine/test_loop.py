"""The supervisor's poll loop: descriptors, deadlines, handlers that change both."""

from __future__ import annotations

import os
from functools import partial

import pytest

from rootlesspy.engine.supervision import loop


@pytest.fixture
def pipe() -> tuple[int, int]:
    return os.pipe()


def test_a_handler_is_called_while_its_descriptor_is_ready(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    seen: list[bytes] = []
    turns = loop.Loop()
    turns.watch(reader, lambda: seen.append(os.read(reader, 1)))
    os.write(writer, b"ab")
    turns.turn()
    turns.turn()
    assert seen == [b"a", b"b"]
    os.close(writer)
    os.close(reader)


def test_a_handler_may_forget_another_one_that_is_ready_too() -> None:
    ends = [os.pipe() for _ in range(2)]
    called: list[int] = []
    turns = loop.Loop()

    def only(index: int) -> None:
        called.append(index)
        for reader, _ in ends:
            turns.forget(reader)
            turns.forget(reader)

    for index, (reader, writer) in enumerate(ends):
        turns.watch(reader, partial(only, index))
        os.write(writer, b"x")
    turns.turn()
    assert len(called) == 1
    turns.after("end", 0, lambda: None)
    turns.turn()
    assert len(called) == 1
    for pair in ends:
        for fd in pair:
            os.close(fd)


def test_watching_again_replaces_handler_and_events(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    called: list[str] = []
    turns = loop.Loop()
    turns.watch(writer, lambda: called.append("readable"))
    turns.watch(writer, lambda: called.append("writable"), loop.WRITE)
    turns.turn()
    assert called == ["writable"]
    os.close(writer)
    os.close(reader)


def test_timers_are_called_once_and_in_time() -> None:
    called: list[str] = []
    turns = loop.Loop()
    turns.after("soon", 0, lambda: called.append("first"))
    turns.after("soon", 0, lambda: called.append("replaced"))
    turns.after("late", 60, lambda: called.append("late"))
    turns.after("never", 0, lambda: called.append("never"))
    turns.cancel("never")
    turns.cancel("nothing")
    turns.turn()
    assert called == ["replaced"]


def test_a_shorter_time_counts_a_longer_one_does_not() -> None:
    called: list[str] = []
    turns = loop.Loop()
    turns.after_at_most("stop", 60, lambda: called.append("long"))
    turns.after_at_most("stop", 0, lambda: called.append("short"))
    turns.after_at_most("stop", 60, lambda: called.append("longer"))
    turns.turn()
    assert called == ["short"]


def test_a_timer_may_set_itself_again() -> None:
    called: list[int] = []
    turns = loop.Loop()

    def tick() -> None:
        called.append(len(called))
        if len(called) < 3:
            turns.after("tick", 0, tick)

    turns.after("tick", 0, tick)
    for _ in range(3):
        turns.turn()
    assert called == [0, 1, 2]


def test_a_timer_of_years_is_no_more_than_poll_can_wait(pipe: tuple[int, int]) -> None:
    """--health-interval=10000h would have ended the supervisor, and with it the container."""
    reader, writer = pipe
    seen: list[bytes] = []
    turns = loop.Loop()
    turns.after("late", 100 * 365 * 86400, lambda: seen.append(b"too early"))
    turns.watch(reader, lambda: seen.append(os.read(reader, 1)))
    os.write(writer, b"a")
    turns.turn()
    assert seen == [b"a"]
    os.close(writer)
    os.close(reader)
