"""Two trees that should be the same: every difference that counts is found and named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.image import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fill(root: Path) -> None:
    (root / "etc/deep/er").mkdir(parents=True)
    (root / "etc/text").write_bytes(b"t" * 300_000)
    (root / "etc/deep/er/leaf").write_bytes(b"leaf")
    (root / "etc/link").symlink_to("text")
    (root / "etc/hard").hardlink_to(root / "etc/text")
    (root / "empty").touch()
    os.mkfifo(root / "pipe", 0o600)
    (root / os.fsdecode(b"\xff")).touch()
    for path in (*root.rglob("*"),):
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)


def difference(wanted: Path, found: Path) -> str:
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (wanted, found)]
    try:
        return verify.compare(*fds)
    finally:
        for fd in fds:
            os.close(fd)


def rewrite(path: Path, data: bytes) -> None:
    """Change content and set the time back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("evil")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda root: rewrite(root / "etc/text", b"X"), "etc/hard: its content"),
        (lambda root: rewrite(root / "etc/deep/er/leaf", b"LEAF"), "etc/deep/er/leaf: its content"),
        (lambda root: os.truncate(root / "empty", 1), "empty: it has 1 bytes instead of 0"),
        (lambda root: os.utime(root / "empty"), "empty: its time"),
        (lambda root: (root / "empty").chmod(0o4755), "empty: its mode is 4755"),
        (lambda root: (root / "etc/deep").chmod(0o777), "etc/deep: its mode is 0777"),
        (lambda root: root.chmod(0o777), "its root: its mode is 0777"),
        (lambda root: (root / "pipe").chmod(0o666), "pipe: its mode"),
        (lambda root: (root / "etc/new").touch(), "etc/new was added"),
        (lambda root: (root / "new").mkdir(), "new was added"),
        (lambda root: (root / "empty").unlink(), "empty is missing"),
        (lambda root: (root / "etc/deep/er/leaf").unlink(), "etc/deep/er/leaf is missing"),
        (lambda root: link_elsewhere(root / "etc/link"), "etc/link: it leads elsewhere"),
        (lambda root: replace_by_directory(root / "empty"), "empty: it is another kind"),
        (lambda root: (root / "other").hardlink_to(root / "empty"), "other was added"),
        (lambda root: os.setxattr(root / "empty", "user.x", b"1"), "empty: its extended"),
        (lambda root: os.setxattr(root / "etc", "user.x", b"1"), "etc: its extended"),
    ],
)
def test_a_difference(tmp_path: Path, change: Callable[[Path], object], told: str) -> None:
    wanted, found = tmp_path / "wanted", tmp_path / "found"
    for root in (wanted, found):
        root.mkdir(0o755)
        fill(root)
    assert difference(wanted, found) == ""
    change(found)
    assert difference(wanted, found).startswith(told)


def test_a_hard_link_from_elsewhere(tmp_path: Path) -> None:
    """Somebody kept a name of a file outside, through which it can be changed."""
    wanted, found = tmp_path / "wanted", tmp_path / "found"
    for root in (wanted, found):
        root.mkdir(0o755)
        fill(root)
    (tmp_path / "outside").hardlink_to(found / "empty")
    assert difference(wanted, found) == "empty: it has other hard links"


def test_times_of_directories_do_not_count(tmp_path: Path) -> None:
    wanted, found = tmp_path / "wanted", tmp_path / "found"
    for root in (wanted, found):
        root.mkdir(0o755)
        fill(root)
    os.utime(found / "etc")
    assert difference(wanted, found) == ""
