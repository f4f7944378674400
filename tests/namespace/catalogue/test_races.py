"""A container exchanges directories and links while others are started: SECURITY.md A, J.

One container (tests/data/probe/racer.c) swaps names in three directories that all others share: a
volume that they mount into, a volume that is their /dev, and a root file system.  Every command is
between two looks at what an escape would reach (namespace.hostile).
"""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest
from namespace import hostile
from namespace.hostile import ACCOUNTS, OUT, Host, Outcome, harmless
from rig import ociimage
from rig.effort import effort

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rig.machine import Machine

pytestmark = pytest.mark.limit(300)

IMAGE = "localhost/race"
RANGE = "/proc/sys/net/ipv4/ping_group_range"
MASKED = ("/proc/keys", "/proc/timer_list")
PLACE = "/home/alice/races"
# What is swapped with what, below PLACE; the fakes are complete enough to be worth writing to.
MAKE = f"""
rm -rf {PLACE}; mkdir -p {PLACE}/v/x {PLACE}/dev/pts {PLACE}/root {PLACE}/source/dir
cd {PLACE}
echo mine >source/file; chmod 755 . v root
ln -s {OUT} v/x.link
touch dev/null dev/console dev/zero
ln -s /proc/sys/kernel/core_pattern dev/null.link
ln -s /tmp/rig/f dev/console.link; ln -s {OUT} dev/pts.link; ln -s /tmp/rig/secret dev/zero.link
cd root
mkdir -p proc sys dev etc tmp fake/sys/net/ipv4 fake/sys/kernel fake/self
for file in sys/net/ipv4/ping_group_range keys timer_list kcore; do echo fake >fake/$file; done
ln -s /proc/sysrq-trigger fake/sys/net/ipv4/ip_forward
ln -s fake proc.link; ln -s {OUT} sys.link; ln -s {OUT} etc.link; ln -s {OUT} dev.link
ln -s /tmp tmp.link
"""
PAIRS = (
    *("/r/v/x", "/r/v/x.link", "/r/dev/null", "/r/dev/null.link", "/r/root/proc"),
    *("/r/root/proc.link", "/r/dev/console", "/r/dev/console.link", "/r/root/sys"),
    *("/r/root/sys.link", "/r/dev/pts", "/r/dev/pts.link", "/r/root/dev", "/r/root/dev.link"),
    *("/r/dev/zero", "/r/dev/zero.link", "/r/root/etc", "/r/root/etc.link"),
)
RUN = ("rp", "run", "--rm", "--net=none")
INTO = ("-v", f"{PLACE}/v:/v")


@pytest.fixture(scope="module")
def host(rig: Machine, _fresh_start: None) -> Iterator[Host]:
    """Return the machine with canaries."""
    yield from hostile.prepare(rig)


@pytest.fixture(scope="module")
def racing(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Run the container that swaps; a second one runs for what is copied."""
    machine = host.machine
    build = tmp_path_factory.mktemp("racer")
    entries = [*hostile.base(machine, build), *ACCOUNTS, hostile.racer(build)]
    hostile.load(machine, {"race": ociimage.image([ociimage.tar(entries)], {"Cmd": ["/probe"]})})
    machine.run(["sh", "-ec", MAKE])
    binary = next(each.data for each in entries if each.name == "racer")
    put = "cat >$0/root/racer; chmod 755 $0/root/racer"
    machine.run(["sh", "-c", put, PLACE], input=binary)
    machine.run([*RUN, "-d", "--name", "racer", "-v", f"{PLACE}:/r", IMAGE, "/racer", "swap",
                 *PAIRS])  # fmt: skip
    # A container that swaps a directory of its own, and looks as if it held the host's files.
    own = f"""
        mkdir -p /d.real{OUT} /d.real/home /e; ln -s / /d; ln -s {OUT} /e.link
        exec /racer swap /d /d.real /e /e.link"""
    machine.run([*RUN, "-d", "--name", "copied", *INTO, IMAGE, "sh", "-ec", own])
    for name in ("racer", "copied"):
        machine.run(["sh", "-c", f"until rp logs {name} | grep -q ready; do :; done"])
    yield host
    machine.run(["rp", "rm", "--force", "--time", "0", "racer", "copied"])
    machine.run(["rm", "-rf", PLACE])


def race(host: Host, commands: Sequence[Sequence[str]], codes: Sequence[int]) -> list[Outcome]:
    """Run commands again and again; return what those did that got through."""
    done = host.attempt(commands, for_s=effort(5, 60))
    for each in done:
        harmless(each, codes)
    assert host.machine.run(["ls", "-A", OUT]).stdout == ""
    assert host.machine.run(["rp", "ps", "-q"]).stdout.count("\n") == 2
    return [each for each in done if each.code == 0]


def swapped_directory_is_inside(outcome: Outcome) -> None:
    """Check that what was mounted below /v is in the container, wherever the link led."""
    told = [line.split() for line in outcome.report()["mountinfo"]]
    mounts = {words[4]: words[3] for words in told}
    tops = ("/v/x", OUT, "/v/x.link")
    found = [target for target in mounts if target.startswith(tops)]
    assert found, mounts


@pytest.mark.row("CVE-2021-30465", "each start fails with 125 or mounts inside")
@pytest.mark.row("CVE-2024-45310", "each start fails with 125 or makes directories inside")
def test_cve_2021_30465_target_below_a_swapped_directory(racing: Host) -> None:
    source = f"{PLACE}/source"
    through = race(
        racing,
        [
            [*RUN, *INTO, "-v", f"{source}:/v/x/y", IMAGE],
            [*RUN, *INTO, "-v", f"{source}/dir:/v/x/a/b/c", IMAGE],
            [*RUN, *INTO, "-v", f"{source}/file:/v/x/d/e/file", IMAGE],
            [*RUN, *INTO, "--tmpfs", "/v/x/t/u", IMAGE],
            [*RUN, *INTO, "--workdir", "/v/x/w/d", IMAGE],
        ],
        (0, 125, 126, 127),
    )
    for each in through:
        if "/w/d" not in each.report()["cwd"]:
            swapped_directory_is_inside(each)


@pytest.mark.row("CVE-2025-31133", "masks are the null device of the host, whatever /dev holds")
@pytest.mark.row("CVE-2025-52565", "the console is the terminal that rp made, or exit 125")
def test_cve_2025_31133_dev_with_swapped_nodes(racing: Host) -> None:
    dev = ("-v", f"{PLACE}/dev:/dev")
    look = [*RUN, *dev, IMAGE, "/probe", "look", *MASKED]
    through = race(
        racing,
        [look, [*RUN, "--tty", *dev, IMAGE], [*RUN, "--tty", *dev, IMAGE, *look[-4:]]],
        (0, 125, 126, 127),
    )
    for each in through:
        report = json.loads(each.stdout)
        if "tty" in report:
            # The payload's own terminal: by a descriptor, which no name leads astray.
            assert report["tty"]["0"] == report["tty"]["controlling"] == 1
            assert set(report["fds"]) == {"0", "1", "2"}
        else:
            for path in MASKED:
                found = report[path]
                assert (found["type"], found["major"], found["minor"]) == ("character", 1, 3)


@pytest.mark.row("CVE-2025-52881", "a sysctl is written to rp's own procfs, or the start fails")
@pytest.mark.row("CVE-2025-31133", "masks are made in rp's own procfs, whatever lies at /proc")
def test_cve_2025_52881_proc_that_is_swapped(racing: Host) -> None:
    root = ("--rootfs", f"{PLACE}/root")
    sysctl = ("--sysctl", "net.ipv4.ping_group_range=0 7")
    through = race(
        racing,
        [
            [*RUN, *sysctl, *root, "/racer", "witness", RANGE, *MASKED],
            [*RUN, "--sysctl", "net.ipv4.ip_forward=1", *root, "/racer", "witness", RANGE],
        ],
        (0, 125, 126, 127),
    )
    for each in through:
        told = json.loads(each.stdout)
        if MASKED[0] not in told:
            continue
        if told[RANGE] is not None:
            assert told[RANGE]["content"].split() == ["0", "7"], told
        for path in MASKED:
            if told[path] is not None:
                assert stat.S_ISCHR(told[path]["mode"]), told
                assert (told[path]["major"], told[path]["minor"]) == (1, 3)
    fake = racing.machine.run(["cat", f"{PLACE}/root/fake/sys/net/ipv4/ping_group_range"]).stdout
    assert fake == "fake\n"


@pytest.mark.row("CVE-2018-15664", "copies end inside the container or fail; nothing of the host")
def test_cve_2018_15664_copies_through_swapped_directories(racing: Host) -> None:
    """To and from a running container's own files and a volume that another one swaps."""
    file, back = f"{PLACE}/source/file", f"{PLACE}/back"
    outcomes = racing.attempt(
        [
            ["rp", "cp", file, f"copied:/d{OUT}/file"],
            ["rp", "cp", f"copied:/d{hostile.TOKEN_FILE}", back],
            ["rp", "cp", f"{PLACE}/source", "copied:/e/sub"],
            ["rp", "cp", "copied:/d/home", f"{PLACE}/backs"],
            ["rp", "cp", file, "copied:/v/x/written"],
            ["rp", "cp", "copied:/v/x/.", f"{PLACE}/backs"],
            ["rp", "cp", "copied:/d/.", "-"],
        ],
        for_s=effort(5, 60),
    )
    for each in outcomes[:6]:
        harmless(each, (0, 125))
    assert all(each.changed == () for each in outcomes)
    assert racing.machine.run(["ls", "-A", OUT]).stdout == ""
    tell = f"grep -rF {racing.token} {PLACE}/back {PLACE}/backs; find {PLACE}/back* -name alice; :"
    assert racing.machine.run(["sh", "-c", tell]).stdout == ""


@pytest.mark.row("commit and diff", "a directory that is swapped meanwhile leads nowhere")
def test_commit_and_diff_of_swapped_directories(racing: Host) -> None:
    race(
        racing,
        [["rp", "diff", "copied"], ["rp", "commit", "-q", "copied", "localhost/raced"],
         ["rp", "export", "-o", f"{PLACE}/raced.tar", "copied"]],
        (0, 125),
    )  # fmt: skip
    assert racing.holders_of_the_token() == ""
    # There is none where no export got through.
    told = racing.machine.run(["grep", "-sqF", racing.token, f"{PLACE}/raced.tar"], check=False)
    assert told.returncode in (1, 2)
