"""What rp-oci loads for the commands that engines call for every container, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
OURS = {
    "__main__",
    "cli.oci", "cli.oci_flags", "engine.oci_runtime.jsontext", "engine.oci_runtime.state",
    "errors", "light_importer", "light_json", "light_typing", "linux.procfs", "report",
}  # fmt: skip
CHANGING = {
    "engine.oci_runtime.hook_stages", "engine.oci_runtime.lifecycle", "light_modules",
    "light_socket",
}  # fmt: skip
# Each of these is 5 to 15 ms of a command that takes 40.
SLOW = {
    "typing", "re", "enum", "json", "socket", "signal", "selectors", "ctypes", "dataclasses",
    "argparse",
}  # fmt: skip


def loaded(root: Path, *words: str) -> set[str]:
    """Return what one command line loads."""
    script = (
        "import sys; before = set(sys.modules); from rootlesspy import __main__;"
        f"code = __main__.main({['oci', '--root', os.fspath(root), *words]!r}); assert code == 1;"
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (("state", "nobody"), OURS),
        (("start", "nobody"), OURS | CHANGING),
        (("kill", "nobody", "KILL"), OURS | CHANGING),
        (("delete", "nobody"), OURS | CHANGING),
    ],
)
def test_what_is_loaded(tmp_path: Path, words: tuple[str, ...], ours: set[str]) -> None:
    names = loaded(tmp_path, *words)
    own = {name.partition(".")[2] for name in names if name.startswith("rootlesspy.")}
    assert own - {name.rpartition(".")[0] for name in own} == ours
    assert names & SLOW == set()
