"""`rp logs` and the log drivers, through the front door, against a real journal."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from namespace.living import supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.machine import Machine

DRIVERS = ("journald", "json-file")
_LIMIT_S = 600


@pytest.fixture
def start(rig: Machine, alpine: str) -> Iterator[Callable[..., str]]:
    """Return a function that starts a shell script detached and returns the container's name."""
    names: list[str] = []

    def run(script: str, *options: str) -> str:
        # A name of its own each time: the journal remembers.
        name = f"logs-{secrets.token_hex(4)}"
        names.append(name)
        rig.run(["rp", "run", "-d", "--network=none", "--name", name, *options,
                 alpine, "sh", "-c", script])  # fmt: skip
        return name

    yield run
    rig.run(["rp", "rm", "-f", "--ignore", "--volumes", *names])


def logs(rig: Machine, *arguments: str) -> tuple[bytes, bytes]:
    """Return what `rp logs` prints to stdout and stderr."""
    done = rig.run(["rp", "logs", *arguments], binary=True)
    return done.stdout, done.stderr


def journal(rig: Machine, *arguments: str) -> list[str]:
    """Return the messages of the journal that do not come from systemd."""
    done = rig.run(["journalctl", "-q", "-a", "-o", "json", *arguments])
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        line
        for record in records
        if record.get("SYSLOG_IDENTIFIER") != "systemd"
        for line in record["MESSAGE"].split("\n")
    ]


@pytest.mark.parametrize("driver", DRIVERS)
def test_bytes_come_out_as_they_went_in(
    rig: Machine, start: Callable[..., str], driver: str
) -> None:
    script = r"printf 'one\r\n\ntwo\n\377\000\033[31m\n'; echo bad >&2; printf part"
    name = start(script, f"--log-driver={driver}")
    rig.run(["rp", "wait", name])
    out, err = logs(rig, name)
    assert out == b"one\r\n\ntwo\n\xff\0\x1b[31m\npart"
    assert err == b"bad\n"


@pytest.mark.parametrize("driver", DRIVERS)
def test_which_lines_and_how(rig: Machine, start: Callable[..., str], driver: str) -> None:
    name = start("for n in 1 2 3; do echo line $n; done", f"--log-driver={driver}")
    rig.run(["rp", "wait", name])
    assert logs(rig, "--tail", "2", name)[0] == b"line 2\nline 3\n"
    assert logs(rig, "--tail=0", name)[0] == b""
    assert logs(rig, "--since", "5m", "--until", "1m", name)[0].count(b"\n") == 3
    assert logs(rig, "--since", "0s", name)[0] == b""
    assert logs(rig, "--until", "2020-01-01", name)[0] == b""
    first = logs(rig, "-t", name)[0].splitlines()[0].decode()
    stamp, _, text = first.partition(" ")
    assert text == "line 1"
    assert len(stamp.partition(".")[2].rstrip("Z").partition("+")[0]) >= 9
    # As podman: of several, each line says whose it is.
    out = logs(rig, "--names", name, name)[0].splitlines()
    assert out.count(f"{name} line 3".encode()) == 2


def test_the_same_lines_are_in_the_journal(rig: Machine, start: Callable[..., str]) -> None:
    name = start("echo out; echo; seq 1 500; echo err >&2; printf last", "--log-driver=journald")
    rig.run(["rp", "wait", name])
    out, err = logs(rig, name)
    lines = sorted(out.decode().split("\n") + err.decode().splitlines())
    assert sorted(journal(rig, "--user", "-u", f"rp-{name}.scope")) == lines
    assert sorted(journal(rig, "--user", f"CONTAINER_NAME={name}")) == lines
    assert "500" in lines
    record = json.loads(
        rig.run(["journalctl", "-q", "-o", "json", "-p", "3", f"CONTAINER_NAME={name}"]).stdout
    )
    identity = rig.run(["rp", "ps", "-aq", "--no-trunc", "--filter", f"name={name}"]).stdout.strip()
    assert record["MESSAGE"] == "err"
    assert record["CONTAINER_ID_FULL"] == identity
    assert record["CONTAINER_ID"] == identity[:12]
    assert record["SYSLOG_IDENTIFIER"] == name
    assert record["IMAGE_NAME"] == "docker.io/library/alpine:latest"
    assert record["USER_UNIT"] == f"rp-{name}.scope"


def test_output_cannot_become_a_field_or_a_priority_of_the_journal(
    rig: Machine, start: Callable[..., str]
) -> None:
    script = (
        r"printf '<0>PWN\nPRIORITY=0\nMESSAGE_ID=x\n\nMESSAGE\n\1\0\0\0\0\0\0\0x\n'; seq 1 3000"
    )
    name = start(script, "--log-driver=journald", "--log-opt=tag=a=b{{.Name}}")
    rig.run(["rp", "wait", name])
    done = rig.run(["journalctl", "-q", "-a", "-o", "json", f"CONTAINER_NAME={name}"])
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert {record["PRIORITY"] for record in records} == {"6"}
    assert not any("MESSAGE_ID" in record for record in records)
    assert {record["SYSLOG_IDENTIFIER"] for record in records} == {f"a=b{name}"}
    assert logs(rig, name)[0].startswith(b"<0>PWN\nPRIORITY=0\nMESSAGE_ID=x\n\nMESSAGE\n\1\0")


@pytest.mark.parametrize("driver", DRIVERS)
def test_following_shows_the_last_words_and_ends_with_the_container(
    rig: Machine, start: Callable[..., str], driver: str
) -> None:
    name = start("echo first; read x; printf last", f"--log-driver={driver}", "-i")
    with rig.popen(["rp", "logs", "-f", name], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        rig.run(["rp", "kill", "-s", "KILL", name])
        assert process.stdout.read() == b""
        assert process.wait(_LIMIT_S) == 0
    rig.run(["rp", "start", name])
    rig.run(["rp", "attach", name], input="go\n")
    # Of both runs, the end at once.
    assert logs(rig, "-f", name)[0] == b"first\nfirst\nlast"


@pytest.mark.row("R9", "nothing is lost")
@pytest.mark.limit(_LIMIT_S)
def test_nothing_is_lost_of_64_mib_at_full_speed(rig: Machine, start: Callable[..., str]) -> None:
    lines = 64 * 1024 * 1024 // 64
    script = f"yes $(printf '%063d' 7) | head -n {lines}; echo end; read x; seq 1 20000"
    name = start(script, "--log-driver=journald", "-i")
    deadline = time.monotonic() + _LIMIT_S
    while logs(rig, "--tail=1", name)[0] != b"end\n":
        assert time.monotonic() < deadline
    pid = supervisor(rig, name)
    peak = rig.run(["grep", "VmHWM", f"/proc/{pid}/status"]).stdout
    assert int(peak.split()[1]) < 48 * 1024, peak
    rig.run(["rp", "attach", name], input="go\n")
    count = (
        "awk 'length($0) == 63 { long++ } length($0) < 63 { print } END { print \"long\", long }'"
    )
    done = rig.run(["sh", "-c", f"rp logs {name} | {count}"], timeout=_LIMIT_S)
    assert done.stdout.split() == ["end", *map(str, range(1, 20001)), "long", str(lines)]


@pytest.mark.row("R10", "it holds nobody up")
def test_a_reader_that_does_not_read_holds_nobody_up(
    rig: Machine, start: Callable[..., str]
) -> None:
    name = start("read x; yes | head -c 3000000; echo; sleep 100", "-i", "--log-driver=journald")
    with rig.popen(["rp", "logs", "-f", name], stdout=subprocess.PIPE) as sleeper:
        with rig.popen(["rp", "attach", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as it:
            assert it.stdin is not None
            assert it.stdout is not None
            it.stdin.write(b"go\n")
            it.stdin.flush()
            assert len(it.stdout.read(3000000)) == 3000000
            it.kill()
        rig.run(["rp", "rm", "-f", name])
        sleeper.kill()


@pytest.mark.row("R9", "the files stay bounded")
def test_rotation_bounds_the_file_and_a_follower_misses_nothing(
    rig: Machine, start: Callable[..., str]
) -> None:
    name = start(
        "read x; for n in $(seq 1 3000); do echo $n; done",
        "-i", "--log-driver=k8s-file", "--log-opt=max-size=20k", "--log-opt=max-file=20",
    )  # fmt: skip
    with rig.popen(["rp", "logs", "-f", name], stdout=subprocess.PIPE) as process:
        rig.run(["rp", "attach", name], input="go\n")
        assert process.stdout is not None
        assert process.stdout.read().split() == [b"%d" % n for n in range(1, 3001)]
    sizes = rig.run(
        ["sh", "-c", "stat -c %s ~/.local/share/rootlesspy/containers/*/log*"]
    ).stdout.split()
    assert 5 < len(sizes) <= 20
    assert max(map(int, sizes)) <= 20 * 1024
    assert logs(rig, "--tail", "3", name)[0] == b"2998\n2999\n3000\n"


def test_journald_may_restart_meanwhile(rig: Machine, start: Callable[..., str]) -> None:
    if not rig.has_root:
        pytest.skip("journald is restarted by root")
    script = "read x; for n in $(seq 1 300); do echo $n; sleep 0.01; done"
    name = start(script, "-i", "--log-driver=journald")
    with rig.popen(["rp", "attach", name], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        time.sleep(0.5)
        rig.root(["systemctl", "restart", "systemd-journald"])
        assert process.wait(_LIMIT_S) == 0
    assert logs(rig, name)[0].split() == [b"%d" % n for n in range(1, 301)]


@pytest.mark.limit(_LIMIT_S)
def test_a_journal_that_stands_still_is_waited_for(rig: Machine, start: Callable[..., str]) -> None:
    if not rig.has_root:
        pytest.skip("journald is stopped by root")
    # More than all queues hold.
    script = "until [ -e /go ]; do sleep 0.1; done; seq 1 3000000"
    name = start(script, "--log-driver=journald")
    rig.root(["systemctl", "kill", "--signal=STOP", "systemd-journald"])
    try:
        rig.run(["rp", "exec", name, "touch", "/go"])
        time.sleep(3)
        state = rig.run(["rp", "ps", "-q", "--no-trunc", "--filter", f"name={name}"]).stdout
        assert state, "it did not wait"
    finally:
        rig.root(["systemctl", "kill", "--signal=CONT", "systemd-journald"])
    rig.run(["rp", "wait", name], timeout=_LIMIT_S)
    count = rig.run(
        ["sh", "-c", f"rp logs {name} | awk '$0 != NR {{ exit 1 }} END {{ print NR }}'"],
        timeout=_LIMIT_S,
    )
    assert count.stdout == "3000000\n"


_VOLATILE = "/run/systemd/journald.conf.d/rootlesspy-test.conf"
_MAKE_VOLATILE = f"""\
mkdir -p $(dirname {_VOLATILE})
printf '[Journal]\\nStorage=volatile\\n' > {_VOLATILE}
systemctl restart systemd-journald
logger begun; journalctl --sync
"""
_MAKE_PERSISTENT = f"rm {_VOLATILE}; systemctl restart systemd-journald; journalctl --flush"


def test_where_the_journal_cannot_be_read_back_a_file_is_the_default(
    rig: Machine, start: Callable[..., str]
) -> None:
    if not rig.has_root:
        pytest.skip("the journal is configured by root")
    rig.root(["sh", "-c", _MAKE_VOLATILE])
    try:
        name = start("echo hello")
        rig.run(["rp", "wait", name])
        assert logs(rig, name)[0] == b"hello\n"
        hidden = start("echo hello", "--log-driver=journald")
        done = rig.run(["rp", "logs", hidden], check=False)
        assert done.returncode == 125
        assert "in the journal, and this user cannot read his" in done.stderr
        assert "cannot read his" in rig.run(["rp", "events"], check=False).stderr
    finally:
        rig.root(["sh", "-c", _MAKE_PERSISTENT])
    # Still: it says itself where it is.
    assert logs(rig, name)[0] == b"hello\n"


@pytest.mark.row("R1", "the container goes on, the log says so")
def test_a_full_disk_stops_the_log_and_not_the_container(
    rig: Machine, start: Callable[..., str]
) -> None:
    name = start("seq 1 100; exit 7", "--log-opt=path=/dev/full")
    assert rig.run(["rp", "wait", name]).stdout == "7\n"
    error = rig.run(["rp", "inspect", "--format", "{{.State.Error}}", name]).stdout
    assert error == "output was lost: No space left on device: /dev/full\n"


def test_following_goes_on_while_systemd_restarts_the_container(
    rig: Machine, start: Callable[..., str]
) -> None:
    name = start("echo again; sleep 1; exit 1", "--restart=on-failure:2")
    assert logs(rig, "-f", name)[0] == b"again\n" * 3


@pytest.mark.parametrize("driver", DRIVERS)
def test_following_a_container_that_removes_itself(
    rig: Machine, start: Callable[..., str], driver: str
) -> None:
    script = "echo here; read x; seq 1 1000; printf bye"
    name = start(script, "-i", "--rm", f"--log-driver={driver}")
    with rig.popen(["rp", "logs", "-f", name], stdout=subprocess.PIPE) as process:
        # It has to be there before the container is gone.
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        rig.run(["rp", "attach", name], input="go\n")
        lines = process.stdout.read().split()
    assert lines == [*(b"%d" % number for number in range(1, 1001)), b"bye"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--log-driver=none"], "--log-driver none"),
        (["--log-driver=passthrough"], "log driver passthrough"),
        ([], "log driver passthrough"),
    ],
)
def test_a_container_without_log_says_why(
    rig: Machine, alpine: str, options: list[str], reason: str
) -> None:
    rig.run(["rp", "run", "--network=none", "--name=silent", *options, alpine, "true"])
    done = rig.run(["rp", "logs", "silent"], check=False)
    rig.run(["rp", "rm", "silent"])
    assert done.returncode == 125
    assert done.stderr.startswith("rp: container silent has no log")
    assert reason in done.stderr


@pytest.mark.parametrize(
    "options",
    [["--log-driver=syslog"], ["--log-opt=max-size=0"], ["--log-driver=journald",
     "--log-opt=path=/tmp/x"]],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(
    rig: Machine, alpine: str, options: list[str]
) -> None:
    done = rig.run(["rp", "run", *options, alpine, "true"], check=False)
    assert done.returncode == 125
    assert "--log-" in done.stderr
