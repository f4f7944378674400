"""README's first command, as people type it: with a terminal, in a pipe, twice, interrupted."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from rig import instance, location
from rig.machine import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

# The first to run may have to build the root file system.
pytestmark = pytest.mark.limit(900)

TRY = os.fspath(location.REPOSITORY / "scripts" / "try")


@pytest.fixture(autouse=True)
def leaves_no_rig() -> Iterator[None]:
    """Fail when a rig is left running."""
    if os.geteuid() != 0:
        pytest.skip("without root the script runs in this user's own session")
    before = {rig.name for rig in instance.running()}
    yield
    after = {rig.name for rig in instance.running() if rig.name.startswith("try-")}
    assert after - before == set()


def test_without_a_terminal_it_shows_the_container_and_ends() -> None:
    done = subprocess.run(
        [TRY], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("NAME=", "ID="))


def test_exit_code_of_the_container_is_passed_on() -> None:
    done = subprocess.run(
        [TRY, "sh", "-c", "echo $((6 * 7)); exit 3"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "42\n")


def test_with_a_terminal_it_is_a_shell_in_the_container() -> None:
    with Terminal([TRY]) as terminal:
        terminal.expect(r"/ # ", timeout=900)
        terminal.send("hostname; id -u; stty size\r")
        terminal.expect(r"0\r\n24 80")
        terminal.send("exit 7\r")
        assert terminal.wait(timeout=300) == 7


def test_with_a_user_manager_it_runs_directly(rig: Machine) -> None:
    archive = subprocess.run(
        ["git", "archive", "HEAD", "scripts", "rootlesspy", "pyproject.toml"],
        cwd=location.REPOSITORY, capture_output=True, check=True,
    ).stdout  # fmt: skip
    rig.run(["sh", "-c", "mkdir clone && tar -x -C clone"], input=archive)
    try:
        # A rig has no way to PyPI: what the script would install is there already.
        ready = "ln -s /usr/bin/rp .venv/bin/rp && touch .venv/dependencies .venv/package"
        rig.run(["sh", "-c", f"cd clone && mkdir -p .venv/bin && {ready}"])
        done = rig.run(["clone/scripts/try"])
        assert done.stdout.startswith(("NAME=", "ID="))
        assert "namespaces" not in done.stderr
        with rig.pty(["clone/scripts/try"]) as terminal:
            terminal.expect("/ # ")
            terminal.send("exit 7\r")
            assert terminal.wait() == 7
    finally:
        rig.run(["rm", "-r", "clone"])


def test_interrupted_it_cleans_up() -> None:
    with Terminal([TRY]) as terminal:
        terminal.expect("making one in namespaces", timeout=300)
        terminal.send("\x03")
        assert terminal.wait(timeout=300) == 130
