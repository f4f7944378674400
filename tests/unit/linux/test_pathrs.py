"""Paths inside a hostile tree stay inside; removal reaches everything and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from rootlesspy.linux import pathrs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").write_text("secret")
    fd = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "link", ["/outside", "../outside", "../../../../outside", "/../outside", "a/../../outside"]
)
def test_links_out_of_the_root_end_inside_it(tmp_path: Path, root: int, link: str) -> None:
    (tmp_path / "root/a").mkdir()
    (tmp_path / "root/outside").write_text("inside")
    os.symlink(link, "link", dir_fd=root)
    assert pathrs.read_file(root, "link", 100) == b"inside"


def test_magic_links_are_refused(root: int) -> None:
    os.symlink("/proc/self/cwd", "link", dir_fd=root)
    host = os.open("/", os.O_RDONLY)
    with pytest.raises(OSError, match="symbolic links") as raised:
        pathrs.open_in_root(host, "proc/self/cwd/etc", os.O_RDONLY)
    os.close(host)
    assert raised.value.errno == errno.ELOOP
    with pytest.raises(FileNotFoundError):
        pathrs.open_in_root(root, "link", os.O_RDONLY)


def test_descriptors_do_not_survive_exec(root: int) -> None:
    fd = pathrs.open_in_root(root, ".", os.O_RDONLY)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_directories_are_made_through_links_inside(tmp_path: Path, root: int) -> None:
    (tmp_path / "root/real").mkdir()
    os.symlink("/real", "link", dir_fd=root)
    os.close(pathrs.make_directories(root, "/link/a//./b"))
    assert (tmp_path / "root/real/a/b").is_dir()


def test_no_directory_is_made_through_a_dangling_link(tmp_path: Path, root: int) -> None:
    os.symlink("/../made", "link", dir_fd=root)
    with pytest.raises(FileExistsError):
        pathrs.make_directories(root, "link/a")
    assert not (tmp_path / "made").exists()
    assert os.listdir(root) == ["link"]


def test_a_file_in_the_way_is_an_error(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/file").write_text("")
    with pytest.raises(NotADirectoryError):
        pathrs.make_directories(root, "file/a")


@pytest.mark.parametrize("link", ["/made", "../made", "../../made"])
def test_make_file_follows_a_dangling_link_inside(tmp_path: Path, root: int, link: str) -> None:
    os.symlink(link, "resolv.conf", dir_fd=root)
    os.close(pathrs.make_file(root, "resolv.conf"))
    assert (tmp_path / "root/made").is_file()
    assert not (tmp_path / "made").exists()


def test_make_file_gives_up_on_a_loop_of_links(root: int) -> None:
    os.symlink("b", "a", dir_fd=root)
    os.symlink("a", "b", dir_fd=root)
    with pytest.raises(OSError, match="symbolic links") as raised:
        pathrs.make_file(root, "a")
    assert raised.value.errno == errno.ELOOP


@pytest.mark.parametrize("path", ["", ".", "..", "a/..", "a/.", "/"])
def test_open_parent_wants_a_plain_last_component(root: int, path: str) -> None:
    os.mkdir("a", dir_fd=root)
    with pytest.raises(OSError, match="Invalid argument"):
        pathrs.open_parent(root, path)


def test_open_parent_does_not_follow_the_last_component(root: int) -> None:
    os.mkdir("d", dir_fd=root)
    os.symlink("/nowhere", "d/link", dir_fd=root)
    fd, last = pathrs.open_parent(root, "/d/link/")
    assert last == b"link"
    assert stat.S_ISLNK(os.stat(last, dir_fd=fd, follow_symlinks=False).st_mode)
    os.close(fd)


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_only_regular_files_are_read(root: int, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo("x", dir_fd=root)
    else:
        os.mkdir("x", dir_fd=root)
    with pytest.raises(OSError, match="not a regular file"):
        pathrs.read_file(root, "x", 100)


def test_a_file_over_the_limit_is_refused(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/x").write_bytes(b"x" * 101)
    with pytest.raises(OSError, match="too large"):
        pathrs.read_file(root, "x", 100)
    assert pathrs.read_file(root, "x", 101) == b"x" * 101


@pytest.mark.row("deleting", "no link followed, no mount crossed, any depth, closed directories")
def test_remove_tree_leaves_what_links_point_to(tmp_path: Path, root: int) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("")
    os.makedirs(tmp_path / "root/t/a/b")
    os.symlink(tmp_path / "kept", "t/a/link", dir_fd=root)
    os.symlink(tmp_path / "kept", "t/link", dir_fd=root)
    pathrs.remove_tree(root, "t")
    assert os.listdir(root) == []
    assert (tmp_path / "kept/file").exists()


def test_remove_tree_of_a_link_removes_the_link(tmp_path: Path, root: int) -> None:
    (tmp_path / "kept").mkdir()
    os.symlink(tmp_path / "kept", "t", dir_fd=root)
    pathrs.remove_tree(root, "t")
    assert (tmp_path / "kept").exists()
    assert os.listdir(root) == []


def test_remove_tree_of_nothing_is_fine(root: int) -> None:
    pathrs.remove_tree(root, "t")


def test_remove_tree_opens_what_was_closed(tmp_path: Path, root: int) -> None:
    os.makedirs(tmp_path / "root/t/a/b")
    (tmp_path / "root/t/a/b/file").write_text("")
    for path in ("t/a/b", "t/a", "t"):
        os.chmod(tmp_path / "root" / path, 0)
    pathrs.remove_tree(root, "t")
    assert os.listdir(root) == []


def test_remove_tree_is_not_limited_in_depth(root: int) -> None:
    fd = os.dup(root)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    pathrs.remove_tree(root, "d")
    assert os.listdir(root) == []


def test_a_wide_tree_is_removed_in_linear_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = tmp_path / "wide"
    for number in range(50):
        (wide / str(number) / "inner").mkdir(parents=True)
        (wide / str(number) / "inner" / "file").touch()
    true_rmdir, calls = os.rmdir, []

    def counted(path: str | bytes, *, dir_fd: int | None = None) -> None:
        calls.append(path)
        true_rmdir(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", counted)
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    pathrs.remove_tree(root, "wide")
    os.close(root)
    assert not wide.exists()
    # Each directory is tried when it is seen, and removed when it is empty.
    assert len(calls) == 2 * 100 + 1
