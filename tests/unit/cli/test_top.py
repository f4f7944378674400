"""`rp top` and `rp port`: columns and what is written in them."""

from __future__ import annotations

from typing import Any

import pytest

from rootlesspy.cli import app, top, top_columns
from rootlesspy.cli.session import Session
from rootlesspy.engine import lifecycle, record
from rootlesspy.engine.inputs import capabilities
from rootlesspy.engine.record import Container
from rootlesspy.engine.views import top as engine
from rootlesspy.engine.views.top import Ids, Names, Process
from rootlesspy.errors import Conflict, NotFound, UsageError
from rootlesspy.report import Reporter

pytestmark = pytest.mark.usefixtures("utc")

PROCESS = Process(
    pid=Ids(7, 1007), ppid=1, pgid=7, uid=Ids(0, 1000), real_uid=Ids(33, 100032),
    gid=Ids(0, 1000), real_gid=Ids(9, 100008), groups=(Ids(0, 1000), Ids(4, 100003)),
    comm="sh", args="sh -c \x1b[2Jx", state="S", tty="pts/0", nice=-5, cpu_s=93.5,
    elapsed_s=3725.42, started_s=1_700_000_000.0, vsz_bytes=2048000, rss_bytes=512000,
    capabilities={"CapEff": 1 << 0 | 1 << 12, "CapBnd": (1 << len(capabilities.ALL)) - 1},
    seccomp=2, label="",
)  # fmt: skip
SCENE = top_columns.Scene(
    Names({0: "root", 33: "www"}, {0: "root", 4: "adm"}), Names({1000: "alice"}, {1000: "alice"})
)


def written(*words: str) -> list[tuple[str, str]]:
    columns = top.columns_of(list(words))
    return [(column.header, column.write(PROCESS, SCENE)) for column in columns]


@pytest.mark.parametrize(
    ("name", "header", "text"),
    [
        ("user", "USER", "root"), ("ruser", "RUSER", "www"), ("uid", "UID", "0"),
        ("huser", "HUSER", "alice"), ("huid", "HUID", "1000"), ("hpid", "HPID", "1007"),
        ("pid", "PID", "7"), ("ppid", "PPID", "1"), ("pgid", "PGID", "7"),
        ("group", "GROUP", "root"), ("rgroup", "RGROUP", "9"), ("groups", "GROUPS", "root,adm"),
        ("hgroup", "HGROUP", "alice"), ("hgroups", "HGROUPS", "alice,100003"),
        ("pcpu", "%CPU", "2.510"), ("%C", "%CPU", "2.510"), ("etime", "ELAPSED", "1h2m5.42s"),
        ("time", "TIME", "1m33s"), ("tty", "TTY", "pts/0"), ("comm", "COMMAND", "sh"),
        ("nice", "NI", "-5"), ("state", "STATE", "S"), ("rss", "RSS", "500"),
        ("vsz", "VSZ", "2000"), ("label", "LABEL", "?"), ("seccomp", "SECCOMP", "filter"),
        ("capeff", "EFFECTIVE CAPS", "CHOWN,NET_ADMIN"), ("capbnd", "BOUNDING CAPS", "full"),
        ("capamb", "AMBIENT CAPS", "none"), ("stime", "STIME", "2023-11-14 22:13:20 +0000 UTC"),
    ],
)  # fmt: skip
def test_podmans_columns(name: str, header: str, text: str) -> None:
    assert written(name) == [(header, text)]


def test_every_column_has_a_text() -> None:
    for name in top_columns.COLUMNS:
        ((header, text),) = written(name)
        assert header.isupper()
        assert text


def test_which_columns() -> None:
    assert [header for header, _ in written()] == [
        "USER", "PID", "PPID", "%CPU", "ELAPSED", "TTY", "TIME", "COMMAND",
    ]  # fmt: skip
    assert [header for header, _ in written("pid,user", "args")] == ["PID", "USER", "COMMAND"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("-ef",), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
        (("-e", "-f"), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]),
        (("-A",), ["PID", "TTY", "TIME", "CMD"]),
        (("aux",), ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME",
                    "COMMAND"]),
        (("-eo", "user,pid,comm"), ["USER", "PID", "COMMAND"]),
        (("-o", "pid=NUMBER,args"), ["NUMBER", "COMMAND"]),
        (("-opid",), ["PID"]),
    ],
)  # fmt: skip
def test_options_of_ps(words: tuple[str, ...], expected: list[str]) -> None:
    assert [header for header, _ in written(*words)] == expected


def test_texts_of_ps() -> None:
    found = dict(written("-eo", "time,etime,c,stime,bsdtime,s"))
    assert found == {
        "TIME": "1:33", "ELAPSED": "01:02:05", "C": "2", "STIME": "Nov14", "S": "S",
    }  # fmt: skip


@pytest.mark.parametrize(
    "words", [("bogus",), ("-eo", "bogus"), ("-o",), ("-p", "1"), ("--forest",), ("-",), ("-C",)]
)
def test_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        written(*words)


# --- from the command line --------------------------------------------------------------------


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = record._unknown("ab" * 32)
    ports: list[list[object]] = [
        ["", 8080, 80, "tcp"], ["::1", 8081, 80, "tcp"], ["", 53, 53, "udp"],
    ]  # fmt: skip
    containers = {
        "web": Container(kept._replace(name="web", ports=ports), "running", 42, 0.0, None),
        "old": Container(kept._replace(id="cd" * 32, name="old"), "exited", 0, 0.0, None),
    }

    def get(_paths: object, name: str) -> Container:
        if name not in containers:
            raise NotFound(f"no container with name or id {name!r}")
        return containers[name]

    monkeypatch.setattr(lifecycle, "get", get)
    monkeypatch.setattr(lifecycle, "containers", lambda paths: list(containers.values()))
    monkeypatch.setattr(engine, "processes", lambda pid: [PROCESS] if pid == 42 else [])
    monkeypatch.setattr(engine, "names_inside", lambda pid: SCENE.inside)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert app.main(list(words), Session(Reporter(), {"HOME": "/h"})) == 0
    return capsys.readouterr().out


def test_top(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "top", "web", "-eo", "pid,args") == "PID  COMMAND\n7    sh -c \\x1b[2Jx\n"
    assert run(capsys, "top", "web", "pid") == "PID\n7\n"
    assert run(capsys, "container", "top", "web", "pid") == "PID\n7\n"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("top", "old"), Conflict), (("top", "nobody"), NotFound), (("top",), UsageError),
        (("port",), UsageError), (("port", "-a", "web"), UsageError),
        (("port", "web", "81"), NotFound), (("port", "web", "80/udp"), NotFound),
        (("port", "web", "x"), UsageError), (("port", "web", "80/icmp"), UsageError),
        (("port", "nobody"), NotFound),
    ],
)  # fmt: skip
def test_errors(words: tuple[str, ...], error: type[Any]) -> None:
    with pytest.raises(error):
        app.main(list(words), Session(Reporter(), {"HOME": "/h"}))


def test_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "port", "web") == (
        "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::1]:8081\n53/udp -> 0.0.0.0:53\n"
    )
    assert run(capsys, "port", "web", "80") == "0.0.0.0:8080\n[::1]:8081\n"
    assert run(capsys, "port", "web", "53/udp") == "0.0.0.0:53\n"
    assert run(capsys, "port", "old") == ""
    assert run(capsys, "port", "-a").startswith("abababababab\t80/tcp -> 0.0.0.0:8080\n")
