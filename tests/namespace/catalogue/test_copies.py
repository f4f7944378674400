"""`rp cp`: archives that lie, links, special files, a copy that dies: SECURITY.md J."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from namespace import hostile
from namespace.hostile import ACCOUNTS, OUT, TOKEN_FILE, UP, Host, harmless
from rig import ociimage
from rig.ociimage import Entry, directory, hard_link, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

RUN = ("rp", "run", "-d", "--net=none")
PLACE = "/home/alice/copies"


@pytest.fixture(scope="module")
def host(rig: Machine, _fresh_start: None) -> Iterator[Host]:
    """Return the machine with canaries."""
    yield from hostile.prepare(rig)


@pytest.fixture(scope="module")
def box(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Run a container whose files lie in wait for who copies them, and make a place to copy to."""
    out = f"x/d/{UP}{OUT}"
    entries = [
        *hostile.base(host.machine, tmp_path_factory.mktemp("probe")), *ACCOUNTS,
        directory("x/d"), symlink("x/abs", OUT), symlink("x/up", UP + OUT), directory(OUT[1:]),
        Entry("x/fifo", kind=ociimage.FIFO), Entry("x/setuid", data=b"x", mode=0o6755),
        symlink("x/secret", TOKEN_FILE), Entry("x/[a*?]", data=b"glob"), Entry("x/a", data=b"a"),
        Entry("x/sparse", pax={"GNU.sparse.size": str(1 << 30), "GNU.sparse.map": f"{1 << 30},0"}),
        Entry("x/caps", data=b"x", pax={"SCHILY.xattr.security.capability":
              b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12),
              "SCHILY.xattr.user.kept": b"1"}),
    ]  # fmt: skip
    assert out
    image = ociimage.image([ociimage.tar(entries)], {"Cmd": ["/probe"]})
    hostile.load(host.machine, {"copies": image})
    host.machine.run([*RUN, "--name", "copies", "localhost/copies", "sleep", "1000"])
    host.machine.run(["sh", "-c", f"rm -rf {PLACE}; mkdir -p {PLACE}/dst; cd {PLACE}; echo f >f"])
    yield host
    host.machine.run(["rp", "rm", "--force", "--time", "0", "copies"])
    host.machine.run(["sh", "-c", f"chmod -R u+rwX {PLACE}; rm -rf {PLACE}"])


@pytest.mark.row("CVE-2019-10152", "links are resolved inside the container")
@pytest.mark.row("CVE-2019-18466", "no character of a name is a pattern")
def test_cve_2019_10152_links_and_patterns(box: Host) -> None:
    machine = box.machine
    for argv in (
        ["rp", "cp", f"{PLACE}/f", "copies:/x/abs"],
        ["rp", "cp", f"{PLACE}/f", "copies:/x/up/g"],
        ["rp", "cp", "copies:/x/secret", f"{PLACE}/secret"],
        ["rp", "cp", f"{PLACE}/f", "copies:/x/secret"],
        ["rp", "cp", "copies:/x/[a*?]", f"{PLACE}/glob"],
        ["rp", "cp", "copies:/x/[a]", f"{PLACE}/none"],
    ):
        harmless(box.one(*argv), (0, 125))
    inside = machine.run(["rp", "exec", "copies", "/bin/ls", OUT]).stdout
    assert inside.split() == ["f", "g"]
    assert machine.run(["cat", f"{PLACE}/glob"]).stdout == "glob"
    assert machine.run(["ls", PLACE]).stdout.split() == ["dst", "f", "glob"]


@pytest.mark.row("copy-out", "all is below the destination, no link followed, setuid dropped")
def test_copy_out_what_lies_in_wait_on_both_sides(box: Host) -> None:
    machine = box.machine
    # Links that stand in the destination, with names that come.
    links = f"cd {PLACE}/dst; ln -s {OUT} d; ln -s {TOKEN_FILE} a; ln -s {OUT}/new setuid"
    machine.run(["sh", "-c", links])
    harmless(box.one("rp", "cp", "copies:/x/.", f"{PLACE}/dst"), (125,))
    machine.run(["rm", f"{PLACE}/dst/d"])
    harmless(box.one("rp", "cp", "copies:/x/.", f"{PLACE}/dst"), (0,))
    modes = machine.run(["sh", "-c", f"cd {PLACE}/dst; stat -c '%a %F' setuid a; readlink abs"])
    assert modes.stdout == f"755 regular file\n644 regular file\n{OUT}\n"
    assert machine.run(["sh", "-c", f"du -k {PLACE}/dst/sparse | cut -f1"]).stdout.strip() < "9"
    names = f"import os; print(os.listxattr('{PLACE}/dst/caps'))"
    assert machine.run(["python3", "-c", names]).stdout == "['user.kept']\n"
    assert machine.run(["ls", "-A", OUT]).stdout == ""


ARCHIVES = {
    "up": [Entry(f"{UP}{OUT}/f", data=b"x")],
    "absolute": [Entry(f"{OUT}/f", data=b"x")],
    "link": [symlink("l", OUT), Entry("l/f", data=b"x")],
    "link up": [symlink("l", UP + OUT), Entry("l/f", data=b"x")],
    "hard link": [hard_link("h", TOKEN_FILE), hard_link("i", UP + TOKEN_FILE)],
    "hard link through a link": [symlink("l", "/tmp/rig"), hard_link("h", "l/secret")],
    "root": [symlink(".", OUT)],
    "file": [symlink("f", f"{OUT}/f"), Entry("f", data=b"x", mode=0o4755)],
    "device": [Entry("null", kind=ociimage.CHARACTER, device=(1, 3))],
    "directory": [symlink("d", OUT), directory("d", 0o777), Entry("d/f", data=b"x")],
}


@pytest.mark.row("copy-out", "archives that lie end inside the container or are refused")
@pytest.mark.parametrize("name", ARCHIVES)
def test_copy_in_archives_that_lie(box: Host, name: str) -> None:
    box.machine.run(["sh", "-c", f"cat >{PLACE}/lies.tar"], input=ociimage.tar(ARCHIVES[name]))
    put = f"rp cp - copies:/x/d <{PLACE}/lies.tar"
    harmless(box.one("sh", "-c", put), (0, 125))
    assert box.machine.run(["ls", "-A", OUT]).stdout == ""


@pytest.mark.row("frozen by cp", "cp freezes nothing: killed at any moment, the container goes on")
@pytest.mark.row("CVE-2018-15664", "a copy that is killed leaves no mount and no process")
def test_frozen_by_cp_killed_copies(box: Host) -> None:
    machine = box.machine
    before = machine.snapshot()
    script = f"""
        cd {PLACE}
        for delay in 0.05 0.1 0.2 0.3 0.4 0.6; do
            rp cp copies:/x/sparse killed & pid=$!; sleep $delay; kill -9 $pid; wait
            rp cp /usr/bin copies:/killed & pid=$!; sleep $delay; kill -9 $pid; wait
        done 2>/dev/null
        cat /sys/fs/cgroup$(systemctl --user show -P ControlGroup rp-copies.scope)/cgroup.freeze
        cat /sys/fs/cgroup$(systemctl --user show -P ControlGroup rp-copies.scope)/*/cgroup.freeze
        rp inspect -f '{{{{.State.Status}}}}' copies"""
    said = machine.run(["sh", "-c", script]).stdout.split()
    assert said == ["0", "0", "running"]
    harmless(box.one("rp", "exec", "copies", "/bin/ls", "/x"), (0,))
    machine.assert_same(before, ignore=("home", "sockets"))


@pytest.mark.row("commit and diff", "special files are described, sparse ones stay sparse")
def test_commit_of_special_files(box: Host) -> None:
    machine = box.machine
    # How much the copies that were killed left depends on how fast the machine is.
    make = """rm -rf /killed; /bin/busybox mkfifo /pipe; /bin/busybox truncate -s 1G /holes
        /bin/ln -s /tmp/rig/secret /link; /bin/busybox nc -l -p 1 -s 127.0.0.1 & :"""
    machine.run(["rp", "exec", "copies", "sh", "-c", make])
    harmless(box.one("rp", "diff", "copies"), (0,))
    used = ["du", "-sk", "/home/alice/.local/share/rootlesspy/images"]
    before_kib = int(machine.run(used).stdout.split()[0])
    outcome = harmless(box.one("rp", "commit", "-q", "copies", "localhost/special"), (0,))
    assert outcome.peak_kib < 150 << 10
    # Of two files of 1 GiB each nothing is stored.
    assert int(machine.run(used).stdout.split()[0]) - before_kib < 16 << 10
    assert box.holders_of_the_token() == ""
    machine.run(["rp", "rmi", "-f", "localhost/special"])
