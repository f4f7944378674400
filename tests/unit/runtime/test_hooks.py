"""Hooks: state on stdin, a clean environment, output kept short, timeouts."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from rootlesspy.runtime import hooks

if TYPE_CHECKING:
    from pathlib import Path

    from rootlesspy.oci.runtime_spec import Hook


def prepared(tmp_path: Path, script: str, **fields: Any) -> hooks.Prepared:
    path = tmp_path / "hook"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(stat.S_IRWXU)
    return hooks.prepare([{"path": os.fspath(path), **fields}])[0]  # type: ignore[typeddict-item]


def test_state_is_on_stdin_and_the_environment_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "token")
    out = tmp_path / "out"
    state = b'{"pid": 1}' + b" " * 100_000
    hook = prepared(tmp_path, f"cat > {out}; /usr/bin/env >> {out}", env=["ONLY=this"])
    hooks.run(hook, state)
    content = out.read_bytes()
    assert content.startswith(state)
    assert b"ONLY=this" in content
    assert b"SECRET" not in content


def test_hook_that_reads_nothing_and_leaves_a_child_is_not_waited_for(tmp_path: Path) -> None:
    hooks.run(prepared(tmp_path, "sleep 5 & exit 0"), b"x" * 1_000_000)


def test_failure_says_how_and_its_last_words(tmp_path: Path) -> None:
    hook = prepared(tmp_path, "head -c 100000 /dev/zero | tr '\\0' x; echo last words >&2; exit 3")
    with pytest.raises(OSError, match=r"exit status 3.*last words") as caught:
        hooks.run(hook, b"{}")
    assert len(str(caught.value)) < 6000


def test_timeout_kills(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="did not end within 1 s") as caught:
        hooks.run(prepared(tmp_path, "exec sleep 1000", timeout=1), b"{}")
    assert caught.value.errno == errno.ETIMEDOUT


def test_a_timeout_may_be_years(tmp_path: Path) -> None:
    """poll(2) takes less than 25 days."""
    hooks.run(prepared(tmp_path, "exit 0", timeout=2**31 - 1), b"{}")


def test_hook_that_is_not_there(tmp_path: Path) -> None:
    hook = prepared(tmp_path, "true")._replace(path=b"/nowhere/hook")
    with pytest.raises(FileNotFoundError):
        hooks.run_all([hook], b"{}")


def test_who_writes_without_end_is_killed_in_time(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="did not end within 1 s"):
        hooks.run(prepared(tmp_path, "while :; do echo words; done", timeout=1), b"{}")


def test_what_an_ended_hook_left_behind_may_go_on_writing(tmp_path: Path) -> None:
    script = "(while kill -0 $$; do :; done; exec timeout 20 yes) 2>/dev/null & exit 0"
    hooks.run(prepared(tmp_path, script), b"{}")


def test_timeout_kills_its_children_too(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = f"exec 9>{lock}; flock 9; sleep 1000 & sleep 1000"
    with pytest.raises(OSError, match="did not end"):
        hooks.run(prepared(tmp_path, script, timeout=1), b"{}")
    # Held for as long as one of them lives.
    with open(lock, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


_INTERRUPTED = """
import signal, sys
from rootlesspy.runtime import hooks

def stop(*_):
    raise InterruptedError

signal.signal(signal.SIGUSR1, stop)
try:
    hooks.run(hooks.prepare([{"path": sys.argv[1]}])[0], b"{}")
except InterruptedError:
    print("interrupted")
"""


def test_who_waits_is_interrupted_and_the_hook_killed(tmp_path: Path) -> None:
    """In a process with one thread, as rp's: pytest-xdist's other one does not block signals."""
    begun = tmp_path / "begun"
    hook = prepared(tmp_path, f"echo $$ > {begun}; kill -USR1 $PPID; exec sleep 1000")
    who = [sys.executable, "-c", _INTERRUPTED, os.fsdecode(hook.path)]
    assert subprocess.run(who, stdout=subprocess.PIPE, check=True).stdout == b"interrupted\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)


def test_it_has_a_session_of_its_own_and_three_descriptors(tmp_path: Path) -> None:
    # Above those that the shell has for itself.
    inherited = fcntl.fcntl(0, fcntl.F_DUPFD, 100)
    out = tmp_path / "out"
    try:
        script = "echo /proc/self/fd/*; read _ _ _ _ _ session _ </proc/$$/stat; echo $$ $session"
        hook = prepared(tmp_path, f"({script}) > {out}")
        hooks.run(hook, b"{}", closed=[inherited])
    finally:
        os.close(inherited)
    fds, ids = out.read_text().splitlines()
    assert str(inherited) not in [each.rpartition("/")[2] for each in fds.split()]
    pid, session = ids.split()
    assert pid == session


@pytest.mark.parametrize("pid", [1, 4194304])
def test_the_pid_is_added_to_a_state(pid: int) -> None:
    state = json.dumps({"id": "a"}).encode()
    assert json.loads(hooks.with_pid(state, pid)) == {"pid": pid, "id": "a"}


def test_all_poststop_hooks_run_whatever_they_say() -> None:
    failing: Hook = {"path": "/bin/false"}
    missing: Hook = {"path": "/nowhere/hook"}
    said = hooks.run_poststop([failing, missing, {"path": "/bin/true"}], b"{}")
    assert said == [
        "poststop hook /bin/false: exit status 1",
        "poststop hook /nowhere/hook: No such file or directory",
    ]
