"""engine.copytree with the caller's own files: no privilege, no namespace."""

from __future__ import annotations

import errno
import gc
import os
import resource
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine import copytree
from rootlesspy.linux import pathrs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECOND = 10**9


class Tree:
    """An open directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "source").mkdir()
    tree = Tree(tmp_path / "source")
    yield tree
    os.close(tree.fd)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "target").mkdir()
    tree = Tree(tmp_path / "target")
    yield tree
    os.close(tree.fd)


@pytest.fixture
def user_xattrs(tmp_path: Path) -> None:
    try:
        os.setxattr(tmp_path, "user.test", b"1")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip(f"no user extended attributes below {tmp_path}")


def test_content_modes_and_times(source: Tree, target: Tree) -> None:
    (source.path / "a").mkdir()
    (source.path / "a/deep").mkdir()
    file = source.path / "a/deep/file"
    file.write_bytes(bytes(range(256)) * 9000)
    os.chmod(file, 0o4751)
    os.utime(file, ns=(7 * SECOND, 11 * SECOND + 5))
    os.chmod(source.path / "a/deep", 0o1777)
    os.utime(source.path / "a/deep", ns=(1 * SECOND, 2 * SECOND))
    os.chmod(source.path / "a", 0o555)
    os.chmod(source.path, 0o750)
    os.utime(source.path, ns=(3 * SECOND, 4 * SECOND))

    copytree.copy_tree(source.fd, target.fd)

    copied = target.path / "a/deep/file"
    assert copied.read_bytes() == bytes(range(256)) * 9000
    status = copied.stat()
    assert stat.S_IMODE(status.st_mode) == 0o4751
    assert status.st_mtime_ns == 11 * SECOND + 5
    assert stat.S_IMODE((target.path / "a/deep").stat().st_mode) == 0o1777
    assert (target.path / "a/deep").stat().st_mtime_ns == 2 * SECOND
    assert stat.S_IMODE((target.path / "a").stat().st_mode) == 0o555
    assert stat.S_IMODE(os.fstat(target.fd).st_mode) == 0o750
    assert os.fstat(target.fd).st_mtime_ns == 4 * SECOND
    for path in (source.path, target.path):
        os.chmod(path / "a", 0o755)


def test_links_are_copied_not_followed(source: Tree, target: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("token")
    os.symlink(outside, source.path / "directory")
    os.symlink(outside / "secret", source.path / "file")
    os.symlink("../../nowhere", source.path / "dangling")
    os.utime(source.path / "dangling", ns=(5 * SECOND, 6 * SECOND), follow_symlinks=False)

    copytree.copy_tree(source.fd, target.fd)

    assert os.readlink(target.path / "directory") == str(outside)
    assert os.readlink(target.path / "file") == str(outside / "secret")
    assert os.readlink(target.path / "dangling") == "../../nowhere"
    assert os.lstat(target.path / "dangling").st_mtime_ns == 6 * SECOND


def test_hard_links_stay_hard_links(source: Tree, target: Tree) -> None:
    (source.path / "bin").mkdir()
    (source.path / "bin/busybox").write_bytes(b"program")
    (source.path / "sbin").mkdir()
    os.link(source.path / "bin/busybox", source.path / "sbin/init")
    os.link(source.path / "bin/busybox", source.path / "linuxrc")

    copytree.copy_tree(source.fd, target.fd)

    copies = [target.path / name for name in ("bin/busybox", "sbin/init", "linuxrc")]
    assert len({copy.stat().st_ino for copy in copies}) == 1
    assert copies[0].stat().st_nlink == 3
    assert copies[0].stat().st_ino != (source.path / "linuxrc").stat().st_ino
    assert copies[2].read_bytes() == b"program"


def test_special_files(source: Tree, target: Tree) -> None:
    os.mkfifo(source.path / "fifo")
    os.chmod(source.path / "fifo", 0o622)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{source.fd}/socket")
    copytree.copy_tree(source.fd, target.fd)
    assert os.listdir(target.fd) == ["fifo"]
    status = os.lstat(target.path / "fifo")
    assert stat.S_ISFIFO(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o622


def test_holes_stay_holes(source: Tree, target: Tree) -> None:
    size = 64 << 20
    with open(source.path / "sparse", "wb") as file:
        file.seek(32 << 20)
        file.write(b"middle")
        file.truncate(size)
    if os.stat(source.path / "sparse").st_blocks * 512 >= size:
        pytest.skip("this file system has no holes")
    copytree.copy_tree(source.fd, target.fd)
    status = os.stat(target.path / "sparse")
    assert status.st_size == size
    assert status.st_blocks * 512 < size // 8
    with open(target.path / "sparse", "rb") as file:
        file.seek(32 << 20)
        assert file.read(7) == b"middle\0"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, None], ids=str)
def test_without_copy_file_range(
    source: Tree, target: Tree, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    """Between file systems, on old kernels, and where it copies nothing and says so."""

    def refuse(*_: object) -> int:
        if number is None:
            return 0
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    content = os.urandom((2 << 20) + 17)
    (source.path / "file").write_bytes(content)
    copytree.copy_tree(source.fd, target.fd)
    assert (target.path / "file").read_bytes() == content


def test_odd_names(source: Tree, target: Tree) -> None:
    names = {b"\xff\xfe", b"new\nline", b" ", b"-rf", b"\x1b[2J", "ü".encode(), b"x" * 255}
    for name in names:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=source.fd))
    copytree.copy_tree(source.fd, target.fd)
    assert {os.fsencode(name) for name in os.listdir(target.fd)} == names


def test_depth_needs_neither_stack_nor_descriptors(source: Tree, target: Tree) -> None:
    depth = 3000
    current = os.dup(source.fd)
    for _ in range(depth):
        os.mkdir("d", dir_fd=current)
        following = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = following
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=current))
    os.close(current)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some beyond what this process has open already.
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 48, hard))
    try:
        copytree.copy_tree(source.fd, target.fd)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    current = os.dup(target.fd)
    for _ in range(depth):
        following = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = following
    assert os.listdir(current) == ["end"]
    os.close(current)
    for tree in (source, target):
        # What clears the temporary directories recurses.
        pathrs.remove_tree(tree.fd, "d")


def test_descriptors_are_given_back(source: Tree, target: Tree) -> None:
    (source.path / "a").mkdir()
    (source.path / "a/file").write_text("x")
    os.link(source.path / "a/file", source.path / "a/again")
    os.mkfifo(source.path / "fifo")
    # The collector closes what earlier tests have left to it.
    gc.disable()
    try:
        before = os.listdir("/proc/self/fd")
        copytree.copy_tree(source.fd, target.fd)
        with pytest.raises(FileExistsError):
            copytree.copy_tree(source.fd, target.fd)
        assert os.listdir("/proc/self/fd") == before
    finally:
        gc.enable()


def test_error_names_the_path_below_the_top(
    source: Tree, target: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (source.path / "a/b").mkdir(parents=True)
    (source.path / "a/b/file").write_text("new")
    monkeypatch.setattr(copytree, "_copy_content", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        copytree.copy_tree(source.fd, target.fd)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == "a/b/file"


def test_link_in_the_target_is_not_written_through(
    source: Tree, target: Tree, tmp_path: Path
) -> None:
    """CVE-2018-15664: what the target's owner planted there is refused."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (source.path / "file").write_text("new")
    os.symlink(victim, target.path / "file")
    with pytest.raises(FileExistsError):
        copytree.copy_tree(source.fd, target.fd)
    assert victim.read_text() == "untouched"


def test_directory_swapped_for_a_link_is_refused(source: Tree, target: Tree) -> None:
    (source.path / "a").mkdir()
    cursor = copytree.Cursor(source.fd)
    os.rename(source.path / "a", source.path / "b")
    os.symlink("b", source.path / "a")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        cursor.down("a")
    cursor.close()


def test_directory_moved_away_while_inside_is_noticed(source: Tree, target: Tree) -> None:
    (source.path / "a").mkdir()
    cursor = copytree.Cursor(source.fd)
    cursor.down("a")
    os.rename(source.path / "a", target.path / "a")
    with pytest.raises(OSError, match="moved") as caught:
        cursor.up()
    assert caught.value.errno == errno.ESTALE
    cursor.close()


@pytest.mark.usefixtures("user_xattrs")
def test_extended_attributes(source: Tree, target: Tree) -> None:
    (source.path / "d").mkdir()
    (source.path / "d/f").write_text("x")
    for path in (source.path / "d", source.path / "d/f"):
        os.setxattr(path, "user.kept", b"value")
        os.setxattr(path, "user.overlay.redirect", b"/etc")
        os.setxattr(path, "user.overlay.opaque", b"y")
    copytree.copy_tree(source.fd, target.fd)
    for path in (target.path / "d", target.path / "d/f"):
        assert os.listxattr(path) == ["user.kept"]
        assert os.getxattr(path, "user.kept") == b"value"


class TestLayers:
    """copy_layers shows what an overlay of the same directories would show."""

    @pytest.fixture
    def layers(self, tmp_path: Path) -> tuple[Path, Path]:
        paths = (tmp_path / "base", tmp_path / "top")
        for path in paths:
            path.mkdir()
        return paths

    @staticmethod
    def build(tmp_path: Path, layers: tuple[Path, ...]) -> Path:
        result = tmp_path / "root"
        copytree.copy_layers(tuple(str(layer) for layer in layers), str(result))
        return result

    def test_upper_layers_win(self, tmp_path: Path, layers: tuple[Path, Path]) -> None:
        base, top = layers
        for layer in layers:
            (layer / "etc").mkdir()
            (layer / "etc/both").write_text(layer.name)
        (base / "etc/base").write_text("base")
        (top / "etc/top").write_text("top")
        os.chmod(top / "etc", 0o711)
        os.chmod(top, 0o750)
        root = self.build(tmp_path, layers)
        assert sorted(os.listdir(root / "etc")) == ["base", "both", "top"]
        assert (root / "etc/both").read_text() == "top"
        assert stat.S_IMODE((root / "etc").stat().st_mode) == 0o711
        assert stat.S_IMODE(root.stat().st_mode) == 0o750

    @pytest.mark.parametrize("below", ["file", "directory", "link"])
    @pytest.mark.parametrize("above", ["file", "directory", "link"])
    def test_kinds_change(
        self, tmp_path: Path, layers: tuple[Path, Path], below: str, above: str
    ) -> None:
        for layer, kind in zip(layers, (below, above), strict=True):
            self.make(layer / "x", kind, layer.name)
        root = self.build(tmp_path, layers)
        if above == "file":
            assert (root / "x").is_file()
            assert not (root / "x").is_symlink()
            assert (root / "x").read_text() == "top"
        elif above == "link":
            assert os.readlink(root / "x") == "top"
        else:
            expected = ["base", "top"] if below == "directory" else ["top"]
            assert sorted(os.listdir(root / "x")) == expected
            assert not (root / "x").is_symlink()

    @staticmethod
    def make(path: Path, kind: str, content: str) -> None:
        if kind == "file":
            path.write_text(content)
        elif kind == "link":
            os.symlink(content, path)
        else:
            path.mkdir()
            (path / content).write_text(content)

    def test_link_below_is_not_written_through(
        self, tmp_path: Path, layers: tuple[Path, Path]
    ) -> None:
        """A layer that turns a directory into a link cannot redirect the next one."""
        base, top = layers
        outside = tmp_path / "outside"
        outside.mkdir()
        os.symlink(outside, base / "etc")
        (top / "etc").mkdir()
        (top / "etc/passwd").write_text("root")
        root = self.build(tmp_path, layers)
        assert os.listdir(outside) == []
        assert (root / "etc/passwd").read_text() == "root"

    @pytest.mark.usefixtures("user_xattrs")
    def test_opaque_directory_and_whiteout_attributes(
        self, tmp_path: Path, layers: tuple[Path, Path]
    ) -> None:
        base, top = layers
        for name in ("opaque", "merged"):
            (base / name / "sub").mkdir(parents=True)
            (base / name / "sub/old").write_text("old")
            (base / name / "gone").write_text("old")
            (top / name).mkdir()
            (top / name / "new").write_text("new")
        os.setxattr(top / "opaque", "user.overlay.opaque", b"y")
        os.setxattr(top / "merged", "user.overlay.opaque", b"x")
        (top / "merged/gone").touch()
        os.setxattr(top / "merged/gone", "user.overlay.whiteout", b"y")
        root = self.build(tmp_path, layers)
        assert os.listdir(root / "opaque") == ["new"]
        assert sorted(os.listdir(root / "merged")) == ["new", "sub"]
        assert os.listxattr(root / "opaque") == []

    def test_whiteout_device(self, tmp_path: Path, layers: tuple[Path, Path]) -> None:
        base, top = layers
        (base / "directory/sub").mkdir(parents=True)
        (base / "file").write_text("x")
        (base / "kept").write_text("x")
        try:
            for name in ("directory", "file", "never-there"):
                os.mknod(top / name, stat.S_IFCHR | 0o600, os.makedev(0, 0))
        except PermissionError:
            pytest.skip("this kernel allows no whiteout devices to users (before 5.8)")
        assert os.listdir(self.build(tmp_path, layers)) == ["kept"]

    def test_attributes_of_the_layer_below_do_not_stay(
        self, tmp_path: Path, layers: tuple[Path, Path], user_xattrs: None
    ) -> None:
        for layer in layers:
            (layer / "d").mkdir()
            os.setxattr(layer / "d", f"user.{layer.name}", b"1")
        assert os.listxattr(self.build(tmp_path, layers) / "d") == ["user.top"]


def test_change_owner_walks_without_following(source: Tree, tmp_path: Path) -> None:
    """The ids are the caller's own: what is asked of the kernel is recorded, not a new owner."""
    outside = tmp_path / "outside"
    outside.write_text("x")
    (source.path / "a/b").mkdir(parents=True)
    (source.path / "a/b/file").write_text("x")
    os.symlink(outside, source.path / "a/link")
    if os.geteuid() != 0:
        copytree.change_owner(source.fd, os.getuid(), os.getgid())
        with pytest.raises(PermissionError):
            copytree.change_owner(source.fd, 0, 0)
        return
    copytree.change_owner(source.fd, 1234, 2345)
    for name in ("", "a", "a/b", "a/b/file", "a/link"):
        status = os.lstat(source.path / name)
        assert (status.st_uid, status.st_gid) == (1234, 2345), name
    assert outside.stat().st_uid == 0
    file = os.open(outside, os.O_PATH)
    copytree.change_owner(file, 1234, 2345)
    os.close(file)
    assert outside.stat().st_uid == 1234
