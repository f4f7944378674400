"""To whom the session keyring of a container belongs: no key of the user's is taken, or one."""

from __future__ import annotations

import errno
import os

import pytest

from rootlesspy.linux import process
from rootlesspy.runtime import create, payload, sync


class Kernel:
    """Ids and keys as setresuid(2) and keyctl(2) see them."""

    def __init__(self, mapped: range, full: set[int], refused: int = 0) -> None:
        self.mapped, self.full, self.refused = mapped, full, refused
        self.real = 0
        self.owners: list[int] = []

    def setresuid(self, real: int, effective: int, saved: int) -> None:
        assert (effective, saved) == (-1, -1)
        if real not in self.mapped:
            raise OSError(errno.EINVAL, "not mapped")
        self.real = real

    def join(self) -> None:
        if self.refused:
            raise OSError(self.refused, "refused")
        if self.real in self.full:
            raise OSError(errno.EDQUOT, "full")
        self.owners.append(self.real)


def left(monkeypatch: pytest.MonkeyPatch, kernel: Kernel, owners: range | None = None) -> list[int]:
    monkeypatch.setattr(os, "setresuid", kernel.setresuid)
    monkeypatch.setattr(os, "getresuid", lambda: (0, 0, 0))
    monkeypatch.setattr(process, "join_new_session_keyring", kernel.join)
    payload.leave_keyring(*([] if owners is None else [owners]))
    assert kernel.real == 0
    return kernel.owners


@pytest.mark.parametrize(
    ("mapped", "full", "owner"),
    [
        (range(65536), set(), 1),
        (range(65536), {0, 1, 2}, 3),
        (range(1), set(), 0),
        (range(3), {1, 2}, 0),
    ],
)
def test_the_first_id_that_has_room_owns_it(
    monkeypatch: pytest.MonkeyPatch, mapped: range, full: set[int], owner: int
) -> None:
    assert left(monkeypatch, Kernel(mapped, full)) == [owner]


def test_without_other_ids_it_is_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    assert left(monkeypatch, Kernel(range(65536), set()), range(0)) == [0]


def test_no_room_anywhere_is_an_error_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="quota") as caught:
        left(monkeypatch, Kernel(range(2), {0, 1}))
    assert caught.value.errno == errno.EDQUOT
    failed = sync.Failed("make a session keyring", errno.EDQUOT, "", "Disk quota exceeded")
    assert "kernel.keys.maxkeys" in str(create.explain(failed, "sh").hint)


@pytest.mark.parametrize("refused", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_without_keyrings_has_none_to_leave(
    monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    assert left(monkeypatch, Kernel(range(65536), set(), refused)) == []
