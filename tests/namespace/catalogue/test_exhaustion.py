"""A container that does much of something leaves the supervisor as it was.  Catalogue N."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest
from namespace.living import until
from rig.effort import effort

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.namespace

NAME = "much"
GROWTH_KIB = 4096
SHELL = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"
# A flood for each health check, of which little is kept.
FLOOD = f"head -c {effort(10_000_000, 300_000_000)} /dev/zero | tr '\\0' x"


class Weight(NamedTuple):
    """What the supervisor has."""

    descriptors: int
    threads: int
    memory_kib: int
    """Its own, wherever it is: pages of files come and go as the machine has room for them."""


@pytest.fixture(scope="module")
def box(rig: Machine, alpine: str) -> Iterator[str]:
    """Run a container with an init and a health check that is run by hand."""
    argv = ["rp", "run", "-d", "--name", NAME, "--init", "--network=none", "--health-cmd", FLOOD]
    argv += ["--health-interval=disable", "--health-timeout=900s"]
    rig.run([*argv, alpine, "sh", "-c", SHELL])
    # What it loads for the first of each is no growth.
    rig.run(["rp", "exec", NAME, "true"])
    rig.run(["rp", "healthcheck", "run", NAME], timeout=900)
    yield NAME
    rig.run(["rp", "rm", "-f", NAME])


def supervisor(rig: Machine) -> int:
    shown = rig.run(["rp", "inspect", "--format", "{{.State.ConmonPid}}", NAME]).stdout
    return int(shown)


def weight(rig: Machine) -> Weight:
    pid = supervisor(rig)
    script = (
        f"ls /proc/{pid}/fd | wc -l; ls /proc/{pid}/task | wc -l; "
        f"grep -E '^(RssAnon|VmSwap):' /proc/{pid}/status"
    )
    lines = rig.run(["sh", "-c", script]).stdout.split()
    return Weight(int(lines[0]), int(lines[1]), int(lines[3]) + int(lines[6]))


def same(rig: Machine, before: Weight) -> bool:
    now = weight(rig)
    grown = now.memory_kib - before.memory_kib
    return now[:2] == before[:2] and grown < GROWTH_KIB


@pytest.mark.row("health check output", "a few hundred bytes are kept, whatever it prints")
def test_cve_2022_1708_output_of_health_checks(rig: Machine, box: str) -> None:
    before = weight(rig)
    for _ in range(3):
        rig.run(["rp", "healthcheck", "run", box], timeout=900)
    until(lambda: same(rig, before), f"the supervisor is as before: {before}, {weight(rig)}")
    shown = rig.run(["rp", "inspect", "--format", "{{json .State.Health.Log}}", box]).stdout
    assert len(shown) < 16 * 1024


@pytest.mark.row("exec cycles", "descriptors, threads and memory of the supervisor stay the same")
def test_cve_2025_64329_many_sessions(rig: Machine, box: str) -> None:
    before = weight(rig)
    count = effort(15, 500)
    script = f"""i=0; while [ $i -lt {count} ]; do i=$((i + 1))
        rp exec {box} true || exit 3
        rp exec {box} false && exit 4
        rp exec {box} nonesuch 2>/dev/null && exit 5
    done; echo done"""
    assert rig.run(["sh", "-c", script], timeout=7200).stdout == "done\n"
    for _ in range(effort(2, 40)):
        with rig.pty(["rp", "exec", "-it", box, "sh"]) as terminal:
            terminal.expect("# ")
            terminal.resize(50, 100)
            terminal.send("exit\r")
            assert terminal.wait() == 0
        # One that is closed without a word.
        with rig.pty(["rp", "exec", "-it", box, "cat"]) as terminal:
            terminal.send("x\r")
            terminal.expect("x\r\n")
    until(lambda: same(rig, before), f"the supervisor is as before: {before}, {weight(rig)}")


@pytest.mark.row("zombies", "the init of --init reaps them")
def test_thousands_of_orphans_are_reaped(rig: Machine, box: str) -> None:
    count = effort(300, 10000)
    script = f"i=0; while [ $i -lt {count} ]; do i=$((i + 1)); (true &); done"
    rig.run(["rp", "exec", box, "sh", "-c", script], timeout=600)
    count_of = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"

    def none_left() -> bool:
        return bool(rig.run(["rp", "exec", box, "sh", "-c", count_of]).stdout == "0\n")

    until(none_left, "no zombie is left")


@pytest.mark.row("SIGWINCH storm", "the last size is the terminal's; nothing piles up")
def test_a_storm_of_window_changes(rig: Machine, box: str) -> None:
    before = weight(rig)
    with rig.pty(["rp", "exec", "-it", box, "sh"]) as terminal:
        terminal.expect("# ")
        for number in range(effort(2000, 100_000)):
            terminal.resize(20 + number % 50, 80 + number % 70)
        terminal.resize(33, 77)
        terminal.send("until [ \"$(stty size)\" = '33 77' ]; do sleep 0.1; done; echo now-$?\r")
        terminal.expect("now-0")
        terminal.send("exit\r")
        assert terminal.wait() == 0
    until(lambda: same(rig, before), f"the supervisor is as before: {before}, {weight(rig)}")


@pytest.mark.row("inodes", "removed with the container, in bounded memory")
def test_many_files_are_removed(rig: Machine, alpine: str, leaves_nothing: None) -> None:
    count = effort(3000, 200_000)
    script = (
        f"mkdir /many && cd /many && seq {count} | xargs touch && seq {count} | xargs -n 50 true"
    )
    rig.run(["rp", "run", "--name", "files", "--network=none", alpine, "sh", "-c", script],
            timeout=3600)  # fmt: skip
    assert rig.run(["rp", "rm", "files"], timeout=3600).stdout == "files\n"
    left = rig.run(["sh", "-c", "ls -A ~/.local/share/rootlesspy/tmp"]).stdout
    assert left == ""


@pytest.mark.row("state file size", "64 KiB at most, whatever the container did")
def test_state_stays_small(rig: Machine, box: str) -> None:
    identity = rig.run(["rp", "inspect", "--format", "{{.Id}}", box]).stdout.strip()
    place = f"/home/alice/.local/share/rootlesspy/containers/{identity}"
    shown = rig.run(["sh", "-c", f"find {place} -maxdepth 1 -type f -printf '%s %f\\n'"]).stdout
    sizes = {os.path.basename(line.split()[1]): int(line.split()[0]) for line in shown.splitlines()}
    assert "record.json" in sizes
    assert max(sizes.values()) <= 64 * 1024, sizes
