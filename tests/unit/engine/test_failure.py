"""What a supervisor says of what nobody expected."""

from __future__ import annotations

import errno

import pytest

from rootlesspy.engine.supervision import failure


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (OSError(errno.EIO, "Input/output error", b"upper"), "failed: upper: input/output error"),
        (OSError(errno.EMFILE, "Too many open files"), "failed: too many open files"),
        (OSError("strange"), "internal error in the supervisor: OSError: strange"),
        (KeyError("x"), "internal error in the supervisor: KeyError: 'x'"),
    ],
)
def test_what_the_system_refuses_is_no_defect_of_rp(cause: BaseException, words: str) -> None:
    assert failure.words(cause).endswith(words)
