"""Both halves of a copy, between two directories that stand for roots."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING, NamedTuple

import pytest

from rootlesspy.engine.files import copy_place, extract
from rootlesspy.engine.files.copy_place import Place
from rootlesspy.errors import Conflict, Error, NotFound

if TYPE_CHECKING:
    from pathlib import Path

_OPTIONS = extract.Options(top=b"", overwrite=False, keep_owners=False, to_host=False)


def open_fds() -> set[int]:
    """Return the descriptors of this process, without the one that lists them."""
    listed = os.listdir("/proc/self/fd")
    return {int(name) for name in listed if os.path.lexists(f"/proc/self/fd/{name}")}


class Roots(NamedTuple):
    """The two roots, and a directory beside them that nothing may reach."""

    source: Path
    target: Path
    outside: Path

    def copy(self, path: str, to: str, options: extract.Options = _OPTIONS) -> None:
        """Copy from one root into the other."""
        before = open_fds()
        reader, writer = os.pipe()
        failed: list[BaseException] = []
        fds = [os.open(each, os.O_PATH | os.O_DIRECTORY) for each in (self.source, self.target)]

        def send() -> None:
            try:
                copy_place.send(fds[0], Place("c", path, path), writer, named=False)
            except (Error, OSError) as error:
                failed.append(error)
            finally:
                os.close(writer)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            copy_place.receive(fds[1], Place("d", to, to), reader, options, archive=False)
        except Error:
            if not failed:
                raise
        finally:
            os.close(reader)
            thread.join()
            # Each half is a process of its own, whose end closes what it has open.
            for fd in open_fds() - before:
                os.close(fd)
        if failed:
            raise failed[0]


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """Make both roots: a file, a directory, links; an empty target with /in and /file."""
    made = Roots(*(tmp_path / name for name in ("source", "target", "outside")))
    for each in made:
        each.mkdir()
    (made.outside / "secret").write_text("token")
    (made.source / "f").write_text("f")
    (made.source / "d/sub").mkdir(parents=True)
    (made.source / "d/sub/x").write_text("x")
    (made.source / "link").symlink_to("f")
    (made.source / "dirlink").symlink_to("/d")
    (made.target / "in").mkdir()
    (made.target / "file").write_text("old")
    return made


@pytest.mark.parametrize(
    ("source", "target", "there"),
    [
        ("/f", "/new", "new"),
        ("/f", "/in", "in/f"),
        ("/f", "/in/", "in/f"),
        ("/f", "/in/.", "in/f"),
        ("/f", "/file", "file"),
        ("/link", "/in", "in/f"),
        ("/link", "/new", "new"),
        ("/d", "/in", "in/d/sub/x"),
        ("/d", "/new", "new/sub/x"),
        ("/d/", "/in", "in/d/sub/x"),
        ("/d/.", "/in", "in/sub/x"),
        ("/d/.", "/new", "new/sub/x"),
        ("/d/sub/..", "/in", "in/sub/x"),
        ("/dirlink", "/in", "in/d/sub/x"),
        ("/dirlink/sub", "/in", "in/sub/x"),
        ("/", "/new", "new/d/sub/x"),
        ("/.", "/in", "in/d/sub/x"),
        ("/f", "/../../in/../new", "new"),
    ],
)
def test_where_it_goes(roots: Roots, source: str, target: str, there: str) -> None:
    roots.copy(source, target)
    found = roots.target / there
    assert stat.S_ISREG(found.lstat().st_mode)
    assert found.read_text() == ("x" if there.endswith("x") else "f")


@pytest.mark.parametrize(
    ("source", "target", "kind", "words"),
    [
        ("/none", "/in", NotFound, "could not be found on container c"),
        ("/f/", "/in", NotFound, "could not be found on container c"),
        ("/f", "/none/x", NotFound, "could not be found on container d"),
        ("/f", "/new/", NotFound, "could not be found on container d"),
        ("/f", "/file/x", NotFound, "could not be found on container d"),
        ("/f", "/none/..", NotFound, "could not be found on container d"),
        ("/f", "/file/", Conflict, "exists but is not a directory"),
        ("/d", "/file", Conflict, "destination must be a directory"),
        ("/d/.", "/file", Conflict, "destination must be a directory"),
    ],
)
def test_refusals(roots: Roots, source: str, target: str, kind: type[Error], words: str) -> None:
    with pytest.raises(kind, match=words):
        roots.copy(source, target)
    assert sorted(os.listdir(roots.target)) == ["file", "in"]
    assert (roots.target / "file").read_text() == "old"


@pytest.mark.parametrize("link", ["/", "../..", "/outside", "../outside", "/proc/self/root"])
def test_links_stay_below_the_root(roots: Roots, link: str) -> None:
    (roots.target / "way").symlink_to(link)
    (roots.source / "way").symlink_to(link)
    for source, target in (("/f", "/way/secret"), ("/way/secret", "/in"), ("/f", "/way")):
        try:
            roots.copy(source, target)
        except Error:
            continue
    assert (roots.outside / "secret").read_text() == "token"
    assert os.listdir(roots.outside) == ["secret"]
    assert not (roots.target / "in/secret").exists()


def test_a_link_that_dangles_is_written_through(roots: Roots) -> None:
    (roots.target / "dangling").symlink_to("in/made")
    roots.copy("/f", "/dangling")
    assert (roots.target / "in/made").read_text() == "f"


def test_a_loop_of_links_ends(roots: Roots) -> None:
    (roots.target / "loop").symlink_to("loop")
    with pytest.raises((OSError, Error)):
        roots.copy("/f", "/loop")


def test_other_kinds_are_replaced_only_when_asked(roots: Roots) -> None:
    (roots.target / "in/d").write_text("old")
    (roots.target / "in/f/full").mkdir(parents=True)
    for source in ("/d", "/f"):
        with pytest.raises(Conflict, match="cannot overwrite"):
            roots.copy(source, "/in")
    for source in ("/d", "/f"):
        roots.copy(source, "/in", _OPTIONS._replace(overwrite=True))
    assert (roots.target / "in/d/sub/x").read_text() == "x"
    assert (roots.target / "in/f").read_text() == "f"


def test_directories_are_merged_and_never_replace_links(roots: Roots) -> None:
    (roots.target / "in/d").mkdir()
    (roots.target / "in/d/kept").write_text("kept")
    (roots.target / "in/d/sub").symlink_to(roots.outside)
    with pytest.raises(Conflict, match="non-directory d/sub"):
        roots.copy("/d", "/in")
    assert (roots.target / "in/d/kept").read_text() == "kept"
    assert os.listdir(roots.outside) == ["secret"]


def test_modes_times_links_and_holes(roots: Roots) -> None:
    d = roots.source / "d"
    os.link(d / "sub/x", d / "same")
    (d / "sub").chmod(0o555)
    with open(d / "holes", "wb") as file:
        file.truncate(8 << 20)
    (d / "suid").write_text("s")
    (d / "suid").chmod(0o4755)
    os.utime(d, ns=(0, 1_500_000_001))
    roots.copy("/d", "/in", _OPTIONS._replace(to_host=True))
    made = roots.target / "in/d"
    assert made.stat().st_mtime_ns == 1_500_000_001
    assert (made / "same").stat().st_ino == (made / "sub/x").stat().st_ino
    assert stat.S_IMODE((made / "sub").stat().st_mode) == 0o555
    assert stat.S_IMODE((made / "suid").stat().st_mode) == 0o755
    assert (made / "holes").stat().st_blocks == 0
    for each in (d, made):
        (each / "sub").chmod(0o755)


def test_what_was_there_is_replaced_not_written_to(roots: Roots) -> None:
    """Whoever has the old file open, or another link to it, keeps it whole."""
    os.link(roots.target / "file", roots.target / "other")
    roots.copy("/f", "/file")
    assert (roots.target / "other").read_text() == "old"
    assert sorted(os.listdir(roots.target)) == ["file", "in", "other"]
