"""pull, images, rmi, ps and rm from the front door: what they print, and podman's exit codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

NAME = "docker.io/library/busybox:latest"


@pytest.fixture
def busybox(rig: Machine) -> Iterator[str]:
    """Return the id of an image that no other test needs."""
    yield rig.run(["rp", "pull", "busybox"], timeout=120).stdout.strip()
    rig.run(["rp", "rmi", "-f", "busybox"], check=False)


def test_images(rig: Machine, busybox: str) -> None:
    wanted = ["--filter", "reference=busybox"]
    (found,) = json.loads(rig.run(["rp", "images", "--format", "json", *wanted]).stdout)
    assert found["Id"] == busybox
    assert found["Names"] == [NAME]
    assert rig.run(["rp", "images", "-q", *wanted]).stdout == f"{busybox[:12]}\n"
    table = rig.run(["rp", "images", "busybox"]).stdout.splitlines()
    assert table[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert table[1].split()[:3] == [*NAME.split(":"), busybox[:12]]


def test_progress_on_a_terminal_leaves_the_cursor_alone(rig: Machine, busybox: str) -> None:
    rig.run(["rp", "rmi", "busybox"])
    with rig.pty(["rp", "pull", "busybox"]) as terminal:
        drawn = terminal.expect(busybox)
        assert b"\x1b[?25l" not in drawn.string
        assert b"done" in drawn.string
        assert terminal.wait() == 0


def test_rmi_tells_in_use_from_missing(rig: Machine, busybox: str) -> None:
    rig.run(["rp", "run", "--name", "user", "busybox", "true"])
    used = rig.run(["rp", "rmi", "busybox"], check=False)
    assert (used.returncode, used.stdout) == (2, "")
    assert "in use by container user" in used.stderr
    missing = rig.run(["rp", "rmi", "no-such-image"], check=False)
    assert missing.returncode == 1
    removed = rig.run(["rp", "rmi", "-f", "busybox"])
    assert removed.stdout == f"Untagged: {NAME}\nDeleted: {busybox}\n"
    assert "user" not in rig.run(["rp", "ps", "-a", "--format", "{{.Names}}"]).stdout.split()


def test_ps_and_rm(rig: Machine, alpine: str) -> None:
    for name, code in (("one", "0"), ("two", "3")):
        argv = ["rp", "run", "--name", name, "--label", "test=ps", alpine, "sh", "-c"]
        rig.run([*argv, f"exit {code}"], check=False)
    mine = ["--filter", "label=test=ps"]
    assert rig.run(["rp", "ps", "-q", *mine]).stdout == ""
    listed = json.loads(rig.run(["rp", "ps", "-a", "--format", "json", *mine]).stdout)
    assert [(each["Names"], each["ExitCode"]) for each in listed] == [(["one"], 0), (["two"], 3)]
    form = "{{.ID}} {{.Status}}"
    short, status = rig.run(["rp", "ps", "-l", "--format", form]).stdout.split(" ", 1)
    assert status.startswith("Exited (3) ")
    # By name, by the unique beginning of an id, and twice.
    done = rig.run(["rp", "rm", "one", short, "one"], check=False)
    assert (done.returncode, done.stdout) == (1, f"one\n{short}\n")
    assert "no container with name or id 'one'" in done.stderr
    assert rig.run(["rp", "ps", "-aq", *mine]).stdout == ""


@pytest.mark.parametrize("command", ["run", "ps", "images"])
def test_help_on_this_machines_own_typer(rig: Machine, command: str) -> None:
    shown = rig.run(["rp", command, "--help"])
    assert f"Usage: rp {command}" in shown.stdout
    assert shown.stderr == ""
