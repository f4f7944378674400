"""Packets of the control socket: what their fields are taken for."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine.supervision import control

if TYPE_CHECKING:
    from pathlib import Path


def descriptors() -> int:
    """Return how many are open, but for what earlier tests left to the collector."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(("sent", "seconds"), [(5.0, 5.0), (0.25, 0.25), (7, 7.0), ("7", 0.0)])
def test_times_are_whole_or_not(sent: object, seconds: float) -> None:
    ours, theirs = control.socket_pair()
    with ours, theirs:
        assert control.tell(ours, "stop", timeout_s=sent)
        message = control.receive(theirs)
    assert message is not None
    assert message.seconds("timeout_s") == seconds
    assert message.seconds("missing") == 0


@pytest.mark.parametrize("size", [10, 70_000, 500_000, 8_000_000])
def test_packets_of_any_size_arrive_with_their_descriptors(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    ours, theirs = control.socket_pair()
    open_before = descriptors()
    with ours, theirs, path.open() as file:
        assert control.send(ours, "exec", (file.fileno(),), {"words": ["x" * size]})
        message = control.receive(theirs)
        assert message is not None
        assert (message.kind, message.fields) == ("exec", {"words": ["x" * size]})
        assert os.pread(message.fd, 100, 0) == b"content"
        message.close()
        assert descriptors() == open_before + 1


def test_a_packet_that_is_too_large_is_refused_and_its_descriptors_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "_ELSEWHERE_BYTES", 100_000)
    ours, theirs = control.socket_pair()
    with ours, theirs:
        open_before = descriptors()
        control.send(ours, "exec", (0,), {"words": "x" * 200_000})
        with pytest.raises(ValueError, match="too large"):
            control.receive(theirs)
        assert descriptors() == open_before


def test_who_lost_a_packet_waits_for_no_answer() -> None:
    """No descriptor has this number: sendmsg(2) fails though somebody listens."""
    ours, theirs = control.socket_pair()
    with ours, theirs:
        assert not control.send(ours, "exec", (999_999,), {})
        assert control.receive(ours) is None
        assert control.receive(theirs) is None
