"""Who a user string is: the table of CVE-2016-3697, 2024-40635, 2026-46680 and relatives."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.runtime import user

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rootlesspy.oci.runtime_spec import LinuxIDMapping

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
bob:x:1000:100:Bob:/home/bob:/bin/sh
1001:x:0:0:a number as a name:/root:/bin/sh
big:x:4294967296:0::/:
minus:x:-1:0::/:
short:x:5
nohome:x:7:8:::
0x0:x:0:0::/:
1_000:x:0:0::/:
-2:x:0:0::/:
"""
GROUP = b"""root:x:0:root
users:x:100:
wheel:x:10:root,bob
audio:x:29:bob
bad:x:x:bob
77:x:0:
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_bytes(PASSWD)
    (tmp_path / "etc/group").write_bytes(GROUP)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, (0, 10), "/root")),
        ("root", (0, 0, (0, 10), "/root")),
        ("0", (0, 0, (0, 10), "/root")),
        ("bob", (1000, 100, (100, 10, 29), "/home/bob")),
        ("1000", (1000, 100, (100, 10, 29), "/home/bob")),
        ("bob:users", (1000, 100, (100,), "/home/bob")),
        ("bob:wheel", (1000, 10, (10,), "/home/bob")),
        ("bob:5", (1000, 5, (5,), "/home/bob")),
        ("1001", (1001, 0, (0,), "/")),
        ("1001:77", (1001, 77, (77,), "/")),
        ("4294967294", (4294967294, 0, (0,), "/")),
        ("nohome", (7, 8, (8,), "/")),
    ],
)
def test_accepted(root: int, text: str, expected: tuple[int, int, tuple[int, ...], str]) -> None:
    assert tuple(user.resolve(root, text, ())) == expected


@pytest.mark.parametrize(
    "text",
    ["4294967295", "4294967296", "-1", "-2", "0x0", "1_000", " 1", "1 ", "１０", "1:", ":1", ":",
     "a:b:c", "nobody", "bob:nogroup", "big", "minus", "short", "root\n", "bob:-1",
     "bob:4294967296"],
)  # fmt: skip
def test_refused(root: int, text: str) -> None:
    with pytest.raises(user.UserLookupError):
        user.resolve(root, text, ())


@given(st.text(max_size=20))
def test_nothing_odd_is_ever_root(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    directory = tmp_path_factory.mktemp("empty")
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = user.resolve(fd, text, ())
    except OSError:
        return
    finally:
        os.close(fd)
    name = text.partition(":")[0]
    assert (found.uid == 0) == (not name or int(name) == 0)


def test_extra_groups(root: int) -> None:
    assert user.resolve(root, "bob:users", ("audio", "300")).additional_gids == (100, 29, 300)
    with pytest.raises(user.UserLookupError):
        user.resolve(root, "bob", ("nosuch",))


def test_image_without_passwd(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    assert tuple(user.resolve(fd, "", ())) == (0, 0, (0,), "/")
    assert tuple(user.resolve(fd, "12:34", ())) == (12, 34, (34,), "/")
    os.close(fd)


@pytest.mark.parametrize("target", ["fifo", "/dev/zero", "etc"])
def test_passwd_that_is_no_file_is_refused_at_once(tmp_path: Path, target: str) -> None:
    (tmp_path / "etc").mkdir()
    if target == "fifo":
        os.mkfifo(tmp_path / "etc/passwd")
    else:
        os.symlink(f"/{target.strip('/')}", tmp_path / "etc/passwd")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    if target == "/dev/zero":
        # The link leads to the image's own /dev/zero, which does not exist.
        assert user.resolve(fd, "5", ()).uid == 5
    else:
        with pytest.raises(OSError, match="not a regular file"):
            user.resolve(fd, "bob", ())
    os.close(fd)


def test_a_huge_passwd_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    with open(tmp_path / "etc/passwd", "wb") as file:
        file.truncate(4 << 30)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(OSError, match="too large"):
        user.resolve(fd, "bob", ())
    os.close(fd)


MAPS: list[LinuxIDMapping] = [
    {"containerID": 0, "hostID": 1000, "size": 1},
    {"containerID": 1, "hostID": 100000, "size": 65536},
]


@pytest.mark.parametrize(
    ("uid", "gid", "more", "message"),
    [
        (0, 0, (), None),
        (65536, 65536, (65536,), None),
        (65537, 0, (), "user 65537 is not among the 65537 ids of the container"),
        (0, 70000, (70000,), "group 70000 is not among"),
        (0, 0, (4000000,), "group 4000000 is not among"),
    ],
)
def test_ids_outside_the_map_are_named(
    uid: int, gid: int, more: tuple[int, ...], message: str | None
) -> None:
    """setresuid(2) would say EINVAL."""
    who = user.User(uid=uid, gid=gid, additional_gids=(gid, *more), home="/")
    if message is None:
        user.check_mapped(who, MAPS, MAPS)
        return
    with pytest.raises(user.UserLookupError, match=message):
        user.check_mapped(who, MAPS, MAPS)
