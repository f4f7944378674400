"""What rp is short of: inodes, processor time; and commands killed in the middle of copies."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from namespace.living import exit_record, rp, running, state, until
from rig.effort import effort

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.limit(900)

PLACE = "/home/alice/few"
ENV = {"XDG_DATA_HOME": PLACE}
NONE = ("--network", "none")


@pytest.fixture
def few(rig: Machine) -> Iterator[None]:
    """Mount a file system for the store whose number of inodes can be changed."""
    if not rig.has_root:
        pytest.skip("needs root to mount")
    rig.run(["mkdir", "-p", PLACE])
    rig.root(["mount", "-t", "tmpfs", "-o", "mode=700,uid=1000,gid=1000,size=100m", "none", PLACE])
    yield
    limit_inodes(rig, None)
    rig.run(["rp", "rm", "-f", "-a"], env=ENV)
    until(lambda: rig.root(["umount", PLACE], check=False).returncode == 0, "it is busy")
    rig.run(["rmdir", PLACE])


def limit_inodes(rig: Machine, left: int | None) -> None:
    """Leave so many inodes; None: more than enough."""
    used = "$(($(stat -f -c %c . ) - $(stat -f -c %d .)))"
    count = "100000" if left is None else f"$(({used} + {left}))"
    rig.root(["sh", "-c", f"cd {PLACE} && mount -o remount,nr_inodes={count} {PLACE}"])


@pytest.mark.row("R3", "125 and one line; nothing half-made; what runs goes on; all works again")
def test_r3_no_inodes_are_left(rig: Machine, leaves_nothing: None, few: None) -> None:
    rig.run(["rp", "pull", "-q", "alpine"], env=ENV)
    rig.run(["rp", "run", "-d", "--name", "runs", *NONE, "alpine", "sleep", "600"], env=ENV)
    commands = [
        (["pull", "-q", "busybox"], (0, 12)),
        (["create", "--name", "x", *NONE, "alpine", "true"], (1, 4)),
        (["run", "--name", "x", *NONE, "alpine", "true"], (0, 3)),
        (["commit", "-q", "runs", "localhost/x"], (0, 3)),
        (["volume", "create", "x"], (0, 2)),
    ]  # fmt: skip
    for argv, lefts in commands:
        for left in lefts[: effort(2, 2)]:
            limit_inodes(rig, left)
            done = rig.run(["rp", *argv], env=ENV, check=False)
            limit_inodes(rig, None)
            assert done.returncode == 125, (argv, left, done.stdout, done.stderr)
            lines = [line for line in done.stderr.splitlines() if line.startswith("rp: ")]
            assert len(lines) == 1, (argv, left, done.stderr)
            assert "no space" in lines[0].lower(), (argv, left, done.stderr)
            assert "Traceback" not in done.stderr
        listed = rig.run(["rp", "ps", "-a", "--format", "{{.Names}} {{.State}}"], env=ENV).stdout
        assert listed == "runs running\n", argv
        # Blobs of an image that was not written to its end may stay until the next prune; how
        # many depends on which of those who write at once was first to find no room.
        checked = rig.run(["rp", "fsck", "--repair"], env=ENV, check=False).stdout.splitlines()
        left_over = [line for line in checked if not line.startswith("orphan ")]
        assert not left_over or re.fullmatch(r"\d+ cured, 0 left", "\n".join(left_over)), argv
        assert rig.run(["rp", "fsck"], env=ENV).stdout == "", argv
        assert rig.run(["rp", "volume", "ls", "-q"], env=ENV).stdout == ""
    for argv, _ in commands:
        rig.run(["rp", *argv], env=ENV)
        rig.run(["rp", "rm", "-f", "-i", "x"], env=ENV)
    assert rig.run(["rp", "exec", "runs", "echo", "in"], env=ENV).stdout == "in\n"


@pytest.mark.row("R12", "many want the processors: nothing is declared dead; all ends well")
def test_r12_no_processor_time(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    hogs = f"for n in $(seq {effort(12, 100)}); do timeout 300 sh -c 'while :; do :; done' & done"
    checks = ("--health-cmd", "true", "--health-interval", "1s", "--health-timeout", "60s")
    with rig.popen(["sh", "-c", f"{hogs}; wait"], stdout=subprocess.DEVNULL) as busy:
        try:
            with running(rig, "slow", "sleep", "600", options=checks, network="pasta") as identity:
                health = ["inspect", "--format", "{{.State.Health.Status}}", "slow"]
                until(lambda: rp(rig, *health).stdout == "healthy\n", "it is not healthy")
                assert rp(rig, "exec", "slow", "echo", "in").stdout == "in\n"
                assert rp(rig, "run", "--rm", *NONE, alpine, "sh", "-c", "exit 7").returncode == 7
                assert rp(rig, "stop", "-t", "1", "slow").returncode == 0
                assert state(rig, "slow") == "exited"
                assert exit_record(rig, identity)["exit_code"] in (137, 143)
        finally:
            busy.terminate()
            rig.run(["pkill", "-f", "^timeout 300 sh"], check=False)
            busy.wait(60)


CUT = {
    "commit": (["commit", "-q", "full", "localhost/cut"], ("syncfs", "rename", "openat2")),
    "cp": (["cp", "full:/bin", "/tmp/cut"], ("symlinkat", "openat", "write")),
    "cp of a file": (["cp", "full:/bin/busybox", "/tmp/cut"], ("write",)),
    "export": (["export", "-o", "/tmp/cut", "full"], ("write", "rename")),
}


@pytest.mark.row("P11", "no tag; not frozen; a file is whole or as it was; the next works")
@pytest.mark.parametrize("name", CUT)
def test_p11_killed_while_it_copies(rig: Machine, alpine: str, name: str) -> None:
    if not rig.has_root:
        pytest.skip("needs root: strace would take the rights of newuidmap away")
    words, calls = CUT[name]
    rig.run(["rm", "-rf", "/tmp/cut"])
    with running(rig, "full", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"):
        for call in calls:
            killing = f"inject={call}:signal=KILL:when=1"
            argv = ["strace", "-u", "alice", "-qqq", "-f", "-o", "/dev/null", "-e", killing]
            # As alice would, by root's strace: newuidmap(1) keeps its rights.
            env = {"HOME": "/home/alice", "XDG_RUNTIME_DIR": f"/run/user/{rig.uid}"}
            killed = rig.root([*argv, "rp", *words], check=False, env=env)
            assert killed.returncode != 0, call
            assert state(rig, "full") == "running"
            assert rp(rig, "exec", "full", "echo", "in").stdout == "in\n"
            assert rp(rig, "images", "-q", "localhost/cut").stdout == "", call
            if name in ("cp of a file", "export"):
                assert rig.run(["test", "-e", "/tmp/cut"], check=False).returncode != 0, call
            rig.run(["rm", "-rf", "/tmp/cut"])
        assert rp(rig, *words).returncode == 0
        rp(rig, "rmi", "localhost/cut")
        rig.run(["rm", "-rf", "/tmp/cut"])
        assert rig.run(["sh", "-c", "ls -A ~/.local/share/rootlesspy/tmp"]).stdout == ""
