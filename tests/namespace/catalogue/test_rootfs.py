"""Images whose files lie in wait for whoever makes a root file system of them: SECURITY.md A.

All traps are loaded at once and sprung one after the other, each between two looks at what an
escape would reach (namespace.hostile).  A trap's container shows what it sees by the probe.
"""

from __future__ import annotations

import gzip
import itertools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from namespace import hostile
from namespace.hostile import ACCOUNTS, OUT, TOKEN_FILE, UP, Host, Outcome, harmless
from rig import ociimage
from rig.effort import nightly
from rig.ociimage import Blob, Entry, directory, hard_link, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rig.machine import Machine

LIMIT_KIB = 150 << 10
CHAIN = 41


class Trap(NamedTuple):
    """What an image holds above the base, and how it is run."""

    entries: Sequence[Entry] = ()
    config: Mapping[str, Any] = MappingProxyType({})
    options: tuple[str, ...] = ()
    run: tuple[str, ...] = ()

    def argv(self, name: str) -> list[str]:
        """Return the command that springs it."""
        network = () if any(each.startswith("--net") for each in self.options) else ("--net=none",)
        return ["rp", "run", "--rm", *network, *self.options, f"localhost/{name}", *self.run]


def chain(name: str, end: str) -> list[Entry]:
    """Return links that lead from a name through more of them than the kernel follows."""
    parts = [f"c{number}" for number in range(CHAIN)]
    links = [symlink(each, f"/{following}") for each, following in itertools.pairwise(parts)]
    return [symlink(name, "/c0"), *links, symlink(parts[-1], end)]


def text(name: str, data: bytes = b"", **more: Any) -> Entry:
    """Return a file."""
    return Entry(name, data=data, **more)


PROC = {
    "proc-absolute": Trap([symlink("proc", "/tmp"), directory("tmp")]),
    "proc-dangling": Trap([symlink("proc", OUT)]),
    "proc-upwards": Trap([symlink("proc", "../../..")]),
    "proc-file": Trap([text("proc", b"x")]),
    "proc-fifo": Trap([Entry("proc", kind=ociimage.FIFO)]),
    "sys-to-dev": Trap([symlink("sys", "dev")]),
    "sys-absolute": Trap([symlink("sys", "/tmp"), directory("tmp")]),
    "sys-file": Trap([text("sys", b"x")]),
}
DEV = {
    "dev-absolute": Trap([symlink("dev", OUT), directory(OUT[1:])]),
    "dev-upwards": Trap([symlink("dev", UP + OUT), directory(OUT[1:])]),
    "dev-dangling": Trap([symlink("dev", OUT)]),
    "dev-cwd": Trap([symlink("dev", "/proc/self/cwd")]),
    "dev-root": Trap([symlink("dev", f"/proc/self/root{OUT}"), directory(OUT[1:])]),
    "dev-null": Trap([directory("dev"), symlink("dev/null", "/proc/sys/kernel/core_pattern")]),
    "dev-nodes": Trap([
        directory("dev"), symlink("dev/null", TOKEN_FILE), symlink("dev/zero", f"{UP}{OUT}/zero"),
        symlink("dev/console", f"{OUT}/console"), symlink("dev/pts", OUT), symlink("dev/shm", OUT),
        symlink("dev/mqueue", OUT), symlink("dev/ptmx", f"{OUT}/ptmx"), text("dev/tty"),
    ]),
}  # fmt: skip
WORKDIRS = {
    "cwd-absolute": Trap([symlink("l", OUT)], {"WorkingDir": "/l/newdir"}),
    "cwd-inside": Trap([symlink("l", OUT), directory(OUT[1:])], {"WorkingDir": "/l/new/dir"}),
    "cwd-upwards": Trap([symlink("l", UP + OUT), directory(OUT[1:])], {"WorkingDir": "/l/newdir"}),
    "cwd-link": Trap([symlink("l", OUT)], {"WorkingDir": "/l"}),
    "cwd-magic": Trap([symlink("l", "/proc/self/cwd")], {"WorkingDir": "/l/newdir"}),
    "cwd-magic-root": Trap([symlink("l", f"/proc/1/root{OUT}")], {"WorkingDir": "/l/newdir"}),
    "cwd-chain": Trap(chain("l", OUT), {"WorkingDir": "/l/newdir"}),
    "cwd-file": Trap([text("l")], {"WorkingDir": "/l/newdir"}),
    "cwd-dots": Trap([directory("a")], {"WorkingDir": f"/a/{UP}{OUT}/dots"}),
    "cwd-user": Trap([symlink("l", OUT)], {"WorkingDir": "/l/newdir", "User": "1000"}),
}
SECRET = ("--secret", "s6", "--secret", "s6,target=/l/sub/secret")
ETC_FILES = ("resolv.conf", "hosts", "hostname", "mtab", "localtime")
ETC = {
    "etc-absolute": Trap([symlink("etc", OUT)], options=("--tz=UTC",)),
    "etc-inside": Trap([symlink("etc", OUT), directory(OUT[1:])]),
    "etc-upwards": Trap([symlink("etc", UP + OUT), directory(OUT[1:])], options=("--net=pasta",)),
    "etc-files": Trap(
        [directory("etc"), *(symlink(f"etc/{each}", f"/tmp/rig/{each}") for each in ETC_FILES)],
        options=("--net=pasta",),
    ),
    "etc-files-inside": Trap(
        [directory("tmp/rig"), *(symlink(f"etc/{each}", "/tmp/rig/f") for each in ETC_FILES)],
        options=("--net=pasta",),
    ),
    "etc-files-upwards": Trap([symlink(f"etc/{each}", f"{UP}/tmp/rig/f") for each in ETC_FILES]),
    "etc-files-magic": Trap(
        [symlink(f"etc/{each}", "/proc/self/fd/2") for each in ETC_FILES],
    ),
    "etc-chain": Trap(
        [*chain("l", OUT), *(symlink(f"etc/{each}", "/l/x") for each in ETC_FILES)],
    ),
    "etc-fifos": Trap([Entry(f"etc/{each}", kind=ociimage.FIFO) for each in ETC_FILES]),
    "etc-hard": Trap([text("x", b"x"), *(hard_link(f"etc/{each}", "x") for each in ETC_FILES)]),
    "secret-absolute": Trap([symlink("run", OUT), symlink("l", OUT)], options=SECRET),
    "secret-inside": Trap(
        [symlink("run/secrets", OUT), symlink("l", "/tmp/rig"), directory(OUT[1:])], options=SECRET
    ),
    "secret-upwards": Trap(
        [symlink("run/secrets", UP + OUT), symlink("l", UP + "/tmp/rig"), directory(OUT[1:])],
        options=SECRET,
    ),
    "secret-file": Trap([directory("l/sub"), symlink("l/sub/secret", TOKEN_FILE)], options=SECRET),
    "secret-chain": Trap([*chain("l", OUT), symlink("run/secrets", "/l/x")], options=SECRET),
}  # fmt: skip
BOB = ("--user", "bob")
PASSWD = {
    f"{file}-{kind}": Trap([directory("etc"), entry], options=options)
    for file, options in (("passwd", BOB), ("group", ("--user", "1000:extra")))
    for kind, entry in {
        "fifo-outside": symlink(f"etc/{file}", "/tmp/rig/fifo"),
        "outside": symlink(f"etc/{file}", UP + TOKEN_FILE),
        "zero": symlink(f"etc/{file}", "/dev/zero"),
        "tty": symlink(f"etc/{file}", "/dev/tty"),
        "self": symlink(f"etc/{file}", "/proc/self/fd/0"),
        "kmsg": symlink(f"etc/{file}", "/proc/kmsg"),
        "fifo": Entry(f"etc/{file}", kind=ociimage.FIFO),
        "device": Entry(f"etc/{file}", kind=ociimage.CHARACTER, device=(1, 5)),
        "directory": directory(f"etc/{file}"),
        "loop": symlink(f"etc/{file}", file),
    }.items()
}


def sparse(name: str, size: int) -> Entry:
    """Return a file of zeros that takes no room in the layer (pax sparse format 0.1)."""
    return Entry(name, pax={"GNU.sparse.size": str(size), "GNU.sparse.map": f"{size},0"})


def full(line: bytes, size: int) -> bytes:
    """Return lines that fill a file up to a size."""
    return line * (size // len(line))


ALMOST = (16 << 20) - 64
HUGE = {
    "huge-sparse": Trap([sparse("etc/passwd", 4 << 30)], options=BOB),
    "huge-line": Trap([sparse("etc/passwd", 512 << 20)], options=BOB),
    "huge-groups": Trap([ACCOUNTS[1], text("etc/group", full(b"g:x:1:\n", 70 << 20))], options=BOB),
    "huge-sparse-groups": Trap([ACCOUNTS[1], sparse("etc/group", 4 << 30)], options=BOB),
}
# What is still read is read in little memory.
LARGE = {
    "large-passwd": Trap([text("etc/passwd", full(b"::::::\n", ALMOST))], options=BOB),
    "large-newlines": Trap([text("etc/passwd", full(b"\n", ALMOST))], options=BOB),
    "large-colons": Trap([text("etc/passwd", full(b":", ALMOST))], options=BOB),
    "large-groups": Trap([ACCOUNTS[1], text("etc/group", full(b":::\n", ALMOST))], options=BOB),
    "large-memberships": Trap(
        [ACCOUNTS[1], text("etc/group", full(b"::1:bob\n", ALMOST))], options=BOB
    ),
    "large-members": Trap(
        [ACCOUNTS[1], text("etc/group", b"g:x:5:" + full(b"bob,", ALMOST))], options=BOB
    ),
    "large-ids": Trap(
        [ACCOUNTS[1], text("etc/group", b"".join(b":x:%d:bob\n" % n for n in range(100_000)))],
        options=BOB,
    ),
}  # fmt: skip
PAYLOAD = {"measured": Trap([*ACCOUNTS], run=("dd", "if=/dev/zero", "of=/dev/null", "bs=250M",
                                              "count=1"))}  # fmt: skip
TARGETS = {
    "target-root": Trap([symlink("a", "/")], options=("-v", f"/tmp/rig/full:/a{OUT}/dir",
                                                      "-v", "/tmp/rig/full/file:/a/tmp/rig/file")),
    "target-old": Trap([symlink("a", "/oldroot"), symlink("b", "../.oldroot")],
                       options=("-v", f"/tmp/rig/full:/a{OUT}/dir", "-v",
                                f"/tmp/rig/full:/b{OUT}")),
    "target-magic": Trap([symlink("a", "/proc/self/root")],
                         options=("-v", f"/tmp/rig/full:/a{OUT}/dir")),
    "target-cwd": Trap([symlink("a", "/proc/self/cwd")],
                       options=("-v", f"/tmp/rig/full:/a{OUT}/dir")),
    "target-tmpfs": Trap([symlink("a", OUT)], options=("--tmpfs", "/a/new")),
    "target-chain": Trap(chain("a", OUT), options=("-v", "/tmp/rig/full:/a/new")),
}  # fmt: skip

if not nightly():
    # Alike; read by the same function.
    PASSWD = {
        name: trap
        for name, trap in PASSWD.items()
        if name.startswith("passwd") or name.endswith(("-fifo", "-zero"))
    }
    # Seconds each.
    for name in ("newlines", "colons", "memberships", "ids"):
        del LARGE[f"large-{name}"]
ALL = {**PROC, **DEV, **WORKDIRS, **ETC, **PASSWD, **HUGE, **LARGE, **PAYLOAD, **TARGETS}


@pytest.fixture(scope="module")
def host(rig: Machine, _fresh_start: None) -> Iterator[Host]:
    """Return the machine with canaries."""
    yield from hostile.prepare(rig)


@pytest.fixture(scope="module")
def sprung(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """Load all traps, spring them, and return what each did."""
    entries = hostile.base(host.machine, tmp_path_factory.mktemp("probe"))
    below = ociimage.tar(entries)
    images = {}
    for name, trap in ALL.items():
        upper = gzip.compress(ociimage.tar(trap.entries), 1)
        blobs = (Blob(ociimage.OCI_LAYER, below), Blob(ociimage.OCI_LAYER + "+gzip", upper))
        ids = [ociimage.digest(below), ociimage.digest(gzip.decompress(upper))]
        config = {"Cmd": ["/probe"], **trap.config}
        images[name] = ociimage.assemble(blobs, ids, config)
    hostile.load(host.machine, images, timeout=300)
    host.machine.run(["rp", "secret", "create", "s6", "-"], input="told")
    done = host.attempt([trap.argv(name) for name, trap in ALL.items()])
    yield dict(zip(ALL, done, strict=True))
    host.machine.run(["rp", "secret", "rm", "s6"])


def mounted(outcome: Outcome) -> dict[str, tuple[str, str]]:
    """Return the type and origin of each mount that the probe saw."""
    found = {}
    for line in outcome.report()["mountinfo"]:
        head, _, tail = line.partition(" - ")
        found[head.split()[4]] = (tail.split()[0], head.split()[3])
    return found


@pytest.mark.row("CVE-2023-27561", "the start fails: /proc and /sys must be directories")
@pytest.mark.parametrize("name", PROC)
def test_cve_2023_27561_proc_and_sys_must_be_directories(
    sprung: dict[str, Outcome], name: str
) -> None:
    outcome = harmless(sprung[name], (125,))
    assert "directory" in outcome.stderr.casefold()
    assert outcome.stdout == ""


@pytest.mark.row("CVE-2026-41579", "the links stay inside: a fresh tmpfs there, or exit 125")
@pytest.mark.parametrize("name", DEV)
def test_cve_2026_41579_dev_is_made_inside(sprung: dict[str, Outcome], name: str) -> None:
    outcome = harmless(sprung[name])
    if outcome.code == 0:
        found = mounted(outcome)
        place = OUT if OUT in found else "/dev"
        assert found[place] == ("tmpfs", "/")
        assert found[f"{place}/null"][1] == "/null"
        assert set(outcome.report()["fds"]) == {"0", "1", "2"}


@pytest.mark.row(
    "CVE-2025-31133", "masked files are the null device that was checked after opening"
)
def test_cve_2025_31133_dev_null_of_the_image_is_not_used(sprung: dict[str, Outcome]) -> None:
    outcome = harmless(sprung["dev-null"], (0,))
    found = mounted(outcome)
    assert found["/dev"] == ("tmpfs", "/")
    assert found["/proc/keys"][1] == "/null"
    assert "/proc/sys/kernel/core_pattern" not in found


@pytest.mark.row("CVE-2026-55686", "made inside, or exit 125; owners outside stay")
@pytest.mark.parametrize("name", WORKDIRS)
def test_cve_2026_55686_working_directory_is_made_inside(
    sprung: dict[str, Outcome], name: str
) -> None:
    outcome = harmless(sprung[name], (0, 125, 126, 127))
    if outcome.code == 0:
        assert outcome.report()["cwd"].startswith("/")
    wanted = {"cwd-inside": f"{OUT}/new/dir", "cwd-upwards": f"{OUT}/newdir",
              "cwd-dots": f"{OUT}/dots"}  # fmt: skip
    if name in wanted:
        assert outcome.report()["cwd"] == wanted[name]


@pytest.mark.row("CVE-2024-5154", "the files are inside the container, or exit 125")
@pytest.mark.parametrize("name", ETC)
def test_cve_2024_5154_etc_files_and_secrets_stay_inside(
    sprung: dict[str, Outcome], name: str
) -> None:
    outcome = harmless(sprung[name])
    if name in ("etc-inside", "etc-upwards", "secret-inside", "secret-upwards"):
        wanted = "secret" if name.startswith("secret") else "hosts"
        assert any(each.endswith(f"{OUT}/{wanted}") or each == OUT for each in mounted(outcome))


@pytest.mark.row("CVE-2024-9676", "refused at once: not a regular file below the container's root")
@pytest.mark.parametrize("name", PASSWD)
def test_cve_2024_9676_accounts_are_read_from_regular_files_only(
    sprung: dict[str, Outcome], name: str
) -> None:
    outcome = harmless(sprung[name], (125, 126))
    assert outcome.peak_kib < LIMIT_KIB


@pytest.mark.row("CVE-2026-47262", "read up to 16 MiB, else exit 125; under 150 MiB of memory")
@pytest.mark.parametrize("name", [*HUGE, *LARGE])
def test_cve_2026_47262_huge_accounts_take_no_memory(sprung: dict[str, Outcome], name: str) -> None:
    outcome = harmless(sprung[name], (125,) if name in HUGE else (0, 125))
    assert outcome.peak_kib < LIMIT_KIB
    # The measure reaches the container's own processes.
    assert sprung["measured"].peak_kib > LIMIT_KIB


@pytest.mark.row("CVE-2026-87766", "links lead inside the container; nothing is made outside")
@pytest.mark.parametrize("name", TARGETS)
def test_cve_2026_87766_mount_points_are_made_inside(sprung: dict[str, Outcome], name: str) -> None:
    outcome = harmless(sprung[name])
    if name == "target-root":
        assert {f"{OUT}/dir", "/tmp/rig/file"} <= set(mounted(outcome))


@pytest.mark.row("CVE-2022-23648", "nothing of the host is in the volume")
def test_no_token_is_anywhere(host: Host, sprung: dict[str, Outcome]) -> None:
    """Last of the module: neither store nor journal nor units have what only the host had."""
    assert host.holders_of_the_token() == ""
