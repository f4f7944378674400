"""User-defined networks from the front door: who reaches whom, and what kills and races leave."""

from __future__ import annotations

import json
import os
import random
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rig.machine import Completed, Machine

# How long the test with fifty containers goes on; a few rounds where it is not set.
CHURN_S = float(os.environ.get("RP_CHURN_S", "0"))
WAIT_S = 120.0


@pytest.fixture(scope="module", autouse=True)
def networks(rig: Machine, alpine: str) -> Iterator[None]:
    """Make the networks web and back; that nobody is left in them prune shows."""
    rig.run(["rp", "network", "create", "--subnet", "10.89.0.0/24", "web"])
    rig.run(["rp", "network", "create", "--subnet", "10.89.1.0/24", "--ipv6", "back"])
    yield
    rig.run(["rp", "network", "prune", "--force"])
    assert rig.run(["rp", "network", "ls", "-q"]).stdout == ""


@pytest.fixture(autouse=True)
def _containers(rig: Machine, networks: None, leaves_nothing: None) -> Iterator[None]:
    """Remove all containers after each test."""
    yield
    rig.run(["rp", "rm", "--all", "--force"], check=False)


def start(rig: Machine, name: str, *options: str) -> None:
    rig.run(
        [
            "rp",
            "run",
            "-d",
            "--name",
            name,
            "--stop-timeout",
            "0",
            # Some BusyBoxes know no other way to ping.
            "--cap-add=NET_RAW",
            *options,
            "alpine",
            "sleep",
            "10000",
        ]
    )


def inside(rig: Machine, name: str, script: str, *, check: bool = True) -> Completed:
    return rig.run(["rp", "exec", name, "sh", "-c", script], check=check)


def reaches(rig: Machine, name: str, address: str) -> bool:
    return inside(rig, name, f"ping -c 1 -W 5 {address}", check=False).returncode == 0


def addresses(rig: Machine, name: str) -> dict[str, list[str]]:
    """Return the addresses of a container's interfaces, link-local ones left out."""
    found: dict[str, list[str]] = {}
    interface = ""
    for line in inside(rig, name, "ip addr").stdout.splitlines():
        if match := re.match(r"\d+: ([^:@]+)", line):
            interface = match[1]
            found[interface] = []
        elif match := re.match(r"\s+inet6? (\S+) .*scope global", line):
            found[interface].append(match[1])
    return found


def settings(rig: Machine, name: str) -> dict[str, Any]:
    answer = rig.run(["rp", "inspect", name, "--format", "{{json .NetworkSettings.Networks}}"])
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def unit(rig: Machine, network: str, *names: str) -> list[str]:
    """Return properties of a network's service."""
    argv = ["systemctl", "--user", "show", "--value", f"rp-network-{network}.service"]
    found: list[str] = rig.run([*argv, *(f"-p{name}" for name in names)]).stdout.split()
    return found


def await_(what: str, test: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not test():
        assert time.monotonic() < deadline, f"not within {WAIT_S:g} s: {what}"
        time.sleep(0.1)


def refused(rig: Machine, *argv: str) -> str:
    """Run what must fail with 125 and one line; return the line."""
    done = rig.run(["rp", *argv], check=False)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("hint: ")]
    assert (done.returncode, len(lines)) == (125, 1), (argv, done.returncode, done.stderr)
    return str(lines[0]).removeprefix("rp: ")


def test_three_containers_reach_each_other_and_the_world(rig: Machine) -> None:
    for name in ("one", "two", "three"):
        start(rig, name, "--network", "web")
    found = [addresses(rig, name) for name in ("one", "two", "three")]
    assert [each["eth0"] for each in found] == [
        ["10.89.0.2/24"], ["10.89.0.3/24"], ["10.89.0.4/24"],
    ]  # fmt: skip
    # Their own ways out, with the host's address.
    assert all("10.99.0.2/24" in each["tap0"] for each in found)
    assert reaches(rig, "one", "10.89.0.3")
    assert reaches(rig, "two", "10.89.0.4")
    assert reaches(rig, "three", "10.89.0.2")
    # The end of one is nothing to the others, and its address is free.
    rig.run(["rp", "rm", "-f", "two"])
    assert reaches(rig, "one", "10.89.0.4")
    start(rig, "four", "--network", "web")
    assert addresses(rig, "four")["eth0"] == ["10.89.0.3/24"]
    rig.run(["rp", "restart", "one"])
    assert reaches(rig, "one", "10.89.0.3")
    shown = rig.run(["rp", "ps", "--filter", "network=web", "--format", "{{.Names}} {{.Networks}}"])
    assert sorted(shown.stdout.splitlines()) == ["four web", "one web", "three web"]
    # With its last member the service goes.
    rig.run(["rp", "rm", "-f", "one", "three", "four"])
    await_("the service ends", lambda: unit(rig, "web", "LoadState") == ["not-found"])


def test_networks_are_apart_and_a_container_may_be_in_several(rig: Machine) -> None:
    start(rig, "web1", "--network", "web")
    start(rig, "back1", "--network", "back")
    start(rig, "both", "--network", "web", "--network", "back:interface_name=inner,ip=10.89.1.77")
    assert not reaches(rig, "web1", "10.89.1.2")
    found = addresses(rig, "both")
    assert found["eth0"] == ["10.89.0.3/24"]
    assert found["inner"][0] == "10.89.1.77/24"
    assert found["inner"][1].startswith("fd")
    assert reaches(rig, "both", "10.89.0.2")
    assert reaches(rig, "both", "10.89.1.2")
    ipv6 = settings(rig, "back1")["back"]["GlobalIPv6Address"]
    assert reaches(rig, "both", ipv6)
    # IPv6 is off where there is no address of it; what others advertise is not believed.
    read = "cat /proc/sys/net/ipv6/conf/{eth0/disable_ipv6,inner/accept_ra,inner/disable_ipv6}"
    paths = read.replace("cat /proc/sys/net/ipv6/conf/{", "").rstrip("}").split(",")
    script = "cat " + " ".join(f"/proc/sys/net/ipv6/conf/{path}" for path in paths)
    assert inside(rig, "both", script).stdout.split() == ["1", "0", "0"]


def test_connect_and_disconnect_while_it_runs(rig: Machine) -> None:
    start(rig, "plain")
    start(rig, "web1", "--network", "web")
    rig.run(["rp", "network", "connect", "--alias", "second", "web", "plain"])
    shown = settings(rig, "plain")["web"]
    assert shown["Aliases"][0] == "second"
    # eth0 is its way out: it was started without networks.
    assert addresses(rig, "plain")["eth1"] == [f"{shown['IPAddress']}/24"]
    assert reaches(rig, "web1", settings(rig, "plain")["web"]["IPAddress"])
    assert "is in network web already" in refused(rig, "network", "connect", "web", "plain")
    rig.run(["rp", "network", "connect", "--ip", "10.89.1.9", "back", "plain"])
    assert settings(rig, "plain")["back"]["IPAddress"] == "10.89.1.9"
    rig.run(["rp", "network", "disconnect", "web", "plain"])
    assert list(settings(rig, "plain")) == ["back"]
    assert sorted(addresses(rig, "plain")) == ["eth0", "eth2", "lo"]
    assert "is not in network web" in refused(rig, "network", "disconnect", "web", "plain")
    # The record was changed: the next start joins what is left.
    rig.run(["rp", "restart", "plain"])
    assert addresses(rig, "plain")["eth0"][0] == "10.89.1.9/24"
    start(rig, "host", "--network", "host")
    assert "has --network host" in refused(rig, "network", "connect", "web", "host")


def test_killed_service_comes_back_and_nobody_notices(rig: Machine) -> None:
    start(rig, "one", "--network", "web")
    start(rig, "two", "--network", "web")
    pid = unit(rig, "web", "MainPID")
    ping = rig.popen(
        ["rp", "exec", "one", "ping", "-c", "20", "-i", "0.1", "10.89.0.3"], stdout=-1, text=True
    )
    rig.run(["systemctl", "--user", "kill", "--signal=KILL", "rp-network-web.service"])
    assert ping.communicate(timeout=WAIT_S)[0].find(" 20 packets received") > 0
    await_("systemd notices", lambda: unit(rig, "web", "MainPID") not in (pid, ["0"]))
    await_("systemd starts it again", lambda: unit(rig, "web", "ActiveState") == ["active"])
    # It knows who is there: their addresses are not given out again, and they are let go.
    start(rig, "three", "--network", "web")
    assert addresses(rig, "three")["eth0"] == ["10.89.0.4/24"]
    assert reaches(rig, "three", "10.89.0.2")
    rig.run(["rp", "rm", "-f", "one", "two", "three"])
    await_("the service ends", lambda: unit(rig, "web", "LoadState") == ["not-found"])


def test_stopped_service_loses_its_bridge_and_reload_makes_it_anew(rig: Machine) -> None:
    start(rig, "one", "--network", "web")
    start(rig, "two", "--network", "web")
    rig.run(["systemctl", "--user", "stop", "rp-network-web.service"])
    await_("the interface goes", lambda: "eth0" not in addresses(rig, "one"))
    rig.run(["rp", "network", "reload", "--all"])
    assert addresses(rig, "two")["eth0"] == ["10.89.0.3/24"]
    assert reaches(rig, "one", "10.89.0.3")


@pytest.mark.row("CVE-2024-32473", "--internal: no route, no IPv6 that was not asked for")
def test_internal_network_has_no_way_out(rig: Machine) -> None:
    rig.run(["rp", "network", "create", "--internal", "inner"])
    start(rig, "one", "--network", "inner")
    start(rig, "two", "--network", "inner")
    found = addresses(rig, "one")
    assert sorted(found) == ["eth0", "lo"]
    assert reaches(rig, "one", settings(rig, "two")["inner"]["IPAddress"])
    assert not inside(rig, "one", "ip route").stdout.count("default")
    # Not even a link-local one.
    assert " eth0\n" not in inside(rig, "one", "cat /proc/net/if_inet6").stdout
    assert not reaches(rig, "one", "10.99.0.1")
    # In another network too it has one.
    start(rig, "three", "--network", "inner", "--network", "web")
    assert reaches(rig, "three", "10.99.0.1") or "tap0" in addresses(rig, "three")


def test_addresses_that_were_asked_for(rig: Machine) -> None:
    mac = "02:00:00:00:00:07"
    start(rig, "one", "--network", "web", "--ip", "10.89.0.200", "--mac-address", mac)
    assert addresses(rig, "one")["eth0"] == ["10.89.0.200/24"]
    assert mac in inside(rig, "one", "ip link show eth0").stdout
    shown = settings(rig, "one")["web"]
    assert (shown["IPAddress"], shown["Gateway"], shown["MacAddress"]) == (
        "10.89.0.200", "10.89.0.1", mac,
    )  # fmt: skip
    run = ("run", "--rm", "--network")
    assert "address 10.89.0.200 is in use" in refused(rig, *run, "web:ip=10.89.0.200", "alpine")
    assert "is in no subnet" in refused(rig, *run, "web:ip=10.99.0.9", "alpine")
    assert "is no host address" in refused(rig, *run, "web:ip=10.89.0.255", "alpine")
    assert f"{mac} is in use" in refused(rig, *run, f"web:mac={mac}", "alpine")
    assert "does not exist" in refused(rig, *run, "nowhere", "alpine")
    assert "given more than once" in refused(rig, *run, "web", "--network", "web", "alpine")
    assert "does not go with" in refused(rig, *run, "web", "--network", "host", "alpine")
    assert rig.run(["rp", "ps", "-aq"]).stdout.count("\n") == 1


def test_a_full_network(rig: Machine) -> None:
    rig.run(["rp", "network", "create", "--subnet", "10.89.7.0/30", "tiny"])
    start(rig, "one", "--network", "tiny")
    line = refused(rig, "run", "--rm", "--network", "tiny", "alpine")
    assert "no free address" in line
    # What a killed supervisor held is free again.
    rig.run(["systemctl", "--user", "kill", "--signal=KILL", "rp-one.service"])
    await_("it is dead", lambda: "Up" not in rig.run(["rp", "ps", "-a"]).stdout)
    rig.run(["rp", "run", "--rm", "--network", "tiny", "alpine", "true"])


def test_bad_networks_are_refused(rig: Machine) -> None:
    create = ("network", "create")
    expected = {
        ("--subnet", "10.89.0.128/25", "x"): "overlaps 10.89.0.0/24 of network web",
        ("--subnet", "10.99.0.0/16", "x"): "of the host's routes",
        ("--subnet", "10.70.0.0/24", "--gateway", "10.71.0.1", "x"): "is not in subnet",
        ("web",): "exists already",
        ("a/b",): "is not valid",
    }
    for words, text in expected.items():
        assert text in refused(rig, *create, *words), words
    assert rig.run(["rp", "network", "exists", "x"], check=False).returncode == 1
    assert rig.run(["rp", *create, "--ignore", "web"]).stdout == "web\n"


def test_a_network_in_use_is_kept(rig: Machine) -> None:
    for name in ("used", "unused"):
        rig.run(["rp", "network", "create", "--label", "of=test", name])
    start(rig, "one", "--network", "used")
    done = rig.run(["rp", "network", "rm", "used"], check=False)
    assert (done.returncode, "is used by one" in done.stderr) == (2, True)
    prune = ["rp", "network", "prune", "-f", "--filter", "label=of=test"]
    assert rig.run(prune).stdout == "unused\n"
    assert rig.run(["rp", "network", "rm", "-f", "used"]).stdout == "used\n"
    assert rig.run(["rp", "ps", "-aq"]).stdout == ""
    assert rig.run(["rp", "network", "rm", "used"], check=False).returncode == 1


def test_json_is_podmans(rig: Machine) -> None:
    argv = ["network", "create", "--subnet", "10.66.0.0/24", "--ip-range", "10.66.0.64/26"]
    argv += ["--label", "a=b", "--opt", "mtu=1400", "--internal", "--ipv6", "twin"]
    rig.run(["rp", *argv])
    rig.run(["podman", *argv])
    try:
        for shown in (["network", "inspect", "twin"], ["network", "ls", "--format", "json"]):
            ours, theirs = (
                next(
                    each
                    for each in json.loads(rig.run([program, *shown]).stdout)
                    if each["name"] == "twin"
                )
                for program in ("rp", "podman")
            )
            assert list(ours) == list(theirs)
            for document in (ours, theirs):
                for key in ("id", "created", "network_interface"):
                    del document[key]
                del document["subnets"][1]
                del document["subnets"][0]["lease_range"]
            assert ours == theirs
    finally:
        rig.run(["podman", "network", "rm", "twin"])
        # Its addresses, which it keeps.
        rig.run(["sh", "-c", 'rm -f "$XDG_RUNTIME_DIR"/containers/networks/ipam.db*'])
    form = "{{.Name}} {{.Driver}} {{.Internal}} {{.Labels}} {{(index .Subnets 0).Gateway}}"
    done = rig.run(["rp", "network", "inspect", "--format", form, "twin"])
    assert done.stdout == "twin bridge true map[a:b] 10.66.0.1\n"


def test_mtu_and_routes_reach_the_container(rig: Machine) -> None:
    route = "10.44.0.0/16,10.89.3.9,7"
    argv = ["rp", "network", "create", "--subnet", "10.89.3.0/24", "--opt", "mtu=1400"]
    rig.run([*argv, "--route", route, "odd"])
    start(rig, "one", "--network", "odd")
    shown = inside(rig, "one", "cat /sys/class/net/eth0/mtu; ip route").stdout
    assert shown.startswith("1400\n")
    assert "10.44.0.0/16 via 10.89.3.9 dev eth0" in shown


@pytest.mark.limit(300 + CHURN_S)
def test_churn(rig: Machine) -> None:
    """Start and stop containers at random, also by force and with the service killed.

    What is left afterwards the fixture looks for.
    """
    chosen = random.Random(5)
    most, rounds = (50, 10**9) if CHURN_S else (5, 9)
    deadline = time.monotonic() + (CHURN_S or 1e9)
    running: list[str] = []
    for number in range(rounds):
        if time.monotonic() > deadline:
            break
        if running and (len(running) >= most or chosen.random() < 0.4):
            victim = running.pop(chosen.randrange(len(running)))
            rig.run(["rp", "rm", "-f", victim])
        elif chosen.random() < 0.1:
            network = chosen.choice(("web", "back"))
            unit_name = f"rp-network-{network}.service"
            rig.run(["systemctl", "--user", "kill", "--signal=KILL", unit_name], check=False)
        else:
            name = f"c{number}"
            start(rig, name, "--network", "web", "--network", "back")
            running.append(name)
    found = [settings(rig, name) for name in running]
    for network in ("web", "back"):
        given = [each[network]["IPAddress"] for each in found]
        assert len(set(given)) == len(given)
    for name in running[:3]:
        for each in found[:5]:
            assert reaches(rig, name, each["web"]["IPAddress"])
            assert reaches(rig, name, each["back"]["IPAddress"])
