"""The hand-shake: order is insisted on, failures and descriptors arrive whole."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.runtime import create, sync
from rootlesspy.runtime.sync import Failed, FailedError

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=50)


def test_messages_arrive_in_order_and_no_other_is_taken() -> None:
    ours, theirs = sync.channel_pair()
    ours.send(sync.IDS_MAPPED)
    ours.send(sync.EXEC)
    assert theirs.expect(sync.IDS_MAPPED) == -1
    with pytest.raises(FailedError, match="waited for PLACED, got b'EXEC'"):
        theirs.expect(sync.PLACED)
    ours.close()
    theirs.close()


def test_a_descriptor_travels_with_ready() -> None:
    ours, theirs = sync.channel_pair()
    reader, writer = os.pipe()
    theirs.send(sync.READY, passed_fd=writer)
    received = ours.expect(sync.READY)
    assert not os.get_inheritable(received)
    os.write(received, b"x")
    assert os.read(reader, 1) == b"x"
    for fd in (reader, writer, received):
        os.close(fd)
    ours.close()
    theirs.close()


@given(TEXT, st.integers(0, 200), TEXT, TEXT)
def test_a_failure_arrives_as_it_was_sent(step: str, number: int, path: str, text: str) -> None:
    ours, theirs = sync.channel_pair()
    failed = Failed(step, number, path, text)
    theirs.send_failure(failed)
    with pytest.raises(FailedError) as raised:
        ours.expect(sync.READY)
    assert raised.value.failed == failed
    ours.close()
    theirs.close()


def test_silence_is_a_failure_but_success_after_exec() -> None:
    ours, theirs = sync.channel_pair()
    assert ours.pending_failure() is None
    theirs.close()
    with pytest.raises(FailedError) as raised:
        ours.expect(sync.READY)
    assert raised.value.failed.step == "hand-shake"
    ours.expect_end()
    ours.close()


@pytest.mark.parametrize(
    ("failed", "exit_code", "words"),
    [
        (Failed("exec", 2, "", ""), 127, "not found"),
        (Failed("exec", 20, "", ""), 127, "not found"),
        (Failed("exec", 13, "", ""), 126, "permission denied"),
        (Failed("exec", 8, "", ""), 126, "architecture"),
        (Failed("exec", 7, "", ""), 126, "Argument list too long"),
        (Failed("exec", 26, "", ""), 126, "Text file busy"),
        (Failed("change to the working directory", 2, "/x", ""), 127, "/x"),
        (Failed("look up the user", 2, "", "user 'x' is not"), 125, "user 'x' is not"),
        (Failed("mount", 1, "/x", ""), 125, "cannot mount /x"),
        (Failed("hand-shake", 32, "", ""), 125, "without a word"),
        (Failed("join the container's namespaces", 3, "", ""), 125, "the container has ended"),
        (Failed("join the container's namespaces", 1, "", ""), 125, "Operation not permitted"),
    ],
)
def test_exit_codes_come_from_the_step_and_errno(
    failed: Failed, exit_code: int, words: str
) -> None:
    error = create.explain(failed, "cmd")
    assert error.exit_code == exit_code
    assert words in error.message
