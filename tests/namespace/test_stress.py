"""Many at once, one against the other, and supervisors and managers that are killed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from namespace.living import (
    RUN,
    exit_record,
    is_active,
    main_process,
    rp,
    running,
    show,
    state,
    supervisor,
    until,
)
from rig.effort import effort

if TYPE_CHECKING:
    from rig.machine import Machine

pytestmark = [pytest.mark.usefixtures("alpine"), pytest.mark.limit(900)]

# RP_STRESS=5 makes everything five times as often: 200 starts at once; the nightly run does.
TIMES = int(os.environ.get("RP_STRESS") or effort(1, 5))


def shell(rig: Machine, text: str, limit_s: int = 600) -> tuple[str, str]:
    """Run a shell script as the user; return what it said. No traceback is ever right."""
    done = rig.run(["sh", "-c", text], check=False, timeout=limit_s * TIMES)
    assert "Traceback" not in done.stderr + done.stdout
    assert "internal error" not in done.stderr
    return done.stdout, done.stderr


def containers(rig: Machine) -> int:
    return len(rp(rig, "ps", "-aq").stdout.split())


@pytest.mark.row("C1", "one wins, the others: 125, in use")
@pytest.mark.parametrize("how", ["-d", ""])
def test_one_name_many_starts_one_wins(rig: Machine, leaves_nothing: None, how: str) -> None:
    many = 40 * TIMES
    start = f"rp run {how} --network=none --name=only alpine sleep 600"
    text = f"for n in $(seq {many}); do {{ {start} >/dev/null; echo $?; }} & done; "
    if not how:
        text += f"while [ $(grep -c 125 codes) -lt {many - 1} ]; do sleep 0.2; done; "
        # The others may have lost before the one that won runs.
        text += 'until [ "$(rp ps -q)" ]; do sleep 0.2; done; rp stop only; '
    out, err = shell(rig, f"{{ {text} wait; }} >codes; cat codes; rm codes")
    codes = [code for code in out.split() if code.isdigit()]
    assert codes.count("125") == many - 1
    assert sorted(codes)[0 if how else -1] == ("0" if how else "143")
    assert err.count("name 'only' is in use") == many - 1
    assert containers(rig) == 1
    rp(rig, "rm", "-f", "only")


@pytest.mark.row("C3", "one of the two, and what is there agrees")
def test_remove_against_start(rig: Machine, leaves_nothing: None) -> None:
    rounds = 10 * TIMES
    text = f"""
        for n in $(seq {rounds}); do
            rp create --name=duel --network=none alpine sleep 600 >/dev/null
            rp start duel >started 2>&1 & a=$!
            sleep 0.0$((n % 10)); rp rm duel >removed 2>&1 & b=$!
            wait $a; a=$?; wait $b; b=$?
            echo "$a $b $(rp ps -aq --filter name=duel | wc -l)"
            [ $a = 0 ] || cat started >&2
            [ $b = 0 ] || cat removed >&2
            rp rm -f duel >/dev/null
        done
        rm -f started removed
    """
    out, _ = shell(rig, text)
    seen = [tuple(map(int, line.split())) for line in out.splitlines()]
    assert len(seen) == rounds
    for started, removed, left in seen:
        # One of them, and what is there afterwards agrees with what they said.
        assert (started == 0) != (removed == 0)
        assert left == (1 if started == 0 else 0)


@pytest.mark.row("C3", "stopped; the exec is killed or too late")
def test_stop_against_exec(rig: Machine, leaves_nothing: None) -> None:
    rounds = 10 * TIMES
    text = f"""
        for n in $(seq {rounds}); do
            rp run -d --rm --name=duel --network=none alpine sleep 600 >/dev/null
            rp exec duel sh -c 'echo in; sleep 600' >said 2>errors & a=$!
            sleep 0.0$((n % 10)); rp stop duel >/dev/null 2>&1 & b=$!
            wait $a; a=$?; wait $b; b=$?
            echo "$a $b $(rp ps -aq | wc -l) $(wc -l <said) $(wc -l <errors)"
        done
        rm -f said errors
    """
    out, _ = shell(rig, text)
    seen = [tuple(map(int, line.split())) for line in out.splitlines()]
    assert len(seen) == rounds
    for executed, stopped, left, said, errors in seen:
        assert (stopped, left) == (0, 0)
        # Killed with the container, or too late, which it says.
        assert executed in (137, 125), (executed, said, errors)
        assert (errors == 0) == (executed == 137)
        assert said == 0 or executed == 137


@pytest.mark.row("C3", "stopped in the end")
def test_stop_against_start(rig: Machine, leaves_nothing: None) -> None:
    rounds = 8 * TIMES
    text = f"""
        rp create --name=duel --network=none alpine sleep 600 >/dev/null
        for n in $(seq {rounds}); do
            rp start duel >/dev/null 2>&1 & a=$!
            sleep 0.0$((n % 10)); rp stop duel >/dev/null 2>&1 & b=$!
            wait $a; wait $b || echo "stop: $?"
            rp stop duel >/dev/null; rp ps -a --filter name=duel --format '{{{{.State}}}}'
        done
        rp rm duel
    """
    out, err = shell(rig, text)
    # One that was stopped before its start began has never run, and starts all the same.
    assert out.replace("created\n", "exited\n") == "exited\n" * rounds + "duel\n", (out, err)


@pytest.mark.row("U1", "pids, cgroups and output stay")
def test_reloading_and_reexecuting_the_manager(rig: Machine) -> None:
    """Only the manager itself is another process afterwards."""
    rounds = 10 * TIMES
    with running(rig, "steady", "sleep", "600") as identity:
        before = main_process(rig, "steady")
        text = f"""
            rp exec steady sh -c 'for n in $(seq 600); do echo $n; sleep 0.02; done' >long & long=$!
            for n in $(seq {rounds}); do
                systemctl --user daemon-reload & rp exec steady echo one || echo failed $?
                systemctl --user daemon-reexec & rp exec steady echo two || echo failed $?
                wait $!
            done
            wait $long; echo $?; tail -n 1 long; wc -l <long; rm long
        """
        out, err = shell(rig, text)
        assert out.split() == ["one", "two"] * rounds + ["0", "600", "600"], err
        assert main_process(rig, "steady") == before
        for unit in ("rp-steady.scope", "rp-steady.service"):
            assert is_active(rig, unit)
        # The scope still asks the supervisor to stop it.
        rig.run(["systemctl", "--user", "stop", "rp-steady.scope"])
        until(lambda: state(rig, "steady") == "exited", "it goes on")
        ended = exit_record(rig, identity)
        assert (ended["exit_code"], ended["reason"]) == (143, "systemctl")


@pytest.mark.row("P5", "lost without a policy, with one started again once")
@pytest.mark.parametrize("policy", ["no", "always"])
def test_a_killed_supervisor(rig: Machine, leaves_nothing: None, policy: str) -> None:
    """Its payload goes with it, its end is told, and a policy acts once."""
    command = ("sh", "-c", "trap '' TERM HUP; echo run; sleep 600")
    with running(rig, "orphan", *command, options=(f"--restart={policy}",)):
        until(lambda: rp(rig, "logs", "orphan").stdout == "run\n", "it did not begin")
        pid = main_process(rig, "orphan")
        argv = ["systemctl", "--user", "kill", "-s", "KILL", "--kill-whom=main"]
        rig.run([*argv, "rp-orphan.service"])
        until(lambda: not alive(rig, pid), "the payload goes on")
        if policy == "no":
            until(lambda: not is_active(rig, "rp-orphan.scope"), "the scope stays")
            listed = rp(rig, "ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout
            assert "orphan Exited (-1)" in listed
            why = rp(rig, "inspect", "--format", "{{.State.Error}}", "orphan").stdout
            assert "status lost" in why
            assert rp(rig, "start", "orphan").returncode == 0
            return
        until(lambda: state(rig, "orphan") == "running", "it is not started again")
        until(lambda: rp(rig, "logs", "orphan").stdout == "run\nrun\n", "it did not begin twice")
        # systemd counts for itself: it acted once, not more often.
        assert show(rig, "rp-orphan.service", "NRestarts") == {"NRestarts": "1"}
        assert main_process(rig, "orphan") != pid


# Kills a supervisor while systemd can do nothing; says whether the payload died, and after how
# many milliseconds.  pidfd_open(2): readable once the process is a zombie.
ORPHAN = """
import os, select, signal, sys, time
supervisor, payload, manager = map(int, sys.argv[1:])
fd = os.pidfd_open(payload)
os.kill(manager, signal.SIGSTOP)
try:
    began = time.monotonic()
    os.kill(supervisor, signal.SIGKILL)
    gone = bool(select.select([fd], [], [], 30)[0])
    print(gone, round(1000 * (time.monotonic() - began), 1))
finally:
    os.kill(manager, signal.SIGCONT)
"""


@pytest.mark.row("P5", "the kernel ends the payload")
@pytest.mark.row("R7", "as a killed supervisor: the payload ends, the end is lost")
@pytest.mark.parametrize("options", [(), ("-u", "1000"), ("--privileged",)])
def test_the_kernel_alone_ends_a_payload_without_supervisor(
    rig: Machine, leaves_nothing: None, options: tuple[str, ...]
) -> None:
    """Neither systemd, which stands still, nor any rp is needed: nothing is waited for."""
    if not rig.has_root:
        pytest.skip("stops the user manager for a moment")
    command = ("sh", "-c", "trap '' TERM HUP; echo run; while :; do sleep 0.1; done")
    with running(rig, "orphan", *command, options=options):
        unit = f"user@{rig.uid}.service"
        manager = rig.root(["systemctl", "show", "-P", "MainPID", unit]).stdout
        pids = (str(supervisor(rig, "orphan")), str(main_process(rig, "orphan")), manager.strip())
        said = rig.run(["python3", "-c", ORPHAN, *pids]).stdout
        assert said.split()[0] == "True", said
        print(f"the payload was gone after {said.split()[1]} ms")
        until(lambda: state(rig, "orphan") == "exited", "its end is not seen")


def alive(rig: Machine, pid: int) -> bool:
    return rig.run(["test", "-e", f"/proc/{pid}"], check=False).returncode == 0


@pytest.mark.row("U2", "lost; enabled ones are back once")
def test_a_killed_user_manager(rig: Machine) -> None:
    """What it ran is gone with it; afterwards the truth is told, and the enabled are back once."""
    if not rig.has_root:
        pytest.skip("needs root to start the user manager again")
    rig.run([*RUN, "--name", "plain", "alpine", "sleep", "600"])
    rig.run(
        [*RUN, "--name", "kept", "--restart=always", "alpine", "sh", "-c", "echo run; sleep 600"]
    )
    rig.run(["rp", "enable", "kept"])
    until(lambda: rp(rig, "logs", "kept").stdout == "run\n", "it did not begin")
    before = {name: main_process(rig, name) for name in ("plain", "kept")}
    unit = f"user@{rig.uid}.service"
    main = rig.root(["systemctl", "show", "--value", "-p", "MainPID", unit]).stdout.strip()
    rig.root(["kill", "-9", main])
    until(lambda: rig.root(["systemctl", "is-active", unit], check=False).returncode != 0, "alive")
    rig.root(["systemctl", "reset-failed", unit], check=False)
    rig.root(["systemctl", "start", unit])
    until(lambda: state(rig, "kept") == "running", "it is not back")
    until(lambda: state(rig, "plain") == "exited", "it is said to run")
    assert not any(alive(rig, pid) for pid in before.values())
    until(lambda: rp(rig, "logs", "kept").stdout == "run\nrun\n", "it did not begin twice")
    assert rp(rig, "start", "plain").returncode == 0
    rp(rig, "rm", "-f", "plain", "kept")
