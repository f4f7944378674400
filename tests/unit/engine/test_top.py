"""The processes of a container as they are inside: this process stands in for one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rootlesspy.engine.views import stats, top
from rootlesspy.engine.views.top import Ids

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def child() -> Iterator[int]:
    """Return the pid of a child that waits until this process ends."""
    with subprocess.Popen(
        [sys.executable, "-c", "input('x')", "a b"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        # Until it runs the kernel may not have its arguments yet.
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        yield process.pid


def test_processes_of_a_cgroup(child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.getpid()
    monkeypatch.setattr(stats, "scope_directory", lambda pid: "/c")
    monkeypatch.setattr(stats, "processes", lambda directory: [own, child, 2**22 + 1])
    found = {each.pid.host: each for each in top.processes(own)}
    assert set(found) == {own, child}
    mine, theirs = found[own], found[child]
    assert theirs.ppid == mine.pid.inside
    assert mine.ppid == 0, "its parent is not one of the container's"
    assert theirs.args == f"{sys.executable} -c input('x') a b"
    assert theirs.uid.host == os.getuid()
    assert theirs.gid.host == os.getgid()
    assert mine.pgid == os.getpgid(0)
    assert theirs.state in "SRD"
    assert 0 <= theirs.elapsed_s <= mine.elapsed_s
    assert mine.rss_bytes < mine.vsz_bytes
    assert set(mine.capabilities) == {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}


def test_without_a_cgroup_the_namespace_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "scope_directory", lambda pid: None)
    assert os.getpid() in {each.pid.host for each in top.processes(os.getpid())}


def test_gone() -> None:
    assert top.processes(2**22 + 1) == []
    assert top.names_inside(2**22 + 1) == top.Names({}, {})


@pytest.mark.parametrize(
    ("host", "inside"),
    [(1000, 0), (100000, 1), (100004, 5), (100005, 65534), (0, 65534)],
)
def test_ids_are_mapped_back(host: int, inside: int) -> None:
    assert top._ids(host, ((0, 1000, 1), (1, 100000, 5))) == Ids(inside, host)


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "?"), (os.makedev(136, 5), "pts/5"), (os.makedev(137, 1), "pts/257"),
     (os.makedev(4, 1), "tty1"), (os.makedev(9, 1), "?")],
)  # fmt: skip
def test_terminals(number: int, name: str) -> None:
    assert top._tty(number) == name


def test_odd_lines_of_an_images_passwd_are_left_out(tmp_path: Path) -> None:
    lines = "root:x:0:0::/:\nevil\n:x:5:5\nneg:x:-1:0\nhuge:x:99999999999:0\ntwo:x:0:0\nb:x:7:7::"
    (tmp_path / "passwd").write_text(lines)
    root_fd = os.open(tmp_path, os.O_PATH)
    try:
        assert top._names(root_fd, "passwd") == {0: "root", 7: "b"}
        assert top._names(root_fd, "missing") == {}
        os.mkfifo(tmp_path / "fifo")
        assert top._names(root_fd, "fifo") == {}
    finally:
        os.close(root_fd)
