"""engine.seccomp_profile: the containers' format, and what rp's own profile means in every ABI.

The compiled program is run by an interpreter of classic BPF, so that all ABIs are tested on any
machine (<linux/filter.h>, seccomp(2) "struct seccomp_data").
"""

from __future__ import annotations

import ctypes
import errno
import functools
import itertools
import json
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from rootlesspy.engine import seccomp_profile
from rootlesspy.engine.inputs import capabilities
from rootlesspy.errors import NotFound, Unsupported, UsageError
from rootlesspy.oci.validate import validate
from rootlesspy.runtime import seccomp

if TYPE_CHECKING:
    from rootlesspy.oci.runtime_spec import LinuxSeccomp

MACHINE = os.uname().machine
ENOSYS, EPERM = errno.ENOSYS, errno.EPERM
MASK32 = 0xFFFFFFFF
HIGH = 1 << 32
DEFAULT = frozenset(capabilities.DEFAULT)

only_x86_64 = pytest.mark.skipif(MACHINE != "x86_64", reason="numbers of x86_64")

AUDIT_ARCH = {"x86_64": 0xC000003E, "x86": 0x40000003, "x32": 0xC000003E, "aarch64": 0xC00000B7,
              "arm": 0x40000028, "riscv64": 0xC00000F3}  # fmt: skip
X32_BIT = 0x40000000
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

LD_ABS, LD_IMM, LDX_IMM, ST, LDX_MEM, LD_MEM = 0x20, 0x00, 0x01, 0x02, 0x61, 0x60
JA, JEQ, JGT, JGE, JSET, AND, RET, TAX = 0x05, 0x15, 0x25, 0x35, 0x45, 0x54, 0x06, 0x07


class Instruction(NamedTuple):
    code: int
    jt: int
    jf: int
    k: int


def decode(program: bytes) -> list[Instruction]:
    return [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", program)]


def interpret(
    instructions: list[Instruction], architecture: str, number: int, arguments: tuple[int, ...] = ()
) -> int:
    """Return the 32-bit action of the filter for one system call of one ABI."""
    number &= 0xFFFFFFFF
    if architecture == "x32":
        number |= X32_BIT
    padded = [a & 0xFFFFFFFFFFFFFFFF for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("=IIQ6Q", number, AUDIT_ARCH[architecture], 0, *padded)
    accumulator = position = 0
    while True:
        code, jt, jf, k = instructions[position]
        position += 1
        if code == LD_ABS:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == AND:
            accumulator &= k
        elif code == RET:
            return k
        elif code == JA:
            position += k
        else:
            taken = {
                JEQ: accumulator == k,
                JGT: accumulator > k,
                JGE: accumulator >= k,
                JSET: bool(accumulator & k),
            }[code]
            position += jt if taken else jf


def section(caps: tuple[str, ...] = capabilities.DEFAULT, machine: str = MACHINE) -> LinuxSeccomp:
    return seccomp_profile.resolve(seccomp_profile.load(), frozenset(caps), machine)


@functools.cache
def compiled(
    caps: tuple[str, ...] = capabilities.DEFAULT, machine: str = MACHINE
) -> list[Instruction]:
    return decode(seccomp.compile_filter(section(caps, machine)))


@functools.cache
def library() -> ctypes.CDLL:
    loaded = seccomp._libseccomp()
    loaded.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    return loaded


@functools.cache
def number_of(name: str, architecture: str) -> int:
    """Return a call's number in one ABI; negative where it has none."""
    loaded = library()
    token = loaded.seccomp_arch_resolve_name(architecture.encode())
    number: int = loaded.seccomp_syscall_resolve_name_arch(token, name.encode())
    return number & ~X32_BIT if architecture == "x32" and number > 0 else number


@functools.cache
def name_of(number: int, architecture: str) -> str | None:
    loaded = library()
    token = loaded.seccomp_arch_resolve_name(architecture.encode())
    loaded.seccomp_syscall_resolve_num_arch.argtypes = (ctypes.c_uint32, ctypes.c_int)
    loaded.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    address = loaded.seccomp_syscall_resolve_num_arch(token, number)
    if not address:
        return None
    # The library hands over the string for good; a test may leave it.
    return ctypes.string_at(address).decode()


# The interpreter: every rule of the profile, in every ABI, against the meaning of the OCI section


def holds(rule: Any, arguments: tuple[int, ...]) -> bool:
    for condition in rule.get("args", ()):
        value, one, two = (
            arguments[condition["index"]],
            condition["value"],
            condition.get("valueTwo"),
        )
        if not {
            "SCMP_CMP_EQ": value == one,
            "SCMP_CMP_GT": value > one,
            "SCMP_CMP_MASKED_EQ": value & one == two,
        }[condition["op"]]:
            return False
    return True


def meant(rules: LinuxSeccomp, name: str, arguments: tuple[int, ...]) -> int:
    """Return the action that the section asks for; fail if two rules contradict each other."""
    actions = {
        seccomp._action(rule["action"], rule.get("errnoRet"))
        for rule in rules["syscalls"]
        if name in rule["names"] and holds(rule, arguments)
    }
    assert len(actions) < 2, (name, arguments, actions)
    if actions:
        return actions.pop()
    return seccomp._action(rules["defaultAction"], rules["defaultErrnoRet"])


SMALL = (*range(47), 0x80, 0x5401, 0x5402, 0x540C, *range(0x5410, 0x5420), 0x1412, 0x541C0000)
LARGE = (*(1 << bit for bit in range(6, 32)), 0x20008, 0x3D0F00, 0x7E020000, 0x80045430, MASK32)
VALUES = (*SMALL, *LARGE)
HIGH_VALUES = (*VALUES, *(v | HIGH for v in VALUES), *(v | MASK32 << 32 for v in VALUES))


def cases(name: str, *, wide: bool) -> list[tuple[int, ...]]:
    values = HIGH_VALUES if wide else VALUES
    if name == "socket":
        return [
            *((family, 1, 0, 0, 0, 0) for family in values),
            *((16, 3, protocol, 0, 0, 0) for protocol in values),
            *((f, 1, p, 0, 0, 0) for f in (2, 38, 16 | HIGH * wide) for p in range(24)),
        ]
    if name == "ioctl":
        return [(0, v, 0, 0, 0, 0) for v in values]
    return [(v, 0, 0, 0, 0, 0) for v in values]


@pytest.mark.parametrize("caps", [(), capabilities.DEFAULT, capabilities.ALL], ids=len)
@pytest.mark.parametrize(
    ("machine", "architecture"),
    [
        *(("x86_64", "x86_64"), ("x86_64", "x86"), ("x86_64", "x32")),
        *(("aarch64", "aarch64"), ("aarch64", "arm"), ("riscv64", "riscv64")),
    ],
)
def test_program_does_what_the_profile_says(
    machine: str, architecture: str, caps: tuple[str, ...]
) -> None:
    rules = section(caps, machine)
    program = compiled(caps, machine)
    conditional = {n for r in rules["syscalls"] if r.get("args") for n in r["names"]}
    names = {n for r in rules["syscalls"] for n in r["names"]}
    known = {name: number_of(name, architecture) for name in names}
    for name, number in known.items():
        if number < 0:
            continue
        # The registers of a 32-bit ABI have no upper half; of x32, libseccomp looks at the lower
        # half, which is what the kernel uses of an int.
        wide = architecture in {"x86_64", "aarch64", "riscv64"}
        for arguments in cases(name, wide=wide) if name in conditional else [(0,) * 6]:
            got = interpret(program, architecture, number, arguments)
            assert got == meant(rules, name, arguments), (name, [hex(a) for a in arguments])
    for number in set(range(1024)) - set(known.values()):
        if name_of(number, architecture) in names:
            continue  # of i386, whose socket and ipc calls have two numbers each
        assert interpret(program, architecture, number) == ERRNO | ENOSYS, number


@only_x86_64
def test_socketcall_of_32_bit_programs_works() -> None:
    """moby issue 52506: libseccomp spreads the rules of socket() over socketcall(SYS_SOCKET)."""
    program = compiled()
    for call, more in itertools.product(range(1, 21), (0, 6, 9, 40)):
        assert interpret(program, "x86", 102, (call, more, more)) == ALLOW


@only_x86_64
def test_unknown_abi_is_killed() -> None:
    program = compiled()
    assert interpret(program, "aarch64", 64) == KILL_PROCESS


@only_x86_64
def test_number_minus_one_is_no_kill() -> None:
    """syscall(-1), which some programs use as a no-op, has the bit of x32."""
    program = compiled()
    assert interpret(program, "x86_64", -1) == ERRNO | ENOSYS


def test_program_fits() -> None:
    for caps in ((), capabilities.DEFAULT, capabilities.ALL):
        assert len(compiled(caps)) < seccomp.MAX_INSTRUCTIONS // 2


def test_profile_is_a_valid_section() -> None:
    for caps in ((), capabilities.DEFAULT, capabilities.ALL):
        validate(
            {
                "ociVersion": "1.2.1",
                "process": {"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
                "root": {"path": "x"},
                "linux": {"seccomp": section(caps)},
            }
        )


def test_names_that_libseccomp_does_not_know_keep_the_default() -> None:
    rules: LinuxSeccomp = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["no_such_call", "getpid"], "action": "SCMP_ACT_ERRNO"}],
    }
    program = decode(seccomp.compile_filter(rules))
    assert interpret(program, MACHINE, number_of("getpid", MACHINE)) == ERRNO | EPERM
    assert interpret(program, MACHINE, number_of("getuid", MACHINE)) == ALLOW


# What is in the profile


def listed() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = seccomp_profile.load()["syscalls"]
    return rules


def test_every_name_is_a_call() -> None:
    """A misspelt name would silently refuse, or silently not."""
    # Newer than libseccomp 2.5.4 (Debian 12): Linux 6.6 to 6.18
    newer = {
        *("file_getattr", "file_setattr", "futex_requeue", "futex_wait", "futex_wake"),
        *("getxattrat", "listmount", "listxattrat", "lsm_get_self_attr", "lsm_list_modules"),
        *("lsm_set_self_attr", "mseal", "open_tree_attr", "removexattrat", "riscv_hwprobe"),
        *("setxattrat", "statmount", "uprobe", "uretprobe"),
    }
    loaded = library()
    unknown = {
        name
        for entry in listed()
        for name in entry["names"]
        if loaded.seccomp_syscall_resolve_name(name.encode()) == seccomp.NR_SCMP_ERROR
    }
    assert unknown <= newer


def test_every_call_of_the_kernel_headers_was_looked_at() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm")
    if not header.exists():
        pytest.skip("linux-libc-dev is not installed")
    # No kernel has them: sys_ni_syscall on both x86 tables.
    empty = {
        *("_sysctl", "afs_syscall", "break", "epoll_ctl_old", "epoll_wait_old", "ftime"),
        *("getpmsg", "gtty", "idle", "lock", "mpx", "prof", "profil", "putpmsg", "security"),
        *("stty", "tuxcall", "ulimit", "vserver"),
    }
    calls = {
        line.split()[1].removeprefix("__NR_")
        for name in ("unistd_64.h", "unistd_32.h")
        for line in (header / name).read_text().splitlines()
        if line.startswith("#define __NR_")
    }
    # A newer kernel's headers may have more; those get ENOSYS until somebody looks.
    if int(os.environ.get("RP_MUST_WORK", "0")) or len(calls) < 460:
        names = {name for entry in listed() for name in entry["names"]}
        assert calls - names == empty


def test_each_unconditional_call_has_one_answer() -> None:
    for caps in ((), capabilities.DEFAULT, capabilities.ALL):
        plain = [n for r in section(caps)["syscalls"] if not r.get("args") for n in r["names"]]
        both = {n for r in section(caps)["syscalls"] if r.get("args") for n in r["names"]}
        assert len(plain) == len(set(plain))
        assert both.isdisjoint(plain)


# The format


def profile(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules), **more}


def names(resolved: LinuxSeccomp) -> list[str]:
    return [name for entry in resolved["syscalls"] for name in entry["names"]]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ({}, True),
        ({"includes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_BPF"]}}, False),
        ({"excludes": {"caps": ["CAP_BPF", "CAP_CHOWN"]}}, False),
        ({"excludes": {"caps": ["CAP_BPF"]}}, True),
        ({"includes": {"arches": ["arm64", "amd64"]}}, True),
        ({"includes": {"arches": ["x86_64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"excludes": {"arches": ["s390x"]}}, True),
        ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "6.12"}}, True),
        ({"includes": {"minKernel": "6.13"}}, False),
        ({"excludes": {"minKernel": "6.1"}}, False),
        ({"includes": {}, "excludes": {}}, True),
        ({"includes": None, "excludes": None}, True),
    ],
)
def test_conditions(condition: dict[str, Any], kept: bool) -> None:
    entry = {"names": ["x"], "action": "SCMP_ACT_ALLOW", **condition}
    resolved = seccomp_profile.resolve(profile(entry), DEFAULT, "x86_64", "6.12.9-amd64")
    assert bool(resolved["syscalls"]) is kept


def test_unknown_kernel_satisfies_no_minimum() -> None:
    entry = {"names": ["x"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}}
    assert seccomp_profile.resolve(profile(entry), DEFAULT, "x86_64")["syscalls"] == []


def test_forms_of_moby_and_podman() -> None:
    resolved = seccomp_profile.resolve(
        profile(
            {"name": "a", "action": "SCMP_ACT_ALLOW", "args": None, "comment": "x"},
            {"names": ["b"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "ENOSYS"},
            {"names": ["c"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": []},
            defaultErrno="ENOSYS",
            defaultErrnoRet=1,
            flags=["SECCOMP_FILTER_FLAG_LOG"],
        ),
        DEFAULT,
        "x86_64",
    )
    assert resolved == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {"names": ["a"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["b"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
            {"names": ["c"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22},
        ],
    }


def test_architectures() -> None:
    mapped = [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
    ]

    def resolved(machine: str, **more: Any) -> list[str] | None:
        return seccomp_profile.resolve(profile(**more), DEFAULT, machine).get("architectures")

    assert resolved("x86_64", archMap=mapped) == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert resolved("aarch64", archMap=mapped) == ["SCMP_ARCH_AARCH64"]
    assert resolved("x86_64", architectures=["SCMP_ARCH_X86"]) == ["SCMP_ARCH_X86"]
    assert resolved("x86_64") is None


def test_machine_without_rules_is_refused() -> None:
    """Another ABI has other argument orders (clone on s390): no rules is no protection."""
    with pytest.raises(Unsupported, match="no rules for vax"):
        section(machine="vax")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (profile({"action": "SCMP_ACT_ALLOW"}), "either name or names"),
        (profile({"name": "a", "names": ["b"], "action": "x"}), "either name or names"),
        (profile({"name": "a", "action": "x", "errno": "EWHAT"}), "unknown errno 'EWHAT'"),
        (profile({"name": "a", "action": "x", "includes": []}), None),
        (profile({"name": "a", "action": "x", "includes": ["caps"]}), "includes must be an obj"),
        ({"defaultAction": "x", "syscalls": {}}, None),
        ({"defaultAction": "x", "syscalls": ["a"]}, "syscalls must be an array of objects"),
        (profile(architectures=["a"], archMap=[{"architecture": "b"}]), "either architectures"),
    ],
)
def test_broken(broken: dict[str, Any], message: str | None) -> None:
    if message is None:
        seccomp_profile.resolve(broken, DEFAULT, "x86_64")
        return
    with pytest.raises(UsageError, match=message):
        seccomp_profile.resolve(broken, DEFAULT, "x86_64")


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    with pytest.raises(NotFound, match="No such file"):
        seccomp_profile.load(str(path))
    for text, message in (("{", "is not JSON"), ("[]", "no defaultAction"), ("{}", "no default")):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            seccomp_profile.load(str(path))
    path.write_text("[" * 100_000)
    with pytest.raises(UsageError, match="is not JSON"):
        seccomp_profile.load(str(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UsageError):
        seccomp_profile.load(str(path))
    path.unlink()
    path.write_text(json.dumps(profile()))
    assert seccomp_profile.load(str(path)) == profile()


def test_podmans_own_profile() -> None:
    """The profile that containers-common installs compiles, so --security-opt seccomp= takes it."""
    path = Path("/usr/share/containers/seccomp.json")
    if not path.exists():
        pytest.skip("containers-common is not installed")
    resolved = seccomp_profile.resolve(
        seccomp_profile.load(str(path)), DEFAULT, MACHINE, os.uname().release
    )
    program = decode(seccomp.compile_filter(resolved))
    assert interpret(program, MACHINE, number_of("read", MACHINE)) == ALLOW
    assert interpret(program, MACHINE, number_of("add_key", MACHINE)) != ALLOW


def test_difference_to_podmans_profile_is_known() -> None:
    """What rp allows beyond podman of Debian 12 and 13, and what it refuses, each for a reason."""
    path = Path("/usr/share/containers/seccomp.json")
    if not path.exists():
        pytest.skip("containers-common is not installed")
    theirs = seccomp_profile.resolve(
        seccomp_profile.load(str(path)), DEFAULT, MACHINE, os.uname().release
    )
    newer_than_theirs = {
        *("cachestat", "fchmodat2", "file_getattr", "file_setattr", "futex_requeue", "futex_wait"),
        *("futex_waitv", "futex_wake", "getxattrat", "io_pgetevents", "io_pgetevents_time64"),
        *("listmount", "listxattrat", "map_shadow_stack", "mseal", "removexattrat"),
        *("set_mempolicy_home_node", "setxattrat", "statmount", "uprobe", "uretprobe"),
    }
    of_old_32_bit_programs = {"nice", "readdir", "sigaction", "sigpending", "sigsuspend"}
    assert allowed(section()) - allowed(theirs) <= newer_than_theirs | of_old_32_bit_programs
    needs_a_capability_anyway = {
        *("fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount"),
        *("open_tree", "pivot_root", "reboot", "setns", "syslog", "umount", "umount2"),
    }
    not_of_a_namespace = {"keyctl"}
    not_to_be_filtered = {"clone3"}
    never_implemented = {"epoll_ctl_old", "epoll_wait_old", "syscall", "timerfd"}
    assert allowed(theirs) - allowed(section()) <= (
        needs_a_capability_anyway | not_of_a_namespace | not_to_be_filtered | never_implemented
    )


def allowed(rules: LinuxSeccomp) -> set[str]:
    return {n for r in rules["syscalls"] for n in r["names"] if r["action"] == "SCMP_ACT_ALLOW"}
