"""Containers in the namespaces of others, from the front door; exposed ports; ports in use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from namespace.living import show, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Machine

NAMESPACES = "for each in net ipc uts pid user mnt; do readlink /proc/self/ns/$each; done"


@pytest.fixture(autouse=True)
def _no_container_is_left(rig: Machine, leaves_nothing: None) -> Iterator[None]:
    del leaves_nothing
    yield
    rig.run(["rp", "rm", "--all", "--force", "--time", "0"])


@pytest.fixture
def first(rig: Machine, alpine: str) -> str:
    """Return the name of a container that runs."""
    argv = ["rp", "run", "-d", "--name", "first", "--hostname", "box", "--add-host", "db:10.1.2.3"]
    rig.run([*argv, alpine, "sh", "-c", "echo shared >/dev/shm/mark; exec sleep 1000"])
    until(
        lambda: "sleep" in rig.run(["rp", "exec", "first", "cat", "/proc/1/comm"]).stdout,
        "it does not sleep",
    )
    return "first"


def namespaces(rig: Machine, argv: list[str]) -> dict[str, str]:
    """Return the namespaces that a command sees as its own, by kind."""
    lines = rig.run([*argv, "sh", "-c", NAMESPACES]).stdout.split()
    return dict(re.fullmatch(r"(\w+):\[(\d+)\]", line).groups() for line in lines)  # type: ignore[union-attr,misc]  # the kernel's form


def test_the_network_of_another_container(rig: Machine, alpine: str, first: str) -> None:
    """Its addresses, its hosts and its resolv.conf, but a host name and processes of its own."""
    argv = ["rp", "run", "--rm", "--network", f"container:{first}", "--name", "second", alpine]
    own, other = namespaces(rig, argv), namespaces(rig, ["rp", "exec", first])
    assert {kind for kind in own if own[kind] == other[kind]} == {"net", "user"}
    script = "hostname; cat /etc/hosts /etc/resolv.conf"
    shown = rig.run([*argv, "sh", "-c", script]).stdout
    theirs = rig.run(["rp", "exec", first, "sh", "-c", "cat /etc/hosts; cat /etc/resolv.conf"])
    assert "10.1.2.3\tdb\n" in shown
    assert set(theirs.stdout.splitlines()) <= set(shown.splitlines())
    assert not shown.startswith("box")


def test_all_that_can_be_shared(rig: Machine, alpine: str, first: str) -> None:
    modes = [f"--{each}=container:{first}" for each in ("network", "ipc", "pid", "uts")]
    argv = ["rp", "run", "--rm", *modes, alpine]
    own, other = namespaces(rig, argv), namespaces(rig, ["rp", "exec", first])
    assert {kind for kind in own if own[kind] == other[kind]} == set(own) - {"mnt"}
    # Shared memory goes with the IPC namespace.
    script = "hostname; cat /dev/shm/mark; tr '\\0' ' ' </proc/1/cmdline"
    assert rig.run([*argv, "sh", "-c", script]).stdout == "box\nshared\nsleep 1000 "


def test_who_shares_a_pid_namespace_leaves_no_process_in_it(
    rig: Machine, alpine: str, first: str
) -> None:
    """Its first process is not number 1: the kernel would kill nobody with it."""
    script = "(trap '' TERM HUP; exec sleep 2222) & echo up"
    rig.run(["rp", "run", "--rm", "--pid", f"container:{first}", alpine, "sh", "-c", script])

    def processes() -> str:
        return str(rig.run(["rp", "exec", first, "ps", "-o", "stat,args"]).stdout)

    # Killed, it may take a moment to be gone.
    until(lambda: "sleep 2222" not in processes(), "it goes on")
    assert "sleep 1000" in processes()


def test_the_other_one_is_started_first_and_removed_last(
    rig: Machine, alpine: str, first: str
) -> None:
    argv = ["rp", "create", "--name", "second", "--network", f"container:{first}"]
    rig.run([*argv, alpine, "sleep", "1000"])
    rig.run(["rp", "stop", "--time", "0", first])
    done = rig.run(["rp", "rm", first], check=False)
    assert done.returncode == 125
    assert done.stderr.splitlines()[0] == (
        "rp: container first has its namespaces shared by second"
    )
    rig.run(["rp", "start", "second"])
    assert sorted(rig.run(["rp", "ps", "--format", "{{.Names}}"]).stdout.split()) == [
        "first",
        "second",
    ]
    own, other = (namespaces(rig, ["rp", "exec", each]) for each in ("second", first))
    assert own["net"] == other["net"]
    rig.run(["rp", "rm", "--force", "--time", "0", "second", first])


def test_a_namespace_by_its_path(rig: Machine, alpine: str) -> None:
    """One of the user's own, with the ids that its containers have."""
    holder = rig.popen(
        ["rp", "unshare", "unshare", "--net", "sh", "-c", "echo $$; exec sleep 1000"],
        stdout=-1,
        text=True,
    )
    try:
        assert holder.stdout is not None
        pid = holder.stdout.readline().strip()
        path = f"/proc/{pid}/ns/net"
        argv = ["rp", "run", "--rm", "--network", f"ns:{path}", alpine]
        own = namespaces(rig, argv)
        assert rig.run(["readlink", path]).stdout.strip() == f"net:[{own['net']}]"
    finally:
        rig.run(["kill", "-KILL", pid], check=False)
        holder.communicate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--network container:nobody", "no container with name or id 'nobody'"),
        ("--ipc container:nobody", "no container with name or id 'nobody'"),
        ("--network container:", "network 'container:': container needs a name"),
        ("--network ns:etc", "network 'ns:etc': ns needs a path"),
        ("--network ns:/etc/passwd", "/etc/passwd is not a namespace"),
        ("--network ns:/proc/self/ns/uts", "/proc/self/ns/uts is not a network namespace"),
        ("--network ns:/proc/self/ns/net", "belongs to root"),
        ("--uts other", "--uts"),
        ("--network container:first --dns 9.9.9.9", "--dns and --network container exclude"),
        ("--network container:first --add-host a:1.2.3.4", "--add-host and --network container"),
        ("--network container:first --userns keep-id", "which has host-map"),
        ("--network container:first --sysctl net.core.somaxconn=9", "does not belong"),
    ],
)
def test_bad_input_is_one_line(
    rig: Machine, alpine: str, first: str, options: str, message: str
) -> None:
    del first
    done = rig.run(["rp", "run", "--rm", *options.split(), alpine, "echo", "ran"], check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("hint:")]) == 1


def test_what_the_image_exposes_is_published(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "create", "--name", "plain", alpine, "true"])
    rig.run(["rp", "commit", "-q", "--change", "EXPOSE 80 53/udp", "plain", "exposing"])
    try:
        rig.run(
            ["rp", "run", "-d", "--name", "open", "-P", "-p", "8080:80", "exposing", "sleep", "99"]
        )
        lines = rig.run(["rp", "port", "open"]).stdout.splitlines()
        assert lines[0] == "80/tcp -> 0.0.0.0:8080"
        assert re.fullmatch(r"53/udp -> 0\.0\.0\.0:\d+", lines[1])
    finally:
        rig.run(["rp", "rm", "--all", "--force", "--time", "0"])
        rig.run(["rp", "rmi", "exposing"])


@pytest.mark.row("N1", "125, names the container")
def test_a_port_in_use_names_the_container(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "run", "-d", "--name", "holding", "-p", "8123:80", alpine, "sleep", "1000"])
    done = rig.run(["rp", "run", "--rm", "-p", "8123:80", alpine, "true"], check=False)
    assert (done.returncode, done.stderr) == (
        125,
        "rp: port 8123/tcp is in use by container holding\n",
    )


def test_the_service_of_a_network_is_light(rig: Machine, alpine: str) -> None:
    """Who loads pyroute2 is gone again; what is left is about what a supervisor weighs."""
    rig.run(["rp", "network", "create", "light"])
    try:
        run = ["rp", "run", "-d", "--network", "light", "--name"]
        rig.run([*run, "lamp", alpine, "sleep", "1000"])
        rig.run(["rp", "exec", "lamp", "getent", "hosts", "lamp"])
        pid = show(rig, "rp-network-light.service", "MainPID")["MainPID"]
        until(
            lambda: not rig.run(["pgrep", "--parent", pid], check=False).stdout,
            "the child that makes interfaces does not end",
        )
        rollup = rig.run(["cat", f"/proc/{pid}/smaps_rollup"]).stdout
        own_kib = int(re.search(r"(?m)^Anonymous: +(\d+) kB", rollup)[1])  # type: ignore[index]  # the kernel's form
        assert own_kib < 18_000
        # It comes back for who comes later.
        rig.run([*run, "second", alpine, "sleep", "1000"])
        assert "eth0" in rig.run(["rp", "exec", "second", "ls", "/sys/class/net"]).stdout
        # Killed, it is made anew.
        rig.run(["pkill", "-KILL", "--parent", pid], check=False)
        rig.run([*run, "third", alpine, "sleep", "1000"])
        assert "eth0" in rig.run(["rp", "exec", "third", "ls", "/sys/class/net"]).stdout
        assert show(rig, "rp-network-light.service", "MainPID")["MainPID"] == pid
    finally:
        rig.run(["rp", "network", "rm", "--force", "light"])
