"""Detach keys in what is typed, and the packets between supervisor and client."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.engine.supervision import control
from rootlesspy.engine.supervision.attach import _DetachKeys


def _type(keys: bytes, chunks: list[bytes]) -> tuple[bytes, bool]:
    finder = _DetachKeys(keys)
    passed = b""
    for chunk in chunks:
        part, detached = finder.filter(chunk)
        passed += part
        if detached:
            return passed, True
    return passed, False


def test_the_sequence_is_found_in_one_piece_and_in_two() -> None:
    assert _type(b"\x10\x11", [b"ls\r\x10\x11rest"]) == (b"ls\r", True)
    assert _type(b"\x10\x11", [b"a\x10", b"\x11"]) == (b"a", True)


def test_half_a_sequence_is_typing() -> None:
    assert _type(b"\x10\x11", [b"\x10", b"x"]) == (b"\x10x", False)
    assert _type(b"\x10\x11", [b"\x10\x10\x11"]) == (b"\x10", True)


@given(st.lists(st.binary(max_size=5), max_size=8))
def test_without_keys_everything_passes(chunks: list[bytes]) -> None:
    assert _type(b"", chunks) == (b"".join(chunks), False)


@given(st.lists(st.sampled_from([b"a", b"\x10", b"\x11", b"\x10\x10", b"\x11\x10"]), max_size=12))
def test_only_a_whole_sequence_is_held_back(chunks: list[bytes]) -> None:
    typed = b"".join(chunks)
    passed, detached = _type(b"\x10\x11", chunks)
    assert detached == (b"\x10\x11" in typed)
    if detached:
        assert passed == typed[: typed.index(b"\x10\x11")]
    else:
        # A trailing first key may still become the sequence.
        assert typed in (passed, passed + b"\x10")


def test_packets_carry_fields_and_descriptors() -> None:
    ours, theirs = control.socket_pair()
    reader, writer = os.pipe()
    assert control.send(ours, "started", (writer,), {"pid": 5})
    message = control.receive(theirs)
    assert message is not None
    assert (message.kind, message.number("pid"), message.text("pid")) == ("started", 5, "")
    assert message.fd >= 0
    assert not os.get_inheritable(message.fd)
    for fd in (reader, writer, message.fd):
        os.close(fd)
    ours.close()
    assert control.receive(theirs) is None
    assert not control.tell(theirs, "bye")
    theirs.close()
