"""How much is in directories: every file once, no link followed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine.views import disk_usage

if TYPE_CHECKING:
    from pathlib import Path


def test_files_below_are_added_up(tmp_path: Path) -> None:
    assert disk_usage.tree_bytes(str(tmp_path)) == 0
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert disk_usage.tree_bytes(str(tmp_path)) == 0
    (tmp_path / "a" / "b" / "file").write_bytes(b"12345")
    (tmp_path / "other").write_bytes(b"123")
    os.link(tmp_path / "other", tmp_path / "a" / "again")
    assert disk_usage.tree_bytes(str(tmp_path)) == 8


def test_a_link_or_a_file_in_its_place_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("whole")
    assert disk_usage.tree_bytes(f"{tmp_path}/link") == 0
    assert disk_usage.tree_bytes(f"{tmp_path}/whole/file") == 0


def test_a_deep_tree(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("directory", dir_fd=fd)
        below = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
    os.write(file, b"12345")
    os.close(file)
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    assert disk_usage.tree_bytes(str(tmp_path)) == 5
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disk_usage.tree_bytes(f"{tmp_path}/gone")
