"""Everyday commands import nothing heavy: 12 to 70 ms of each would be gone for it.

Whoever needs one of these modules imports it in the function that does, or from light_modules.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
HEAVY = {
    "argparse", "asyncio", "base64", "collections", "contextlib", "ctypes", "dataclasses", "enum",
    "fnmatch", "functools", "getpass", "hashlib", "inspect", "json", "logging", "pathlib",
    "platform", "re", "selectors", "shutil", "signal", "socket", "string", "struct", "subprocess",
    "tempfile", "threading", "traceback", "typing", "urllib",
    "click", "cryptography", "lxml", "pyroute2", "pystemd", "rich", "typer", "urllib3", "yaml",
    "zstandard",
}  # fmt: skip
# Each alone, in a store where nothing is yet: what does not exist is told.
LINES = (
    "container exists web",
    "container ls",
    "container prune --force",
    "cp web:/x /tmp",
    "diff web",
    "events --stream=false --no-trunc",
    "export web",
    "history alpine",
    "image exists alpine",
    "image inspect alpine",
    "image ls -q",
    "image tree alpine",
    "images",
    "images --filter dangling=true",
    "images --format json",
    "inspect web",
    "kill web",
    "logs web",
    "pause web",
    "pod exists web",
    "pod ps",
    "port web",
    "rename web db",
    "restart web",
    "rmi alpine",
    "secret ls",
    "stats --no-stream web",
    "tag alpine a",
    "top web",
    "update --restart=no web",
    "untag alpine",
    "version",
    "--version",
    "volume create web",
    "volume exists web",
    "volume inspect web",
    "volume ls",
    "volume ls --format json",
    "volume prune --force",
    "volume rm web",
    "wait web",
)


# ipaddress, which they need, imports these.
OF_ADDRESSES = {"collections", "functools"}
WITH_ADDRESSES = (
    "login --get-login localhost:5000",
    "network exists web",
    "network inspect web",
    "network ls",
)


def loaded(line: str, home: Path, **environment: str) -> set[str]:
    """Return the modules that a command line loads, by their top levels."""
    script = (
        "import sys; before = set(sys.modules)\n"
        "from rootlesspy.__main__ import main\n"
        f"main({line.split()!r})\n"
        # What only typer understands fails here, and would say nothing.
        "assert 'rootlesspy.cli.typer_import' not in sys.modules\n"
        "print('\\nloaded', *set(sys.modules) - before)"
    )
    done = subprocess.run(
        # Without site: what it loads is the machine's affair.
        [sys.executable, "-S", "-c", script],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = done.stdout.rpartition("\nloaded ")[2].split()
    return {name.partition(".")[0] for name in names if not name.startswith("_")}


@pytest.mark.parametrize("line", LINES)
def test_command_imports_nothing_heavy(line: str, tmp_path: Path) -> None:
    modules = loaded(line, tmp_path, XDG_RUNTIME_DIR=str(tmp_path))
    assert "rootlesspy" in modules
    assert modules & HEAVY == set()


@pytest.mark.parametrize("line", WITH_ADDRESSES)
def test_command_with_addresses_imports_little_more(line: str, tmp_path: Path) -> None:
    modules = loaded(line, tmp_path, XDG_RUNTIME_DIR=str(tmp_path))
    assert "rootlesspy" in modules
    assert modules & HEAVY - OF_ADDRESSES == set()


def test_the_list_notices_an_import(tmp_path: Path) -> None:
    assert loaded("images --format {{.ID}}", tmp_path) & HEAVY >= {"re"}
