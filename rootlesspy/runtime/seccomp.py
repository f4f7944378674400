"""Seccomp filters: OCI linux.seccomp → a BPF program → the kernel.

`compile_filter` runs in the supervisor, long before the pivot: libseccomp does the work, once; the
program is kept in a cache directory.  `install` runs in the container's init, right before execve:
one system call through already loaded ctypes, nothing imported, no file opened.

Sources: seccomp(2), seccomp_rule_add(3), runtime-spec config-linux.md "Seccomp".
"""

from __future__ import annotations

import os
import stat
import sys

from rootlesspy.light_modules import ctypes, json
from rootlesspy.light_typing import TYPE_CHECKING, Any

try:  # As random of the standard library does: hashlib brings OpenSSL along.
    if sys.version_info >= (3, 12):
        from _sha2 import sha256
    else:
        from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha256

from rootlesspy.errors import RuntimeFailure, Unsupported

if TYPE_CHECKING:
    from rootlesspy.oci.runtime_spec import LinuxSeccomp, LinuxSyscall

# <linux/prctl.h>, <linux/seccomp.h>
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SECCOMP_SET_MODE_FILTER = 1
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1 << 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277, "riscv64": 277, "ppc64le": 358, "s390x": 348}
INSTRUCTION_BYTES = 8
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS in <linux/bpf_common.h>

# <seccomp.h>
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
# Not in FLAGS: it is wanted wherever an action is SCMP_ACT_NOTIFY, and makes install() return a
# descriptor.
FLAG_NEW_LISTENER = 1 << 3
WITH_DATA = frozenset(("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"))
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
SCMP_FLTATR_ACT_BADARCH = 2
SCMP_FLTATR_CTL_OPTIMIZE = 8
OPTIMIZE_BINARY_TREE = 2
NR_SCMP_ERROR = -1
EPERM = 1
EEXIST = 17

_MACHINE = os.uname().machine
_STEP = "compile the seccomp filter"


class _ArgumentComparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
_seccomp = _libc.syscall
_seccomp.argtypes = (ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p)
_seccomp.restype = ctypes.c_long


def install(program: bytes, flags: int = 0) -> int:
    """Put the calling thread, and what it executes, under the filter for good.

    Returns the descriptor of its notifications with FLAG_NEW_LISTENER, else -1.  Needs
    no_new_privs, or CAP_SYS_ADMIN in the process's user namespace.  Raises OSError.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = _Program(len(program) // INSTRUCTION_BYTES, ctypes.addressof(buffer))
    if flags:
        number = SYS_SECCOMP[_MACHINE]
        result = _seccomp(number, SECCOMP_SET_MODE_FILTER, flags, ctypes.addressof(fprog))
    else:
        # Older than seccomp(2), and the same on every architecture.
        result = _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(fprog), 0, 0)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return int(result) if flags & FLAG_NEW_LISTENER else -1


def notifies(seccomp: LinuxSeccomp) -> bool:
    """Say whether a filter asks an agent about some system call."""
    actions = [seccomp["defaultAction"], *(rule["action"] for rule in seccomp.get("syscalls", ()))]
    return "SCMP_ACT_NOTIFY" in actions


def filter_flags(seccomp: LinuxSeccomp) -> int:
    """Return the flags of a seccomp section as install() takes them.  Raises Unsupported."""
    flags = 0
    for name in seccomp.get("flags", ()):
        flags |= FLAGS[name]
    if notifies(seccomp):
        if flags & FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]:
            raise Unsupported("seccomp: SCMP_ACT_NOTIFY does not go with the flag TSYNC")
        flags |= FLAG_NEW_LISTENER
    if flags and _MACHINE not in SYS_SECCOMP:
        raise Unsupported(f"seccomp flags are not supported on {_MACHINE}")
    return flags


def compile_filter(
    seccomp: LinuxSeccomp, cache_directory: str | None = None, *, with_agent: bool = False
) -> bytes:
    """Return the BPF program of a validated seccomp section.

    cache_directory: where programs are kept by the hash of all that they depend on; it must be the
    user's own and closed to others.  with_agent: somebody answers SCMP_ACT_NOTIFY.  Raises
    Unsupported without libseccomp, or for what it cannot express; RuntimeFailure when it refuses.
    """
    if not with_agent and notifies(seccomp):
        raise Unsupported("seccomp: SCMP_ACT_NOTIFY is not supported")
    library = _libseccomp()
    if cache_directory is None:
        return _compile(library, seccomp)
    version = library.seccomp_version().contents
    depends_on = (seccomp, version.major, version.minor, version.micro, _MACHINE)
    text = json.dumps(depends_on, sort_keys=True, separators=(",", ":"))
    path = os.path.join(cache_directory, f"seccomp-{sha256(text.encode()).hexdigest()}")
    program = _read_cached(path)
    if program is None:
        program = _compile(library, seccomp)
        _write_cached(path, program)
    return program


def _read_cached(path: str) -> bytes | None:
    """Return a program from the cache; None where there is none, or a damaged or foreign one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022:
            return None
        if status.st_uid != os.geteuid():
            return None
        content = os.read(fd, MAX_INSTRUCTIONS * INSTRUCTION_BYTES + 33)
    finally:
        os.close(fd)
    digest, program = content[:32], content[32:]
    if sha256(program).digest() != digest or not _is_program(program):
        return None
    return program


def _write_cached(path: str, program: bytes) -> None:
    """Keep a program; a full or read-only disk costs time at the next start, nothing else."""
    temporary = f"{path}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        with os.fdopen(fd, "wb", buffering=0) as stream:
            stream.write(sha256(program).digest() + program)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)


def _is_program(program: bytes) -> bool:
    count, rest = divmod(len(program), INSTRUCTION_BYTES)
    return rest == 0 and 0 < count <= MAX_INSTRUCTIONS


def _compile(library: ctypes.CDLL, seccomp: LinuxSeccomp) -> bytes:
    default = _action(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"))
    context = library.seccomp_init(default)
    if not context:
        raise _failure("seccomp_init", 0)
    try:
        # An unknown architecture would go on with some other thread killed; KILL_PROCESS ends it.
        bad_architecture = ACTIONS["SCMP_ACT_KILL_PROCESS"]
        library.seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, bad_architecture)
        # From libseccomp 2.5 on; without it the program only is slower.
        library.seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, OPTIMIZE_BINARY_TREE)
        for name in seccomp.get("architectures", ()):
            _add_architecture(library, context, name)
        for rule in seccomp.get("syscalls", ()):
            action = _action(rule["action"], rule.get("errnoRet"))
            if action != default:  # libseccomp refuses a rule that changes nothing
                _add_rule(library, context, rule, action)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add_architecture(library: ctypes.CDLL, context: int, name: str) -> None:
    token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
    if token == 0:
        raise Unsupported(f"seccomp: libseccomp does not know architecture {name}")
    result = library.seccomp_arch_add(context, token)
    if result not in {0, -EEXIST}:
        raise _failure(f"seccomp_arch_add {name}", result)


def _add_rule(library: ctypes.CDLL, context: int, rule: LinuxSyscall, action: int) -> None:
    arguments = rule.get("args") or []
    if len({argument["index"] for argument in arguments}) != len(arguments):
        # libseccomp cannot join two conditions on one argument; runc makes two rules of them, that
        # is "or", and then `not A, not B` allows everything.
        raise Unsupported(
            f"seccomp: the rule for {rule['names'][0]} has two conditions on one argument"
        )
    comparisons = (_ArgumentComparison * len(arguments))()
    for comparison, argument in zip(comparisons, arguments, strict=True):
        comparison.arg = argument["index"]
        comparison.op = OPERATORS[argument["op"]]
        comparison.datum_a = argument["value"]
        comparison.datum_b = argument.get("valueTwo", 0)
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == NR_SCMP_ERROR:
            # Newer than this libseccomp, or of another architecture: the default action holds.
            continue
        result = library.seccomp_rule_add_array(
            context, action, number, len(arguments), comparisons
        )
        if result not in {0, -EEXIST}:
            raise _failure(f"seccomp_rule_add {name}", result)


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        result = library.seccomp_export_bpf(context, fd)
        if result != 0:
            raise _failure("seccomp_export_bpf", result)
        program = os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)
    if not _is_program(program):
        raise _failure("seccomp_export_bpf: program too long", 0)
    return program


def _action(name: str, data: int | None) -> int:
    if name not in WITH_DATA:
        return ACTIONS[name]
    return ACTIONS[name] | (EPERM if data is None else data)


def _failure(call: str, result: int) -> RuntimeFailure:
    reason = f": {os.strerror(-result)}" if result else ""
    return RuntimeFailure(f"seccomp: {call} failed{reason}", step=_STEP, errno=-result)


def _libseccomp() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise Unsupported(
            f"seccomp: {error}", hint="install libseccomp2 (apt install libseccomp2)"
        ) from error
    context: Any = ctypes.c_void_p
    library.seccomp_version.restype = ctypes.POINTER(_Version)
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_init.restype = context
    library.seccomp_release.argtypes = (context,)
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = (context, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = (context, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_rule_add_array.argtypes = (
        context,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_ArgumentComparison),
    )
    library.seccomp_export_bpf.argtypes = (context, ctypes.c_int)
    return library
