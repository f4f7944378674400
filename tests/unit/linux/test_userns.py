"""Subordinate ids: what a hostile or careless /etc/subuid may and may not grant."""

from __future__ import annotations

import errno
import itertools
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.linux import userns
from rootlesspy.linux.userns import IdMapping, IdMaps

if TYPE_CHECKING:
    from pathlib import Path


def _ranges(path: Path, content: bytes) -> tuple[tuple[int, int], ...]:
    file = path / "subuid"
    file.write_bytes(content)
    return userns.subordinate_ranges(os.fspath(file), "alice", 1000)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"alice:100000:65536\n", ((100000, 65536),)),
        (b"1000:100000:65536\n", ((100000, 65536),)),
        (b"bob:100000:65536\n", ()),
        (b"alice:100000:65536\nalice:300000:10\n", ((100000, 65536), (300000, 10))),
        (b"alice:100000:65536\nalice:100000:65536\n", ((100000, 65536),)),
        (b"alice:100000:65536\nalice:165000:65536\n", ((100000, 65536),)),
        (b"alice:100000:0\n", ()),
        (b"alice:-1:10\n", ()),
        (b"alice:4294967290:65536\n", ()),
        (b"alice:1_0:10\n", ()),
        (b"alice: 10:10\n", ()),
        ("alice:１０:10\n".encode(), ()),
        (b"alice:10\n", ()),
        (b"alice:10:10:10\n", ()),
        (b"\0\xff\n:::\nalice:5:5", ((5, 5),)),
    ],
)
def test_lines(tmp_path: Path, content: bytes, expected: tuple[tuple[int, int], ...]) -> None:
    assert _ranges(tmp_path, content) == expected


def test_no_file_grants_nothing(tmp_path: Path) -> None:
    assert userns.subordinate_ranges(os.fspath(tmp_path / "none"), "alice", 1000) == ()


@given(st.lists(st.tuples(st.integers(-5, 2**33), st.integers(-5, 2**33)), max_size=8))
def test_ranges_never_overlap_or_overflow(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]]
) -> None:
    lines = b"".join(b"alice:%d:%d\n" % pair for pair in pairs)
    found = sorted(_ranges(tmp_path_factory.mktemp("subid"), lines))
    for start, count in found:
        assert (start, count) in pairs
        assert count > 0
        assert start + count <= 2**32 - 1
    for (first, size), (following, _) in itertools.pairwise(found):
        assert first + size <= following


def test_a_hostile_file_costs_little_and_grants_nothing(tmp_path: Path) -> None:
    """CVE-2016-6252, CVE-2024-56433: 10,000 lines, lines without end, numbers beyond all ids."""
    lines = b"".join(b"alice:%d:%d\n" % (number % 500, 7) for number in range(10_000))
    found = _ranges(tmp_path, lines)
    assert len(found) == 72
    assert sum(count for _, count in found) == 72 * 7
    assert _ranges(tmp_path, b"alice:" + b"9" * 1_000_000 + b":5\nalice:7:5\n") == ((7, 5),)
    assert _ranges(tmp_path, b"x" * 5_000_000 + b"\nalice:7:5\n") == ()
    assert _ranges(tmp_path, b"alice:4294967295:1\nalice:4294967294:1\n") == ((4294967294, 1),)


def test_a_single_id_needs_no_helper() -> None:
    single = IdMaps((IdMapping(0, 1000, 1),), (IdMapping(0, 1000, 1),))
    assert single.is_single()
    assert not single._replace(uids=(IdMapping(0, 1000, 2),)).is_single()
    assert not single._replace(gids=(IdMapping(0, 1000, 1), IdMapping(1, 5, 1))).is_single()


def _helper(path: Path, mode: int) -> str:
    program = path / "newuidmap"
    program.touch()
    program.chmod(mode)
    return os.fspath(program)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of root")
@pytest.mark.parametrize(
    ("mode", "reason", "command"),
    [
        (0o4755, "", ""),
        (0o755, "has neither the setuid bit nor file capabilities", "chmod u+s"),
        (0o4757, "does not belong to root alone", "chown root:root"),
    ],
)
def test_what_makes_an_id_helper_powerless(
    tmp_path: Path, mode: int, reason: str, command: str
) -> None:
    found, cure = userns.helper_weakness(_helper(tmp_path, mode))
    assert found == reason
    assert command in cure


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of root")
def test_the_hint_fits_what_is_wrong_with_the_helper(tmp_path: Path) -> None:
    def hint(number: int, program: str) -> str:
        return userns.helper_hint(userns.HelperError(number, "no", program))

    program = _helper(tmp_path, 0o755)
    assert hint(errno.ENOENT, "newuidmap") == "as root: apt-get install uidmap"
    assert hint(errno.EPERM, program) == f"as root: chmod u+s {program}"
    os.chmod(program, 0o4755)
    assert "/etc/subuid" in hint(errno.EPERM, program)
    assert "/etc/subuid" in hint(errno.EPERM, f"{program}.gone")
