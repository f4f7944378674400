"""Pods from the front door: what members share, what holds it, and what is left of it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rig.machine import Machine


@pytest.fixture(autouse=True)
def _no_pod_is_left(rig: Machine, leaves_nothing: None) -> Iterator[None]:
    del leaves_nothing
    yield
    rig.run(["rp", "pod", "rm", "--all", "--force", "--time", "0"])
    rig.run(["rp", "rm", "--all", "--force", "--time", "0"])


def shown(rig: Machine, name: str) -> dict[str, Any]:
    """Return what `rp pod inspect` says."""
    (found,) = json.loads(rig.run(["rp", "pod", "inspect", name]).stdout)
    return dict(found)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fail when it still does not after a long time."""
    limit_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit_s, "it never came true"
        time.sleep(0.1)


def test_members_share_network_host_name_and_memory(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "pod", "create", "--name", "web", "--add-host", "db:10.1.2.3", "-p", "8080:80"])
    assert shown(rig, "web")["State"] == "Created"
    script = "echo shared >/dev/shm/mark; exec sleep 1000"
    rig.run(["rp", "run", "-d", "--pod", "web", "--name", "one", alpine, "sh", "-c", script])
    script = """
        until [ -e /dev/shm/mark ]; do sleep 0.1; done
        hostname; cat /dev/shm/mark; grep -c db /etc/hosts; grep two /etc/hosts | cut -f 1
        nc -l -p 80 </dev/null &
        until nc 127.0.0.1 80 </dev/null; do sleep 0.1; done; wait; echo reached
    """
    argv = ["rp", "run", "--rm", "--pod", "web", "--name", "two", alpine, "sh", "-c", script]
    assert rig.run(argv).stdout == "web\nshared\n1\n127.0.0.1\nreached\n"
    found = rig.run(["rp", "ps", "--pod", "--format", "{{.Names}} {{.PodName}} {{.Ports}}"]).stdout
    assert found == "one web 0.0.0.0:8080->80/tcp\n"
    assert rig.run(["rp", "ps", "--filter", "pod=web", "--format", "{{.Names}}"]).stdout == "one\n"
    assert rig.run(["rp", "ps", "--all", "--filter", "pod=other", "-q"]).stdout == ""


def test_the_members_scopes_are_in_the_pods_slice(rig: Machine, alpine: str) -> None:
    """A dash in the name makes no slice below another pod's."""
    rig.run(["rp", "pod", "create", "--name", "a-b"])
    rig.run(["rp", "run", "-d", "--pod", "a-b", "--name", "one", alpine, "sleep", "1000"])
    argv = ["systemctl", "--user", "show", "--value", "--property"]
    slice_ = shown(rig, "a-b")["CgroupPath"]
    assert slice_ == "rp-pod-a\\x2db.slice"
    assert rig.run([*argv, "Slice", "rp-one.scope"]).stdout.strip() == slice_
    bound = rig.run([*argv, "BindsTo", "rp-one.scope"]).stdout.split()
    assert sorted(bound) == ["rp-one.service", "rp-pod-a-b.service"]


def test_the_life_of_a_pod(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "pod", "create", "--name", "web", "--label", "a=b"])
    for name in ("one", "two"):
        argv = ["rp", "run", "-d", "--pod", "web", "--name", name, "--stop-signal", "KILL"]
        rig.run([*argv, alpine, "sleep", "1000"])
    states = []
    for command in ("pause", "unpause", "stop", "start", "restart", "kill"):
        assert rig.run(["rp", "pod", command, "web"]).stdout == "web\n"
        if command == "kill":
            rig.run(["rp", "wait", "one", "two"])
        states.append(shown(rig, "web")["State"])
    assert states == ["Paused", "Running", "Exited", "Running", "Running", "Degraded"]
    rig.run(["rp", "start", "one"])
    done = rig.run(["rp", "pod", "rm", "web"], check=False)
    assert (done.returncode, done.stderr) == (
        125,
        "rp: pod web has running containers: one\nhint: rp pod rm -f web\n",
    )
    row = rig.run(["rp", "pod", "ps", "--filter", "label=a=b", "--format", "{{.Name}} {{.Status}}"])
    assert row.stdout == "web Degraded\n"
    rig.run(["rp", "pod", "rm", "--force", "--time", "0", "web"])
    assert rig.run(["rp", "pod", "exists", "web"], check=False).returncode == 1
    assert rig.run(["rp", "ps", "--all", "-q"]).stdout == ""


def test_one_pid_namespace(rig: Machine, alpine: str) -> None:
    """Its process 1 is rp's, with an empty root, which nobody inside may look into (I5)."""
    rig.run(["rp", "pod", "create", "--name", "web", "--share", "pid,net"])
    rig.run(["rp", "run", "-d", "--pod", "web", "--name", "one", alpine, "sleep", "1000"])
    script = """
        ps | grep -c '[s]leep 1000'
        for each in root cwd exe; do readlink /proc/1/$each; done
        cat /proc/1/environ; true
    """
    argv = ["rp", "run", "--rm", "--cap-add", "SYS_PTRACE", "--pod", "web", alpine, "sh", "-c"]
    done = rig.run([*argv, script])
    assert done.stdout == "1\n"
    assert "Permission denied" in done.stderr


def test_a_killed_service_stops_the_pod_and_the_next_start_brings_it_back(
    rig: Machine, alpine: str
) -> None:
    rig.run(["rp", "pod", "create", "--name", "web"])
    rig.run(["rp", "run", "-d", "--pod", "web", "--name", "one", alpine, "sleep", "1000"])
    rig.run(["systemctl", "--user", "kill", "--signal", "KILL", "rp-pod-web.service"])
    eventually(lambda: bool(shown(rig, "web")["State"] == "Exited"))
    rig.run(["rp", "start", "one"])
    assert shown(rig, "web")["State"] == "Running"


def test_p7_a_killed_helper_of_a_pod_is_started_again(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "pod", "create", "--name", "web", "-p", "8080:80"])
    serve = "while :; do echo answer | nc -l -p 80; done"
    rig.run(["rp", "run", "-d", "--pod", "web", "--name", "one", alpine, "sh", "-c", serve])
    argv = ["systemctl", "--user", "show", "--value", "--property", "MainPID", "rp-pod-web.service"]
    holder = rig.run(argv).stdout.strip()
    find = ["pgrep", "--parent", holder, "--full", "^pasta "]
    (helper,) = rig.run(find).stdout.split()
    rig.run(["kill", "-KILL", helper])
    eventually(lambda: rig.run(find, check=False).stdout.split() not in ([], [helper]))
    ask = "import socket; s = socket.create_connection(('127.0.0.1', 8080), 9); print(s.recv(9))"
    eventually(lambda: "answer" in rig.run(["python3", "-c", ask], check=False).stdout)


def test_a_pod_by_the_way(rig: Machine, alpine: str) -> None:
    argv = ["rp", "run", "-d", "--pod", "new:web", "-p", "8080:80", "--name", "one", alpine]
    rig.run([*argv, "sleep", "1000"])
    bindings = shown(rig, "web")["InfraConfig"]["PortBindings"]
    assert bindings == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
    assert [each["Name"] for each in shown(rig, "web")["Containers"]] == ["one"]
    done = rig.run(["rp", "run", "--rm", "-p", "8080:81", alpine, "true"], check=False)
    assert (done.returncode, done.stderr) == (125, "rp: port 8080/tcp is in use by pod web\n")


def test_without_infra_it_is_a_slice(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "pod", "create", "--name", "web", "--infra=false"])
    argv = ["rp", "run", "-d", "--pod", "web", "--name", "one", alpine, "sleep", "1000"]
    rig.run(argv)
    assert rig.run(["rp", "exec", "one", "hostname"]).stdout != "web\n"
    argv = ["systemctl", "--user", "show", "--value", "--property", "Slice", "rp-one.scope"]
    assert rig.run(argv).stdout == "rp-pod-web.slice\n"
    found = shown(rig, "web")
    assert (found["CreateInfra"], found["State"]) == (False, "Running")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("pod create --name web", 125, "name 'web' is in use by a pod"),
        ("pod create --share net,mnt", 125, "'mnt' cannot be shared"),
        ("pod create --network container:x", 125, "a pod shares nobody else's network"),
        ("pod create --share ipc -p 80:80", 125, "--publish needs a network"),
        ("pod create /", 125, "name '/' is not valid"),
        ("pod inspect nobody", 125, "no pod with name or id 'nobody'"),
        ("pod rm nobody", 1, "no pod with name or id 'nobody'"),
        ("run --pod nobody alpine", 125, "no pod with name or id 'nobody'"),
        ("run --pod web -p 80:80 alpine", 125, "ports of a pod are published when it is made"),
        ("run --pod web --hostname x alpine", 125, "--hostname: the members of pod web share one"),
        ("run --pod web --dns 9.9.9.9 alpine", 125, "--dns and --pod exclude each other"),
        ("run --pod web --userns keep-id alpine", 125, "pod web has host-map"),
        ("run --pod web --cgroups disabled alpine", 125, "a pod is a slice"),
    ],
)
def test_bad_input_is_one_line(
    rig: Machine, alpine: str, words: str, code: int, message: str
) -> None:
    del alpine
    rig.run(["rp", "pod", "create", "--name", "web"])
    done = rig.run(["rp", *words.split()], check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("hint:")]) == 1


@pytest.mark.parametrize("kind", ["network", "pod"])
def test_names_that_would_share_a_unit(rig: Machine, alpine: str, kind: str) -> None:
    """rp-network-x.service and rp-pod-x.service are units of networks and pods."""
    box = ["rp", "run", "-d", "--name", f"{kind}-x", "--network=none", alpine, "sleep", "1000"]
    create = ["rp", kind, "create", *(["--name"] if kind == "pod" else []), "x"]
    rig.run(create)
    taken = rig.run(box, check=False)
    assert taken.returncode == 125
    assert f"its unit rp-{kind}-x.service is that of {kind} x" in taken.stderr
    rig.run(["rp", kind, "rm", "x"])
    rig.run(box)
    refused = rig.run(create, check=False)
    assert refused.returncode == 125
    assert f"is that of container {kind}-x" in refused.stderr
    rig.run(["rp", "rm", "-f", "-t", "0", f"{kind}-x"])
