"""Layers seen without a mount: what shows, what is hidden, what has changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine.files import changes, layered
from rootlesspy.engine.files.changes import Layers
from rootlesspy.linux import pathrs

if TYPE_CHECKING:
    from pathlib import Path


def _make(top: Path, *paths: str) -> str:
    """Make files, and directories where a path ends with a slash; return the top as text."""
    for path in paths:
        target = top / path
        (target if path.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            target.write_text(str(top.name))
    return str(top)


def _shown(*directories: str, marks: str = layered.FUSE) -> dict[str, str]:
    """Return what a stack shows: path → the layer that a file is from."""
    fds = [os.open(path, os.O_PATH) for path in directories]
    stack = layered.Stack(fds, marks)
    found = {}
    for entry in layered.walk(stack):
        where = os.readlink(f"/proc/self/fd/{entry.dir_fd}")
        layer = next(i for i, path in enumerate(directories) if f"{where}/".startswith(f"{path}/"))
        found[entry.path] = "d" if entry.is_directory() else str(layer)
    stack.close()
    for fd in fds:
        os.close(fd)
    return found


def _changes(upper: str, *below: str, complete: bool = False) -> list[str]:
    marks = "" if complete else layered.FUSE
    found = changes.between(Layers((upper,), marks), Layers(below, layered.FUSE), complete=complete)
    return [f"{change.kind} {change.path}" for change in found if change.kind]


def test_an_upper_file_hides_a_lower_one(tmp_path: Path) -> None:
    top = _make(tmp_path / "top", "a", "d/x")
    low = _make(tmp_path / "low", "a", "b", "d/x", "d/y")
    assert _shown(top, low) == {"a": "0", "b": "1", "d": "d", "d/x": "0", "d/y": "1"}


def test_whiteouts_hide_and_are_not_shown(tmp_path: Path) -> None:
    top = _make(tmp_path / "top", ".wh.a", "d/.wh.x", ".wh.e")
    low = _make(tmp_path / "low", "a", "b", "d/x", "d/y", "e/z")
    assert _shown(top, low) == {"b": "1", "d": "d", "d/y": "1"}


def test_opaque_directories_hide_all_below(tmp_path: Path) -> None:
    top = _make(tmp_path / "top", "d/.wh..wh..opq", "d/s/new")
    low = _make(tmp_path / "low", "d/x", "d/s/old", "e")
    assert _shown(top, low) == {"d": "d", "d/s": "d", "d/s/new": "0", "e": "1"}


def test_a_file_between_two_directories_parts_them(tmp_path: Path) -> None:
    top, middle, low = (
        _make(tmp_path / "top", "d/new"),
        _make(tmp_path / "middle", "d"),
        _make(tmp_path / "low", "d/old"),
    )
    assert _shown(top, middle, low) == {"d": "d", "d/new": "0"}


def test_what_comes_after_a_directory_is_found_in_its_layer(tmp_path: Path) -> None:
    """Descriptors change whenever a directory is left."""
    top = _make(tmp_path / "top", "a/1", "c/", "e")
    low = _make(tmp_path / "low", "a/2", "b/3/4", "d", "f/5")
    shown = _shown(top, low)
    assert (shown["d"], shown["e"], shown["b/3/4"], shown["f/5"]) == ("1", "0", "1", "1")
    assert list(shown) == ["a", "a/1", "a/2", "b", "b/3", "b/3/4", "c", "d", "e", "f", "f/5"]


def test_kernel_marks_are_told_from_names(tmp_path: Path) -> None:
    top = _make(tmp_path / "top", ".wh.a")
    low = _make(tmp_path / "low", "a")
    assert _shown(top, low, marks=layered.OVERLAY) == {".wh.a": "0", "a": "1"}


def test_attributes_are_whiteouts_too(tmp_path: Path) -> None:
    top, low = _make(tmp_path / "top", "a", "d/"), _make(tmp_path / "low", "a", "d/x")
    try:
        (tmp_path / "top/a").write_bytes(b"")
        os.setxattr(f"{top}/a", "user.overlay.whiteout", b"")
        os.setxattr(f"{top}/d", "user.overlay.opaque", b"y")
    except OSError:
        pytest.skip("no user attributes here")
    assert _shown(top, low, marks=layered.OVERLAY) == {"d": "d"}


def test_changes_of_an_upper_directory(tmp_path: Path) -> None:
    top = _make(tmp_path / "top", "a", "new/x", "d/.wh.x", ".wh.never", "o/.wh..wh..opq", "o/k")
    low = _make(tmp_path / "low", "a", "b", "d/x", "o/k", "o/gone/deep")
    assert _changes(top, low) == [
        "C a", "C d", "D d/x", "A new", "A new/x", "C o", "D o/gone", "C o/k",
    ]  # fmt: skip


def test_changes_of_a_complete_tree(tmp_path: Path) -> None:
    low = _make(tmp_path / "low", "a", "b/c", "same")
    top = _make(tmp_path / "top", "a", "b/d", "same")
    for name in ("a", "b", "same"):
        os.utime(f"{top}/{name}", ns=(0, 0))
        os.utime(f"{low}/{name}", ns=(0, 0))
    (tmp_path / "top/a").write_text("changed")
    assert _changes(top, low, complete=True) == ["C a", "D b/c", "A b/d"]


def test_a_complete_tree_names_unchanged_directories(tmp_path: Path) -> None:
    """A layer without them would give the way to a changed file another owner and mode."""
    low, top = (_make(tmp_path / name, "d/e/x", "d/y") for name in ("low", "new"))
    for path in ("d/e/x", "d/e", "d/y", "d"):
        for tree in (low, top):
            os.utime(f"{tree}/{path}", ns=(0, 0))
    (tmp_path / "new/d/e/x").write_text("changed")
    found = changes.between(Layers((top,), ""), Layers((low,), layered.OVERLAY), complete=True)
    kinds = {change.path: change.kind for change in found}
    assert kinds == {"d": "", "d/e": "", "d/e/x": "C"}


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = _make(tmp_path / "outside", "secret")
    top = _make(tmp_path / "top", "x")
    os.symlink(outside, f"{top}/way")
    assert _shown(top) == {"way": "0", "x": "0"}


def test_a_deep_tree_needs_few_descriptors(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    top = os.open(tmp_path, os.O_PATH)
    try:
        stack = layered.Stack([top], "")
        assert sum(1 for _ in layered.walk(stack)) == 1500
        stack.close()
    finally:
        # pytest's own removal of old trees is recursive.
        directory = os.open(tmp_path, os.O_RDONLY)
        pathrs.remove_tree(directory, "d")
        os.close(directory)
        os.close(top)


def test_json_groups() -> None:
    found = [("A", "/a"), ("C", "/b"), ("A", "/c")]
    assert changes.listed(found) == {"changed": ["/b"], "added": ["/a", "/c"]}
