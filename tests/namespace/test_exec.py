"""`rp exec` from the front door: what the process is, sees, may do, and what ends it."""

from __future__ import annotations

import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from namespace.living import (
    LIMIT_S,
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
    from collections.abc import Iterator

    from rig.machine import Completed, Machine

pytestmark = pytest.mark.usefixtures("alpine")

SAME = ("Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp", "Umask:", "SigBlk:")


@pytest.fixture(scope="module")
def box(rig: Machine, alpine: str) -> Iterator[str]:
    """Return the name of a container that runs as an ordinary user of its own."""
    del alpine
    options = ("-u", "1000:1000", "-w", "/tmp", "-e", "FROM=container", "--ulimit=nofile=99:199")
    with running(rig, "box", "sleep", "6000", options=options):
        yield "box"


def execute(rig: Machine, *words: str, **options: object) -> Completed:
    """Run rp exec."""
    return rp(rig, "exec", *words, timeout=LIMIT_S, **options)


def processes(rig: Machine, name: str) -> str:
    """Return the command lines of a container's processes; one nobody reaps is in brackets."""
    return str(execute(rig, name, "ps", "-o", "args").stdout)


def test_where_and_who_it_is(rig: Machine, box: str, leaves_nothing: None) -> None:
    script_ = "id -u; id -g; pwd; echo $FROM; umask; test -t 0 || echo no terminal"
    done = execute(rig, box, "sh", "-c", script_)
    assert done.stdout.split("\n") == [
        "1000", "1000", "/tmp", "container", "0022", "no terminal", "",
    ]  # fmt: skip
    options = ("-u", "root:daemon", "-w", "/etc", "-e", "FROM=exec", "--env", "CALLER")
    done = execute(
        rig, *options, box, "sh", "-c", "id -un; id -gn; pwd; echo $FROM $CALLER $HOME",
        env={"CALLER": "caller"},
    )  # fmt: skip
    assert done.stdout.split() == ["root", "daemon", "/etc", "exec", "caller", "/root"]


def test_variables_from_a_file(rig: Machine, box: str) -> None:
    rig.run(["sh", "-c", "printf 'ONE=1\\n# no\\nTWO=a b\\n' > exec.env"])
    done = execute(rig, "--env-file", "exec.env", "-e", "ONE=2", box, "sh", "-c", "echo $ONE-$TWO")
    assert done.stdout == "2-a b\n"
    rig.run(["rm", "exec.env"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["box", "true"], 0, ""),
        (["box", "sh", "-c", "exit 3"], 3, ""),
        (["box", "sh", "-c", "exit 125"], 125, ""),
        (["box", "sh", "-c", "kill -9 $$"], 137, ""),
        (["box", "nosuch"], 127, "'nosuch' is not found"),
        (["-d", "box", "nosuch"], 127, "'nosuch' is not found"),
        (["box", "/etc/passwd"], 126, "permission denied"),
        (["-w", "/nosuch", "box", "true"], 127, "'/nosuch' cannot be entered"),
        (["-w", "/root", "box", "true"], 126, "'/root' cannot be entered"),
        (["-u", "nosuch", "box", "true"], 125, "user 'nosuch' is not in /etc/passwd"),
        (["-u", "4000000", "box", "true"], 125, "4000000"),
        (["-e", "=x", "box", "true"], 125, "'=x'"),
        (["nosuch", "true"], 125, "no container with name or id 'nosuch'"),
        (["box"], 125, "the command is missing"),
    ],
)
def test_exit_codes(
    rig: Machine, box: str, leaves_nothing: None, words: list[str], code: int, said: str
) -> None:
    del box
    done = execute(rig, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") <= (2 if said else 0)


def test_born_in_the_payload_s_cgroup(rig: Machine, box: str, leaves_nothing: None) -> None:
    with rig.popen(
        ["rp", "exec", "-i", box, "sh", "-c", "echo in; cat; true"], stdin=-1, stdout=-1
    ) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == b"in\n"
        scope = show(rig, "rp-box.scope", "ControlGroup")["ControlGroup"]
        procs = ["cat", f"/sys/fs/cgroup{scope}/payload/cgroup.procs"]
        # The shell has yet to make the last one, and the process that joined for it to end.
        names = ["sh", "-c", f"for pid in $({' '.join(procs)}); do cat /proc/$pid/comm; done"]
        wanted = ["cat", "sh", "sleep"]
        until(
            lambda: sorted(rig.run(names, check=False).stdout.split()) == wanted,
            "other processes are in the cgroup",
        )
        assert str(main_process(rig, box)) in rig.run(procs).stdout.split()
        # Nobody of it is in the supervisor's own.
        unit = show(rig, "rp-box.service", "ControlGroup", "MainPID")
        argv = ["cat", f"/sys/fs/cgroup{unit['ControlGroup']}/cgroup.procs"]
        own = {unit["MainPID"], str(supervisor(rig, "box"))}
        assert set(rig.run(argv).stdout.split()) == own
        p.communicate(timeout=LIMIT_S)
        assert p.returncode == 0


def test_the_same_rights_and_limits_as_the_payload(rig: Machine, box: str) -> None:
    def facts(pid: str, *options: str) -> tuple[list[str], str, str]:
        read = (
            "cd /proc/$1; cat status limits; "
            "for kind in cgroup ipc mnt net pid user uts; do readlink ns/$kind; done"
        )
        done = execute(rig, *options, box, "sh", "-c", read, "sh", pid)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        status = [line for line in lines if line.startswith(SAME)]
        limits = [line for line in lines if line.startswith("Max ")]
        links = [line for line in lines if re.fullmatch(r"\w+:\[\d+\]", line)]
        assert len(status) >= 10
        assert len(limits) >= 15
        assert len(links) == 7
        return status, "\n".join(limits), "\n".join(links)

    assert facts("self") == facts("1")
    seccomp = execute(rig, box, "grep", "Seccomp:", "/proc/self/status").stdout
    assert seccomp.split() == ["Seccomp:", "2"]


def test_privileged_is_more_than_the_payload_s_and_never_more_than_the_user_s(
    rig: Machine, box: str
) -> None:
    argv = ("grep", "CapEff", "/proc/self/status")
    usual = int(execute(rig, "-u", "0", box, *argv).stdout.split()[1], 16)
    every = int(execute(rig, "-u", "0", "--privileged", box, *argv).stdout.split()[1], 16)
    assert usual & every == usual
    assert every.bit_count() >= 38
    assert usual.bit_count() < 20
    denied = execute(
        rig, "-u", "0", "--privileged", box, "sh", "-c", "echo 1 > /proc/sysrq-trigger"
    )
    assert denied.returncode != 0


def test_input_output_and_errors_are_the_caller_s(rig: Machine, box: str) -> None:
    copied = execute(rig, "-i", box, "sh", "-c", "cat; echo bad >&2; exit 6", input="one\ntwo")
    assert (copied.stdout, copied.stderr, copied.returncode) == ("one\ntwo", "bad\n", 6)
    # Without -i the caller's input is left to the caller.
    shell = "printf 'a\\nb\\n' | { rp exec box cat; cat; }"
    assert rig.run(["sh", "-c", shell]).stdout == "a\nb\n"
    many = execute(rig, box, "sh", "-c", "seq 1 100000; exit 4")
    assert (len(many.stdout.split()), many.returncode) == (100000, 4)


def test_long_command_lines_and_environments(rig: Machine, box: str) -> None:
    """More than a packet holds."""
    word = "w" * 100_000
    given = [each for number in range(8) for each in ("--env", f"V{number}={word}")]
    count = 'echo $# ${#1} ${#8}; env | grep -c "^V[0-7]=w"'
    argv = ["rp", "exec", *given, box, "sh", "-c", count, "sh", *[word] * 8]
    assert rig.run(argv).stdout.split() == ["8", "100000", "100000", "8"]


def test_a_terminal_with_size_colours_and_ctrl_c(
    rig: Machine, box: str, leaves_nothing: None
) -> None:
    with rig.pty(["rp", "exec", "-it", box, "sh"]) as terminal:
        terminal.expect(r"\$ ")
        terminal.send("tty; stty size; echo $TERM; id -u\r")
        terminal.expect("/dev/pts/0.*24 80.*xterm.*1000")
        terminal.resize(41, 101)
        terminal.send("while [ \"$(stty size)\" != '41 101' ]; do sleep 0.1; done; echo si''ze\r")
        terminal.expect("size\r")
        terminal.send("sh -c 'echo g''o; exec sleep 600'\r")
        terminal.expect("go\r\n")
        terminal.send("\x03")
        terminal.expect(r"\$ ")
        terminal.send("exit 7\r")
        assert terminal.wait() == 7


def test_ctrl_c_without_a_terminal_reaches_it(rig: Machine, box: str) -> None:
    trap = "trap 'echo int; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    with rig.popen(["rp", "exec", box, "sh", "-c", trap], stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == "ready\n"
        p.send_signal(signal.SIGINT)
        assert p.communicate(timeout=LIMIT_S)[0] == "int\n"
        assert p.returncode == 9


def test_detached(rig: Machine, box: str, leaves_nothing: None) -> None:
    done = execute(rig, "-d", box, "sh", "-c", "echo $$ > /tmp/pid; exec sleep 611")
    assert (done.returncode, done.stderr) == (0, "")
    # podman prints the id of the session too.
    assert re.fullmatch("[0-9a-f]{64}\n", done.stdout)
    until(lambda: "sleep 611" in processes(rig, box), "it does not run")
    execute(rig, box, "sh", "-c", "kill $(cat /tmp/pid); rm /tmp/pid")
    until(lambda: "sleep 611" not in processes(rig, box), "it does not end")
    done = execute(rig, "-dt", box, "sh", "-c", "test -t 1 && sleep 0.2 && touch /tmp/tty")
    assert done.returncode == 0
    until(lambda: execute(rig, box, "test", "-e", "/tmp/tty").returncode == 0, "no terminal")
    execute(rig, box, "rm", "/tmp/tty")


def test_detach_keys_leave_it_running(rig: Machine, box: str) -> None:
    with rig.pty(["rp", "exec", "-it", box, "sh", "-c", "echo on; sleep 612; echo over"]) as t:
        t.expect("on")
        t.send("\x10\x11")
        assert t.wait() == 0
    assert "sleep 612" in processes(rig, box)
    execute(rig, box, "pkill", "-f", "sleep 612")


@pytest.mark.row("P8", "the command is hung up, the container untouched")
@pytest.mark.parametrize("options", [(), ("-i",), ("-t",)])
def test_a_dead_client_hangs_up(
    rig: Machine, box: str, leaves_nothing: None, options: tuple[str, ...]
) -> None:
    with rig.popen(["rp", "exec", *options, box, "sleep", "613"], stdout=-1, stdin=-1) as client:
        until(lambda: "sleep 613" in processes(rig, box), "it does not run")
        rig.run(["pkill", "-9", "-f", "rp exec .*sleep 613"])
        client.wait(LIMIT_S)
        until(lambda: "sleep 613" not in processes(rig, box), "it goes on")
    assert state(rig, box) == "running"


def test_it_ends_with_the_container(rig: Machine, leaves_nothing: None) -> None:
    with running(rig, "mortal", "sleep", "600"):
        with rig.popen(["rp", "exec", "mortal", "sh", "-c", "echo on; sleep 614"], stdout=-1) as p:
            assert p.stdout is not None
            assert p.stdout.readline() == b"on\n"
            rp(rig, "stop", "mortal")
            assert p.wait(LIMIT_S) == 137
        done = execute(rig, "mortal", "true")
        assert (done.returncode, "mortal is not running" in done.stderr) == (125, True)


def test_one_that_came_too_late_is_not_told_the_container_s_exit_code(
    rig: Machine, leaves_nothing: None
) -> None:
    with running(rig, "mortal", "sleep", "600"):
        # The supervisor finds the request and the container's end at the same time.
        done = rig.run(
            [
                "sh",
                "-c",
                """
            supervisor=$(rp inspect -f '{{.State.ConmonPid}}' mortal)
            payload=$(rp inspect -f '{{.State.Pid}}' mortal)
            kill -STOP $supervisor
            rp exec mortal true 2>&1 & client=$!
            # Its request lies unread in a connection of packets.
            until ss -xpH | grep "pid=$client," | grep -q '^u_seq  *ESTAB  *0  *[1-9]'; do
                sleep 0.1
            done
            kill -KILL $payload
            until grep -q 'State:.Z' /proc/$payload/status; do sleep 0.1; done
            kill -CONT $supervisor
            wait $client
        """,
            ],
            check=False,
            timeout=LIMIT_S,
        )
        assert done.returncode == 125
        assert "ended" in done.stdout


def test_many_at_once(rig: Machine, box: str, leaves_nothing: None) -> None:
    loop = 'for n in $(seq 20); do rp exec box sh -c "echo $n; exit $n" & done; wait'
    assert sorted(map(int, rig.run(["sh", "-c", loop]).stdout.split())) == list(range(1, 21))


def test_many_that_fail_leave_no_zombie(rig: Machine, box: str, leaves_nothing: None) -> None:
    """One nobody reaps would also keep the container's first process from ending."""
    # What the sessions had is closed too.
    listing = ["sh", "-c", f"ls /proc/{supervisor(rig, 'box')}/fd | wc -l"]
    before = int(rig.run(listing).stdout)
    rig.run(["sh", "-c", "for n in $(seq 40); do rp exec box nosuch 2>/dev/null & done; wait"])
    until(lambda: int(rig.run(listing).stdout) < before + 20, "descriptors are left open")


@pytest.mark.parametrize(
    "options",
    [
        ("--cgroups=disabled",),
        ("--userns=keep-id",),
        ("--userns=keep-id", "-u", "root"),
        ("--network=host",),
        ("-u", "nobody", "--cap-drop=all"),
        ("--read-only",),
        ("--init",),
        ("--privileged",),
        ("--security-opt=seccomp=unconfined", "--security-opt=no-new-privileges=false"),
    ],
)
def test_into_containers_of_every_kind(
    rig: Machine, leaves_nothing: None, options: tuple[str, ...]
) -> None:
    network = "none"
    if options[0].startswith("--network="):
        network, options = options[0].partition("=")[2], options[1:]
    with running(rig, "kind", "sleep", "600", options=options, network=network):
        own = "id -u; id -G; grep -E 'Cap|NoNew|Seccomp' /proc/$1/status; readlink /proc/$1/ns/net"
        done = execute(rig, "kind", "sh", "-c", own, "sh", "self")
        assert done.returncode == 0, done.stderr
        first = execute(rig, "kind", "sh", "-c", own, "sh", "1")
        assert done.stdout == first.stdout
        identity = execute(rig, "-u", "0", "kind", "id", "-u")
        assert identity.stdout == "0\n", identity.stderr
        with rig.pty(["rp", "exec", "-it", "kind", "sh", "-c", "tty; echo over"]) as terminal:
            terminal.expect("/dev/pts/0.*over")
            assert terminal.wait() == 0


def test_into_an_attached_one_of_a_login_session(rig: Machine, leaves_nothing: None) -> None:
    """Its supervisor is outside the user manager's tree: systemd has to move the process."""
    with rig.popen(
        ["rp", "run", "--rm", "--network=none", "--name", "near", "alpine", "sleep", "600"]
    ) as client:
        until(lambda: state(rig, "near") == "running", "it does not run")
        done = execute(rig, "near", "cat", "/proc/self/cgroup")
        assert (done.returncode, done.stderr) == (0, "")
        scope = show(rig, "rp-near.scope", "ControlGroup")["ControlGroup"]
        with rig.popen(["rp", "exec", "near", "sh", "-c", "echo on; sleep 615"], stdout=-1) as p:
            assert p.stdout is not None
            assert p.stdout.readline() == b"on\n"
            listing = ["cat", f"/sys/fs/cgroup{scope}/payload/cgroup.procs"]
            # The one that joined for it may be slower to end than it is to begin.
            until(lambda: len(rig.run(listing).stdout.split()) == 2, "others are in the cgroup")
            rp(rig, "stop", "near")
            assert p.wait(LIMIT_S) == 137
        assert client.wait(LIMIT_S) == 143


def test_when_the_payload_has_divided_its_cgroup(rig: Machine, leaves_nothing: None) -> None:
    divide = "mkdir /sys/fs/cgroup/inner; echo 1 > /sys/fs/cgroup/inner/cgroup.procs; echo ready; "
    with script(rig, "split", f"{divide} exec sleep 600", "--privileged"):
        assert "0::/inner" in execute(rig, "split", "cat", "/proc/1/cgroup").stdout
        done = execute(rig, "split", "cat", "/proc/self/cgroup")
        assert (done.returncode, done.stderr) == (0, "")
