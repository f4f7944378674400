"""Take the power away from the store's file system at many moments; look at what is left of it.

The store lies on an ext4 of its own.  Its shutdown without writing the journal loses what has not
been written, as a machine without power does; whoever had files open is killed, and the file system
mounted again.  Sent into the rig by its text (faults/driving.py).
"""

from __future__ import annotations

import base64
import fcntl
import gzip
import json
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
from typing import Any

from namespace.faults import contract

_PLACE = "/home/alice/power"
_DISK, _GOLDEN = "/home/power.disk", "/home/power.golden"
_TRACE = "/run/power.trace"
# ext4.h: EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
_SHUTDOWN, _WITHOUT_LOG = 0x8004587D, 2
# rootlesspy.engine.statefile
_UNSYNCED = 0o1000
_LIMIT_S = 60.0
_UNIT = re.compile(r"/rp-[^/]+\.(?:scope|service)(?:/|$)")


def main(job: dict[str, Any]) -> None:
    """Go through a job's points; print how many were reached and what went wrong.

    job: disk (an empty ext4, gzip and base64), prepare (argvs, once), tries: each with command,
    before (argvs), points ((call, n), or call "" for the command's end; none: all of steps), steps
    (call → each n-th), codes, told (argv → what it prints when the command had succeeded), again.
    """
    held = contract.Contract()
    held.environment["XDG_DATA_HOME"] = _PLACE
    held.store = f"{_PLACE}/rootlesspy"
    failures, reached = [], 0
    try:
        _make(job["disk"])
        for argv in job["prepare"]:
            _demand(held, argv)
        _unmount()
        shutil.copyfile(_DISK, _GOLDEN)
        for each in job["tries"]:
            for number, (call, count) in enumerate(each["points"] or _all_points(held, each)):
                found, fired = _point(held, each, call, count, with_names=number % 2 == 1)
                reached += fired
                where = f"{' '.join(each['command'])[:60]}: {call} {count}"
                failures += [f"{where}: {text}" for text in found]
                if job.get("verbose"):
                    print(where, fired, found, file=sys.stderr, flush=True)
    finally:
        _restore(held)
    json.dump({"reached": reached, "failures": failures}, sys.stdout)


def _make(disk: str) -> None:
    """Write the disk and the device nodes that a mount of it needs."""
    with open(_DISK, "wb") as file:
        file.write(gzip.decompress(base64.b64decode(disk)))
    nodes = {"/dev/loop-control": (stat.S_IFCHR, 10, 237)}
    nodes |= {f"/dev/loop{number}": (stat.S_IFBLK, 7, number) for number in range(64)}
    for path, (kind, major, minor) in nodes.items():
        if not os.path.exists(path):
            os.mknod(path, kind | 0o600, os.makedev(major, minor))
    os.makedirs(_PLACE, exist_ok=True)
    _mount()
    shutil.rmtree(f"{_PLACE}/lost+found")
    os.chown(_PLACE, 1000, 1000)


def _restore(held: contract.Contract) -> None:
    """Leave the rig as it was."""
    if os.path.ismount(_PLACE):
        held.run(["rp", "rm", "-f", "-a"])
        _end_all()
        _unmount()
    os.rmdir(_PLACE)
    for path in (_DISK, _GOLDEN, _TRACE):
        if os.path.exists(path):
            os.unlink(path)


def _point(
    held: contract.Contract, each: dict[str, Any], call: str, count: int, *, with_names: bool
) -> tuple[list[str], bool]:
    """Cut one run short; return what is wrong afterwards, and whether it was cut where wanted.

    with_names: what has happened to names is on disk by chance, as the kernel writes them by
    itself after seconds; what files that nobody synced contain is not.
    """
    shutil.copyfile(_GOLDEN, _DISK)
    _mount()
    for argv in each["before"]:
        _demand(held, argv)
    done = _run(held, each["command"], call, count)
    if with_names:
        _commit_names()
    _cut()
    found = contract.wrong_words(done, (*each["codes"], 125))
    try:
        # What nobody will miss goes with the first command that lists containers.
        found += _tried_again(held, [(["rp", "ps", "-a"], 0)])
        found += _unsound(held)
        found += [text for text in held.problems(images=False) if not _is_of_no_account(text)]
        if not call and done.returncode != 125:
            found += _broken_promises(held, each["told"])
        found += _tried_again(held, each["again"])
    except subprocess.TimeoutExpired as error:
        found.append(f"S1: {error.cmd} does not end")
    held.run(["rp", "rm", "-f", "-a"])
    _end_all()
    _unmount()
    return found, not call or done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)


def _run(
    held: contract.Contract, command: list[str], call: str, count: int
) -> subprocess.CompletedProcess[str]:
    """Run a command; with a call, the process that makes it for the n-th time is killed there."""
    if not call:
        return held.run(command)
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={count}"]
    argv = ["strace", "-u", held.user, "-qqq", "-f", "-o", _TRACE, *inject, *command]
    # Whom the trace has lost is killed with the power.
    return held.traced(argv)


def _unsound(held: contract.Contract) -> list[str]:
    """Return what is wrong with the image store beyond what nobody needs any more: S3."""
    found = held.run(["rp", "fsck"])
    lines = (found.stdout + found.stderr).splitlines()
    unneeded = ("orphan ", "half-made ", "rp: the image store is not sound")
    bad = [line for line in lines if not line.startswith(unneeded)]
    if found.returncode:
        held.run(["rp", "fsck", "--repair"])
        found = held.run(["rp", "fsck"])
        bad += (found.stdout + found.stderr).splitlines()
    return [f"S3: {line}" for line in bad]


def _is_of_no_account(problem: str) -> bool:
    """Say whether a file is said to be half-written that was empty and never synced.

    rp takes it for what is not there; that is what is asked of it.
    """
    path = problem.removeprefix("S2: ").partition(":")[0]
    try:
        found = os.stat(path)
    except OSError:
        return False
    return problem.startswith("S2: ") and not found.st_size and bool(found.st_mode & _UNSYNCED)


def _broken_promises(held: contract.Contract, told: list[tuple[list[str], str]]) -> list[str]:
    """Return what a command had said to be done and is not."""
    found = []
    for argv, wanted in told:
        done = held.run(argv)
        if done.returncode or not re.fullmatch(wanted, done.stdout.strip()):
            found.append(f"T5: {argv}: {done.returncode} {done.stdout}{done.stderr}, not {wanted}")
    return found


def _tried_again(held: contract.Contract, again: list[tuple[list[str], int]]) -> list[str]:
    """Return what does not work that has to work afterwards, whatever was lost."""
    found = []
    for argv, code in again:
        done = held.run(argv)
        if done.returncode != code or "Traceback" in done.stderr:
            found.append(f"again: {argv}: {done.returncode} {done.stdout}{done.stderr}")
    return found


def _all_points(held: contract.Contract, each: dict[str, Any]) -> list[tuple[str, int]]:
    """Count the calls of a whole run; return each n-th of the busiest process, and the end."""
    shutil.copyfile(_GOLDEN, _DISK)
    _mount()
    for argv in each["before"]:
        _demand(held, argv)
    directory = f"{_TRACE}.d"
    os.mkdir(directory)
    calls = ["strace", "-u", held.user, "-qqq", "-ff", "-o", f"{directory}/t", "-e"]
    held.traced([*calls, f"trace={','.join(each['steps'])}", *each["command"]])
    most = contract.most_calls(directory, each["steps"])
    held.run(["rp", "rm", "-f", "-a"])
    _end_all()
    _unmount()
    points = [
        (call, count)
        for call, step in each["steps"].items()
        for count in range(1, most[call] + 1, step)
    ]
    # Twice: with names and without.
    return [("", 0), ("", 0), *(point for point in points for _ in range(2))]


def _commit_names() -> None:
    """Have the journal written: an fsync(2) of any file does that."""
    path = f"{_PLACE}/written"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(fd, b"x")
    os.fsync(fd)
    os.close(fd)


def _cut() -> None:
    """Lose what is not on the disk, and everybody."""
    fd = os.open(_PLACE, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG))
    os.close(fd)
    _end_all()
    shutil.rmtree("/run/user/1000/rootlesspy", ignore_errors=True)
    _unmount()
    _mount()


def _end_all() -> None:
    """Kill supervisors, payloads and commands, until there are none."""
    limit_s = time.monotonic() + _LIMIT_S
    while found := _processes():
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > limit_s:
            raise SystemExit(f"they do not end: {found}")
        time.sleep(0.01)


def _processes() -> list[int]:
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
                in_unit = _UNIT.search(file.read())
            with open(f"/proc/{pid}/environ", "rb") as environ:
                ours = f"XDG_DATA_HOME={_PLACE}".encode() in environ.read()
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as status:
                is_zombie = status.read().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if (in_unit or ours) and not is_zombie and pid != os.getpid():
            found.append(pid)
    return found


def _mount() -> None:
    argv = ["mount", "-t", "ext4", "-o", "loop,user_xattr", _DISK, _PLACE]
    subprocess.run(argv, check=True, timeout=_LIMIT_S)


def _unmount() -> None:
    """Unmount it: who had it open has been killed, and is gone within moments."""
    limit_s = time.monotonic() + _LIMIT_S
    while subprocess.run(["umount", _PLACE], capture_output=True, check=False).returncode:
        if time.monotonic() > limit_s:
            raise SystemExit("the store's file system stays busy")
        time.sleep(0.02)
    # A mount namespace that is on its way out may have it still: a mount would find that one.
    losetup = ["losetup", "--associated", _DISK]
    while subprocess.run(losetup, capture_output=True, check=True).stdout:
        if time.monotonic() > limit_s:
            raise SystemExit("the store's disk stays in use")
        time.sleep(0.02)


def _demand(held: contract.Contract, argv: list[str]) -> None:
    done = held.run(argv)
    if done.returncode:
        raise SystemExit(f"{argv}: {done.returncode} {done.stdout}{done.stderr}")
