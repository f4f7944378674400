"""`rp stats`: what one look comes to, and what is never made up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rootlesspy.cli import app, stats_rows
from rootlesspy.cli import stats as command
from rootlesspy.cli.session import Session
from rootlesspy.engine import lifecycle, record
from rootlesspy.engine.record import Container, ExitRecord
from rootlesspy.engine.views import stats
from rootlesspy.engine.views.stats import Usage
from rootlesspy.errors import NotFound, UsageError
from rootlesspy.report import Reporter

NOW = 1_700_000_000.0
FULL = Usage(
    at_ns=10_000_000_000, memory_bytes=50_000_000, memory_current_bytes=60_000_000,
    memory_peak_bytes=70_000_000, memory_limit_bytes=100_000_000, swap_bytes=0,
    cpu_us=2_000_000, cpu_system_us=500_000, cpu_throttled_us=1_500, cpu_throttled_periods=3,
    pids=4, pids_peak=5, pids_limit=100, io_read_bytes=1_000, io_write_bytes=2_000_000,
    oom_kills=0, pressure={"cpu": 1.5},
)  # fmt: skip
NETWORK = {"eth0": {"RxBytes": 1234, "TxBytes": 5_000_000}}


def container(name: str, number: int, **changes: Any) -> Container:
    kept = record._unknown(f"{number:064x}")._replace(name=name, network={"driver": "pasta"})
    return Container(kept._replace(**changes), "running", 40 + number, NOW - 20, None)


ENDED = Container(
    record._unknown("f" * 64)._replace(name="old"), "exited", 0, NOW - 90,
    ExitRecord(0, NOW - 30, NOW - 90, oom_killed=False, error=""),
)  # fmt: skip


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> dict[int, Usage]:
    """Two running containers and one that has ended; return what their processes use."""
    uses = {41: FULL, 42: Usage(at_ns=1, cpu_us=1_000_000, pids=1)}
    containers = [ENDED, container("host", 2, network={"driver": "host"}), container("web", 1)]
    by_id = {each.record.id: each for each in containers}

    def find(_paths: object, text: str) -> str:
        for each in containers:
            if each.record.name == text:
                return each.record.id
        raise NotFound(f"no container with name or id {text!r}")

    monkeypatch.setattr("time.time", lambda: NOW)
    monkeypatch.setattr(
        lifecycle,
        "containers",
        lambda paths, *, running: [each for each in containers if each.pid or not running],
    )
    monkeypatch.setattr(record, "find", find)
    monkeypatch.setattr(record, "load", lambda paths, identity: by_id.get(identity))
    monkeypatch.setattr(stats.Scopes, "find", lambda _scopes, pid, _unit: str(pid))
    monkeypatch.setattr(
        stats.Scopes,
        "read",
        lambda _scopes, scope, *, whole: uses[int(scope)] if scope else Usage(at_ns=1),
    )
    monkeypatch.setattr(stats, "network", lambda pid: NETWORK)
    return uses


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert app.main(["stats", *words], Session(Reporter(), {"HOME": "/h"})) == 0
    return capsys.readouterr().out


def columns(line: str) -> list[str]:
    import re

    return re.split(" {2,}", line)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "--no-stream").splitlines()
    assert columns(lines[0]) == list(stats_rows.HEADER)
    assert columns(lines[1]) == [
        "000000000000", "web", "10.00%", "50MB / 100MB", "50.00%", "1.234kB / 5MB", "1kB / 2MB",
        "4", "2s", "10.00%",
    ]  # fmt: skip
    # What is not counted here is unknown, not nothing.
    assert columns(lines[2]) == [
        "000000000000", "host", "5.00%", "-- / --", "--", "-- / --", "-- / --", "1", "1s", "5.00%",
    ]  # fmt: skip
    assert len(lines) == 3


def test_what_has_ended_uses_nothing_known(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "--no-stream", "--all").splitlines()
    assert len(lines) == 4
    assert columns(run(capsys, "--no-stream", "old").splitlines()[1])[2:] == [
        "--", "-- / --", "--", "-- / --", "-- / --", "--", "--", "--",
    ]  # fmt: skip


def test_the_second_look_is_compared_with_the_first() -> None:
    found = container("web", 1)
    first = stats_rows.measure(found, None, stats.Scopes())
    later = first._replace(usage=FULL._replace(at_ns=FULL.at_ns - 2_000_000_000, cpu_us=1_500_000))
    second = stats_rows.measure(found, later, stats.Scopes())
    assert first.cpu_percent == 10.0
    assert second.cpu_percent == 25.0
    assert second.average_percent == 10.0
    # Another run of the container begins again.
    restarted = later._replace(container=found._replace(pid=7))
    assert stats_rows.measure(found, restarted, stats.Scopes()).cpu_percent == 10.0


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "--no-stream", "--format", "json", "web"))
    assert found == [
        {
            "id": "000000000000", "name": "web", "cpu_time": "2s", "cpu_percent": "10.00%",
            "avg_cpu": "10.00%", "mem_usage": "50MB / 100MB", "mem_percent": "50.00%",
            "net_io": "1.234kB / 5MB", "block_io": "1kB / 2MB", "pids": "4",
        }
    ]  # fmt: skip
    (line,) = run(capsys, "--no-stream", "--format", "{{json .}}", "web").splitlines()
    plain = json.loads(line)
    assert (plain["CPUNano"], plain["MemUsage"]) == (2_000_000_000, 50_000_000)
    assert plain["Network"] == NETWORK


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.MemPerc}}", "web 10.00% 50MB / 100MB 50.00%"),
        ("{{.MemUsageBytes}}", "47.68MiB / 95.37MiB"),
        ("{{.NetIO}}|{{.BlockIO}}|{{.PIDs}}|{{.PIDS}}", "1.234kB / 5MB|1kB / 2MB|4|4"),
        ("{{.CPUNano}} {{.AVGCPU}} {{.CPU}} {{.MemLimit}}", "2000000000 10.00% 10 100000000"),
        ("{{.MemPeak}} {{.Throttled}} {{.OOMKills}} {{.SwapUsage}}", "70MB 1.5ms 0 0B"),
        ("{{.Pressure.cpu}} {{.Up}} {{.ContainerStats.PIDs}}", "1.5 20s 4"),
        ("{{range $name, $n := .Network}}{{$name}}={{$n.RxBytes}}{{end}}", "eth0=1234"),
    ],
)
def test_fields(form: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--no-stream", "--format", form, "web") == f"{expected}\n"


def test_unknown_fields_are_not_zero(capsys: pytest.CaptureFixture[str]) -> None:
    form = "{{.MemLimit}} {{.MemPeak}} {{.BlockInput}} {{.OOMKills}} {{.Network}}"
    assert run(capsys, "--no-stream", "--format", form, "host") == "-- -- -- -- --\n"


def test_table_template(capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "--no-stream", "--format", "table {{.Name}}\\t{{.CPUPerc}}", "web")
    assert shown == "NAME  CPU %\nweb   10.00%\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("nobody",), NotFound), (("-a", "web"), UsageError), (("-i", "0"), UsageError),
        (("-l", "web"), UsageError), (("-i", "-1"), UsageError), (("-i", "nan"), UsageError),
    ],
)  # fmt: skip
def test_errors(words: tuple[str, ...], error: type[Any]) -> None:
    with pytest.raises(error):
        app.main(["stats", "--no-stream", *words], Session(Reporter(), {"HOME": "/h"}))


def test_a_stream_ends_with_its_containers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[float] = []
    monkeypatch.setattr("time.sleep", looks.append)
    web = container("web", 1)
    monkeypatch.setattr(
        record, "load", lambda paths, identity: web if len(looks) < 2 else web._replace(pid=0)
    )
    shown = run(capsys, "-i", "0.5", "web")
    assert looks == [0.5, 0.5]
    assert shown.count("CPU TIME") == 3


@pytest.mark.parametrize(
    ("width", "missing"),
    [(200, set()), (94, {"AVG CPU %", "CPU TIME"}), (30, {*command._DISPENSABLE})],
)
def test_a_narrow_terminal_loses_columns_and_no_digit(width: int, missing: set[str]) -> None:
    rows = [
        stats_rows.cells(stats_rows.measure(container("web", 1), None, stats.Scopes()), full=False)
    ]
    shown = [stats_rows.HEADER[number] for number in command._fitting(rows, width)]
    assert set(stats_rows.HEADER) - set(shown) == missing
    assert {"NAME", "CPU %", "MEM USAGE / LIMIT"} <= set(shown)
