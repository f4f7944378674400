"""Packets of the control socket: what their fields are taken for."""

from __future__ import annotations

import pytest

from rootlesspy.engine.supervision import control


@pytest.mark.parametrize(("sent", "seconds"), [(5.0, 5.0), (0.25, 0.25), (7, 7.0), ("7", 0.0)])
def test_times_are_whole_or_not(sent: object, seconds: float) -> None:
    ours, theirs = control.socket_pair()
    with ours, theirs:
        assert control.tell(ours, "stop", timeout_s=sent)
        message = control.receive(theirs)
    assert message is not None
    assert message.seconds("timeout_s") == seconds
    assert message.seconds("missing") == 0
