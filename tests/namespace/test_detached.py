"""Whose child the supervisor of a detached container is: a fork of rp's, or of systemd's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from namespace.living import (
    LIMIT_S,
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

pytestmark = pytest.mark.usefixtures("alpine", "leaves_nothing")

DROP_INS = ".config/systemd/user"
SERVICE = "rp-box.service"


def names(rig: Machine, unit: str) -> list[str]:
    """Return what the processes of a unit are called."""
    group = show(rig, unit, "ControlGroup")["ControlGroup"]
    shell = f"for pid in $(cat /sys/fs/cgroup{group}/cgroup.procs); do cat /proc/$pid/comm; done"
    return sorted(rig.run(["sh", "-c", shell]).stdout.split())


def is_executed(rig: Machine) -> bool:
    """Say whether the service's main process is the supervisor."""
    return show(rig, SERVICE, "MainPID")["MainPID"] == str(supervisor(rig, "box"))


@pytest.fixture
def drop_ins(request: pytest.FixtureRequest, rig: Machine) -> Iterator[str]:
    """Make a drop-in that lowers the priority of services, in the directory of the parameter."""
    directory = f"{DROP_INS}/{request.param}"
    rig.run(["mkdir", "-p", directory])
    rig.run(["tee", f"{directory}/nice.conf"], input="[Service]\nNice=7\n")
    rig.run(["systemctl", "--user", "daemon-reload"])
    yield directory
    rig.run(["rm", "-r", directory])
    rig.run(["systemctl", "--user", "daemon-reload"])


@pytest.mark.parametrize("again", [False, True], ids=["run", "start"])
def test_all_that_rp_has_forked_is_in_the_service(rig: Machine, *, again: bool) -> None:
    with running(rig, "box", "sleep", "600", network="pasta"):
        if again:
            rp(rig, "stop", "box")
            rp(rig, "start", "box")
        assert not is_executed(rig)
        assert is_active(rig, SERVICE)
        shown = names(rig, SERVICE)
        # By its program's name, or what that is a link to.
        assert [name.partition(".")[0] for name in shown] == ["pasta", "rp-box", "sh"]
        pid = supervisor(rig, "box")
        # Nothing of the caller's is held: neither its terminal, nor its directory.
        looked = f"readlink /proc/{pid}/cwd; for n in 0 1 2; do readlink /proc/{pid}/fd/$n; done"
        assert rig.run(["sh", "-c", looked]).stdout.split() == ["/", *["/dev/null"] * 3]
        stat = rig.run(["cat", f"/proc/{pid}/stat"]).stdout.rpartition(")")[2].split()
        group, session, terminal = stat[2:5]
        assert (group, session, terminal) == (str(pid), str(pid), "0")


def test_what_was_typed_is_not_shown_for_ever(rig: Machine) -> None:
    """Values of variables are for the container: ps shows everybody the words of a command."""
    with running(rig, "box", "sleep", "600", options=("-e", "PASSWORD=swordfish")) as identity:
        assert rp(rig, "exec", "box", "printenv", "PASSWORD").stdout == "swordfish\n"
        words = rig.run(["cat", f"/proc/{supervisor(rig, 'box')}/cmdline"]).stdout
        assert words.rstrip("\0").split("\0")[:2] == ["rp", "supervise"]
        assert identity.startswith(words.rstrip("\0").split("\0")[2])
        everybody = rig.run(["sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null"], check=False)
        assert "swordfish" not in everybody.stdout


def test_it_outlives_the_session_of_who_typed_it(rig: Machine) -> None:
    """Whatever ends at a logout: nothing of a detached container is in the caller's cgroup."""
    typed = "cat /proc/self/cgroup; rp run -d --name box alpine sleep 600; cat cgroup"
    shell = f"cd /sys/fs; {typed.replace('cat cgroup', 'true')}"
    try:
        own = rig.run(["sh", "-c", shell]).stdout.splitlines()[0]
        for unit in (SERVICE, "rp-box.scope"):
            assert show(rig, unit, "ControlGroup")["ControlGroup"] not in own
        pids = [supervisor(rig, "box"), main_process(rig, "box")]
        for pid in pids:
            assert "user@" in rig.run(["cat", f"/proc/{pid}/cgroup"]).stdout
    finally:
        rp(rig, "rm", "-f", "box")


@pytest.mark.parametrize(
    "around",
    [
        ("setpriv", "--no-new-privs"),
        ("unshare", "--user", "--map-current-user", "--mount"),
        ("unshare", "--user", "--map-current-user", "--net"),
    ],
    ids=["no new privileges", "other mounts", "other network"],
)
def test_where_the_caller_sees_another_machine_systemd_executes_it(
    rig: Machine, around: tuple[str, ...]
) -> None:
    """The container is what it will be after its next start."""
    argv = [*around, *RUN, "--name", "box", "alpine", "sleep", "600"]
    try:
        rig.run(argv, timeout=LIMIT_S)
        assert is_executed(rig)
        assert rp(rig, "exec", "box", "id", "-u").stdout == "0\n"
    finally:
        rp(rig, "rm", "-f", "box")


def test_without_a_scope_the_service_holds_the_payload_too(rig: Machine) -> None:
    with running(rig, "box", "sleep", "600", options=("--cgroups=disabled",)):
        assert is_executed(rig)
        assert names(rig, SERVICE) == ["rp-box", "sleep"]


def test_a_supervisor_is_no_larger_for_being_forked(rig: Machine) -> None:
    """What else its caller has imported stays with that, as typer and pystemd would."""
    words = [*RUN[1:], "--name", "box", "alpine", "sleep", "600"]
    program = f"import typing; from rootlesspy.__main__ import main; main({words!r})"
    try:
        rig.run(["python3", "-c", program], timeout=LIMIT_S)
        assert is_executed(rig)
        rp(rig, "stop", "box")
        rp(rig, "start", "box")
        assert not is_executed(rig)
    finally:
        rp(rig, "rm", "-f", "box")


def test_a_container_may_take_long_to_be_written(rig: Machine) -> None:
    """As long as volumes are filled systemd is asked for more time; here at once, and often."""
    words = [*RUN[1:], "--network=pasta", "--name", "box", "alpine", "sleep", "600"]
    words.remove("--network=none")
    program = f"""
import time
from rootlesspy.__main__ import main
from rootlesspy.engine import bundle
from rootlesspy.engine.supervision import forked
forked._SLOW_MS = 100
make = bundle.create
def create(*given):
    time.sleep(2)
    return make(*given)
bundle.create = create
main({words!r})
"""
    try:
        rig.run(["python3", "-c", program], timeout=LIMIT_S)
        assert not is_executed(rig)
        assert is_active(rig, SERVICE)
    finally:
        rp(rig, "rm", "-f", "box")


def test_systemd_waits_longer_for_a_container_that_takes_long_to_be_written(rig: Machine) -> None:
    program = f"""
import time
from rootlesspy.__main__ import main
from rootlesspy.engine import bundle
from rootlesspy.engine.supervision import forked
from rootlesspy.systemd import service
forked._SLOW_MS = 1000
ask, make = service.request_transient, bundle.create
def request(connection, wanted):
    return ask(connection, wanted._replace(start_timeout_us=3_000_000))
def create(*given):
    time.sleep(6)
    return make(*given)
service.request_transient, bundle.create = request, create
main({[*RUN[1:], "--name", "box", "alpine", "sleep", "600"]!r})
"""
    try:
        rig.run(["python3", "-c", program], timeout=LIMIT_S)
        assert show(rig, SERVICE, "TimeoutStartUSec") == {"TimeoutStartUSec": "3s"}
        assert is_active(rig, SERVICE)
    finally:
        rp(rig, "rm", "-f", "box")


@pytest.mark.parametrize("signal", ["HUP", "INT"])
def test_the_main_process_survives_what_a_supervisor_does(rig: Machine, signal: str) -> None:
    with running(rig, "box", "sleep", "600"):
        argv = ["systemctl", "--user", "kill", "--kill-whom=main", f"--signal={signal}", SERVICE]
        rig.run(argv)
        rig.run(["rp", "exec", "box", "true"])
        assert is_active(rig, SERVICE)


@pytest.mark.parametrize(
    "drop_ins", ["rp-box.service.d", "rp-.service.d", "service.d"], indirect=True
)
@pytest.mark.parametrize("again", [False, True], ids=["run", "start"])
def test_what_drop_ins_say_holds(rig: Machine, drop_ins: str, *, again: bool) -> None:
    with running(rig, "box", "sleep", "600"):
        if again:
            rp(rig, "stop", "box")
            rp(rig, "start", "box")
        nice = rig.run(["ps", "-o", "nice=", "-p", str(main_process(rig, "box"))]).stdout
        assert (is_executed(rig), nice.strip()) == (True, "7"), drop_ins


def test_the_service_ends_as_the_payload_does(rig: Machine) -> None:
    with running(rig, "box", "sh", "-c", "exit 7"):
        assert rp(rig, "wait", "box").stdout == "7\n"
        until(lambda: not is_active(rig, SERVICE), "the service goes on")
        shown = show(rig, SERVICE, "Result", "ExecMainStatus")
        assert shown == {"Result": "exit-code", "ExecMainStatus": "7"}


@pytest.mark.parametrize("restart", ["no", "on-failure"])
@pytest.mark.parametrize("killed", ["the supervisor", "the main process"])
def test_a_killed_one_takes_the_container_along(rig: Machine, killed: str, restart: str) -> None:
    with running(rig, "box", "sleep", "600", options=("--restart", restart)) as identity:
        payload, pid = main_process(rig, "box"), supervisor(rig, "box")
        main = show(rig, SERVICE, "MainPID")["MainPID"]
        rig.run(["kill", "-KILL", str(pid) if killed == "the supervisor" else main])
        gone = ["sh", "-c", f"! test -e /proc/{payload} && ! test -e /proc/{pid}"]
        until(lambda: rig.run(gone, check=False).returncode == 0, "it lives on")
        if restart == "no":
            until(lambda: show(rig, SERVICE, "Result")["Result"] == "signal", "nothing failed")
            until(lambda: state(rig, "box") == "exited", "its end is not seen")
            return
        # By systemd alone, which executes the supervisor now.
        until(lambda: state(rig, "box") == "running" and main_process(rig, "box"), "not restarted")
        until(lambda: is_executed(rig), "another one is its supervisor")
        rp(rig, "stop", "box")
        assert exit_record(rig, identity)["reason"] == "stop"
        until(lambda: not is_active(rig, SERVICE), "it was started again")


@pytest.mark.parametrize("verb", ["restart", "try-restart"])
def test_systemctl_restart_is_a_stop_and_a_start(rig: Machine, verb: str) -> None:
    with running(rig, "box", "sleep", "600") as identity:
        before = main_process(rig, "box")
        rig.run(["systemctl", "--user", verb, SERVICE], timeout=LIMIT_S)
        assert main_process(rig, "box") != before
        assert is_executed(rig)
        rig.run(["systemctl", "--user", "stop", SERVICE], timeout=LIMIT_S)
        assert state(rig, "box") == "exited"
        assert exit_record(rig, identity)["reason"] == "systemctl"


def test_a_relative_name_of_the_program_is_enough(rig: Machine) -> None:
    """What systemd executes at the next start is the same program."""
    shell = "cd /usr && bin/rp run -d --network=none --name box --restart=always alpine sleep 600"
    try:
        rig.run(["sh", "-c", shell], timeout=LIMIT_S)
        before = main_process(rig, "box")
        rig.run(["kill", "-KILL", str(before)])
        until(
            lambda: state(rig, "box") == "running" and main_process(rig, "box") not in (0, before),
            "it was not started again",
        )
    finally:
        rp(rig, "rm", "-f", "box")


@pytest.mark.parametrize("options", [("-d",), ()], ids=["detached", "attached"])
def test_a_caller_that_ignores_its_children(rig: Machine, options: tuple[str, ...]) -> None:
    """What it ignores is inherited, and the kernel would reap ours (sigaction(2), SIGCHLD)."""
    argv = [
        "rp",
        "run",
        *options,
        "--network=none",
        "--name",
        "box",
        "alpine",
        "sh",
        "-c",
        "exit 7",
    ]
    ignoring = "import os, signal as s; s.signal(s.SIGCHLD, s.SIG_IGN)"
    program = f"{ignoring}; os.execvp('rp', {argv!r})"
    try:
        done = rig.run(["python3", "-c", program], check=False, timeout=LIMIT_S)
        assert done.returncode == (0 if options else 7)
        assert rp(rig, "wait", "box").stdout == "7\n"
    finally:
        rp(rig, "rm", "-f", "box")


def test_a_start_that_fails_leaves_no_service(rig: Machine) -> None:
    for words in (["nosuch"], ["/etc"]):
        done = rig.run([*RUN, "--rm", "--name", "box", "alpine", *words], check=False)
        assert done.returncode in (126, 127)
        until(
            lambda: show(rig, SERVICE, "LoadState")["LoadState"] == "not-found",
            "systemd knows the service",
        )


def test_inspect_names_the_supervisor(rig: Machine) -> None:
    with running(rig, "box", "sleep", "600"):
        (shown,) = json.loads(rp(rig, "inspect", "box").stdout)
        name = rig.run(["cat", f"/proc/{shown['State']['ConmonPid']}/comm"]).stdout
        assert name == "rp-box\n"
