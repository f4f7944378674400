"""Networks and leases on disk, and what is made of requests."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.cli import network_rows
from rootlesspy.engine import names, record
from rootlesspy.engine.networks import (
    client,
    description,
    leases,
    management,
    membership,
    store,
    table,
)
from rootlesspy.engine.networks.leases import Lease
from rootlesspy.engine.networks.management import Wanted
from rootlesspy.errors import Conflict, Error, NotFound, UsageError
from rootlesspy.network import host_routes
from rootlesspy.network.attachment import Attachment
from rootlesspy.network.driver import NetworkRequest
from rootlesspy.paths import Paths
from rootlesspy.systemd import service as unit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(host_routes, "destinations", lambda: ("10.99.0.0/24",))
    (tmp_path / "run").mkdir()
    return Paths(f"{tmp_path}/data", f"{tmp_path}/run/rootlesspy", f"{tmp_path}/config")


@pytest.fixture
def containers(paths: Paths) -> Iterator[list[str]]:
    """Make three containers that somebody supervises."""
    ids = [names.new_id() for _ in range(3)]
    fds = []
    for each in ids:
        os.makedirs(paths.container(each))
        fds.append(os.open(paths.container(each), os.O_RDONLY))
        fcntl.flock(fds[-1], fcntl.LOCK_EX)
    yield ids
    for fd in fds:
        os.close(fd)


def lease(container_id: str, name: str = "db") -> Lease:
    return Lease(container_id, name, ("alias",), (), "", "eth0")


def test_what_is_written_is_read_again(paths: Paths) -> None:
    wanted = Wanted(
        name="web",
        subnets=("10.70.0.0/24",),
        ranges=("10.70.0.128/25",),
        ipv6=True,
        internal=True,
        dns_servers=("9.9.9.9",),
        options=(("mtu", "1400"),),
        labels=(("a", "b"),),
        routes=("10.1.0.0/16,10.70.0.9",),
    )
    made = management.create(paths, wanted)
    assert store.load(paths, "web") == made
    assert store.find(paths, made.id[:8]) == made
    assert (made.mtu, made.ipv6, len(made.subnets)) == (1400, True, 2)
    shown = description.inspected(paths, made)
    assert shown["subnets"][0]["lease_range"] == {
        "start_ip": "10.70.0.128", "end_ip": "10.70.0.255",
    }  # fmt: skip
    assert shown["containers"] == {}
    assert management.create(paths, wanted, ignore=True) == made


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(name="web"),
        Wanted(name="host"),
        Wanted(name="../x"),
        Wanted(name="x", subnets=("10.99.0.0/16",)),
        Wanted(name="x", subnets=("10.88.255.0/23",)),
        Wanted(name="x", subnets=("10.70.0.0/24", "10.70.0.0/25")),
        Wanted(name="x", subnets=("10.70.0.0/24",), gateways=("10.71.0.1",)),
        Wanted(name="x", gateways=("10.89.1.1", "10.89.1.2")),
        Wanted(name="x", ranges=("10.70.0.0/28",)),
        Wanted(name="x", options=(("mtu", "100"),)),
        Wanted(name="x", options=(("mtu", "1_500"),)),
        Wanted(name="x", options=(("vlan", "5"),)),
        Wanted(name="x", dns=False, dns_servers=("9.9.9.9",)),
        Wanted(name="x", dns_servers=("nine",)),
        Wanted(name="x", routes=("10.0.0.0/8",)),
        Wanted(name="x", routes=("10.0.0.0/8,1.2.3.4",)),
        Wanted(name="x", routes=("10.0.0.0/8,10.89.1.9,-1",)),
    ],
)
def test_networks_that_cannot_be_made(paths: Paths, wanted: Wanted) -> None:
    management.create(paths, Wanted(name="web", subnets=("10.88.0.0/16",)))
    with pytest.raises(Error):
        management.create(paths, wanted)
    assert store.all_names(paths) == ["web"]


def test_names_and_subnets_without_any(paths: Paths) -> None:
    made = [management.create(paths, Wanted()) for _ in range(3)]
    assert [each.name for each in made] == ["network1", "network2", "network3"]
    assert [each.subnets[0].subnet for each in made] == [
        "10.89.0.0/24", "10.89.1.0/24", "10.89.2.0/24",
    ]  # fmt: skip


def test_a_damaged_network_stops_no_other(paths: Paths) -> None:
    management.create(paths, Wanted(name="web"))
    for name, content in (("bad", "{"), ("worse", '{"version": 1}'), ("a b", "{}")):
        with open(f"{paths.networks}/{name}.json", "w", encoding="utf-8") as file:
            file.write(content)
    assert [each.name for each in store.all_networks(paths)] == ["web"]
    for name in ("bad", "worse", "../web", ""):
        with pytest.raises(Error):
            store.load(paths, name)


def test_leases_are_as_alive_as_their_containers(paths: Paths, containers: list[str]) -> None:
    network = management.create(paths, Wanted(name="web", subnets=("10.70.0.0/29",)))
    anything = Attachment("web")
    made = [leases.reserve(paths, network, anything, lease(each)) for each in containers]
    assert [each.addresses for each in made] == [
        ("10.70.0.2/29",), ("10.70.0.3/29",), ("10.70.0.4/29",),
    ]  # fmt: skip
    assert len({each.mac for each in made}) == 3
    assert leases.load(paths, "web", containers[1]) == made[1]
    # Asked again it gets the same, and not one more.
    again = leases.reserve(paths, network, anything, lease(containers[0]))
    assert again.addresses == made[0].addresses
    asked = Attachment("web", ip="10.70.0.3")
    with pytest.raises(Conflict, match="in use"):
        leases.reserve(paths, network, asked, lease(containers[0]))
    # One that nobody supervises has lost its own.
    stranger = names.new_id()
    os.makedirs(paths.container(stranger))
    leases.save(paths, "web", lease(stranger)._replace(addresses=("10.70.0.5/29",)))
    assert len(leases.living(paths, "web")) == 3
    taken = leases.reserve(paths, network, Attachment("web", ip="10.70.0.5"), lease(containers[0]))
    assert taken.addresses == ("10.70.0.5/29",)
    assert leases.load(paths, "web", stranger) is None
    leases.release(paths, "web", containers[0])
    leases.release(paths, "web", containers[0])
    assert len(leases.living(paths, "web")) == 2


def test_the_lease_of_a_pod_counts_while_its_service_lives(paths: Paths) -> None:
    directory = f"{paths.pods}/web"
    os.makedirs(directory)
    pod_id = names.new_id()
    network = management.create(paths, Wanted(name="net", subnets=("10.70.0.0/29",)))
    fd = os.open(directory, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    wanted = lease(pod_id, "web")._replace(pod="web")
    made = leases.reserve(paths, network, Attachment("net"), wanted)
    assert leases.living(paths, "net") == [made]
    leases.rename(paths, "net", pod_id, "other")
    assert [each.name for each in leases.living(paths, "net")] == ["other"]
    # One that has none is not given one.
    leases.rename(paths, "net", names.new_id(), "nobody")
    os.close(fd)
    assert leases.living(paths, "net", purge=True) == []
    assert leases.load(paths, "net", pod_id) is None


def test_directory_of_leases_goes_and_comes(paths: Paths) -> None:
    fd = leases.lock(paths, "web")
    leases.remove_directory(paths, "web")
    assert not os.path.exists(f"{paths.runtime}/networks")
    os.close(fd)
    os.close(leases.lock(paths, "web"))
    assert os.path.isdir(f"{paths.network_runtime('web')}/leases")


def test_the_table_of_names_follows_the_leases(paths: Paths, containers: list[str]) -> None:
    web = management.create(paths, Wanted(name="web", subnets=("10.70.0.0/24",)))
    back = management.create(paths, Wanted(name="back", subnets=("10.71.0.0/24",)))
    live = table.LiveTable(paths, web)
    asker = leases.reserve(paths, web, Attachment("web"), lease(containers[0], "asker"))
    leases.save(paths, "web", asker._replace(pid=1))
    view = live.view("10.70.0.2")
    assert view is not None
    assert view.addresses["asker"] == ("10.70.0.2",)
    # In another network too: its names are known then, those of others are not.
    other = leases.reserve(paths, back, Attachment("back"), lease(containers[1], "other"))
    leases.save(paths, "back", other._replace(pid=1))
    found = live.view("10.70.0.2")
    assert found is not None
    assert "other" not in found.addresses
    both = leases.reserve(paths, back, Attachment("back"), lease(containers[0], "asker"))
    leases.save(paths, "back", both._replace(pid=1))
    found = live.view("10.70.0.2")
    assert found is not None
    assert found.addresses["other"] == ("10.71.0.2",)
    assert live.view("10.99.0.1") is None


def test_way_out_and_interfaces(paths: Paths) -> None:
    management.create(paths, Wanted(name="inner", internal=True))
    management.create(paths, Wanted(name="web"))
    inner, web = Attachment("inner"), Attachment("web", interface="eth1")

    def way_out(*networks: Attachment, chosen: str = "") -> str:
        request = NetworkRequest(chosen or "pasta", (), bool(chosen), networks)
        return membership.resolve(paths, request).driver

    assert way_out(inner) == "none"
    assert way_out(inner, web) == "pasta"
    assert way_out(inner, chosen="slirp4netns") == "slirp4netns"
    with pytest.raises(NotFound):
        way_out(Attachment("nowhere"))
    with pytest.raises(UsageError, match="in no subnet"):
        way_out(Attachment("web", ip="10.1.1.1"))
    with pytest.raises(UsageError, match="more than once"):
        way_out(web, inner._replace(interface="eth1"))
    assert membership.interface_names((inner, web, inner)) == ["eth0", "eth1", "eth2"]
    assert membership.interface_names((web, inner)) == ["eth1", "eth0"]


def test_filters(paths: Paths) -> None:
    web = management.create(paths, Wanted(name="web", labels=(("a", "1"), ("b", ""))))
    back = management.create(paths, Wanted(name="back"))

    def fitting(*filters: str) -> list[str]:
        fits = network_rows.matching(filters, used={"web"})
        return [each.name for each in (web, back) if fits(each)]

    assert fitting() == ["web", "back"]
    assert fitting("name=we") == ["web"]
    assert fitting("name=we", "name=ba") == ["web", "back"]
    assert fitting("label=a=1", "label=b") == ["web"]
    assert fitting("label=a=2") == []
    assert fitting("label!=a") == ["back"]
    assert fitting("dangling=true") == ["back"]
    assert fitting(f"id={web.id[:10]}") == ["web"]
    assert fitting("driver=macvlan") == []
    assert fitting("until=1h") == []
    for wrong in ("name", "colour=red", "name=(", "dangling=x"):
        with pytest.raises(UsageError):
            fitting(wrong)
    with pytest.raises(UsageError):
        network_rows.matching(["name=x"], used=(), keys=network_rows.PRUNE_KEYS)


def test_the_service_keeps_its_descriptors(paths: Paths) -> None:
    made = client._service(paths, "web")
    assert made.name == "rp-network-web.service"
    found = {each.key: each.value for each in unit.settings(made, 252)}
    assert found["FileDescriptorStoreMax"] == 64
    assert found["Restart"] == "on-failure"
    assert made.command[-2:] == ("network-service", "web")
    assert record.is_locked(paths.container("x" * 64)) is False
