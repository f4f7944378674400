"""Damage files of the store in every way and see what commands make of it.

Sent into the rig by its text (faults/driving.py) and run there as root.  Commands are run in forked
children of one interpreter that has loaded rp, as the user, through its main(): a start of Python
for each byte of each file would take hours.
"""

from __future__ import annotations

import functools
import glob
import itertools
import json
import math
import os
import pwd
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from typing import TYPE_CHECKING, Any

from namespace.faults import contract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHILD_LIMIT_S = 60
# What a field may hold in a file that somebody else wrote.
_ODD: tuple[Any, ...] = (None, [], {}, "x", -1, 1e400, [[[]]], {"a": None}, "\ud800", 10**30)


class Said:
    """What a command said: returncode and both outputs as one text."""

    def __init__(self, argv: list[str], code: int, text: str) -> None:
        self.argv, self.code, self.text = argv, code, text

    def __str__(self) -> str:
        return f"rp {' '.join(self.argv)}: {self.code} {self.text[-600:]}"


def main(job: dict[str, Any]) -> None:
    """Damage each object of job["objects"]; print the failures, and how often it was tried.

    An object: make (argvs), files (globs below the store), commands ([argv, codes, words]), step
    (at every how manieth byte a file is cut), every (each odd value for each field, not one),
    share (every how manieth of these ways is tried), seconds (so many of them as fit in, chosen by
    seed; 0 for all).
    """
    held = contract.Contract()
    _load()
    ways, tried, failures = 0, 0, []
    for each in job["objects"]:
        known, count, found = _damage(held, each)
        ways += known
        tried += count
        failures += found
        print(each["files"], known, count, found[:3], file=sys.stderr, flush=True)
    counts = {"points": ways, "tried": tried, "failed": len(failures)}
    json.dump({**counts, "failures": failures[:40]}, sys.stdout)


def _load() -> None:
    """Import what commands need, so that children start with it."""
    from rootlesspy import __main__  # noqa: F401
    from rootlesspy.cli import app, hot, inspect_command, ps, store, volumes  # noqa: F401
    from rootlesspy.engine import ending, lifecycle, storage  # noqa: F401
    from rootlesspy.engine.images import image_removal, store_care  # noqa: F401


def _damage(held: contract.Contract, wanted: dict[str, Any]) -> tuple[int, int, list[str]]:
    """Damage the files of one object in one way after the other, each time made whole again.

    Return how many ways there are, how many were tried, and what is wrong.
    """
    tried, failures = 0, []
    for argv in wanted["make"]:
        done = held.run(["rp", *argv])
        if done.returncode not in (0, 7):
            raise SystemExit(f"{argv}: {done.stdout}{done.stderr}")
    saved = tempfile.mkdtemp(prefix="damage.", dir=held.home)
    subprocess.run(["cp", "-a", "--", held.store, f"{saved}/store"], check=True)
    parts = [form.partition("/")[0] for form in wanted["files"]]
    ways = _chosen(held, wanted)
    limit_s = time.monotonic() + (wanted["seconds"] or math.inf)
    for path, label, action in ways:
        if time.monotonic() > limit_s:
            break
        action()
        tried += 1
        # What is gone is not found.
        found = _look(held, wanted["commands"], (1, 125) if label == "gone" else ())
        relative = os.path.relpath(path, held.store)
        failures += [f"{relative} {label}: {each}" for each in found]
        _restore(held, f"{saved}/store", {"containers", "names", *parts})
    subprocess.run(["rm", "-rf", "--", saved], check=True)
    for argv in (["pod", "rm", "-fa"], ["network", "prune", "-f"], ["secret", "rm", "s0"]):
        held.run(["rp", *argv])
    failures += held.clear()
    return len(ways), tried, failures


def _chosen(
    held: contract.Contract, wanted: dict[str, Any]
) -> list[tuple[str, str, Callable[[], None]]]:
    """Return file, label and action of each kind of damage, in the order they are to be tried."""
    found = []
    for path in _files(held, wanted["files"]):
        ways = _ways(path, wanted["step"], every=wanted["every"])
        found += [(path, *way) for way in itertools.islice(ways, 0, None, wanted["share"])]
    if wanted["seconds"]:
        random.Random(wanted["seed"]).shuffle(found)
    return found


def _files(held: contract.Contract, forms: list[str]) -> list[str]:
    """Return the files that fit the globs; BAD stands for the id of the container bad."""
    found = []
    for form in forms:
        if "BAD" in form:
            form = form.replace("BAD", os.readlink(f"{held.store}/names/bad"))
        found += sorted(glob.glob(f"{held.store}/{form}"))
    return found


def _restore(held: contract.Contract, saved: str, parts: set[str]) -> None:
    """Bring parts of the store back as they were."""
    for name in parts & set(os.listdir(saved)):
        subprocess.run(["rm", "-rf", "--", f"{held.store}/{name}"], check=True)
        subprocess.run(["cp", "-a", "--", f"{saved}/{name}", held.store], check=True)


def _look(held: contract.Contract, commands: list[list[Any]], also: tuple[int, ...]) -> list[str]:
    """Run the commands; return what is wrong with how they ended, or with what they said."""
    found = []
    for argv, codes, words in commands:
        said = in_process(held, argv)
        if (
            "Traceback" in said.text
            or "internal error" in said.text
            or said.code not in (*codes, *also)
        ):
            found.append(str(said))
        elif words not in said.text:
            found.append(f"no {words!r}: {said}")
    return found


def in_process(held: contract.Contract, argv: list[str]) -> Said:
    """Run rp in a forked child as the user."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_the_command(held, argv, write_fd)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        text = file.read().decode(errors="replace")
    status = os.waitpid(pid, 0)[1]
    return Said(argv, os.waitstatus_to_exitcode(status), text)


def _be_the_command(held: contract.Contract, argv: list[str], output_fd: int) -> None:
    code = 70
    try:
        account = pwd.getpwnam(held.user)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
        os.environ.clear()
        os.environ.update(held.environment)
        os.chdir("/")
        null_fd = os.open(os.devnull, os.O_RDWR)
        for target, source in ((0, null_fd), (1, output_fd), (2, output_fd)):
            os.dup2(source, target)
        from rootlesspy.__main__ import main as front_door

        # What hangs is ended by the kernel: S1.
        signal.alarm(_CHILD_LIMIT_S)
        code = front_door(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # the report of it is what is looked for
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _ways(path: str, step: int, *, every: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the kinds of damage to one file: a label and what does it."""
    if os.path.islink(path):
        yield from _odd_links(path)
        return
    with open(path, "rb") as file:
        content = file.read()
    for size in range(0, len(content), step):
        yield f"cut at {size}", functools.partial(os.truncate, path, size)
    yield "NULs", _writes(path, bytes(len(content)))
    yield "other bytes", _writes(path, os.urandom(len(content)))
    for place in range(0, len(content), 4 * step + 1):
        yield f"byte {place}", functools.partial(_flip, path, place)
    yield "deep", _writes(path, b"[" * 100_000)
    yield "huge", lambda: os.truncate(path, 1 << 40)
    yield from _odd_kinds(path)
    try:
        value = json.loads(content)
    except ValueError:
        return
    yield from _odd_values(path, value, every=every)


def _odd_links(path: str) -> Iterator[tuple[str, Callable[[], None]]]:
    for target in ("nowhere", "/dev/zero", path, "../..", "x" * 200):
        yield f"→ {target[:20]}", _replaced(path, lambda target=target: os.symlink(target, path))  # type: ignore[misc]
    yield "a file", _replaced(path, lambda: open(path, "w").close())


def _odd_kinds(path: str) -> Iterator[tuple[str, Callable[[], None]]]:
    for target in ("nowhere", "/dev/zero", "/etc/hostname", path):
        yield f"→ {target}", _replaced(path, lambda target=target: os.symlink(target, path))  # type: ignore[misc]
    yield "FIFO", _replaced(path, lambda: os.mkfifo(path))
    yield "directory", _replaced(path, lambda: os.mkdir(path))
    yield "gone", _replaced(path, lambda: None)
    yield "mode 0", lambda: os.chmod(path, 0)
    yield "of root", lambda: os.chown(path, 0, 0)


def _odd_values(path: str, value: Any, *, every: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield documents that can be parsed and are not what they should be (D2 too)."""
    odd: tuple[Any, ...] = (
        None,
        [],
        {},
        1,
        "x",
        {"version": 99},
        {"version": 1},
        {"version": None},
    )
    for each in odd:
        yield f"is {each}", _writes(path, json.dumps(each).encode())
    if not isinstance(value, dict):
        return
    for number, name in enumerate(value):
        rest = {key: each for key, each in value.items() if key != name}
        yield f"no {name}", _writes(path, json.dumps(rest).encode())
        for each in _ODD if every else [_ODD[number % len(_ODD)]]:
            text = json.dumps({**value, name: each})
            yield f"{name} is {each!r}", _writes(path, text.encode())
    yield "more fields", _writes(path, json.dumps({**value, "later": {"a": [1]}}).encode())


def _flip(path: str, place: int) -> None:
    with open(path, "r+b") as file:
        byte = os.pread(file.fileno(), 1, place)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 0x55]), place)


def _writes(path: str, content: bytes) -> Callable[[], None]:
    def act() -> None:
        with open(path, "wb") as file:
            file.write(content)

    return act


def _replaced(path: str, make: Callable[[], object]) -> Callable[[], None]:
    def act() -> None:
        os.unlink(path)
        make()

    return act
