"""Containers as units: enabled, edited, started, stopped and restarted by systemd, and removed."""

from __future__ import annotations

import json
import subprocess
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from rig.machine import Completed, Machine

pytestmark = pytest.mark.usefixtures("alpine", "leaves_nothing")

UNITS = ".config/systemd/user"
LIMIT_S = 120.0
# A program that Alpine lacks, with all that it needs, from the machine.
PYTHON = ("-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro")
# Of a running unit; the rest differs from one start to the next, or from unit to unit.
DIFFERENT = (
    "Timestamp", "PID", "Usage", "Memory", "Tasks", "ControlGroup", "InvocationID", "Fragment",
    "UnitFile", "Transient", "After", "ExecStart", "IO", "IP", "WantedBy", "Before", "StatusText",
    "CPU", "NeedDaemonReload", "FileDescriptor",
    # rp has forked the supervisor of the transient one, which joins it.
    "NotifyAccess", "Delegate",
)  # fmt: skip


def rp(rig: Machine, *words: str, **options: Any) -> Completed:
    return rig.run(["rp", *words], **options)


def systemctl(rig: Machine, *words: str, **options: Any) -> Completed:
    return rig.run(["systemctl", "--user", *words], **options)


def show(rig: Machine, unit: str, *names: str) -> dict[str, str]:
    lines = systemctl(rig, "show", unit, *(f"-p{name}" for name in names)).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def state(rig: Machine, name: str) -> str:
    """Return what rp says of a container: Up, Exited…"""
    found = rp(rig, "ps", "-a", "--filter", f"name=^{name}$", "--format", "{{.Status}}").stdout
    return str(found.partition(" ")[0].strip())


def pid_of(rig: Machine, name: str) -> str:
    return show(rig, f"rp-{name}.service", "MainPID")["MainPID"]


def drop_in(rig: Machine, unit: str, line: str) -> None:
    """Do what `systemctl --user edit` does, which takes no text before version 256."""
    directory = f"{UNITS}/{unit}.service.d"
    rig.run(["mkdir", "-p", directory])
    rig.run(["tee", f"{directory}/mine.conf"], input=f"[Service]\n{line}\n")
    systemctl(rig, "daemon-reload")


def until(condition: Any, what: str) -> None:
    limit_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit_s, what
        time.sleep(0.05)


def until_down(rig: Machine, unit: str) -> None:
    """Wait until systemd too has seen the supervisor exit, whose container is stopped."""
    until(
        lambda: show(rig, f"{unit}.service", "ActiveState")["ActiveState"] == "inactive",
        "the service is down",
    )


@pytest.fixture
def web(rig: Machine) -> Iterator[str]:
    """Make a container that is not running, and remove it with all of its units."""
    rp(rig, "create", "--name", "web", "--network", "none", "alpine", "sleep", "1000")
    yield "web"
    rp(rig, "rm", "--force", "web")
    rig.run(["sh", "-c", f"rm -rf {UNITS}/rp-*"])
    systemctl(rig, "daemon-reload")


def test_enabled_and_disabled_as_systemctl_sees_it(rig: Machine, web: str) -> None:
    printed = rp(rig, "unit", web).stdout
    assert rp(rig, "enable", web).stdout == "web\n"
    assert rig.run(["cat", f"{UNITS}/rp-web.service"]).stdout == printed
    assert rig.run(["stat", "-c", "%a", f"{UNITS}/rp-web.service"]).stdout == "644\n"
    assert systemctl(rig, "is-enabled", "rp-web").stdout == "enabled\n"
    assert systemctl(rig, "is-active", "rp-web", check=False).stdout == "inactive\n"
    verified = rig.run(["systemd-analyze", "--user", "--man=no", "verify", "rp-web.service"])
    assert (verified.stdout, verified.stderr) == ("", "")
    assert rp(rig, "enable", web).stdout == "web\n"
    assert rp(rig, "disable", web).stdout == "web\n"
    assert systemctl(rig, "is-enabled", "rp-web", check=False).stdout == "disabled\n"
    systemctl(rig, "enable", "rp-web")
    assert systemctl(rig, "is-enabled", "rp-web").stdout == "enabled\n"
    rp(rig, "disable", "--delete", web)
    assert show(rig, "rp-web", "LoadState")["LoadState"] == "not-found"
    done = rp(rig, "disable", web, check=False)
    assert (done.returncode, "no unit file" in done.stderr) == (125, True)


def test_transient_and_installed_are_the_same(rig: Machine, web: str) -> None:
    rp(rig, "update", "--restart", "on-failure:3", web)
    rp(rig, "start", web)
    transient = systemctl(rig, "show", "rp-web").stdout.splitlines()
    rp(rig, "stop", "-t", "0", web)
    until_down(rig, "rp-web")
    rp(rig, "enable", "--now", web)
    installed = systemctl(rig, "show", "rp-web").stdout.splitlines()
    assert "Transient=yes" in transient
    assert "Transient=no" in installed

    def comparable(lines: list[str]) -> dict[str, list[str]]:
        pairs = (line.partition("=") for line in lines)
        return {
            key: sorted(value.split())
            for key, _, value in pairs
            if not any(each in key for each in DIFFERENT)
        }

    assert comparable(installed) == comparable(transient)
    settings = comparable(installed)
    assert settings["Restart"] == ["on-failure"]
    assert (settings["StartLimitBurst"], settings["StartLimitIntervalUSec"]) == (
        ["4"],
        ["infinity"],
    )
    assert len(settings["Environment"]) == 3
    assert len(settings) > 150


def test_rp_and_systemctl_mean_the_same_unit(rig: Machine, web: str) -> None:
    rp(rig, "enable", "--now", web)
    assert (state(rig, web), show(rig, "rp-web", "ActiveState")["ActiveState"]) == ("Up", "active")
    systemctl(rig, "stop", "rp-web")
    assert state(rig, web) == "Exited"
    systemctl(rig, "start", "rp-web")
    first = pid_of(rig, web)
    assert state(rig, web) == "Up"
    systemctl(rig, "restart", "rp-web")
    assert state(rig, web) == "Up"
    assert pid_of(rig, web) not in (first, "0")
    rp(rig, "stop", "-t", "0", web)
    until_down(rig, "rp-web")
    assert show(rig, "rp-web", "Result")["Result"] == "success"
    rp(rig, "start", web)
    assert show(rig, "rp-web", "ActiveState", "Transient") == {
        "ActiveState": "active",
        "Transient": "no",
    }
    rp(rig, "disable", "--now", web)
    assert state(rig, web) == "Exited"


def test_a_running_transient_one_can_be_enabled(rig: Machine, web: str) -> None:
    rp(rig, "start", web)
    before = pid_of(rig, web)
    rp(rig, "enable", "--now", web)
    assert pid_of(rig, web) == before
    assert rig.run(["test", "-L", f"{UNITS}/default.target.wants/rp-web.service"]).returncode == 0
    rp(rig, "restart", "-t", "0", web)
    assert state(rig, web) == "Up"


def test_while_its_transient_unit_ends_it_is_the_file_that_starts(rig: Machine, web: str) -> None:
    drop_in(rig, "rp-web", "ExecStopPost=/bin/sleep 1")
    rp(rig, "start", web)
    rp(rig, "stop", "-t", "0", web)
    assert show(rig, "rp-web", "SubState")["SubState"] == "stop-post"
    rp(rig, "enable", "--now", web)
    expected = {"ActiveState": "active", "Transient": "no"}
    assert show(rig, "rp-web", *expected) == expected


def test_drop_ins_are_the_users(rig: Machine, web: str) -> None:
    rp(rig, "enable", web)
    drop_in(rig, "rp-web", "Restart=always")
    rp(rig, "start", web)
    assert show(rig, "rp-web", "Restart")["Restart"] == "always"
    # rp writes its own file again, and leaves the drop-in alone.
    rp(rig, "update", "--restart", "on-failure", web)
    assert "Restart=on-failure" in rig.run(["cat", f"{UNITS}/rp-web.service"]).stdout
    assert show(rig, "rp-web", "Restart")["Restart"] == "always"
    # What was asked to stop stays down, whoever made it restart always.
    rp(rig, "stop", "-t", "0", web)
    until_down(rig, "rp-web")
    assert show(rig, "rp-web", "NRestarts")["NRestarts"] == "0"


def test_removing_a_container_removes_its_unit(rig: Machine, web: str) -> None:
    rp(rig, "enable", "--now", web)
    refused = rp(rig, "rm", web, check=False)
    assert (refused.returncode, "running" in refused.stderr) == (2, True)
    assert systemctl(rig, "is-enabled", "rp-web").stdout == "enabled\n"
    done = rp(rig, "rm", "-f", web)
    assert "unit file" in done.stderr
    assert show(rig, "rp-web", "LoadState")["LoadState"] == "not-found"
    left = rig.run(["find", UNITS, "-name", "rp-*"]).stdout
    assert left == ""


def test_what_cannot_be_enabled(rig: Machine, web: str) -> None:
    rig.run(["sh", "-c", f"mkdir -p {UNITS}; echo '[Service]' > {UNITS}/rp-web.service"])
    done = rp(rig, "enable", web, check=False)
    assert (done.returncode, "not a unit of rp's" in done.stderr) == (125, True)
    assert rig.run(["cat", f"{UNITS}/rp-web.service"]).stdout == "[Service]\n"
    rig.run(["rm", f"{UNITS}/rp-web.service"])
    done = rp(rig, "enable", web, check=False, env={"XDG_CONFIG_HOME": "/tmp/elsewhere"})
    assert (done.returncode, "XDG_CONFIG_HOME" in done.stderr) == (125, True)
    rig.run(["rm", "-r", "/tmp/elsewhere"])
    rp(rig, "create", "--rm", "--name", "passing", "alpine")
    done = rp(rig, "enable", "passing", "nobody", check=False)
    assert done.returncode == 125
    assert "--rm" in done.stderr
    assert "nobody" in done.stderr
    rp(rig, "rm", "passing")


def test_nothing_of_an_image_is_in_a_unit(rig: Machine) -> None:
    label = "x\n[Service]\nExecStartPre=/bin/touch /tmp/owned\n"
    rp(rig, "create", "--name", "odd", "--label", f"a={label}", "alpine", "echo", "%h $HOME\n[x]")
    text = rp(rig, "unit", "odd").stdout
    assert "ExecStartPre" not in text
    assert "%h" not in text
    assert len([line for line in text.splitlines() if line.startswith("Exec")]) == 1
    rp(rig, "rm", "odd")


def test_a_restart_that_is_due_is_called_off(rig: Machine) -> None:
    rp(rig, "run", "-d", "--name", "loop", "--restart", "always", "--network", "none",
       "alpine", "false")  # fmt: skip
    until(lambda: int(show(rig, "rp-loop", "NRestarts")["NRestarts"]) > 1, "it is restarted")
    rp(rig, "stop", "loop")
    assert show(rig, "rp-loop", "ActiveState")["ActiveState"] in ("inactive", "failed")
    rp(rig, "start", "loop", check=False)
    rp(rig, "rm", "-f", "loop")
    assert show(rig, "rp-loop", "LoadState")["LoadState"] == "not-found"


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(["rp", "stop", "-t", "0", "kept"], id="rp-stop"),
        pytest.param(["rp", "kill", "kept"], id="rp-kill"),
        pytest.param(["systemctl", "--user", "stop", "rp-kept.service"], id="service"),
        pytest.param(["systemctl", "--user", "stop", "rp-kept.scope"], id="scope"),
    ],
)
def test_a_stop_that_was_asked_for_is_final(rig: Machine, stop: list[str]) -> None:
    rp(rig, "run", "-d", "--name", "kept", "--restart", "always", "--network", "none",
       "alpine", "sleep", "1000")  # fmt: skip
    rig.run(stop)
    until_down(rig, "rp-kept")
    assert show(rig, "rp-kept.service", "NRestarts", "Result") == {
        "NRestarts": "0",
        "Result": "success",
    }
    assert state(rig, "kept") == "Exited"
    rp(rig, "rm", "kept")


@pytest.mark.row("P5", "a restart policy acts once")
def test_a_killed_supervisor_is_started_again_once(rig: Machine) -> None:
    rp(rig, "run", "-d", "--name", "kept", "--restart", "always", "--network", "none",
       "alpine", "sleep", "1000")  # fmt: skip
    first = pid_of(rig, "kept")
    rig.run(["kill", "-KILL", first])
    until(lambda: pid_of(rig, "kept") not in (first, "0"), "another supervisor")
    until(lambda: state(rig, "kept") == "Up", "it runs again")
    assert show(rig, "rp-kept.service", "NRestarts")["NRestarts"] == "1"
    rp(rig, "rm", "-f", "kept")


def test_restarts_on_failure_are_counted(rig: Machine) -> None:
    rp(rig, "run", "-d", "--name", "few", "--restart", "on-failure:2", "--network", "none",
       "alpine", "false")  # fmt: skip
    until(
        lambda: show(rig, "rp-few", "SubState")["SubState"] == "failed",
        "it gives up",
    )
    # Two restarts, and the third that the limit refused.
    assert show(rig, "rp-few", "NRestarts", "Result") == {"NRestarts": "3", "Result": "exit-code"}
    times = rp(rig, "start", "few", check=False)
    assert times.returncode == 0, "a start by hand is not counted"
    until(lambda: show(rig, "rp-few", "SubState")["SubState"] == "failed", "it gives up again")
    rp(rig, "rm", "few")
    assert show(rig, "rp-few", "LoadState")["LoadState"] == "not-found"


def test_a_definition_is_enabled_whole(rig: Machine) -> None:
    text = """
[container.first]
image = "alpine"
command = ["sleep", "1000"]
network = "none"
[container.second]
image = "alpine"
command = ["sleep", "1000"]
network = "none"
requires = ["first"]
"""
    rig.run(["tee", "both.toml"], input=text)
    assert rp(rig, "enable", "both.toml").stdout == "first\nsecond\n"
    assert systemctl(rig, "is-enabled", "rp-first", "rp-second").stdout == "enabled\n" * 2
    assert state(rig, "second") == "Created"
    # systemd alone knows the order now.
    systemctl(rig, "start", "rp-second")
    assert (state(rig, "first"), state(rig, "second")) == ("Up", "Up")
    assert rp(rig, "disable", "--now", "--delete", "both.toml").stdout == "first\nsecond\n"
    rp(rig, "delete", "both.toml")
    rig.run(["rm", "both.toml"])
    assert rig.run(["find", UNITS, "-name", "rp-*"]).stdout == ""


def test_templates_for_one_user(rig: Machine, web: str) -> None:
    written = rp(rig, "system", "install-units").stdout.splitlines()
    assert [path.rpartition("/")[2] for path in written] == [
        "rp@.service",
        "rp-auto-update.service",
        "rp-auto-update.timer",
        "rp-prune.service",
        "rp-prune.timer",
    ]
    rig.run(["systemd-analyze", "--user", "--man=no", "verify", "rp@web.service", *written[1:]])
    systemctl(rig, "start", "rp@web")
    assert state(rig, web) == "Up"
    assert show(rig, "rp-web.scope", "BindsTo")["BindsTo"] == "rp@web.service"
    systemctl(rig, "stop", "rp@web")
    assert state(rig, web) == "Exited"
    systemctl(rig, "start", "rp-prune.service")
    assert show(rig, "rp-prune.service", "Result")["Result"] == "success"
    systemctl(rig, "stop", "app-rp.slice")
    rig.run(["rm", *written])
    systemctl(rig, "daemon-reload")


# --- readiness ----------------------------------------------------------------------------------

NOTIFY = textwrap.dedent(
    """
    import os, socket, time
    open("/waiting", "w").close()
    while not os.path.exists("/go"):
        time.sleep(0.02)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        us = os.environ.get("WATCHDOG_USEC")
        s.sendto(f"MAINPID=1\\nREADY=1\\nSTATUS=watched for {us}".encode(),
                 os.environ["NOTIFY_SOCKET"])
    time.sleep(1000)
    """
)


STRANGER = """
import os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    os.chdir(sys.argv[1])
    s.sendto(b"READY=1", "notify.sock")
    print("sent", flush=True)
    # As long as it lives, it can be told from the container's processes.
    sys.stdin.read()
"""


@pytest.mark.row("sd_notify", "READY=1 and STATUS= are passed on, MAINPID= and the like are not")
def test_ready_when_the_container_says_so(rig: Machine) -> None:
    rp(rig, "create", "--name", "told", "--sdnotify", "container", "--network", "none", *PYTHON,
       "alpine", "/usr/bin/python3", "-I", "-c", NOTIFY)  # fmt: skip
    rp(rig, "enable", "told")
    drop_in(rig, "rp-told", "WatchdogSec=50")
    systemctl(rig, "start", "--no-block", "rp-told")
    until(
        lambda: rp(rig, "exec", "told", "test", "-e", "/waiting", check=False).returncode == 0,
        "the program runs",
    )
    assert show(rig, "rp-told", "ActiveState")["ActiveState"] == "activating"
    main = pid_of(rig, "told")
    container_id = rp(rig, "inspect", "--format", "{{.Id}}", "told").stdout.strip()
    directory = f"/run/user/{rig.uid}/rootlesspy/{container_id}/notify"
    argv = ["python3", "-I", "-c", STRANGER, directory]
    with rig.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"sent\n"
        # The supervisor, which carries this out, has seen by then what came before.
        rp(rig, "exec", "told", "true")
        assert show(rig, "rp-told", "ActiveState")["ActiveState"] == "activating"
    rp(rig, "exec", "told", "touch", "/go")
    until(lambda: show(rig, "rp-told", "ActiveState")["ActiveState"] == "active", "it is ready")
    assert show(rig, "rp-told", "StatusText")["StatusText"] == "watched for 50000000"
    assert pid_of(rig, "told") == main
    rp(rig, "rm", "-f", "told")
    rig.run(["rm", "-r", f"{UNITS}/rp-told.service.d"])
    systemctl(rig, "daemon-reload")


@pytest.mark.parametrize(
    ("sdnotify", "command"),
    [
        ("port:8099", "while [ ! -e /go ]; do sleep 0.05; done; nc -l -p 8099"),
        ("log:to .*serve", "while [ ! -e /go ]; do sleep 0.05; done; echo to serve; sleep 1000"),
    ],
)  # fmt: skip
def test_ready_by_a_port_or_a_line(rig: Machine, sdnotify: str, command: str) -> None:
    rp(rig, "create", "--name", "seen", "--sdnotify", sdnotify, "--network", "none", "alpine",
       "sh", "-c", command)  # fmt: skip
    rp(rig, "enable", "seen")
    systemctl(rig, "start", "--no-block", "rp-seen")
    until(lambda: rp(rig, "exec", "seen", "true", check=False).returncode == 0, "the program runs")
    assert show(rig, "rp-seen", "ActiveState")["ActiveState"] == "activating"
    rp(rig, "exec", "seen", "touch", "/go")
    until(lambda: show(rig, "rp-seen", "ActiveState")["ActiveState"] == "active", "it is ready")
    rp(rig, "rm", "-f", "seen")


# --- socket activation --------------------------------------------------------------------------

SERVER = textwrap.dedent(
    """
    import json, os, socket
    fds = [int(each) for each in os.listdir("/proc/self/fd")]
    open_fds = [fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")]
    listening = socket.socket(fileno=3)
    told = {name: os.environ.get(name) for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")}
    while True:
        connection, _ = listening.accept()
        connection.sendall(json.dumps([os.getpid(), open_fds, told]).encode())
        connection.close()
    """
)
CLIENT = """
import socket, sys, time
while True:
    try:
        connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
print(connection.makefile().read())
"""


def ask(rig: Machine, port: int) -> list[Any]:
    answer: list[Any] = json.loads(rig.run(["python3", "-I", "-c", CLIENT, str(port)]).stdout)
    return answer


def test_a_socket_starts_the_container(rig: Machine) -> None:
    """Without any network: the socket is the host's."""
    rp(rig, "create", "--name", "act", "--network", "none", *PYTHON,
       "alpine", "/usr/bin/python3", "-I", "-c", SERVER)  # fmt: skip
    socket_unit = "[Socket]\nListenStream=127.0.0.1:8098\nFileDescriptorName=http\n"
    rig.run(["sh", "-c", f"mkdir -p {UNITS}; rp unit act > {UNITS}/rp-act.service"])
    rig.run(["tee", f"{UNITS}/rp-act.socket"], input=socket_unit)
    systemctl(rig, "daemon-reload")
    systemctl(rig, "start", "rp-act.socket")
    assert state(rig, "act") == "Created"
    told = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "http"}
    assert ask(rig, 8098) == [1, [0, 1, 2, 3], told]
    assert state(rig, "act") == "Up"
    rp(rig, "stop", "-t", "0", "act")
    # The socket is still systemd's, and starts it again.
    assert ask(rig, 8098)[0] == 1
    systemctl(rig, "stop", "rp-act.socket", "rp-act.service")
    rp(rig, "rm", "-f", "act")
    rig.run(["rm", f"{UNITS}/rp-act.socket"])
    systemctl(rig, "daemon-reload")


def test_an_attached_container_is_given_sockets_too(rig: Machine) -> None:
    rp_run = ["rp", "run", "--rm", "--name", "act2", "--network", "none", *PYTHON, "alpine"]
    activate = ["systemd-socket-activate", "-l", "127.0.0.1:8097", "--fdname=web"]
    with rig.popen([*activate, *rp_run, "/usr/bin/python3", "-I", "-c", SERVER]) as running:
        told = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "web"}
        assert ask(rig, 8097) == [1, [0, 1, 2, 3], told]
        rp(rig, "stop", "-t", "0", "act2")
        running.wait(timeout=LIMIT_S)
