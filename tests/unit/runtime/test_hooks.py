"""Hooks: state on stdin, a clean environment, output kept short, timeouts."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from rootlesspy.runtime import hooks

if TYPE_CHECKING:
    from pathlib import Path


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


def test_hook_that_is_not_there(tmp_path: Path) -> None:
    hook = prepared(tmp_path, "true")._replace(path=b"/nowhere/hook")
    with pytest.raises(FileNotFoundError):
        hooks.run_all([hook], b"{}")
