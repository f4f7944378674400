"""Digests of streams that are hashed beside whoever reads them."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest

from rootlesspy.errors import Error
from rootlesspy.image.hashing import Hasher

MEBIBYTE = bytes(range(256)) * 4096


def _children() -> set[str]:
    """Return all children; those of earlier tests may be waited for at any time."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split())


def _feed(hasher: Hasher, count: int) -> None:
    for _ in range(count):
        hasher.update(MEBIBYTE)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 17])
@pytest.mark.parametrize("expected", [0, 9 << 20])
def test_is_the_digest_of_all_pieces(algorithm: str, count: int, expected: int) -> None:
    before = _children()
    hasher = Hasher(algorithm, expected_bytes=expected)
    _feed(hasher, count)
    assert hasher.result() == f"{algorithm}:{hashlib.new(algorithm, MEBIBYTE * count).hexdigest()}"
    assert _children() <= before


@pytest.mark.parametrize(("expected", "alone"), [(0, 3), ((4 << 20) - 1, 3), (4 << 20, 0)])
def test_a_child_takes_over_where_much_has_come_or_will(expected: int, alone: int) -> None:
    before = _children()
    hasher = Hasher("sha256", expected_bytes=expected)
    _feed(hasher, alone)
    assert _children() <= before
    _feed(hasher, 1)
    assert len(_children() - before) == 1
    hasher.result()


def test_a_child_holds_no_pipe_of_its_parent() -> None:
    reader, writer = os.pipe()
    hasher = Hasher("sha256", held_fds=(writer,))
    _feed(hasher, 6)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
    hasher.result()


def test_says_so_when_its_child_was_killed() -> None:
    before = _children()
    hasher = Hasher("sha256")
    _feed(hasher, 4)
    (child,) = _children() - before
    os.kill(int(child), signal.SIGKILL)
    with pytest.raises(Error, match="ended with status -9"):
        _feed(hasher, 6)
