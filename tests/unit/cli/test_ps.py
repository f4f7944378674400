"""`rp ps`: which containers, which columns, which fields."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rootlesspy.cli import argv, hot, ps, ps_facts
from rootlesspy.cli.session import Session
from rootlesspy.engine import lifecycle, record
from rootlesspy.engine.record import Container, ExitRecord
from rootlesspy.engine.views import disk_usage, stats
from rootlesspy.errors import NotFound, UsageError
from rootlesspy.report import Reporter

NOW = 1_700_000_000.0


def container(number: int, name: str, state: str = "running", **changes: Any) -> Container:
    ended = changes.pop("ended", None)
    usual = {
        "name": name,
        "image": "docker.io/library/alpine:latest",
        "image_id": "sha256:" + "ab" * 32,
        "command": ["sleep", "1000"],
        "created_s": NOW - 100 * number,
        "network": {"driver": "pasta"},
    }
    found = record._unknown(f"{number:064x}"[::-1])._replace(**{**usual, **changes})
    return Container(found, state, 42 if state == "running" else 0, NOW - 10, ended)


def ended(code: int, finished_s: float = NOW - 30) -> ExitRecord:
    return ExitRecord(code, finished_s, NOW - 40, False, "")


CONTAINERS = [
    container(1, "web", ports=[["", 8080, 80, "tcp"], ["", 8081, 81, "tcp"]],
              labels={"app": "x", "tier": "1"}, restart="always", health={"Test": ["CMD", "x"]}),
    container(2, "old", "exited", ended=ended(3), labels={"app": "y"}),
    container(3, "new-web", "created", command=["a", "very long command line"]),
    container(4, "lost", "exited", ended=ended(-1, 0.0)),
    container(5, "evil", command=["\x1b]52;c;x\x07"], image="evil\x1b[2J"),
    container(6, "bad", "broken"),
]  # fmt: skip


VOLUME = {"Type": "volume", "Name": "vol", "Source": "/v/vol/_data", "Destination": "/data"}


@pytest.fixture(autouse=True)
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    def mounts(_facts: object, found: Container) -> list[dict[str, Any]]:
        return [VOLUME] if found.record.name == "web" else []

    monkeypatch.setattr(
        ps_facts, "health", lambda paths, found: "healthy" if found.record.health else ""
    )
    monkeypatch.setattr(ps_facts.Facts, "mounts", mounts)
    monkeypatch.setattr(ps_facts, "_restarts", lambda paths, found: {f"{1:064x}"[::-1]: 7})
    monkeypatch.setattr(
        disk_usage,
        "all_sizes",
        lambda paths, listed: {
            each.id: disk_usage.Sizes(len(each.name) * 1000, 9_000_000) for each in listed
        },
    )
    monkeypatch.setattr(
        lifecycle,
        "containers",
        lambda paths, *, running, seen: [
            each for each in CONTAINERS if not running or each.state == "running"
        ],
    )
    monkeypatch.setattr("time.time", lambda: NOW)


def run(*words: str) -> int:
    invocation = argv.parse(["ps", *words])
    assert invocation is not None
    return hot.execute(invocation, Session(Reporter(), {"HOME": "/h"}))


def names(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert run("--format", "{{.Names}}", *words) == 0
    return capsys.readouterr().out.split()


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "CONTAINER ID"
    titles = "CONTAINER ID  IMAGE COMMAND CREATED STATUS PORTS NAMES"
    assert lines[0].split() == titles.split()
    assert re.split(" {2,}", lines[2]) == [
        "100000000000", "docker.io/library/alpine:latest", "sleep 1000", "About a minute ago",
        "Up 10 seconds (healthy)", "0.0.0.0:8080-8081->80-81/tcp", "web",
    ]  # fmt: skip
    assert len(lines) == 3
    assert "\x1b" not in lines[1]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (CONTAINERS[0], "Up 10 seconds"),
        (CONTAINERS[1], "Exited (3) 30 seconds ago"),
        (CONTAINERS[2], "Created"),
        (CONTAINERS[3], "Exited (-1)"),
        (CONTAINERS[5], "Broken"),
    ],
)
def test_status(state: Container, expected: str) -> None:
    assert ps.status_text(state, NOW) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ["evil", "web"]),
        (("-a",), ["bad", "evil", "lost", "new-web", "old", "web"]),
        (("-l",), ["web"]),
        (("-n", "2"), ["old", "web"]),
        (("-n", "0"), []),
        (("-n", "-1"), ["evil", "web"]),
        (("-n", "99"), ["bad", "evil", "lost", "new-web", "old", "web"]),
        (("-a", "-f", "name=web"), ["new-web", "web"]),
        (("-a", "-f", "name=^web$"), ["web"]),
        (("-a", "-f", "name=web", "-f", "name=old"), ["new-web", "old", "web"]),
        (("-f", "status=exited"), ["lost", "old"]),
        (("-f", "status=exited", "-f", "status=created"), ["lost", "new-web", "old"]),
        (("-a", "-f", "label=app"), ["old", "web"]),
        (("-a", "-f", "label=app=x"), ["web"]),
        (("-a", "-f", "label=app", "-f", "label=tier=1"), ["web"]),
        (("-a", "-f", "label!=app"), ["bad", "evil", "lost", "new-web"]),
        (("-a", "-f", "id=10"), ["web"]),
        (("-a", "-f", "exited=3"), ["old"]),
        (("-a", "-f", "exited=-1"), ["lost"]),
        (("-f", "ancestor=alpine"), ["web"]),
        (("-f", "ancestor=abab"), ["evil", "web"]),
        (("-f", "ancestor=debian"), []),
        (("-a", "-f", "before=web"), ["bad", "evil", "lost", "new-web", "old"]),
        (("-a", "-f", "before=new-web"), ["bad", "evil", "lost"]),
        (("-f", "before=old"), ["evil"]),
        (("-a", "-f", "since=new-web"), ["old", "web"]),
        (("-a", "-f", "since=3"), ["old", "web"]),
        (("-a", "-f", "until=1699999750"), ["bad", "evil", "lost", "new-web"]),
        (("-a", "-f", "until=3m"), ["bad", "evil", "lost", "new-web", "old"]),
        (("-f", "network=pasta"), ["evil", "web"]),
        (("-f", "network=none"), []),
        (("-a", "-f", "restart-policy=always"), ["web"]),
        (("-a", "-f", "restart-policy=no"), ["bad", "evil", "lost", "new-web", "old"]),
        (("-a", "-f", "command=sleep"), ["bad", "lost", "old", "web"]),
        (("-a", "-f", "command=^a$"), ["new-web"]),
        (("-a", "-f", "pod=x"), []),
        (("-a", "-f", "health=healthy"), ["web"]),
        (("-a", "-f", "health=none"), ["bad", "evil", "lost", "new-web", "old"]),
        (("-a", "-f", "volume=vol"), ["web"]),
        (("-a", "-f", "volume=/data"), ["web"]),
        (("-a", "-f", "volume=/"), []),
        (("-f", "status=paused"), []),
        (("-a", "--sort", "size"), ["bad", "old", "web", "evil", "lost", "new-web"]),
        (("-a", "--sort", "names"), ["bad", "evil", "lost", "new-web", "old", "web"]),
        (("-a", "--sort", "id"), ["web", "old", "new-web", "lost", "evil", "bad"]),
    ],
)
def test_selection(
    words: tuple[str, ...], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert names(capsys, *words) == expected


@pytest.mark.parametrize(
    "words",
    [("-f", "x"), ("-f", "bogus=1"), ("-f", "name=["), ("-f", "status=odd"), ("-f", "exited=x"),
     ("-n", "1_0"), ("-n", "2", "-l"), ("--sort", "pid"),
     ("-f", "health=bad"), ("-f", "restart-policy=x"), ("-f", "until=soon"), ("-w", "0"),
     ("--format", "{{.Bogus}}")],
)  # fmt: skip
def test_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        run(*words)


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    run("-q")
    assert capsys.readouterr().out == "500000000000\n100000000000\n"
    run("-q", "--no-trunc", "-l")
    assert capsys.readouterr().out == "1" + "0" * 63 + "\n"


def test_no_heading(capsys: pytest.CaptureFixture[str]) -> None:
    run("--noheading", "-f", "name=none")
    assert capsys.readouterr().out == ""
    run("-f", "name=none")
    assert capsys.readouterr().out.startswith("CONTAINER ID")


def test_commands_are_cut_as_podman_cuts_them(capsys: pytest.CaptureFixture[str]) -> None:
    run("-a", "-f", "name=new", "--format", "{{.Command}}")
    run("-a", "-f", "name=new", "--format", "{{.Command}}", "--no-trunc")
    assert capsys.readouterr().out == "a very long comma...\na very long command line\n"


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    run("-f", "name=web", "--format", "json")
    (found,) = json.loads(capsys.readouterr().out)
    assert found["Id"] == "1" + "0" * 63
    assert found["Names"] == ["web"]
    assert found["Command"] == ["sleep", "1000"]
    assert found["State"] == "running"
    assert found["Pid"] == 42
    assert found["Labels"] == {"app": "x", "tier": "1"}
    assert found["Ports"][0] == {
        "host_ip": "", "container_port": 80, "host_port": 8080, "range": 1, "protocol": "tcp",
    }  # fmt: skip
    assert found["Created"] == int(NOW) - 100


def test_every_field_of_a_template(capsys: pytest.CaptureFixture[str]) -> None:
    form = '{{.ID}} {{.ImageID}} {{.Labels}} {{.Label "app"}} {{.Networks}} {{.CreatedHuman}}'
    run("-f", "name=web", "--format", form)
    assert capsys.readouterr().out == (
        "100000000000 abababababab map[app:x tier:1] x pasta About a minute ago\n"
    )


def test_table_template(capsys: pytest.CaptureFixture[str]) -> None:
    run("-f", "name=web", "--format", "table {{.ID}}\\t{{.Status}}\\t{{.RunningFor}}")
    assert capsys.readouterr().out.splitlines() == [
        "CONTAINER ID  STATUS                   RUNNING FOR",
        "100000000000  Up 10 seconds (healthy)  About a minute ago",
    ]


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([], ""),
        ([["", 80, 80, "tcp"]], "0.0.0.0:80->80/tcp"),
        ([["::1", 80, 80, "tcp"]], "[::1]:80->80/tcp"),
        ([["", 80, 80, "tcp"], ["", 81, 81, "udp"]], "0.0.0.0:80->80/tcp, 0.0.0.0:81->81/udp"),
        ([["", 1, 11, "tcp"], ["", 2, 12, "tcp"], ["", 3, 13, "tcp"], ["", 5, 15, "tcp"]],
         "0.0.0.0:1-3->11-13/tcp, 0.0.0.0:5->15/tcp"),
    ],
)  # fmt: skip
def test_ports(ports: list[list[object]], expected: str) -> None:
    assert ps.ports_text(ports) == expected


def test_paused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(stats.Scopes, "find", lambda _scopes, _pid, _unit: "/c")
    monkeypatch.setattr(stats.Scopes, "is_frozen", lambda _scopes, scope: scope == "/c")
    assert names(capsys) == []
    assert names(capsys, "-f", "status=paused") == ["evil", "web"]
    run("-a", "-f", "name=^web", "--format", "{{.State}} {{.Status}}")
    assert capsys.readouterr().out == "paused Paused (healthy)\n"


def test_size_and_pod_columns(capsys: pytest.CaptureFixture[str]) -> None:
    run("-s", "-p", "-f", "name=web")
    lines = capsys.readouterr().out.splitlines()
    assert re.split(" {2,}", lines[0])[-4:] == ["NAMES", "SIZE", "POD ID", "PODNAME"]
    assert lines[1].endswith("3kB (virtual 9MB)")
    run("-s", "-f", "name=web", "--format", "json")
    (found,) = json.loads(capsys.readouterr().out)
    assert found["Size"] == {"rootFsSize": 9_000_000, "rwSize": 3000}
    assert found["Restarts"] == 7


def test_dear_fields_are_looked_up_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    form = "{{.Restarts}}|{{.Size}}|{{.Mounts}}|{{.Health}}|{{.NET}}"
    run("-f", "name=web", "--format", form)
    assert capsys.readouterr().out.startswith("7|3kB (virtual 9MB)|[/data]|healthy|")


def test_what_ended_containers_had_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    used = ended(0)._replace(
        memory_peak_bytes=12_345_678, cpu_usage_us=1_500_000, usage={"oom_kills": 2}
    )
    found = [container(1, "a", "exited", ended=used)]
    monkeypatch.setattr(lifecycle, "containers", lambda paths, running, seen: found)
    run("-a", "--format", "{{.MemoryPeak}} {{.CPUTime}} {{.PidsPeak}} {{.OOMKills}} {{.IORead}}")
    assert capsys.readouterr().out == "12.35MB 1.5s -- 2 --\n"


def test_an_unknown_container_in_a_filter() -> None:
    with pytest.raises(NotFound, match="'nobody'"):
        run("-f", "before=nobody")
