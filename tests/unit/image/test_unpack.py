"""Unpacking, with a malicious layer for each row of the threat catalogue (SECURITY.md H and I).

Everything happens in a temporary directory without any privilege: what confines an archive is how
paths are resolved, not the namespace.  `outside` is beside the layer's root and must never change.
"""

from __future__ import annotations

import contextlib
import gc
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.image import tarmaker as tm

from rootlesspy.errors import ImageError
from rootlesspy.image.unpack import Limits, Unpacked, unpack
from rootlesspy.linux import pathrs

if TYPE_CHECKING:
    from collections.abc import Iterator

OPAQUE = "user.overlay.opaque"


class Place:
    """An empty layer root, and what must not be touched beside it."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.outside = base / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        (self.outside / "file").write_bytes(b"untouched")
        os.utime(self.outside / "file", (1000, 1000))
        self.before = self.snapshot()

    def snapshot(self) -> list[tuple[str, int, int, int, bytes]]:
        found = []
        for path in sorted([self.outside, *self.outside.rglob("*")]):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found.append((str(path), status.st_mode, status.st_nlink, status.st_mtime_ns, content))
        return found

    def unpack(self, *entries: bytes, limits: Limits | None = None, **flags: bool) -> Unpacked:
        """Apply an archive; whatever happens, nothing outside may have changed."""
        single_id = flags.get("single_id", True)
        with tempfile.TemporaryFile() as source:
            source.write(tm.archive(*entries))
            source.seek(0)
            root_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                return unpack(source.fileno(), root_fd, single_id=single_id, limits=limits)
            finally:
                os.close(root_fd)
                assert self.snapshot() == self.before

    def refuses(self, *entries: bytes, match: str = ".") -> None:
        with pytest.raises(ImageError, match=match):
            self.unpack(*entries)

    def twin(self) -> Path:
        """Return what the path of `outside` means inside the root."""
        return self.root / str(self.outside)[1:]

    def tree(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    # Deeper than shutil.rmtree, and with it pytest, can follow.
    base_fd = os.open(tmp_path, os.O_RDONLY)
    pathrs.remove_tree(base_fd, "root")
    os.close(base_fd)


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return OPAQUE in os.listxattr(path) and os.getxattr(path, OPAQUE) == b"y"


# --- what real images need -------------------------------------------------------------------


@pytest.mark.parametrize("through_pipe", [False, True])
def test_how_long_the_archive_was(place: Place, through_pipe: bool) -> None:
    large = tm.file(b"large", os.urandom(1 << 20))
    data = tm.archive(large, tm.file(b"small", b"x"), large, tm.symlink(b"l", b"large")) + bytes(
        999
    )
    root_fd = os.open(place.root, os.O_RDONLY | os.O_DIRECTORY)
    pid = 0
    if through_pipe:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            with open(writer, "wb") as file:
                file.write(data)
            os._exit(0)
        os.close(writer)
    else:
        reader = os.memfd_create("archive")
        os.write(reader, data)
        os.lseek(reader, 0, os.SEEK_SET)
    try:
        assert unpack(reader, root_fd, single_id=True).archive_bytes == len(data)
    finally:
        os.close(reader)
        os.close(root_fd)
        if pid:
            os.waitpid(pid, 0)


def test_everything_an_ordinary_layer_holds(place: Place) -> None:
    done = place.unpack(
        tm.directory(b"./", 0o755),
        tm.directory(b"./bin/", 0o755, mtime=5),
        tm.file(b"./bin/su", b"#!", mode=0o4755, mtime=7),
        tm.symlink(b"./bin/sh", b"/bin/su"),
        tm.hard_link(b"./bin/hard", b"./bin/su"),
        tm.hard_link(b"./bin/absolute", b"/bin/su"),
        tm.header(b"./run/pipe", b"6", mode=0o600, mtime=9),
        tm.directory(b"./tmp", 0o1777),
        tm.directory(b"./no", 0o000),
        tm.file(b"deep/er/implicit", b"x"),
    )
    assert place.tree() == [
        "bin", "bin/absolute", "bin/hard", "bin/sh", "bin/su", "deep", "deep/er",
        "deep/er/implicit", "no", "run", "run/pipe", "tmp",
    ]  # fmt: skip
    status = (place.root / "bin/su").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_nlink, status.st_mtime) == (0o4755, 3, 7)
    assert (place.root / "bin").stat().st_mtime == 5
    assert os.readlink(place.root / "bin/sh") == "/bin/su"
    assert stat.S_ISFIFO((place.root / "run/pipe").stat().st_mode)
    assert stat.S_IMODE((place.root / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE((place.root / "deep/er").stat().st_mode) == 0o755
    assert (done.entries, done.size_bytes) == (10, 3)


def test_umask_of_the_caller_changes_nothing(place: Place) -> None:
    old = os.umask(0o777)
    try:
        place.unpack(tm.file(b"a/f", mode=0o666))
        assert os.umask(0o777) == 0o777
    finally:
        os.umask(old)
    assert stat.S_IMODE((place.root / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((place.root / "a/f").stat().st_mode) == 0o666


def test_later_entries_replace_earlier_ones(place: Place) -> None:
    place.unpack(
        tm.file(b"a", b"1"), tm.file(b"a", b"2"),
        tm.directory(b"d"), tm.file(b"d/f", b"x"), tm.file(b"d", b"now a file"),
        tm.file(b"e"), tm.directory(b"e"), tm.file(b"e/f"),
        tm.directory(b"k", 0o700), tm.file(b"k/f", b"stays"), tm.directory(b"k", 0o755),
        tm.symlink(b"l", b"a"), tm.symlink(b"l", b"b"), tm.file(b"l", b"3"),
    )  # fmt: skip
    assert (place.root / "a").read_bytes() == b"2"
    assert (place.root / "d").read_bytes() == b"now a file"
    assert (place.root / "k/f").read_bytes() == b"stays"
    assert stat.S_IMODE((place.root / "k").stat().st_mode) == 0o755
    assert (place.root / "l").read_bytes() == b"3"
    assert not (place.root / "l").is_symlink()
    # e hid whatever a lower layer has below that name when it was a file.
    assert is_opaque(place.root / "e")
    assert not is_opaque(place.root / "k")


def test_names_that_are_not_unicode(place: Place) -> None:
    place.unpack(tm.file(b"\xff\n\x1b[2J"), tm.file("ü".encode()))
    assert os.listdir(os.fsencode(place.root)) in (
        [b"\xff\n\x1b[2J", "ü".encode()],
        ["ü".encode(), b"\xff\n\x1b[2J"],
    )


@pytest.mark.root_only
def test_owners_and_setuid_survive_together(place: Place) -> None:
    entries = (
        tm.directory(b"g", 0o2755, gid=7),
        tm.file(b"g/f", b"x", mode=0o6755, uid=12, gid=34),
        tm.symlink(b"g/l", b"f"),
    )
    place.unpack(*entries, single_id=False)
    status = (place.root / "g/f").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12, 34, 0o6755)
    # The directory is setgid, so that the kernel gives new files its group.
    assert (place.root / "g/l").lstat().st_gid == 0


def test_owners_are_left_out_where_there_is_one_id(place: Place) -> None:
    place.unpack(tm.file(b"f", uid=4000000000, gid=1))
    assert (place.root / "f").stat().st_uid == os.getuid()


@pytest.mark.parametrize("uid", [-1, 2**32 - 1, 2**40])
def test_owners_out_of_range_are_refused(place: Place, uid: int) -> None:
    entry = tm.header(b"f", fields={(108, 8): tm.base256(uid, 8)})
    with pytest.raises(ImageError):
        place.unpack(entry, single_id=False)


# --- whiteouts -------------------------------------------------------------------------------


def test_whiteouts_become_those_of_overlayfs(place: Place) -> None:
    place.unpack(
        tm.file(b"a/.wh.gone"), tm.directory(b"o"), tm.file(b"o/.wh..wh..opq"), tm.file(b"o/new")
    )
    assert is_whiteout(place.root / "a/gone")
    assert is_opaque(place.root / "o")
    assert place.tree() == ["a", "a/gone", "o", "o/new"]


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_whiteouts_spare_what_the_same_layer_brings(place: Place, whiteout_first: bool) -> None:
    whiteouts = [tm.file(b".wh.d"), tm.file(b".wh.f")]
    content = [tm.directory(b"d"), tm.file(b"d/x"), tm.file(b"f", b"new")]
    place.unpack(*(whiteouts + content if whiteout_first else content + whiteouts))
    assert (place.root / "f").read_bytes() == b"new"
    assert place.tree() == ["d", "d/x", "f"]
    assert is_opaque(place.root / "d")


def test_an_opaque_root_is_told(place: Place) -> None:
    assert place.unpack(tm.file(b".wh..wh..opq"), tm.file(b"f")).opaque_root
    assert not place.unpack(tm.file(b"g")).opaque_root


@pytest.mark.row("whiteouts", "those of nothing are refused")
@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b".wh./x", b"a/.wh..", b"a/.wh."])
def test_whiteouts_of_nothing_are_refused(place: Place, name: bytes) -> None:
    if name == b".wh./x":
        # A directory named .wh. on the way: a whiteout is only the last component.
        place.unpack(tm.file(name))
        assert place.tree() == [".wh.", ".wh./x"]
        return
    place.refuses(tm.directory(b"a"), tm.file(name), match="whiteout of nothing")


def test_whiteout_of_the_longest_name(place: Place) -> None:
    place.unpack(tm.pax((b"path", b".wh." + b"n" * 251)), tm.file(b"x"))
    assert is_whiteout(place.root / ("n" * 251))
    place.refuses(tm.pax((b"path", b".wh." + b"n" * 256)), tm.file(b"x"), match="name too long")


def test_bookkeeping_of_aufs_is_left_out(place: Place) -> None:
    place.unpack(tm.directory(b".wh..wh.plnk"), tm.file(b".wh..wh.aufs"))
    assert place.tree() == []


def test_opaque_marks_stay_inside_a_linked_directory(place: Place) -> None:
    target = bytes(place.outside)
    place.unpack(
        tm.directory(target),
        tm.symlink(b"a", target),
        tm.file(b"a/.wh..wh..opq"),
        tm.file(b"a/.wh.file"),
    )
    assert is_opaque(place.twin())
    assert is_whiteout(place.twin() / "file")


# --- escapes ---------------------------------------------------------------------------------


@pytest.mark.row("CVE-2026-17106", "resolved below the layer's own root, or refused")
def test_CVE_2026_17106_links_set_by_earlier_entries(place: Place) -> None:
    target = bytes(place.outside)
    # Where the link leads to nothing inside, nothing is made through it.
    place.refuses(tm.symlink(b"x", target), tm.file(b"x/f", b"evil"))
    place.unpack(tm.directory(target), tm.file(b"x/f", b"inside"))
    assert (place.twin() / "f").read_bytes() == b"inside"
    up = b"../" * 30 + target[1:]
    place.unpack(tm.symlink(b"y", up), tm.file(b"y/g"), tm.symlink(b"z", b".."), tm.file(b"z/h"))
    assert (place.twin() / "g").exists()
    assert (place.root / "h").exists()


def test_existing_files_are_not_written_through_links(place: Place) -> None:
    secret = bytes(place.outside) + b"/file"
    place.unpack(tm.symlink(b"f", secret), tm.file(b"f", b"evil", mode=0o777))
    assert (place.root / "f").read_bytes() == b"evil"
    place.unpack(tm.symlink(b"up", b"../outside/file"), tm.file(b"up", b"evil"))
    assert not (place.root / "up").is_symlink()


def test_chains_of_links(place: Place) -> None:
    chain = [tm.symlink(b"l%d" % n, b"l%d" % (n + 1)) for n in range(30)]
    place.unpack(*chain, tm.symlink(b"l30", b"/end"), tm.directory(b"end"), tm.file(b"l0/f"))
    assert (place.root / "end/f").exists()
    endless = [tm.symlink(b"m%d" % n, b"m%d" % (n + 1)) for n in range(60)]
    place.refuses(*endless, tm.symlink(b"m60", b"/"), tm.file(b"m0/f"), match="symbolic links")
    place.refuses(tm.symlink(b"loop", b"loop"), tm.file(b"loop/f"))


def test_directories_that_become_links_and_back(place: Place) -> None:
    target = bytes(place.outside)
    place.unpack(
        tm.directory(target), tm.directory(b"d"), tm.file(b"d/1"),
        tm.symlink(b"d", target), tm.file(b"d/2"),
        tm.directory(b"d"), tm.file(b"d/3"),
    )  # fmt: skip
    assert (place.root / "d/3").exists()
    assert not (place.root / "d/2").exists()
    assert (place.twin() / "2").exists()
    place.unpack(
        tm.directory(b"p/q"), tm.file(b"p/q/1"), tm.symlink(b"p", target), tm.file(b"p/q/f")
    )
    assert (place.twin() / "q/f").exists()


@pytest.mark.row("CVE-2021-32760", "metadata is set on the descriptor of what was just made")
def test_CVE_2021_32760_metadata_does_not_follow_links(place: Place) -> None:
    target = bytes(place.outside) + b"/file"
    place.unpack(
        tm.file(b"f", mode=0o777, mtime=1), tm.symlink(b"f", target),
        tm.directory(b"d", 0o777, mtime=2), tm.symlink(b"d", bytes(place.outside)),
        tm.pax((b"SCHILY.xattr.user.evil", b"1")), tm.symlink(b"x", target),
    )  # fmt: skip
    assert os.readlink(place.root / "d") == str(place.outside)


@pytest.mark.row("GHSA-9rww", "a hard link is to a file of the same layer, never through a link")
@pytest.mark.parametrize(
    "target",
    [b"/etc/passwd", b"missing", b"d", b"d/../d", b"/", b".", b"", b"../outside/file", b"../../x"],
)
def test_hard_links_to_what_is_not_a_file_of_this_layer(place: Place, target: bytes) -> None:
    place.refuses(tm.directory(b"d"), tm.hard_link(b"h", target))
    assert not (place.root / "h").exists()


def test_hard_links_through_links_stay_inside(place: Place) -> None:
    target = bytes(place.outside)
    place.refuses(tm.symlink(b"out", target), tm.hard_link(b"h", b"out/file"), match="no such file")
    # gh-157190: a hard link to a symbolic link is that link, never what it points to.
    place.unpack(tm.symlink(b"s", target + b"/file"), tm.hard_link(b"t", b"s"))
    assert os.readlink(place.root / "t") == str(place.outside / "file")
    place.unpack(tm.hard_link(b"t", b"s"), tm.file(b"t", b"own"))
    assert (place.root / "t").read_bytes() == b"own"


def test_a_hard_link_to_itself(place: Place) -> None:
    place.unpack(tm.file(b"f", b"x"), tm.hard_link(b"f", b"f"), tm.hard_link(b"./f", b"/f"))
    assert (place.root / "f").read_bytes() == b"x"
    place.refuses(tm.hard_link(b"new", b"new"))


@pytest.mark.row("CVE-2021-29136", "the layer is refused; the store stays as it is")
@pytest.mark.parametrize("name", [b"", b".", b"./", b"/", b"//", b"./.", b"..", b"../", b"/.."])
@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"6"])
def test_CVE_2021_29136_the_root_cannot_be_replaced(place: Place, name: bytes, kind: bytes) -> None:
    place.unpack(tm.file(b"f", b"kept"))
    place.refuses(tm.header(name, kind, link=b"f"))
    assert place.tree() == ["f"]


@pytest.mark.parametrize("name", [b"../f", b"a/../../f", b"a/..", b"/../f", b"./../outside/f"])
def test_paths_with_dots_are_refused(place: Place, name: bytes) -> None:
    place.refuses(tm.directory(b"a"), tm.file(name, b"evil"), match=r"'\.\.'")


def test_absolute_and_odd_paths_mean_the_root(place: Place) -> None:
    place.unpack(tm.file(b"/etc/x"), tm.file(b"//etc//y"), tm.file(b"././etc/./z"))
    assert place.tree() == ["etc", "etc/x", "etc/y", "etc/z"]


def test_magic_links_are_refused(place: Place) -> None:
    place.refuses(
        tm.symlink(b"p", b"/proc/self/cwd"), tm.directory(b"proc/self"),
        tm.symlink(b"proc/self/cwd", b"/proc/self/cwd"), tm.file(b"p/f"),
    )  # fmt: skip


@pytest.mark.row("CVE-2025-4517", "the chain past the longest path is refused")
def test_CVE_2025_4517_a_path_longer_than_the_kernel_takes(place: Place) -> None:
    """The deep directory and link chain that wrote outside with tarfile's filter="data"."""
    component = b"d" * 247
    entries, path = [], b""
    for step in b"abcdefghijklmnop":
        entries.append(tm.pax((b"path", path + component)) + tm.directory(b"x"))
        entries.append(tm.pax((b"path", path + bytes((step,)))) + tm.symlink(b"x", component))
        path += bytes((step, 0x2F))
    last = path + b"l" * 254
    entries.append(tm.pax((b"path", last), (b"linkpath", b"../" * 16)) + tm.symlink(b"x", b"y"))
    entries.append(
        tm.pax((b"path", b"escape"), (b"linkpath", last + b"/../outside")) + tm.symlink(b"x", b"y")
    )
    entries.append(tm.file(b"escape/file", b"evil"))
    entries.append(tm.hard_link(b"flag", b"escape/file"))
    with pytest.raises(ImageError):
        place.unpack(*entries)


# --- control that a layer must not have ------------------------------------------------------


@pytest.mark.row("overlay xattrs", "overlay's own attributes are left out")
def test_CVE_overlay_attributes_are_stripped(place: Place) -> None:
    names = (b"redirect", b"opaque", b"metacopy", b"whiteout", b"origin", b"data-only")
    bad = [(b"SCHILY.xattr.user.overlay." + name, b"y") for name in names]
    others = (b"trusted.overlay.opaque", b"user.containers.x", b"security.selinux", b"", b"user.")
    bad += [(b"SCHILY.xattr." + name, b"y") for name in others]
    done = place.unpack(
        tm.pax(*bad, (b"SCHILY.xattr.user.fine", b"kept\0")), tm.directory(b"d"),
        tm.pax(*bad), tm.file(b"f"),
        tm.pax(*bad), tm.directory(b"./"),
    )  # fmt: skip
    assert os.listxattr(place.root / "d") == ["user.fine"]
    assert os.getxattr(place.root / "d", "user.fine") == b"kept\0"
    assert os.listxattr(place.root / "f") == []
    assert os.listxattr(place.root) == []
    assert done.ignored_xattrs >= 30


@pytest.mark.row("devices in layers", "left out, and hide nothing; odd numbers are refused")
def test_devices_are_left_out_and_hide_nothing(place: Place) -> None:
    done = place.unpack(
        tm.header(b"zero", b"3"), tm.header(b"sda", b"4", device=(8, 0)),
        tm.file(b"kept", b"x"), tm.header(b"kept", b"3"), tm.header(b"null", b"3", device=(1, 3)),
    )  # fmt: skip
    assert place.tree() == ["kept"]
    assert done.skipped_devices == 4
    place.refuses(tm.header(b"x", b"3", device=(1 << 40, 1)), match="out of range")


def test_a_whiteout_cannot_be_linked(place: Place) -> None:
    place.refuses(tm.file(b".wh.gone"), tm.hard_link(b"other", b"gone"))


# --- bombs -----------------------------------------------------------------------------------


def test_too_many_entries(place: Place) -> None:
    files = [tm.file(b"f%d" % number) for number in range(11)]
    with pytest.raises(ImageError, match="more than 10 files"):
        place.unpack(*files, limits=Limits(entries=10))


def test_too_much_content(place: Place) -> None:
    with pytest.raises(ImageError, match="larger than 1000 bytes"):
        place.unpack(tm.file(b"f", b"x" * 2000), limits=Limits(content_bytes=1000))


def test_a_sparse_file_counts_with_its_holes(place: Place) -> None:
    records = ((b"GNU.sparse.size", b"%d" % 2**40), (b"GNU.sparse.map", b"0,1"))
    place.refuses(tm.pax(*records), tm.file(b"s", b"x"), match="larger than")


def test_endless_data_after_the_end(place: Place) -> None:
    with pytest.raises(ImageError, match="after the end"):
        place.unpack(tm.archive() + b"x" * 5000000, limits=Limits(trailing_bytes=1000))


def test_deep_directories(place: Place) -> None:
    place.unpack(tm.pax((b"path", b"d/" * 2000 + b"f")), tm.file(b"x"))
    place.refuses(tm.pax((b"path", b"d/" * 50000 + b"f")), tm.file(b"x"), match="too long")


def test_replacing_a_deep_tree_needs_no_recursion(place: Place) -> None:
    step = b"d/" * 1000
    # Through the link the second half is reached by a path that the kernel takes.
    place.unpack(
        tm.directory(b"top/" + step),
        tm.symlink(b"l", b"/top/" + step),
        tm.directory(b"l/" + b"e/" * 1500),
        tm.file(b"top", b"flat"),
        tm.file(b"l", b"too"),
    )
    assert place.tree() == ["l", "top"]


def test_many_attributes(place: Place) -> None:
    records = [(b"SCHILY.xattr.user.n%d" % number, b"v" * 50) for number in range(10000)]
    assert place.unpack(tm.pax(*records), tm.file(b"f")).ignored_xattrs > 9000


# --- anything at all -------------------------------------------------------------------------

NAME = st.sampled_from(
    [b"a", b"b", b"a/b", b"b/a", b"a/b/c", b"./a", b"/b", b"..", b"a/../b", b".wh.a", b"a/.wh.b",
     b"b/.wh..wh..opq", b".wh..wh..opq", b"", b".", b".wh.."]
)  # fmt: skip
TARGET = st.sampled_from(
    [b"a", b"/b", b"..", b"../outside", b"../outside/file", b"a/b", b"/", b"b"]
)
ENTRY = st.one_of(
    st.builds(tm.file, NAME, st.binary(max_size=9)),
    st.builds(tm.directory, NAME),
    st.builds(tm.symlink, NAME, TARGET),
    st.builds(tm.hard_link, NAME, TARGET),
    st.builds(lambda name, kind: tm.header(name, kind), NAME, st.sampled_from([b"3", b"4", b"6"])),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(ENTRY, max_size=12))
def test_no_sequence_of_entries_leaves_the_root(entries: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Place(Path(directory))
        # The collector closes what earlier tests have left to it.
        gc.disable()
        try:
            open_fds = len(os.listdir("/proc/self/fd"))
            with contextlib.suppress(ImageError):
                place.unpack(*entries)
            assert len(os.listdir("/proc/self/fd")) == open_fds
        finally:
            gc.enable()
