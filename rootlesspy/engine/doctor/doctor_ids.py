"""Checks of user namespaces, subordinate ids and the helpers that map them."""

from __future__ import annotations

import errno
import os

from rootlesspy.engine import idmap
from rootlesspy.engine.doctor.doctor import (
    FAILED,
    OK,
    WARNING,
    Check,
    Finding,
    Machine,
    Report,
    command_for_root,
    skipped,
)
from rootlesspy.linux import mount, userns
from rootlesspy.linux.userns import HelperError, IdMapping, IdMaps

_SETTINGS = "/etc/sysctl.d/99-rootlesspy.conf"
# Each forbids or breaks user namespaces: name, the value that does, the value that does not.
SWITCHES = (
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)
_WANTED_IDS = 65536
_LIMIT_BYTES = 1 << 20
_FIRST_ID, _LAST_ID = 100_000, 2**31
_HELPERS = ("newuidmap", "newgidmap")


def user_namespaces(_machine: Machine, _report: Report) -> Finding:
    """Make a user namespace and mount something in it: Ubuntu allows the one without the other."""
    try:
        userns.call_in_userns(single_id(), _mount_something)
    except OSError as error:
        return _forbidden(error)
    return Finding(OK, "they can be made, and mounted in")


def subordinate_ids(machine: Machine, _report: Report) -> Finding:
    """Read the ranges of /etc/subuid and /etc/subgid."""
    sizes = {}
    for path in ("/etc/subuid", "/etc/subgid"):
        ranges = userns.subordinate_ranges(path, machine.user, os.getuid())
        sizes[path] = sum(count for _, count in ranges)
        if shared := _shared(path, ranges, machine.user):
            return Finding(WARNING, shared, cure="as root: grant a range that nobody has")
    least = min(sizes.values())
    if least >= _WANTED_IDS:
        return Finding(OK, f"{least} of them, in /etc/subuid and /etc/subgid")
    lacking = [path for path, size in sizes.items() if size < _WANTED_IDS]
    grant = f"{_free_id()}-{_free_id() + _WANTED_IDS - 1}"
    options = {"/etc/subuid": "--add-subuids", "/etc/subgid": "--add-subgids"}
    words = " ".join(f"{options[path]} {grant}" for path in lacking)
    if least:
        what = (
            f"only {least} ids for {machine.user}, not {_WANTED_IDS}: images that use others fail"
        )
    else:
        empty = " and ".join(path for path, size in sizes.items() if not size)
        what = f"no line for {machine.user} in {empty}: only uid 0 exists inside containers"
    return Finding(
        WARNING,
        what,
        cure="as root: grant a range that nobody has, then pull images again",
        root=f"usermod {words} {machine.user}",
    )


def _shared(path: str, ranges: tuple[tuple[int, int], ...], user: str) -> str:
    """Say who else has ids of these ranges: accounts, of the network too (CVE-2024-56433)."""
    import grp
    import pwd

    is_uid = path == "/etc/subuid"
    accounts = (
        ((each.pw_uid, each.pw_name) for each in pwd.getpwall())
        if is_uid
        else ((each.gr_gid, each.gr_name) for each in grp.getgrall())
    )
    for number, name in accounts:
        if any(start <= number < start + count for start, count in ranges):
            kind = "account" if is_uid else "group"
            return f"{kind} {name} has {number}, which is one of your subordinate ids in {path}"
    try:
        with open(path, "rb") as file:
            lines = file.read(_LIMIT_BYTES).split(b"\n")
    except OSError:
        return ""
    own = (user.encode(), str(os.getuid()).encode())
    for line in lines:
        fields = line.split(b":")
        if len(fields) != 3 or fields[0] in own or not _are_numbers(fields[1:]):
            continue
        start, end = int(fields[1]), int(fields[1]) + int(fields[2])
        if any(start < first + size and first < end for first, size in ranges):
            who = os.fsdecode(fields[0])
            return f"{path}: ids of {who} overlap with yours: files of containers can be theirs"
    return ""


def _are_numbers(fields: list[bytes]) -> bool:
    return all(each.isdigit() and len(each) <= 10 for each in fields)


def id_helpers(_machine: Machine, report: Report) -> Finding:
    """Look at newuidmap and newgidmap, then map the ids with them."""
    try:
        maps = idmap.default_maps()
    except OSError as error:
        return Finding(FAILED, f"{error.filename} cannot be read: {error.strerror}")
    if maps.is_single():
        return Finding(OK, "not needed without subordinate ids")
    for name in _HELPERS:
        try:
            program = userns.find_helper(name)
        except HelperError as error:
            return _unusable(str(error.filename), str(error.strerror), error)
        reason, _ = userns.helper_weakness(program)
        if reason:
            return _unusable(program, reason, HelperError(errno.EPERM, reason, program))
    if (missing := skipped(report, "user-namespaces")) is not None:
        return missing
    try:
        userns.call_in_userns(maps, lambda: None)
    except HelperError as error:
        return _unusable(str(error.filename), f"refuses: {error.strerror}", error)
    return Finding(OK, "newuidmap and newgidmap map your ids")


def single_id() -> IdMaps:
    """Return maps that need neither helpers nor subordinate ids."""
    return IdMaps((IdMapping(0, os.getuid(), 1),), (IdMapping(0, os.getgid(), 1),))


def _mount_something() -> None:
    mount.mount(b"tmpfs", b"/tmp", b"tmpfs", mount.MS_NOSUID | mount.MS_NODEV, None)


def _forbidden(error: OSError) -> Finding:
    for name, bad, good in SWITCHES:
        if _sysctl(name) == bad:
            return Finding(
                FAILED,
                f"forbidden by {name}={bad}",
                cure=f"as root: set it to {good}",
                root=f"echo {name}={good} >>{_SETTINGS}; sysctl -w {name}={good}",
            )
    if error.errno == errno.ENOSPC:
        return Finding(
            FAILED,
            "there are already as many as user.max_user_namespaces allows",
            cure="as root: raise it",
            root=f"echo {SWITCHES[0][0]}=100000 >>{_SETTINGS}; sysctl -w {SWITCHES[0][0]}=100000",
        )
    return Finding(
        FAILED,
        f"forbidden: {error.strerror}",
        cure="rp runs inside a container or sandbox that forbids them, or a security module does",
    )


def _unusable(program: str, reason: str, error: HelperError) -> Finding:
    cure = userns.helper_hint(error)
    missing = error.errno == errno.ENOENT
    return Finding(
        FAILED,
        f"{program} {reason}",
        cure="install the package uidmap" if missing else cure,
        root="" if missing else command_for_root(cure),
        packages=("uidmap",) if missing else (),
    )


def _free_id() -> int:
    """Return the first id from which on nobody has subordinate ids."""
    ends = [_FIRST_ID]
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        for line in lines:
            numbers = line.split(":")[1:]
            if len(numbers) == 2 and all(each.isascii() and each.isdigit() for each in numbers):
                ends.append(int(numbers[0]) + int(numbers[1]))
    return max(end for end in ends if end < _LAST_ID)


def _sysctl(name: str) -> str:
    try:
        with open(f"/proc/sys/{name.replace('.', '/')}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


CHECKS = (
    Check("user-namespaces", "root inside is not root outside", user_namespaces),
    Check("subordinate-ids", "users inside other than root", subordinate_ids),
    Check("id-helpers", "they give a container its subordinate ids", id_helpers),
)
