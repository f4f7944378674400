"""stats of real containers: what the machine counts, and nothing that it does not."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from namespace.living import rp, running, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine


@pytest.fixture(scope="module", autouse=True)
def busy(rig: Machine, alpine: str) -> Iterator[str]:
    """Hold a container with a network of its own that uses the CPU."""
    script = "while :; do i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done; sleep 0.2; done"
    rig.run(["rp", "run", "-d", "--name", "busy", alpine, "sh", "-c", script])
    yield "busy"
    rp(rig, "rm", "-f", "busy")


def struct(machine: Machine, name: str) -> dict[str, Any]:
    """Return the numbers of one container."""
    argv = ["rp", "stats", "--no-stream", "--format", "{{json .}}", name]
    return dict(json.loads(machine.run(argv).stdout))


def has(machine: Machine, name: str, file: str) -> bool:
    """Say whether a container's cgroup has a file."""
    form = "/sys/fs/cgroup{{.State.CgroupPath}}/" + file
    path = machine.run(["rp", "inspect", "-f", form, name]).stdout.strip()
    return machine.run(["test", "-e", path], check=False).returncode == 0


def test_the_cpu_is_counted(rig: Machine, busy: str) -> None:
    until(lambda: struct(rig, busy)["CPUNano"] > 100_000_000, "its CPU time does not grow")
    found = struct(rig, busy)
    assert found["CPU"] == found["AvgCPU"] > 0
    assert found["PIDs"] in (1, 2)
    assert found["UpTime"] > 0
    assert set(found["Network"]) != set()


@pytest.mark.parametrize(
    ("file", "field", "column"),
    [
        ("memory.current", "MemUsage", "{{.MemUsage}}"),
        ("io.stat", "BlockInput", "{{.BlockIO}}"),
    ],
)
def test_what_is_not_counted_is_not_zero(
    rig: Machine, busy: str, file: str, field: str, column: str
) -> None:
    number = struct(rig, busy)[field]
    text = rig.run(["rp", "stats", "--no-stream", "--format", column, busy]).stdout.strip()
    if has(rig, busy, file):
        assert isinstance(number, int)
        assert "--" not in text
    else:
        assert (number, text) == (None, "-- / --")


def test_the_table(rig: Machine, busy: str) -> None:
    lines = rig.run(["rp", "stats", "--no-stream"]).stdout.splitlines()
    titles = "ID NAME CPU % MEM USAGE / LIMIT MEM % NET IO BLOCK IO PIDS CPU TIME AVG CPU %"
    assert lines[0].split() == titles.split()
    (row,) = (line for line in lines if f" {busy} " in line)
    assert re.search(r"\d+\.\d\d%", row)


def test_all_shows_those_that_have_ended(rig: Machine, busy: str) -> None:
    with running(rig, "over", "true"):
        ended = ["rp", "inspect", "-f", "{{.State.Status}}", "over"]
        until(lambda: rig.run(ended).stdout == "exited\n", "it does not end")
        names = ["rp", "stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}"]
        assert "over" not in rig.run(names).stdout
        assert "over --\n" in rig.run([*names, "--all"]).stdout
        # Named, the stream has nothing more to come.
        assert rig.run(["rp", "stats", "--format", "{{.Name}}", "over"]).stdout == "over\n"
        assert rp(rig, "stats", "--no-stream", "no-such").returncode == 125


def test_a_live_table_ends_by_ctrl_c_and_leaves_the_terminal_alone(rig: Machine, busy: str) -> None:
    with rig.pty(["rp", "stats", "-i", "0.2", busy]) as terminal:
        before = terminal.attributes()
        for _ in range(3):
            terminal.expect("NAME.*busy")
        terminal.send("\x03")
        assert terminal.wait() == 130
        assert terminal.attributes() == before
        assert terminal.output.count(b"\x1b[?25l") == terminal.output.count(b"\x1b[?25h")
        assert b"Traceback" not in terminal.output
        # 80 columns are too few for all; what is shown is whole.
        assert "…".encode() not in terminal.output


def test_what_it_had_used_is_kept(rig: Machine) -> None:
    text = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
    with running(rig, "used", "sh", "-c", text):
        form = ["rp", "ps", "-a", "--filter", "name=^used$", "--format"]
        until(lambda: rig.run([*form, "{{.State}}"]).stdout == "exited\n", "it does not end")
        cpu, peak = rig.run([*form, "{{.CPUTime}}|{{.MemoryPeak}}"]).stdout.strip().split("|")
        assert re.fullmatch(r"(\d+m)?[\d.]+m?s", cpu)
        assert cpu != "0s"
        assert peak
        usage = json.loads(rig.run(["rp", "inspect", "-f", "{{json .Usage}}", "used"]).stdout)
        assert usage["CPUUsageUSec"] > 0
        assert usage["PidsCurrent"] is None
