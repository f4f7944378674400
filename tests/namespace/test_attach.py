"""`rp attach` and `rp start -a`: nothing is lost, keys detach, nobody's window stops a service."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from namespace.living import LIMIT_S, exit_record, rp, running, script, state, until

if TYPE_CHECKING:
    from rig.machine import Machine

pytestmark = pytest.mark.usefixtures("alpine", "leaves_nothing")

CREATE = ("rp", "create", "--network=none")
# Whoever is attached by now hears it; then the payload waits for a line of input.
CALLS = "until [ -e /go ]; do echo ready; sleep 0.1; done; read go"


def has_begun(client: subprocess.Popen[Any]) -> None:
    """Wait until a client is attached to a payload that calls."""
    assert client.stdout is not None
    assert client.stdout.readline() in ("ready\n", b"ready\n")


def test_start_attached_loses_nothing_of_a_short_life(rig: Machine) -> None:
    rig.run([*CREATE, "--name", "brief", "alpine", "sh", "-c", "seq 500; echo bad >&2; exit 5"])
    loop = (
        "for n in $(seq 20); do rp start -a brief >out 2>err; echo $? $(wc -l <out) $(cat err);"
        " done; rm out err"
    )
    assert rig.run(["sh", "-c", loop], timeout=150).stdout == "5 500 bad\n" * 20
    rp(rig, "rm", "brief")


def test_start_interactive_ends_with_its_input(rig: Machine) -> None:
    rig.run([*CREATE, "-i", "--name", "echoes", "alpine", "cat"])
    for text in ("one\ntwo", "", "x" * 300_000 + "\n"):
        done = rp(rig, "start", "-ai", "echoes", input=text, timeout=LIMIT_S)
        assert (done.returncode, done.stdout == text, done.stderr) == (0, True, "")
    rp(rig, "rm", "echoes")
    # One that was not made with -i has none.
    rig.run([*CREATE, "--name", "deaf", "alpine", "cat"])
    done = rp(rig, "start", "-ai", "deaf", input="one\n", timeout=LIMIT_S)
    assert (done.returncode, done.stdout) == (0, "")
    rp(rig, "rm", "deaf")


def test_start_attached_with_a_terminal(rig: Machine) -> None:
    rig.run([*CREATE, "-it", "--name", "shell", "alpine", "sh"])
    with rig.pty(["rp", "start", "-ai", "shell"]) as terminal:
        terminal.expect("# ")
        terminal.send("stty size; tty; exit 6\r")
        terminal.expect("24 80.*/dev/pts/0")
        assert terminal.wait() == 6
    rp(rig, "rm", "shell")


def test_detach_and_attach_again(rig: Machine) -> None:
    with running(rig, "mine", "sh", options=("-it",)):
        with rig.pty(["rp", "attach", "mine"]) as terminal:
            terminal.send("echo on''e; x=kept\r")
            terminal.expect("one")
            terminal.send("\x10\x11")
            assert terminal.wait() == 0
        assert state(rig, "mine") == "running"
        with rig.pty(["rp", "attach", "--detach-keys=ctrl-x,x", "mine"]) as terminal:
            terminal.send("echo $x-agai''n\r")
            terminal.expect("kept-again")
            terminal.resize(31, 91)
            terminal.send(
                "while [ \"$(stty size)\" != '31 91' ]; do sleep 0.1; done; echo s''ize\r"
            )
            terminal.expect("size\r")
            terminal.send("\x18x")
            assert terminal.wait() == 0
        with rig.pty(["rp", "attach", "mine"]) as terminal:
            terminal.send("exit 8\r")
            assert terminal.wait() == 8


def test_two_at_once_see_the_same(rig: Machine) -> None:
    with (
        running(rig, "both", "sh", options=("-it",)),
        rig.pty(["rp", "attach", "both"]) as one,
        rig.pty(["rp", "attach", "both"]) as two,
    ):
        for each in (one, two):
            each.send("\r")
            each.expect("# ")
        one.send("echo fi''rst\r")
        for each in (one, two):
            each.expect("first")
        two.send("echo sec''ond\r")
        for each in (one, two):
            each.expect("second")
        two.send("\x10\x11")
        assert two.wait() == 0
        one.send("echo th''ird; exit 4\r")
        one.expect("third")
        assert one.wait() == 4


def test_piped_input_and_separate_errors(rig: Machine) -> None:
    with running(rig, "pipe", "sh", options=("-i",)):
        done = rp(rig, "attach", "pipe", input="echo out; echo err >&2; exit 3\n", timeout=LIMIT_S)
        assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_without_stdin_it_only_listens(rig: Machine) -> None:
    with running(rig, "listen", "sh", "-c", f"{CALLS}; echo got $go; exit 2", options=("-i",)):
        argv = ["rp", "attach", "--no-stdin", "listen"]
        with rig.popen(argv, stdin=-1, stdout=-1, text=True) as listener:
            assert listener.stdin is not None
            listener.stdin.write("ignored\n")
            listener.stdin.flush()
            has_begun(listener)
            rig.run(["rp", "exec", "listen", "touch", "/go"])
            done = rp(rig, "attach", "listen", input="words\n", timeout=LIMIT_S)
            assert done.returncode == 2
            assert listener.communicate(timeout=LIMIT_S)[0].endswith("got words\n")
            assert listener.returncode == 2


@pytest.mark.row("P4", "the container goes on")
@pytest.mark.parametrize("first", [True, False])
def test_a_client_that_dies_leaves_it_running(rig: Machine, first: bool) -> None:
    if first:
        rig.run([*CREATE, "-i", "--name", "lives", "alpine", "sh"])
        argv = ["rp", "start", "-ai", "lives"]
    else:
        rig.run(["rp", "run", "-d", "-i", "--network=none", "--name", "lives", "alpine", "sh"])
        argv = ["rp", "attach", "lives"]
    with rig.popen(argv, stdin=-1, stdout=-1, text=True) as client:
        assert client.stdin is not None
        client.stdin.write("echo ready\n")
        client.stdin.flush()
        has_begun(client)
        until(lambda: state(rig, "lives") == "running", "it does not start")
        rig.run(["pkill", "-9", "-f", "rp (start -ai|attach) lives"])
        client.wait(LIMIT_S)
    done = rp(rig, "attach", "lives", input="echo alive; exit 1\n", timeout=LIMIT_S)
    assert (done.returncode, done.stdout) == (1, "alive\n")
    rp(rig, "rm", "-f", "lives")


def test_signals_are_passed_on_or_not(rig: Machine) -> None:
    trap = "trap 'echo usr1' USR1; trap 'exit 3' TERM; while :; do echo ready; sleep 0.1; done"
    with script(rig, "sig", trap):
        for option, expected in (("--sig-proxy=false", False), ("--sig-proxy", True)):
            argv = ["rp", "attach", option, "sig"]
            with rig.popen(argv, stdout=subprocess.PIPE, text=True) as client:
                assert client.stdout is not None
                assert client.stdout.readline() == "ready\n"
                if expected:
                    client.send_signal(signal.SIGUSR1)
                    assert "usr1\n" in iter(client.stdout.readline, "")
                client.send_signal(signal.SIGTERM)
                client.communicate(timeout=LIMIT_S)
                assert (client.returncode == 3) is expected
            assert state(rig, "sig") == ("exited" if expected else "running")


def test_run_passes_signals_on_or_not(rig: Machine, leaves_nothing: None) -> None:
    trap = "trap 'exit 3' TERM; while :; do echo ready; sleep 0.1; done"
    for option, expected in (("--sig-proxy=false", False), ("--sig-proxy", True)):
        argv = ["rp", "run", "--network=none", option, "--name=sig", "alpine", "sh", "-c", trap]
        with rig.popen(argv, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "ready\n"
            client.send_signal(signal.SIGTERM)
            if expected:
                client.communicate(timeout=LIMIT_S)
                assert client.returncode == 3
            else:
                # Its output, which the container keeps open, ends later.
                client.wait(LIMIT_S)
                assert client.returncode == 130
                assert state(rig, "sig") == "running"
            rp(rig, "rm", "-f", "sig")


@pytest.mark.row("R10", "it is dropped")
def test_a_slow_reader_does_not_stop_a_detached_container(rig: Machine) -> None:
    flood = f"{CALLS}; seq 1000000; echo over; exit 2"
    with (
        running(rig, "flood", "sh", "-c", flood, options=("-i", "--log-driver=none")) as identity,
        rig.popen(["rp", "attach", "--no-stdin", "flood"], stdout=-1) as slow,
    ):
        has_begun(slow)
        rig.run(["rp", "exec", "flood", "touch", "/go"])
        rp(rig, "attach", "flood", input="go\n", timeout=LIMIT_S)
        assert exit_record(rig, identity)["exit_code"] == 2
        slow.kill()


@pytest.mark.row("R10", "the one that started it is waited for")
def test_a_slow_reader_that_started_it_loses_nothing(rig: Machine) -> None:
    rig.run([*CREATE, "--name", "slow", "--log-driver=none", "alpine", "seq", "1000000"])
    slow = "rp start -a slow | { sleep 1; wc -l; }"
    assert rig.run(["sh", "-c", slow]).stdout.strip() == "1000000"
    rp(rig, "rm", "slow")


@pytest.mark.row("R10", "one that reads at all is waited for")
def test_a_reader_that_is_slow_for_a_moment_loses_nothing(rig: Machine) -> None:
    flood = "read go; seq 1000000"
    options = ("-i", "--log-driver=none")
    with running(rig, "gush", "sh", "-c", flood, options=options):
        slow = "echo go | rp attach gush | { sleep 1; wc -l; }"
        assert rig.run(["sh", "-c", slow]).stdout.strip() == "1000000"


def test_what_cannot_be_attached_to(rig: Machine) -> None:
    rig.run([*CREATE, "--name", "still", "alpine", "true"])
    done = rp(rig, "attach", "still")
    assert (done.returncode, "still is not running" in done.stderr) == (125, True)
    rp(rig, "rm", "still")
