"""runtime.seccomp with rp's own profile in the kernel, its cache, and what it refuses."""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from unit.runtime.child import in_child

from rootlesspy import light_ctypes
from rootlesspy.engine import seccomp_profile
from rootlesspy.engine.inputs import capabilities
from rootlesspy.errors import Unsupported
from rootlesspy.linux import process
from rootlesspy.runtime import seccomp

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.oci.runtime_spec import LinuxSeccomp

MACHINE = os.uname().machine
ENOSYS, EPERM = errno.ENOSYS, errno.EPERM
MASK32 = 0xFFFFFFFF
# What x86_64 programs call; the same names under other numbers elsewhere.
HIGH = 1 << 32
X32_BIT = 0x40000000

only_x86_64 = pytest.mark.skipif(MACHINE != "x86_64", reason="numbers of x86_64")


def section(caps: tuple[str, ...] = capabilities.DEFAULT, machine: str = MACHINE) -> LinuxSeccomp:
    return seccomp_profile.resolve(seccomp_profile.load(), frozenset(caps), machine)


# The kernel: a child under the filter


@functools.cache
def compiled(caps: tuple[str, ...]) -> bytes:
    return seccomp.compile_filter(section(caps))


@pytest.fixture(scope="module", autouse=True)
def _compile_before_any_fork() -> None:
    compiled(capabilities.DEFAULT)


def confine(caps: tuple[str, ...] = capabilities.DEFAULT) -> None:
    process.set_no_new_privileges()
    seccomp.install(compiled(caps))


def call(number: int, *arguments: int) -> int:
    """Return the errno of a system call, 0 for success."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(a) for a in arguments))
    return ctypes.get_errno() if result == -1 else 0


SOCKET, IOCTL, CLONE, UNSHARE, STREAM, RAW = 41, 16, 56, 272, 1, 3
NEW_MOUNT_API = {"open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431,
                 "fsmount": 432, "fspick": 433, "mount_setattr": 442}  # fmt: skip
REFUSED = [
    *[pytest.param((n, 0, 0, 0, 0, 0), EPERM, id=name) for name, n in NEW_MOUNT_API.items()],
    pytest.param((SOCKET, 38, 5), EPERM, id="CVE-2026-31431 AF_ALG"),
    pytest.param((SOCKET, 40, STREAM), EPERM, id="AF_VSOCK"),
    pytest.param((SOCKET, 33, 2), EPERM, id="CVE-2026-43500 AF_RXRPC"),
    pytest.param((SOCKET, 38 + HIGH, 5), errno.EAFNOSUPPORT, id="AF_ALG with a high bit"),
    pytest.param((SOCKET, 21, STREAM), errno.EAFNOSUPPORT, id="AF_RDS"),
    pytest.param((SOCKET, 30, STREAM), errno.EAFNOSUPPORT, id="AF_TIPC"),
    pytest.param((SOCKET, 16, RAW, 6), errno.EPROTONOSUPPORT, id="CVE-2026-43284 NETLINK_XFRM"),
    pytest.param((SOCKET, 16, RAW, 12), errno.EPROTONOSUPPORT, id="NETLINK_NETFILTER"),
    pytest.param((SOCKET, 16, RAW, 9), errno.EPROTONOSUPPORT, id="NETLINK_AUDIT"),
    pytest.param((UNSHARE, 0x10000000), EPERM, id="unshare NEWUSER"),
    pytest.param((UNSHARE, 0x80), EPERM, id="unshare NEWTIME"),
    pytest.param((UNSHARE, 0x00020000), EPERM, id="unshare NEWNS"),
    pytest.param((CLONE, 0x10000011, 0, 0, 0, 0), EPERM, id="clone NEWUSER"),
    pytest.param((435, 0, 0), ENOSYS, id="clone3 so that libc falls back"),
    pytest.param((308, 0, 0), EPERM, id="setns"),
    pytest.param((165, 0, 0, 0, 0, 0), EPERM, id="mount"),
    pytest.param((166, 0, 0), EPERM, id="umount2"),
    pytest.param((155, 0, 0), EPERM, id="pivot_root"),
    pytest.param((425, 1, 0), EPERM, id="io_uring_setup"),
    pytest.param((426, 0, 0, 0, 0, 0), EPERM, id="io_uring_enter"),
    pytest.param((427, 0, 0, 0, 0), EPERM, id="io_uring_register"),
    pytest.param((248, 0, 0, 0, 0, 0), EPERM, id="add_key"),
    pytest.param((249, 0, 0, 0, 0), EPERM, id="request_key"),
    pytest.param((250, 0, 0, 0, 0, 0), EPERM, id="keyctl"),
    pytest.param((IOCTL, 0, 0x5412, 0), EPERM, id="TIOCSTI"),
    pytest.param((IOCTL, 0, 0x5412 + HIGH, 0), EPERM, id="CVE-2019-10063 TIOCSTI, a high bit"),
    pytest.param((IOCTL, 0, 0x5412 + (MASK32 << 32), 0), EPERM, id="TIOCSTI, all high bits"),
    pytest.param((IOCTL, 0, 0x541C, 0), EPERM, id="TIOCLINUX"),
    pytest.param((IOCTL, 0, 0x541C + HIGH, 0), EPERM, id="TIOCLINUX, a high bit"),
    pytest.param((321, 0, 0, 0), EPERM, id="bpf"),
    pytest.param((298, 0, 0, 0, 0, 0), EPERM, id="perf_event_open"),
    pytest.param((323, 0), EPERM, id="userfaultfd"),
    pytest.param((246, 0, 0, 0, 0), EPERM, id="kexec_load"),
    pytest.param((175, 0, 0, 0), EPERM, id="init_module"),
    pytest.param((304, 0, 0, 0), EPERM, id="open_by_handle_at (CVE-2014-3519, shocker)"),
    pytest.param((103, 3, 0, 0), EPERM, id="syslog"),
    pytest.param((135, 0x40000), ENOSYS, id="personality ADDR_NO_RANDOMIZE"),
    pytest.param((600,), ENOSYS, id="a call of the future"),
]  # fmt: skip


@only_x86_64
@pytest.mark.parametrize(("arguments", "expected"), REFUSED)
def test_refused(arguments: tuple[int, ...], expected: int) -> None:
    def child() -> int:
        confine()
        return call(*arguments)

    assert in_child(child) == expected


@only_x86_64
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((SOCKET, 1, STREAM, 0), id="AF_UNIX"),
        pytest.param((SOCKET, 2, STREAM, 0), id="AF_INET"),
        pytest.param((SOCKET, 16, RAW, 0), id="NETLINK_ROUTE"),
        pytest.param((UNSHARE, 0x400), id="unshare CLONE_FILES"),
        pytest.param((135, MASK32), id="personality asked"),
        pytest.param((24,), id="sched_yield"),
    ],
)
def test_allowed(arguments: tuple[int, ...]) -> None:
    def child() -> int:
        confine()
        return call(*arguments)

    assert in_child(child) in {0, errno.EFAULT}


@only_x86_64
def test_sweep_never_kills_and_says_enosys_above_the_known() -> None:
    """SECURITY.md E, new syscalls: a number that nobody has looked at is ENOSYS, not EPERM."""

    def child() -> list[int]:
        confine()
        return [call(number, *[0xFFFFFFFFFFFFFFFF] * 6) for number in range(480, 1024)]

    assert set(in_child(child)) == {ENOSYS}


@only_x86_64
def test_ioctl_that_differs_is_let_through() -> None:
    """TCGETS on a pipe is the kernel's ENOTTY; so are the neighbours of TIOCSTI and musl's sign."""

    def child() -> list[int]:
        read_fd, _ = os.pipe()
        confine()
        requests = (0x5401, 0x5411, 0x5413, 0x541B, 0x541D, 0x80045430, 0xFFFFFFFF80045430)
        return [call(IOCTL, read_fd, request, 0) for request in requests]

    answers = in_child(child)
    assert EPERM not in answers
    assert ENOSYS not in answers
    assert answers[0] == errno.ENOTTY


def i386_call(number: int, first: int, second: int) -> int:
    """Make a 32-bit system call from a 64-bit process: int 0x80 with the i386 numbers."""
    # push rbx; mov eax,edi; mov ebx,esi; mov ecx,edx; xor edx,edx; int 0x80; pop rbx; ret
    code = bytes.fromhex("53 89f8 89f3 89d1 31d2 cd80 5b c3")
    area = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    area.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)
    result: int = function(number, first, second)
    return -result if result < 0 else 0


@only_x86_64
def test_i386_calls_are_refused_alike() -> None:
    """SECURITY.md E, ABI bypass: int 0x80 reaches the same kernel by other numbers."""
    pid = os.fork()
    if pid == 0:
        i386_call(20, 0, 0)  # getpid
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        pytest.skip("this kernel has no 32-bit calls")

    def child() -> dict[str, int]:
        confine()
        return {
            "socket AF_ALG": i386_call(359, 38, 5),
            "socket AF_VSOCK": i386_call(359, 40, 1),
            "ioctl TIOCSTI": i386_call(54, 0, 0x5412),
            "unshare NEWUSER": i386_call(310, 0x10000000, 0),
            "mount": i386_call(21, 0, 0),
            "keyctl": i386_call(288, 0, 0),
            "io_uring_setup": i386_call(425, 1, 0),
            "clone3": i386_call(435, 0, 0),
            "getpid": i386_call(20, 0, 0),
            "future": i386_call(900, 0, 0),
        }

    assert in_child(child) == {
        "socket AF_ALG": EPERM, "socket AF_VSOCK": EPERM, "ioctl TIOCSTI": EPERM,
        "unshare NEWUSER": EPERM, "mount": EPERM, "keyctl": EPERM, "io_uring_setup": EPERM,
        "clone3": ENOSYS, "getpid": 0, "future": ENOSYS,
    }  # fmt: skip


@only_x86_64
def test_x32_call_is_refused_alike() -> None:
    """Where the kernel has no x32 the answer is its own ENOSYS: no way round either."""

    def child() -> int:
        confine()
        return call(X32_BIT | SOCKET, 38, 5, 0)

    assert in_child(child) in {EPERM, ENOSYS}


def test_programs_work_under_the_filter() -> None:
    """Threads, subprocesses, timers, sockets: CPython's own start is a fair sample."""
    script = (
        "import threading, subprocess, socket, tempfile, time, select\n"
        "t = threading.Thread(target=time.sleep, args=(0.001,)); t.start(); t.join()\n"
        "assert subprocess.run(['/bin/sh', '-c', 'exit 3']).returncode == 3\n"
        "a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n"
        "select.epoll().close(); tempfile.TemporaryFile().close()\n"
        "socket.socket().close(); socket.socket(socket.AF_INET6).close()\n"
    )

    def child() -> int:
        confine()
        pid = os.fork()
        if pid == 0:
            os.execv(sys.executable, [sys.executable, "-I", "-c", script])
        return os.waitpid(pid, 0)[1]

    assert in_child(child) == 0


@only_x86_64
def test_capabilities_open_what_belongs_to_them() -> None:
    def child() -> list[int]:
        confine((*capabilities.DEFAULT, "CAP_SYS_ADMIN"))
        # EFAULT, EINVAL: the kernel looked at the arguments
        return [call(435, 0, 0), call(165, 0, 0, 0, 0, 0), call(425, 1, 0)]

    clone3, mount, io_uring = in_child(child)
    assert clone3 == errno.EINVAL
    assert mount != ENOSYS
    assert io_uring == EPERM


def test_install_imports_and_opens_nothing() -> None:
    """SECURITY.md I4: after the pivot a file name belongs to the image."""
    program = compiled(capabilities.DEFAULT)

    def child() -> list[str]:
        process.set_no_new_privileges()
        seen: list[str] = []
        watched = {"import", "open", "os.listdir", "ctypes.dlopen", "ctypes.dlsym"}
        sys.addaudithook(
            lambda event, args: seen.append(f"{event} {args[:1]}") if event in watched else None
        )
        seccomp.install(program)
        return seen

    assert in_child(child) == []


def test_install_without_no_new_privs_is_the_kernels_error() -> None:
    program = compiled(capabilities.DEFAULT)

    def child() -> int | None:
        if os.geteuid() == 0:
            os.setresuid(1000, 1000, 1000)
        try:
            seccomp.install(program)
        except OSError as error:
            return error.errno
        return None

    assert in_child(child) == errno.EACCES


def test_flags_reach_the_kernel() -> None:
    rules = section() | {"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]}
    program = seccomp.compile_filter(rules)

    def child() -> str:
        process.set_no_new_privileges()
        seccomp.install(program, seccomp.filter_flags(rules))
        return Path("/proc/self/status").read_text()

    assert "Seccomp:\t2" in in_child(child)


# The cache

SMALL_SECTION: LinuxSeccomp = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "defaultErrnoRet": 1,
    "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ERRNO"}],
}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def entry(cache: Path) -> Path:
    (path,) = cache.iterdir()
    return path


def test_second_time_comes_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = seccomp.compile_filter(SMALL_SECTION, str(cache))
    assert entry(cache).stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(seccomp, "_compile", None)
    assert seccomp.compile_filter(SMALL_SECTION, str(cache)) == program


def test_other_rules_are_another_entry(cache: Path) -> None:
    one = seccomp.compile_filter(SMALL_SECTION, str(cache))
    other = seccomp.compile_filter(rule(names=["getuid"]), str(cache))
    assert one != other
    assert len(list(cache.iterdir())) == 2


def test_order_of_keys_does_not_matter(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = SMALL_SECTION
    seccomp.compile_filter(rules, str(cache))
    monkeypatch.setattr(seccomp, "_compile", None)
    seccomp.compile_filter(dict(reversed(rules.items())), str(cache))  # type: ignore[arg-type]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 8)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip,
        replace_by_link,
        replace_by_fifo,
        pytest.param(lambda p: p.write_bytes(b""), id="empty"),
        pytest.param(lambda p: os.truncate(p, 1 << 24), id="huge"),
        pytest.param(lambda p: p.chmod(0o666), id="writable by others"),
    ],
)
def test_damaged_entry_is_compiled_again(cache: Path, damage: Callable[[Path], None]) -> None:
    """SECURITY.md D1; and whoever else may write the file does not choose the filter."""
    program = seccomp.compile_filter(SMALL_SECTION, str(cache))
    damage(entry(cache))
    assert seccomp.compile_filter(SMALL_SECTION, str(cache)) == program
    kept = next(p for p in cache.iterdir() if not p.name.endswith(".real"))
    assert kept.is_file()
    assert not kept.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert seccomp._read_cached(str(kept)) == program


def test_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    assert seccomp.compile_filter(SMALL_SECTION, str(tmp_path / "missing"))


# What cannot be done is said


def test_missing_library_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(light_ctypes, "CDLL", missing)
    with pytest.raises(Unsupported) as caught:
        seccomp.compile_filter({"defaultAction": "SCMP_ACT_ALLOW"})
    assert "libseccomp.so.2" in caught.value.message
    assert "libseccomp2" in str(caught.value.hint)


def rule(**more: Any) -> LinuxSeccomp:
    entry = {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", **more}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]}  # type: ignore[list-item]


def test_two_conditions_on_one_argument_are_refused() -> None:
    """moby's lesson of CVE-2026-31431: `not 38, not 40` as two rules would allow both."""
    conditions = [{"index": 0, "value": v, "op": "SCMP_CMP_NE"} for v in (38, 40)]
    with pytest.raises(Unsupported, match="two conditions on one argument"):
        seccomp.compile_filter(rule(args=conditions))


def test_notify_is_refused() -> None:
    with pytest.raises(Unsupported, match="SCMP_ACT_NOTIFY"):
        seccomp.compile_filter(rule(action="SCMP_ACT_NOTIFY"))


def test_unknown_architecture_is_refused() -> None:
    rules = rule()
    rules["architectures"] = ["SCMP_ARCH_VAX"]
    with pytest.raises(Unsupported, match="SCMP_ARCH_VAX"):
        seccomp.compile_filter(rules)
