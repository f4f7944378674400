"""Linters are tests: format, lint, types, and calls that no linter of ours knows to forbid."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Call → why not.
BANNED_CALLS = {
    "os.system": "a shell between us and the program",
    "os.popen": "a shell between us and the program",
    "tarfile.extract": "follows links out of the target (CVE-2007-4559)",
    "tarfile.extractall": "follows links out of the target (CVE-2007-4559)",
    "threading.Thread": "a thread before a fork",
    "eval": "runs data",
    "exec": "runs data",
}
BANNED_KEYWORDS = {
    ("shell", True): "shell=True: a shell between us and the program",
    ("preexec_fn", None): "preexec_fn: Python code between fork and exec",
}


def run_linter(*argv: str) -> None:
    if importlib.util.find_spec(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed (cure: pip install .[test])")
    done = subprocess.run(
        [sys.executable, "-m", *argv], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(argv)}:\n{done.stdout}{done.stderr}", pytrace=False)


def test_ruff_format() -> None:
    run_linter("ruff", "format", "--check", "--quiet", "--diff", ".")


def test_ruff_check() -> None:
    run_linter("ruff", "check", "--output-format=concise", ".")


# Without its cache it takes a minute of a processor that others use too.
@pytest.mark.limit(1800)
def test_mypy_strict() -> None:
    run_linter("mypy", "--no-error-summary")


def test_shell_scripts_parse() -> None:
    scripts = [path for path in (REPOSITORY / "scripts").iterdir() if path.is_file()]
    scripts += [REPOSITORY / "tests/rig/rig", REPOSITORY / "tests/rig/boot.sh"]
    scripts += [REPOSITORY / ".ci/run"]
    for script in scripts:
        assert script.read_text(encoding="utf-8").startswith("#!/bin/sh\n"), script
        subprocess.run(["sh", "-n", script], check=True)


def banned_in(source: str) -> list[str]:
    """Return the banned calls of a source text, as `line: reason`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        last = called.rpartition(".")[2]
        # Whatever the archive object is called, its extract methods are tarfile's.
        names = (called, f"tarfile.{last}" if "." in called else called)
        found += [f"{node.lineno}: {name}: {BANNED_CALLS[name]}" for name in names
                  if name in BANNED_CALLS][:1]  # fmt: skip
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            for (name, banned_value), reason in BANNED_KEYWORDS.items():
                if keyword.arg == name and banned_value in (None, value):
                    found.append(f"{node.lineno}: {reason}")
    return found


@pytest.mark.row("tarfile", "tarfile extracts nothing; rp has a reader and an unpacker of its own")
@pytest.mark.row("threads and fork", "no threads; children leave by _exit; all tests in dev mode")
def test_no_banned_call_in_the_package() -> None:
    found = []
    for path in sorted((REPOSITORY / "rootlesspy").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(REPOSITORY)}:{line}" for line in banned_in(source)]
    assert found == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("os.system('x')", 1),
        ("archive.extractall(path)", 1),
        ("tarfile.open(p).extract(m)", 1),
        ("subprocess.run('x', shell=True)", 1),
        ("subprocess.run(['x'], shell=False)", 0),
        ("subprocess.Popen(['x'], preexec_fn=f)", 1),
        ("extract(data)", 0),
        ("exec('x')", 1),
        ("os.execve(a, b, c)", 0),
    ],
)
def test_the_ban_finds_what_it_forbids(source: str, count: int) -> None:
    assert len(banned_in(source)) == count
