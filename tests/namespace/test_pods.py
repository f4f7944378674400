"""Pods from the front door: what members share, what holds it, and what is left of it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from namespace.test_dns import resolvers

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
    limit_s = time.monotonic() + 200
    while not holds():
        assert time.monotonic() < limit_s, "it never came true"
        time.sleep(0.1)


def test_members_share_network_host_name_and_memory(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "pod", "create", "--name", "web", "--add-host", "db:10.1.2.3", "-p", "8080:80"])
    assert shown(rig, "web")["State"] == "Created"
    script = "echo shared >/dev/shm/mark; exec sleep 1000"
    rig.run(["rp", "run", "-d", "--pod", "web", "--name", "one", alpine, "sh", "-c", script])
    script = """
        until [ -s /dev/shm/mark ]; do sleep 0.1; done
        hostname; cat /dev/shm/mark; grep -cw db /etc/hosts; grep two /etc/hosts | cut -f 1
        nc -l -p 80 </dev/null &
        until nc 127.0.0.1 80 </dev/null; do sleep 0.1; done; wait; echo reached
    """
    argv = ["rp", "run", "--rm", "--pod", "web", "--name", "two", alpine, "sh", "-c", script]
    assert rig.run(argv).stdout == "web\nshared\n1\n127.0.0.1\nreached\n"
    # Also of the member that the pod was started for.
    files = "cat /etc/hosts /etc/hostname; grep -c nameserver /etc/resolv.conf"
    hosts = rig.run(["rp", "exec", "one", "sh", "-c", files]).stdout.splitlines()
    assert "10.1.2.3\tdb" in hosts
    assert "127.0.0.1\tweb one" in hosts
    assert hosts[-2:] == ["web", "1"]
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


@pytest.fixture
def network(rig: Machine) -> Iterator[str]:
    """Return the name of a network, removed with whoever is in it."""
    rig.run(["rp", "network", "create", "net"])
    yield "net"
    rig.run(["rp", "network", "rm", "-f", "-t", "0", "net"])


def _hosts(rig: Machine, container: str, *names: str) -> list[str]:
    """Return the addresses that names have in a container, "" for those that are not known.

    With the network's domain: for the name alone the host's resolvers are asked too, for seconds.
    """
    script = "for name; do echo $(getent hosts $name.dns.podman | cut -d ' ' -f 1); done"
    return str(rig.run(["rp", "exec", container, "sh", "-c", script, "sh", *names]).stdout).split(
        "\n"
    )[:-1]


def test_a_pod_in_a_network(rig: Machine, alpine: str, network: str) -> None:
    """Its members have one address, which all their names lead to, and the pod's ports."""
    create = ["rp", "pod", "create", "--name", "web", "--network", f"{network}:alias=www"]
    rig.run([*create, "-p", "8080:80"])
    serve = "while :; do echo answer | nc -l -p 80; done"
    rig.run(["rp", "run", "-d", "--pod", "web", "--name", "one", alpine, "sh", "-c", serve])
    rig.run(["rp", "run", "-d", "--network", network, "--name", "out", alpine, "sleep", "1000"])
    settings = json.loads(rig.run(["rp", "inspect", "one"]).stdout)[0]["NetworkSettings"]
    address = settings["Networks"][network]["IPAddress"]
    assert _hosts(rig, "out", "web", "www", "one", "nobody") == [address] * 3 + [""]
    assert _hosts(rig, "one", "out") != [""]
    ask = "import socket; s = socket.create_connection(('127.0.0.1', 8080), 9); print(s.recv(9))"
    eventually(lambda: "answer" in rig.run(["python3", "-c", ask], check=False).stdout)
    nc = ["rp", "exec", "out", "sh", "-c", "nc web 80 </dev/null"]
    eventually(lambda: "answer" in rig.run(nc, check=False).stdout)
    row = ["rp", "pod", "ps", "--filter", f"network={network}", "--format", "{{.Name}}"]
    assert rig.run(row).stdout == "web\n"
    # At once, for whoever asks after the command.
    rig.run(["rp", "rename", "one", "other"])
    rig.run(["rp", "rename", "out", "outer"])
    assert _hosts(rig, "outer", "one", "other") == ["", address]
    assert _hosts(rig, "other", "out") == [""]
    assert _hosts(rig, "other", "outer") != [""]
    rig.run(["rp", "rm", "-f", "-t", "0", "other"])
    assert _hosts(rig, "outer", "other", "web") == ["", address]
    done = rig.run(["rp", "network", "rm", network], check=False)
    assert (done.returncode, "used by outer, pod web" in done.stderr) == (2, True)


def test_a_pod_is_connected_and_disconnected(rig: Machine, alpine: str, network: str) -> None:
    rig.run(["rp", "pod", "create", "--name", "web"])
    rig.run(["rp", "run", "-d", "--pod", "web", "--name", "one", alpine, "sleep", "1000"])
    refused = rig.run(["rp", "network", "connect", network, "one"], check=False)
    assert refused.returncode == 125
    assert "container one has --network pod" in refused.stderr
    rig.run(["rp", "network", "connect", "--alias", "www", network, "web"])
    again = rig.run(["rp", "network", "connect", network, "web"], check=False)
    assert (again.returncode, "is in network net already" in again.stderr) == (125, True)
    out = ["rp", "run", "--rm", "--network", network, alpine, "sh", "-c"]
    found = rig.run(
        [*out, "getent hosts www >/dev/null && getent hosts one >/dev/null && echo yes"]
    )
    assert found.stdout == "yes\n"
    for _ in range(2):
        resolv = rig.run(["rp", "exec", "one", "cat", "/etc/resolv.conf"]).stdout
        assert "search dns.podman" in resolv
        # It is so after a start too.
        rig.run(["rp", "pod", "restart", "web"])
    rig.run(["rp", "network", "disconnect", network, "web"])
    resolv = rig.run(["rp", "exec", "one", "cat", "/etc/resolv.conf"]).stdout
    assert "dns.podman" not in resolv
    addresses = rig.run(["rp", "exec", "one", "ip", "-4", "address"]).stdout
    assert "10.89." not in addresses
    assert shown(rig, "web")["InfraConfig"]["Networks"] is None


@pytest.mark.parametrize("unit", ["rp-network-net.service", "rp-pod-web.service"])
def test_a_killed_service_comes_back_with_the_pods_names(
    rig: Machine, alpine: str, network: str, unit: str
) -> None:
    rig.run(["rp", "pod", "create", "--name", "web", "--network", network])
    rig.run(["rp", "run", "-d", "--pod", "web", "--name", "one", alpine, "sleep", "1000"])
    rig.run(["rp", "run", "-d", "--network", network, "--name", "out", alpine, "sleep", "1000"])
    rig.run(["systemctl", "--user", "kill", "--signal", "KILL", unit])
    if "pod" in unit:
        eventually(lambda: bool(shown(rig, "web")["State"] == "Exited"))
        eventually(lambda: _hosts(rig, "out", "web") == [""])
        rig.run(["rp", "pod", "start", "web"])
    eventually(lambda: _hosts(rig, "out", "web") != [""])
    # Its descriptors are lost too.
    rig.run(["systemctl", "--user", "stop", "rp-network-net.service"])
    rig.run(["rp", "network", "reload", "--all"])
    eventually(lambda: _hosts(rig, "out", "one") != [""])


def test_the_end_of_the_last_member_ends_the_pod(rig: Machine, alpine: str) -> None:
    """--exit-policy stop: not while systemd is about to start a member again."""
    rig.run(["rp", "pod", "create", "--name", "web", "--exit-policy", "stop"])
    argv = ["rp", "run", "-d", "--pod", "web", "--name", "one", "--restart", "on-failure", alpine]
    rig.run([*argv, "sh", "-c", "[ -e /again ] && exec sleep 1000; touch /again; exit 1"])
    argv = ["rp", "run", "-d", "--pod", "web", "--name", "two", "--stop-signal", "KILL", alpine]
    rig.run([*argv, "sleep", "1000"])
    # Of its second life: the first one ends after it has made the file.
    eventually(
        lambda: rig.run(["rp", "exec", "one", "pidof", "sleep"], check=False).returncode == 0
    )
    rig.run(["rp", "stop", "two"])
    assert shown(rig, "web")["State"] == "Degraded"
    rig.run(["rp", "stop", "-t", "0", "one"])
    eventually(lambda: bool(shown(rig, "web")["State"] == "Exited"))
    units = ["rp-pod-web.service", "rp-pod-web.slice"]
    show = ["systemctl", "--user", "show", "--value", "--property", "ActiveState", *units]
    eventually(lambda: bool(rig.run(show).stdout.split() == ["inactive", "inactive"]))
    rig.run(["rp", "start", "two"])
    assert shown(rig, "web")["State"] == "Degraded"


def test_a_definition_of_a_pod(rig: Machine, alpine: str) -> None:
    """rp delete removes the pod and the network that it made, but what others are in."""
    text = f"""
        [network.net]
        [pod.web]
        network = ["net"]
        [container.one]
        image = "{alpine}"
        command = ["sleep", "1000"]
        pod = "web"
        [container.two]
        image = "{alpine}"
        command = ["sleep", "1000"]
        pod = "web"
        requires = ["one"]
    """
    rig.run(["sh", "-c", "cat >/tmp/pod.toml"], input=text)
    made = rig.run(["rp", "apply", "/tmp/pod.toml"]).stdout
    assert "network net" in made
    assert "pod web" in made
    assert _hosts(rig, "two", "web") != [""]
    members = [each["Name"] for each in shown(rig, "web")["Containers"]]
    assert sorted(members) == ["one", "two"]
    assert "nothing" in rig.run(["rp", "plan", "/tmp/pod.toml"]).stdout.lower()
    exported = rig.run(["rp", "export-definition", "one"]).stdout
    assert 'pod = "web"' in exported
    assert "hostname" not in exported
    rig.run(["rp", "create", "--pod", "web", "--name", "mine", alpine])
    kept = rig.run(["rp", "delete", "/tmp/pod.toml"])
    assert "pod web stays: mine are in it" in kept.stderr
    assert "network net is used by pod web" in kept.stderr
    rig.run(["rp", "rm", "mine"])
    gone = rig.run(["rp", "delete", "/tmp/pod.toml"]).stdout
    assert "pod web" in gone
    assert "network net" in gone
    assert rig.run(["rp", "network", "exists", "net"], check=False).returncode == 1
    rig.run(["rm", "/tmp/pod.toml"])


def test_the_resolvers_of_a_pod_are_the_hosts(rig: Machine, alpine: str) -> None:
    """As they are now, in what its members have of them too, but for who wrote its own."""
    rig.run(["rp", "pod", "create", "--name", "web"])
    for name, script in (("one", ":"), ("two", "echo nameserver 192.0.2.7 >/etc/resolv.conf")):
        argv = ["rp", "run", "-d", "--pod", "web", "--name", name, alpine]
        rig.run([*argv, "sh", "-c", f"{script}; exec sleep 1000"])

    def of(name: str) -> str:
        return str(rig.run(["rp", "exec", name, "cat", "/etc/resolv.conf"]).stdout)

    with resolvers(rig, "nameserver 192.0.2.53"):
        eventually(lambda: "192.0.2.53" in of("one"))
        assert of("two") == "nameserver 192.0.2.7\n"
    eventually(lambda: "192.0.2.53" not in of("one"))


def test_what_members_run_use_and_say(rig: Machine, alpine: str) -> None:
    rig.run(["rp", "pod", "create", "--name", "web", "--pod-id-file", "/tmp/pod-id"])
    for name in ("one", "two"):
        argv = ["rp", "run", "-d", "--pod", "web", "--name", name, alpine]
        rig.run([*argv, "sh", "-c", f"echo this is {name}; exec sleep 1000"])

    def told(*words: str) -> list[str]:
        return sorted(rig.run(["rp", "pod", *words, "web"]).stdout.splitlines())

    # Once the shells have said it, and become what they run.
    said = ["one this is one", "two this is two"]
    eventually(lambda: told("logs", "--names") == said)
    top = ["rp", "pod", "top", "web", "pid", "args"]

    def shown_by_top() -> list[list[str]]:
        return [line.split() for line in rig.run(top).stdout.splitlines()[1:]]

    eventually(lambda: shown_by_top() == [["1", "sleep", "1000"]] * 2)
    rows = json.loads(
        rig.run(["rp", "pod", "stats", "--no-stream", "--format", "json", "web"]).stdout
    )
    assert [row["Name"] for row in rows] == ["one", "two"]
    assert set(rows[0]) == {
        "CPU", "MemUsage", "MemUsageBytes", "Mem", "NetIO", "BlockIO", "PIDS", "Pod", "CID", "Name"
    }  # fmt: skip
    heading = rig.run(["rp", "pod", "stats", "--no-stream"]).stdout.splitlines()[0]
    assert heading.split()[:3] == ["POD", "CID", "NAME"]
    assert rig.run(["rp", "pod", "logs", "-c", "two", "web"]).stdout == "this is two\n"
    line = rig.run(["rp", "pod", "ps", "--ctr-names", "--ctr-status", "--noheading"]).stdout
    assert line.split()[-2:] == ["one,two", "running,running"]
    for filters, count in ((["ctr-number=2"], 1), (["ctr-number=1"], 0),
                           (["ctr-names=tw"], 1), (["status=exited", "status=running"], 1),
                           (["ctr-status=paused"], 0), (["until=1h"], 0)):  # fmt: skip
        options = [word for text in filters for word in ("--filter", text)]
        found = rig.run(["rp", "pod", "ps", "-q", *options]).stdout.splitlines()
        assert len(found) == count, filters
    rig.run(["rp", "pod", "stop", "-t", "0", "--pod-id-file", "/tmp/pod-id"])
    assert shown(rig, "web")["State"] == "Exited"
    rig.run(["rp", "pod", "rm", "--pod-id-file", "/tmp/pod-id"])
    rig.run(["rm", "/tmp/pod-id"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("pod create --name web", 125, "name 'web' is in use by a pod"),
        ("pod create --share net,mnt", 125, "'mnt' cannot be shared"),
        ("pod create --network container:x", 125, "a pod shares nobody else's network"),
        ("pod create --network nowhere", 125, "network 'nowhere' does not exist"),
        ("pod create --exit-policy never", 125, "expected continue or stop"),
        ("pod create --share ipc --network nowhere", 125, "needs a network that the pod shares"),
        ("pod top web", 125, "pod web has no running containers"),
        ("pod stats nobody", 125, "no pod with name or id 'nobody'"),
        ("pod ps --filter foo=bar", 125, "--filter 'foo=bar' is unknown"),
        ("pod ps --sort size", 125, "--sort 'size' is unknown"),
        ("pod start --latest web", 125, "name the pods, or say --all or --latest"),
        ("pod rm --pod-id-file /nowhere", 125, "--pod-id-file /nowhere"),
        ("network connect nowhere web", 125, "network 'nowhere' does not exist"),
        ("pod create --share ipc -p 80:80", 125, "--publish needs a network"),
        ("pod create /", 125, "name '/' is not valid"),
        ("pod create --pod-id-file /no/file", 125, "--pod-id-file /no/file cannot be written"),
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


def test_replace_means_the_name_and_no_beginning_of_an_id(rig: Machine) -> None:
    identity = rig.run(["rp", "pod", "create", "--name", "kept"]).stdout.strip()
    rig.run(["rp", "pod", "create", "--replace", "--pod-id-file", "/tmp/pod-id", identity[:6]])
    assert rig.run(["cat", "/tmp/pod-id"]).stdout == shown(rig, identity[:6])["Id"] != identity
    rig.run(["rp", "pod", "create", "--replace", "--name", "kept"])
    assert shown(rig, "kept")["Id"] != identity
    rig.run(["rp", "pod", "rm", "kept", identity[:6]])
    rig.run(["rm", "/tmp/pod-id"])


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


def test_a_pod_is_not_started_once_it_is_being_removed(
    rig: Machine, alpine: str, leaves_nothing: None
) -> None:
    """Who has found it before finds that it is gone; its slice would stay for ever."""
    program = """
import os
from rootlesspy import paths
from rootlesspy.engine.pods import actions, store
from rootlesspy.errors import NotFound
from rootlesspy.report import Reporter
there = paths.from_environment(os.environ)
found = store.find(there, "web")
remove = store.remove
def removed(*given):
    print("held", actions.try_lock(there) is None)
    remove(*given)
store.remove = removed
actions.remove(there, found, force=True, timeout_s=0, reporter=Reporter())
try:
    actions.start_service(there, found)
except NotFound as error:
    print(error.message)
"""
    rig.run(["rp", "pod", "create", "--name", "web"])
    rig.run(["rp", "run", "-d", "--pod", "web", "--name", "one", alpine, "sleep", "1000"])
    said = rig.run(["python3", "-c", program]).stdout.splitlines()
    assert said[0] == "held True"
    assert "no pod" in said[1]
