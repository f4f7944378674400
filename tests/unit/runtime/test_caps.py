"""runtime.caps in forked children: what the kernel says afterwards, with and without privilege."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

import pytest
from unit.runtime.child import in_child

from rootlesspy.engine.inputs import capabilities
from rootlesspy.errors import RuntimeFailure
from rootlesspy.linux import process
from rootlesspy.runtime import caps

DEFAULT = capabilities.DEFAULT
CLONE_NEWUSER = 0x10000000


def enter_userns() -> None:
    """Become root of a fresh user namespace in which only id 0 exists; skip where forbidden."""
    uid, gid = os.geteuid(), os.getegid()
    if caps._libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError("unshare(CLONE_NEWUSER) is forbidden here")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def userns_works() -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            enter_userns()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


needs_userns = pytest.mark.skipif(not userns_works(), reason="no unprivileged user namespaces")


def kernel_sets() -> dict[str, int]:
    """Return the five sets as /proc/self/status has them: not by the code under test."""
    status = Path("/proc/self/status").read_text()
    return {
        line[:6]: int(line.split()[1], 16)
        for line in status.splitlines()
        if line.startswith("Cap") and line[6] == ":"
    }


def test_numbers_are_the_kernels() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("linux-libc-dev is not installed")
    found = {}
    for line in header.read_text().splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] == "#define" and words[1].startswith("CAP_"):
            found[words[1]] = words[2]
    numbers = {name: int(value) for name, value in found.items() if value.isdigit()}
    assert {name: caps.NUMBERS[name] for name in numbers} == numbers


def test_policy_and_mechanism_name_the_same_capabilities() -> None:
    assert tuple(caps.NUMBERS) == capabilities.ALL


def test_last_cap_is_the_kernels() -> None:
    assert caps.last_cap() == int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def test_current_is_what_proc_says() -> None:
    sets = caps.current()
    assert kernel_sets() == {
        "CapInh": sets.inheritable,
        "CapPrm": sets.permitted,
        "CapEff": sets.effective,
        "CapBnd": sets.bounding,
        "CapAmb": sets.ambient,
    }


def test_unknown_name_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="unknown capability 'CAP_FLY'"):
        caps.mask(("CAP_CHOWN", "CAP_FLY"))


@needs_userns
def test_root_keeps_the_default_set_and_nothing_inheritable() -> None:
    """CVE-2022-24769: CapInh and CapAmb are empty."""

    def child() -> dict[str, int]:
        enter_userns()
        caps.apply(
            bounding=DEFAULT, effective=DEFAULT, permitted=DEFAULT, inheritable=(), ambient=()
        )
        return kernel_sets()

    wanted = caps.mask(DEFAULT)
    assert in_child(child) == {
        "CapInh": 0, "CapPrm": wanted, "CapEff": wanted, "CapBnd": wanted, "CapAmb": 0,
    }  # fmt: skip


@needs_userns
def test_dropped_capability_cannot_come_back_by_exec() -> None:
    def child() -> str:
        enter_userns()
        caps.apply(bounding=(), effective=(), permitted=(), inheritable=(), ambient=())
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(write_fd, 1)
            os.execv("/bin/grep", ["grep", "Cap", "/proc/self/status"])
        os.close(write_fd)
        with os.fdopen(read_fd) as stream:
            text = stream.read()
        os.waitpid(pid, 0)
        return text

    values = {line.split()[0]: int(line.split()[1], 16) for line in in_child(child).splitlines()}
    assert values == dict.fromkeys(("CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"), 0)


@needs_userns
def test_ambient_survives_exec() -> None:
    one = ("CAP_NET_BIND_SERVICE",)

    def child() -> dict[str, int]:
        enter_userns()
        caps.apply(bounding=DEFAULT, effective=one, permitted=one, inheritable=one, ambient=one)
        return kernel_sets()

    bit = 1 << 10
    assert in_child(child) == {
        "CapInh": bit, "CapPrm": bit, "CapEff": bit, "CapBnd": caps.mask(DEFAULT), "CapAmb": bit,
    }  # fmt: skip


@needs_userns
def test_ambient_of_the_caller_is_taken_away() -> None:
    one = ("CAP_NET_BIND_SERVICE",)

    def child() -> int:
        enter_userns()
        caps.apply(bounding=DEFAULT, effective=one, permitted=one, inheritable=one, ambient=one)
        caps.apply(bounding=DEFAULT, effective=one, permitted=one, inheritable=one, ambient=())
        return kernel_sets()["CapAmb"]

    assert in_child(child) == 0


@needs_userns
def test_ambient_without_permitted_is_refused() -> None:
    def child() -> int | None:
        enter_userns()
        try:
            caps.apply(
                bounding=DEFAULT, effective=(), permitted=(), inheritable=(), ambient=("CAP_KILL",)
            )
        except OSError as error:
            return error.errno
        return None

    assert in_child(child) == 1  # EPERM


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second id to switch to")
def test_other_user_after_setresuid() -> None:
    """CVE-2016-8867: no effective capabilities; the bounding set is still the default one."""

    def child() -> dict[str, int]:
        process.set_keep_capabilities(True)
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        caps.apply(bounding=DEFAULT, effective=(), permitted=(), inheritable=(), ambient=())
        return kernel_sets()

    assert in_child(child) == {
        "CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": caps.mask(DEFAULT), "CapAmb": 0,
    }  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second id to switch to")
def test_other_user_with_an_added_capability() -> None:
    sets = capabilities.for_user(DEFAULT, ("CAP_KILL",), root=False)

    def child() -> dict[str, int]:
        process.set_keep_capabilities(True)
        os.setresuid(1000, 1000, 1000)
        caps.apply(**sets._asdict())
        return kernel_sets()

    bit = 1 << 5
    assert in_child(child) == {
        "CapInh": bit, "CapPrm": bit, "CapEff": bit, "CapBnd": caps.mask(DEFAULT), "CapAmb": bit,
    }  # fmt: skip


@needs_userns
def test_apply_imports_and_opens_nothing() -> None:
    """SECURITY.md I4: after the pivot a file name belongs to the image."""

    def child() -> list[str]:
        enter_userns()
        seen: list[str] = []
        sys.addaudithook(
            lambda event, args: (
                seen.append(f"{event} {args[:1]}")
                if event in {"import", "open", "os.listdir", "ctypes.dlopen", "ctypes.dlsym"}
                else None
            )
        )
        caps.apply(
            bounding=DEFAULT, effective=DEFAULT, permitted=DEFAULT, inheritable=(), ambient=()
        )
        try:
            caps.apply(
                bounding=DEFAULT, effective=(), permitted=(), inheritable=(), ambient=DEFAULT
            )
        except OSError as error:
            str(error)
        return seen

    assert in_child(child) == []


@pytest.mark.parametrize(("number", "error"), [(7, errno.EINVAL), (41, errno.EPERM)])
def test_a_bounding_set_that_cannot_be_read_is_an_error(
    monkeypatch: pytest.MonkeyPatch, number: int, error: int
) -> None:
    """Only EINVAL above the last capability that every supported kernel has is the end."""

    def prctl(option: int, value: int, *_rest: int) -> int:
        if option == caps.PR_CAPBSET_READ and value == number:
            ctypes.set_errno(error)
            return -1
        return 0

    monkeypatch.setattr(caps, "_prctl", prctl)
    with pytest.raises(OSError, match="PR_CAPBSET_READ"):
        caps._drop_bounding(0)
