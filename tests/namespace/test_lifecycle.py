"""create, start, stop, restart, kill, pause, unpause, wait and rm of detached containers."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from namespace.living import (
    DEAF,
    LIMIT_S,
    POLITE,
    RUN,
    STORE,
    exit_record,
    is_active,
    main_process,
    rp,
    running,
    script,
    show,
    state,
    supervisor,
    until,
)

if TYPE_CHECKING:
    from rig.machine import Machine

pytestmark = pytest.mark.usefixtures("alpine", "leaves_nothing")

STOPS = {
    "rp": ["rp", "stop", "way"],
    "scope": ["systemctl", "--user", "stop", "rp-way.scope"],
    "service": ["systemctl", "--user", "stop", "rp-way.service"],
}


def test_a_detached_container_is_a_service_and_a_scope(rig: Machine) -> None:
    with running(rig, "det", "sleep", "600") as identity:
        assert re.fullmatch("[0-9a-f]{64}", identity)
        assert rp(rig, "ps", "-q", "--no-trunc").stdout.strip() == identity
        service = show(rig, "rp-det.service", "Type", "ActiveState", "StatusText")
        name = rig.run(["cat", f"/proc/{supervisor(rig, 'det')}/comm"]).stdout.strip()
        assert (service["Type"], service["ActiveState"], name) == ("notify", "active", "rp-det")
        pid = main_process(rig, "det")
        assert service["StatusText"] == f"running as process {pid}"
        scope = show(rig, "rp-det.scope", "BindsTo", "ActiveState", "ControlGroup", "Description")
        assert (scope["BindsTo"], scope["ActiveState"]) == ("rp-det.service", "active")
        assert scope["Description"] == "Container det (alpine)"
        cgroups = rig.run(["cat", f"/proc/{pid}/cgroup"]).stdout.splitlines()
        assert f"0::{scope['ControlGroup']}/payload" in cgroups


def test_the_caller_is_left_alone(rig: Machine) -> None:
    """Neither does it hold the caller's pipe open nor live in the caller's session."""
    argv = ["sh", "-c", f"{' '.join(RUN)} --name alone alpine sleep 600 2>&1 | wc -c"]
    assert rig.run(argv, timeout=LIMIT_S).stdout.strip() == "65"
    assert state(rig, "alone") == "running"
    rp(rig, "rm", "-f", "alone")


def test_created_then_started_by_a_beginning_of_its_id(rig: Machine) -> None:
    made = rp(rig, "create", "--name", "made", "--network=none", "alpine", "sleep", "600")
    identity = made.stdout.strip()
    assert (made.returncode, state(rig, "made")) == (0, "created")
    assert not is_active(rig, "rp-made.service")
    # Printed as it was typed; one that runs already is no error.
    for name in (identity[:7], "made"):
        done = rp(rig, "start", name)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}\n", "")
    assert state(rig, "made") == "running"
    assert rp(rig, "rm", "made").returncode == 2
    assert rp(rig, "rm", "-f", identity[:12]).stdout == f"{identity[:12]}\n"


def test_what_is_missing_is_told_and_the_others_are_done(rig: Machine) -> None:
    with running(rig, "one", "sleep", "600"), running(rig, "two", "sleep", "600"):
        for command in ("stop", "start", "restart", "pause", "unpause", "kill", "wait", "rm"):
            done = rp(rig, command, "one", "nosuch", "two", timeout=LIMIT_S)
            assert done.returncode == (1 if command == "rm" else 125), command
            said = done.stdout.split()
            assert said == (["137", "137"] if command == "wait" else ["one", "two"])
            assert "no container with name or id 'nosuch'" in done.stderr
            assert done.stderr.count("\n") <= 2
    again = rp(rig, "rm", "one")
    assert (again.returncode, "no container with name or id 'one'" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    "words",
    [
        ["start"], ["stop"], ["restart"], ["kill"], ["pause"], ["unpause"], ["wait"], ["attach"],
        ["rm"], ["exec"], ["start", "-a", "x", "y"], ["stop", "-a", "x"],
        ["stop", "-t", "soon", "x"],
        ["kill", "-s", "NOSUCH", "x"], ["wait", "--condition", "happy", "x"], ["create"],
    ],
)  # fmt: skip
def test_usage_is_exit_code_125_and_one_line_with_a_hint(rig: Machine, words: list[str]) -> None:
    done = rp(rig, *words)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("rp: ")
    assert done.stderr.count("\n") <= 2


def test_all_latest_filter_and_cidfile(rig: Machine) -> None:
    rig.run(["rm", "-f", "cid"])
    with (
        running(rig, "old", "sleep", "600", options=("--label", "kind=x", "--cidfile", "cid")),
        running(rig, "new", "sleep", "600"),
    ):
        ids = rp(rig, "inspect", "-f", "{{.Id}}", "new", "old").stdout.split()
        assert rp(rig, "stop", "--latest").stdout.split() == ids[:1]
        assert (state(rig, "new"), state(rig, "old")) == ("exited", "running")
        assert rp(rig, "stop", "--filter", "label=kind=x").stdout.split() == ids[1:]
        assert rp(rig, "start", "--all").stdout.split() == ids
        assert rp(rig, "stop", "--cidfile", "cid").stdout.split() == ids[1:]
        assert rp(rig, "restart", "--running").stdout.split() == ids[:1]
        assert rp(rig, "stop", "--all").stdout.split() == ids[:1]
        assert rp(rig, "stop", "--all").stdout == ""
        done = rp(rig, "stop", "--ignore", "nosuch")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        for command in ("wait", "attach"):
            assert "or say --latest\n" in rp(rig, command).stderr
        assert rp(rig, "start", "--filter", "label=kind=x").stdout.split() == ids[1:]
        assert rp(rig, "pause", "--cidfile", "cid").stdout.split() == ids[1:]
        assert rp(rig, "unpause", "--filter", "label=kind=x").stdout.split() == ids[1:]
        assert rp(rig, "rm", "--filter", "label=kind=y").stdout == ""
        assert rp(rig, "rm", "--latest").stdout.split() == ids[:1]
        assert rp(rig, "rm", "--force", "--cidfile", "cid").stdout.split() == ids[1:]
        assert rp(rig, "ps", "-aq").stdout == ""
    rig.run(["rm", "-f", "cid"])


def active_state(rig: Machine, unit: str) -> str:
    """Return what systemd says of a unit: not active is also one that is still ending."""
    return show(rig, unit, "ActiveState")["ActiveState"]


@pytest.mark.parametrize("way", STOPS)
def test_every_way_to_stop_is_the_same_clean_stop(rig: Machine, way: str) -> None:
    child = "(trap 'echo child was asked' TERM; while :; do sleep 0.1; done) & "
    with script(rig, "way", child + POLITE, "--restart=always") as identity:
        rig.run(STOPS[way], timeout=LIMIT_S)
        # Asked for, so no policy starts it again, and it is no failure either.
        until(lambda: active_state(rig, "rp-way.service") == "inactive", "the service goes on")
        ended = exit_record(rig, identity)
        assert (ended["exit_code"], ended["signal"], ended["oom_killed"]) == (3, 0, False)
        assert ended["reason"] == ("stop" if way == "rp" else "systemctl")
        assert rp(rig, "logs", "way").stdout == "ready\nasked\n"
        time.sleep(0.5)
        assert active_state(rig, "rp-way.service") == "inactive"
        assert state(rig, "way") == "exited"
        assert not is_active(rig, "rp-way.scope")
        # And it can be started again, with the same policy.
        assert rp(rig, "start", "way").returncode == 0
        assert show(rig, "rp-way.service", "Restart")["Restart"] == "always"


@pytest.mark.row("X2", "killed in time")
@pytest.mark.parametrize("way", STOPS)
def test_what_does_not_listen_is_killed_in_time(rig: Machine, way: str) -> None:
    with script(rig, "way", DEAF, "--stop-timeout=1", "--restart=always") as identity:
        rig.run(STOPS[way], timeout=LIMIT_S)
        until(lambda: state(rig, "way") == "exited", "it goes on")
        ended = exit_record(rig, identity)
        assert (ended["exit_code"], ended["reason"]) == (137, "timeout")


def test_the_stop_time_and_the_stop_signal_can_be_chosen(rig: Machine) -> None:
    with script(rig, "deaf", DEAF, "--stop-timeout=600") as identity:
        assert rp(rig, "stop", "-t", "1", "deaf", timeout=LIMIT_S).returncode == 0
        assert exit_record(rig, identity)["reason"] == "timeout"
    hears = "trap 'echo heard; exit 0' USR1; trap '' TERM; echo ready; while :; do sleep 0.1; done"
    with script(rig, "hears", hears, "--stop-signal=SIGUSR1") as identity:
        rp(rig, "stop", "-t", "60", "hears")
        assert rp(rig, "logs", "hears").stdout == "ready\nheard\n"
        assert exit_record(rig, identity)["exit_code"] == 0


def test_a_sleeping_first_process_is_stopped_at_once(rig: Machine) -> None:
    with running(rig, "asleep", "sleep", "600", options=("--stop-timeout=600",)) as identity:
        rp(rig, "stop", "asleep", timeout=LIMIT_S)
        ended = exit_record(rig, identity)
        assert (ended["exit_code"], ended["reason"]) == (143, "stop")


def test_stopping_twice_at_once_is_one_stop(rig: Machine) -> None:
    with script(rig, "twice", POLITE) as identity:
        done = rig.run(["sh", "-c", "rp stop twice & rp stop twice; wait"], timeout=LIMIT_S)
        assert done.stdout == "twice\ntwice\n"
        assert exit_record(rig, identity)["exit_code"] == 3
        assert rp(rig, "logs", "twice").stdout.count("asked") == 1


def test_kill_sends_any_signal_and_kill_by_default(rig: Machine) -> None:
    loop = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.1; done"
    with script(rig, "mortal", loop, "--restart=always") as identity:
        assert rp(rig, "kill", "-s", "USR1", "mortal").stdout == "mortal\n"
        until(lambda: "usr1" in rp(rig, "logs", "mortal").stdout, "no signal came")
        assert state(rig, "mortal") == "running"
        assert rp(rig, "kill", identity[:10]).stdout == f"{identity[:10]}\n"
        assert rp(rig, "wait", "mortal").stdout == "137\n"
        ended = exit_record(rig, identity)
        assert (ended["exit_code"], ended["signal"], ended["reason"]) == (137, 9, "kill")
        time.sleep(0.5)
        assert state(rig, "mortal") == "exited"
        done = rp(rig, "kill", "mortal")
        assert (done.returncode, "mortal is not running" in done.stderr) == (125, True)


def test_wait_prints_the_exit_codes_in_the_order_asked(rig: Machine) -> None:
    with (
        running(rig, "late", "sh", "-c", "sleep 1; exit 7"),
        running(rig, "soon", "sh", "-c", "exit 5"),
    ):
        assert rp(rig, "wait", "late", "soon", timeout=LIMIT_S).stdout == "7\n5\n"
        assert rp(rig, "wait", "late").stdout == "7\n"
    rp(rig, "create", "--name", "coming", "--network=none", "alpine", "sleep", "600")
    waiting = rig.popen(["rp", "wait", "--condition=running", "coming"])
    rp(rig, "start", "coming")
    assert waiting.wait(LIMIT_S) == 0
    rp(rig, "rm", "-f", "coming")


def test_a_removed_container_ends_those_who_wait(rig: Machine) -> None:
    with running(rig, "gone", "sleep", "600", options=("--rm",)):
        waiting = rig.popen(["rp", "wait", "gone"], stdout=-1, text=True)
        connected = ["ss", "--no-header", "--unix", "state", "connected"]
        until(lambda: "/control " in rig.run(connected).stdout, "it does not wait")
        # One after the other: what was asked before is being served.
        rig.run(["rp", "exec", "gone", "true"])
        rp(rig, "stop", "gone")
        assert waiting.communicate(timeout=LIMIT_S)[0] == "143\n"
        assert state(rig, "gone") == ""


def test_rm_option_with_detach(rig: Machine) -> None:
    rig.run([*RUN, "--rm", "--name", "brief", "alpine", "sh", "-c", "exit 4"], timeout=LIMIT_S)
    until(lambda: not state(rig, "brief"), "it stays")
    until(lambda: not is_active(rig, "rp-brief.service"), "the service stays")
    failed = rig.run(["systemctl", "--user", "list-units", "--failed", "--no-legend", "rp-brief*"])
    assert failed.stdout == ""


@pytest.mark.parametrize(("lock", "held_s"), [("--exclusive", 1), ("--shared", 0.3)])
def test_who_starts_or_removes_it_waits_for_who_is_about_to_leave(
    rig: Machine, lock: str, held_s: float
) -> None:
    """Its end is on record before its supervisor has left; who lists containers looks at locks."""
    with running(rig, "leaving", "true") as identity:
        hold = f"exec flock {lock} ~/{STORE}/{identity} sh -c 'echo held; sleep {held_s}'"
        for command in ("start", "rm"):
            until(lambda: state(rig, "leaving") == "exited", "it goes on")
            until(
                lambda: active_state(rig, "rp-leaving.service") == "inactive", "its service goes on"
            )
            with rig.popen(["sh", "-c", hold], stdout=subprocess.PIPE, text=True) as holder:
                assert holder.stdout is not None
                assert holder.stdout.readline() == "held\n"
                done = rp(rig, command, "leaving")
            assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_restart_makes_it_a_new_process(rig: Machine) -> None:
    with script(rig, "again", POLITE) as identity:
        before = main_process(rig, "again")
        assert rp(rig, "restart", "-t", "5", "again").stdout == "again\n"
        assert main_process(rig, "again") != before
        assert rp(rig, "ps", "-q", "--no-trunc").stdout.strip() == identity
        rp(rig, "stop", "again")
        assert rp(rig, "restart", "again").stdout == "again\n"
        assert state(rig, "again") == "running"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("no", {"Restart": "no"}),
        ("always", {"Restart": "always", "StartLimitIntervalUSec": "0"}),
        ("unless-stopped", {"Restart": "always", "StartLimitIntervalUSec": "0"}),
        ("on-failure", {"Restart": "on-failure", "StartLimitIntervalUSec": "0"}),
        ("on-failure:2", {"Restart": "on-failure", "StartLimitBurst": "3"}),
    ],
)
def test_a_restart_policy_is_the_unit_s(
    rig: Machine, policy: str, expected: dict[str, str]
) -> None:
    with running(rig, "policy", "sleep", "600", options=(f"--restart={policy}",)):
        assert show(rig, "rp-policy.service", *expected) == expected


@pytest.mark.parametrize(
    ("policy", "code", "runs"),
    [("no", 3, 1), ("on-failure", 0, 1), ("on-failure:2", 3, 3)],
)
def test_how_often_it_is_started(rig: Machine, policy: str, code: int, runs: int) -> None:
    with running(
        rig, "often", "sh", "-c", f"echo run; exit {code}", options=(f"--restart={policy}",)
    ):
        until(lambda: rp(rig, "logs", "often").stdout.count("run") >= runs, "too few runs")
        until(
            lambda: active_state(rig, "rp-often.service") in ("inactive", "failed"),
            "it is not over",
        )
        time.sleep(0.3)
        assert rp(rig, "logs", "often").stdout == "run\n" * runs
        assert rp(rig, "wait", "often").stdout == f"{code}\n"


@pytest.mark.parametrize("code", [0, 3])
def test_always_goes_on_until_it_is_stopped(rig: Machine, code: int) -> None:
    with running(rig, "ever", "sh", "-c", f"echo run; exit {code}", options=("--restart=always",)):
        until(lambda: rp(rig, "logs", "ever").stdout.count("run") >= 3, "it does not go on")
        assert rp(rig, "stop", "ever").returncode == 0
        until(
            lambda: active_state(rig, "rp-ever.service") in ("inactive", "failed"),
            "it is not over",
        )
        runs = rp(rig, "logs", "ever").stdout.count("run")
        time.sleep(1)
        assert rp(rig, "logs", "ever").stdout.count("run") == runs
        assert state(rig, "ever") == "exited"


@pytest.mark.row("U5", "it starts afterwards")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["alpine", "nosuch"], 127, "'nosuch' is not found"),
        (["alpine", "/etc/passwd"], 126, "permission denied"),
        (["-w", "/nosuch", "alpine", "true"], 127, "'/nosuch' cannot be entered"),
    ],
)
def test_what_cannot_start_stays_to_be_looked_at(
    rig: Machine, words: list[str], code: int, said: str
) -> None:
    done = rp(rig, "run", "-d", "--network=none", "--name", "bad", "--restart=always", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") <= 2
    assert state(rig, "bad") in ("created", "exited")
    again = rp(rig, "start", "bad")
    assert (again.returncode, said in again.stderr) == (125, True)
    attached = rp(rig, "start", "-a", "bad")
    assert (attached.returncode, said in attached.stderr) == (code, True)
    # Nor does a restart policy try again what has never run.
    until(lambda: active_state(rig, "rp-bad.service") == "failed", "it is tried again")
    assert rp(rig, "rm", "bad").returncode == 0
    # Not with --rm.
    gone = rp(rig, "run", "-d", "--rm", "--network=none", "--name", "bad", *words)
    assert (gone.returncode, state(rig, "bad")) == (code, "")


def test_a_port_in_use(rig: Machine) -> None:
    with running(rig, "first", "sleep", "600", network="pasta", options=("-p", "18080:80")):
        options = ("--name", "second", "-p", "18080:80")
        done = rp(rig, "run", "-d", *options, "alpine", "sleep", "600")
        assert (done.returncode, "18080/tcp is in use" in done.stderr) == (125, True)
        assert state(rig, "second") == ""
        rp(rig, "create", *options, "alpine", "sleep", "600")
        rp(rig, "stop", "first")
        assert rp(rig, "start", "second").returncode == 0
        done = rp(rig, "start", "first")
        assert (done.returncode, "18080/tcp is in use" in done.stderr) == (125, True)
        assert state(rig, "first") == "exited"
        rp(rig, "rm", "-f", "second")


def test_paused(rig: Machine) -> None:
    # What it has written to a file nobody has yet to read and log.
    loop = "while :; do echo tick; echo tick >>/ticks/file; sleep 0.05; done"
    rig.run(["sh", "-c", "rm -rf ticks; mkdir ticks"])

    def ticks() -> str:
        return str(rig.run(["cat", "ticks/file"]).stdout)

    with script(rig, "frozen", loop, "-v", "/home/alice/ticks:/ticks") as identity:
        until(lambda: "tick" in rp(rig, "logs", "frozen").stdout, "it says nothing")
        assert rp(rig, "pause", "frozen").stdout == "frozen\n"
        assert state(rig, "frozen") == "paused"
        assert show(rig, "rp-frozen.scope", "FreezerState")["FreezerState"] == "frozen"
        before = ticks()
        for command in (["pause"], ["exec"], ["start"]):
            done = rp(rig, *command, "frozen", *(["true"] if command == ["exec"] else []))
            assert (done.returncode, "is " in done.stderr) == (125, True), command
            assert "paused" in done.stderr
        assert "tick" in rp(rig, "logs", "frozen").stdout
        assert ticks() == before
        assert rp(rig, "unpause", "--all").stdout.strip() == identity
        until(lambda: ticks() != before, "it does not go on")
        done = rp(rig, "unpause", "frozen")
        assert (done.returncode, "frozen is not paused" in done.stderr) == (125, True)
    rig.run(["rm", "-r", "ticks"])


@pytest.mark.row("X2", "a frozen one is ended")
@pytest.mark.parametrize(
    "words", [["stop", "cold"], ["kill", "cold"], ["restart", "cold"], ["rm", "-f", "cold"]]
)
def test_a_paused_one_can_be_ended(rig: Machine, words: list[str]) -> None:
    with script(rig, "cold", POLITE):
        rp(rig, "pause", "cold")
        assert rp(rig, *words, timeout=LIMIT_S).stdout == "cold\n"
        expected = {"stop": "exited", "kill": "exited", "restart": "running", "rm": ""}[words[0]]
        until(lambda: state(rig, "cold") == expected, f"it is {state(rig, 'cold')}")


def test_systemctl_stops_a_paused_one(rig: Machine) -> None:
    """systemd itself refuses that for the frozen scope, but not for the service."""
    with script(rig, "cold", POLITE) as identity:
        rp(rig, "pause", "cold")
        rig.run(["systemctl", "--user", "stop", "rp-cold.service"], timeout=LIMIT_S)
        until(lambda: state(rig, "cold") == "exited", "it goes on")
        ended = exit_record(rig, identity)
        assert (ended["exit_code"], ended["reason"]) == (3, "systemctl")


def test_no_scope_no_pause(rig: Machine) -> None:
    with running(rig, "bare", "sleep", "600", options=("--cgroups=disabled",)):
        done = rp(rig, "pause", "bare")
        assert (done.returncode, "has no scope" in done.stderr) == (125, True)
        assert rp(rig, "stop", "bare").returncode == 0


def test_output_of_a_daemon_that_keeps_stdout_open(rig: Machine) -> None:
    """The end is the first process's, whoever else still has its pipes."""
    daemon = "(while :; do echo child; sleep 0.05; done) & echo parent; exec sleep 0.3"
    with running(rig, "daemon", "sh", "-c", daemon):
        assert rp(rig, "wait", "daemon", timeout=LIMIT_S).stdout == "0\n"
        assert "parent" in rp(rig, "logs", "daemon").stdout


def test_closed_output_is_not_the_end(rig: Machine) -> None:
    script_ = (
        "echo before; exec >&- 2>&-; touch /closed; until [ -e /go ]; do sleep 0.1; done; exit 9"
    )
    with running(rig, "closed", "sh", "-c", script_):
        rig.run(["rp", "exec", "closed", "sh", "-c", "until [ -e /closed ]; do sleep 0.1; done"])
        time.sleep(0.2)
        assert state(rig, "closed") == "running"
        rig.run(["rp", "exec", "closed", "touch", "/go"])
        assert rp(rig, "wait", "closed", timeout=LIMIT_S).stdout == "9\n"
        assert rp(rig, "logs", "closed").stdout == "before\n"
