"""Subnets, addresses, attachments and the host's routes: pure functions."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootlesspy.errors import Conflict, UsageError
from rootlesspy.network import attachment, driver, host_routes, networks
from rootlesspy.network.attachment import Attachment
from rootlesspy.network.networks import Network, Subnet

if TYPE_CHECKING:
    from pathlib import Path

NET = ipaddress.ip_network("10.70.0.0/24")
WEB = Network("web", "a" * 64, 0.0, (Subnet("10.70.0.0/24", "10.70.0.1"),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.70.0.1/24", "zero host part"),
        ("10.70.0.0/255.255.255.0", "zero host part"),
        ("10.70.0.0", "zero host part"),
        ("10.70.0.0/²4", "zero host part"),
        ("10.70.0.0/31", "has no room"),
        ("fd00::/127", "has no room"),
        ("127.0.0.0/8", "is not for containers"),
        ("0.0.0.0/0", "is not for containers"),
        ("224.0.0.0/24", "is not for containers"),
        ("x/24", "zero host part"),
    ],
)
def test_subnets_that_cannot_be(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        networks.parse_subnet(text)


def test_gateway_and_range() -> None:
    assert networks.make_subnet(NET) == Subnet("10.70.0.0/24", "10.70.0.1")
    made = networks.make_subnet(NET, "10.70.0.254", "10.70.0.128/26")
    assert made == Subnet("10.70.0.0/24", "10.70.0.254", "10.70.0.128", "10.70.0.191")
    assert networks.make_subnet(NET, ip_range="10.70.0.9-10.70.0.12").last == "10.70.0.12"


@pytest.mark.parametrize(
    ("gateway", "ip_range"),
    [
        ("10.71.0.1", ""),
        ("10.70.0.0", ""),
        ("10.70.0.255", ""),
        ("gate", ""),
        ("fe80::1%eth0", ""),
        ("", "10.70.1.0/25"),
        ("", "10.70.0.9-10.70.0.3"),
        ("", "10.70.0.9"),
        ("", "10.70.0.9/25"),
        ("", "10.70.0.9-x"),
    ],
)
def test_gateways_and_ranges_that_cannot_be(gateway: str, ip_range: str) -> None:
    with pytest.raises(UsageError):
        networks.make_subnet(NET, gateway, ip_range)


def test_addresses_are_given_from_the_lowest() -> None:
    subnet = Subnet("10.70.0.0/29", "10.70.0.1")
    taken: set[str] = set()
    for expected in range(2, 7):
        address = networks.give_address(subnet, taken)
        assert address == f"10.70.0.{expected}"
        taken.add(address)
    with pytest.raises(Conflict, match="no free address"):
        networks.give_address(subnet, taken)
    # What was given back is given again.
    assert networks.give_address(subnet, taken - {"10.70.0.3"}) == "10.70.0.3"


def test_addresses_that_were_asked_for() -> None:
    subnet = Subnet("10.70.0.0/24", "10.70.0.1", "10.70.0.100", "10.70.0.110")
    assert networks.give_address(subnet, set()) == "10.70.0.100"
    # Outside of the range, inside of the subnet, as podman has it.
    assert networks.give_address(subnet, set(), "10.70.0.9") == "10.70.0.9"
    for wrong in ("10.70.0.0", "10.70.0.255", "10.71.0.1", "fd00::1"):
        with pytest.raises(UsageError):
            networks.give_address(subnet, set(), wrong)
    for used in ("10.70.0.1", "10.70.0.7"):
        with pytest.raises(Conflict, match="is in use"):
            networks.give_address(subnet, {"10.70.0.7"}, used)
    with pytest.raises(UsageError, match="in no subnet of network web"):
        networks.subnet_of(WEB, "10.9.9.9")


def test_ipv6_addresses_of_a_huge_subnet() -> None:
    subnet = Subnet("fd00:1::/64", "fd00:1::1")
    assert networks.give_address(subnet, {"fd00:1::2"}) == "fd00:1::3"
    assert networks.with_length(subnet, "fd00:1::3") == "fd00:1::3/64"


@given(st.sets(st.integers(0, 65535), max_size=40), st.integers(16, 24))
def test_free_subnets_overlap_nothing(places: set[int], length: int) -> None:
    taken = [f"10.{place >> 8}.{place & 255}.0/24" for place in places]
    taken.append(f"10.89.0.0/{length}")
    found = networks.free_ipv4(taken) if length == 24 else None
    if found is not None:
        assert not any(found.overlaps(ipaddress.ip_network(each)) for each in taken)
        assert found.network_address in ipaddress.ip_network("10.0.0.0/8")


def test_no_subnet_is_free() -> None:
    with pytest.raises(Conflict, match="no subnet is free"):
        networks.free_ipv4(["10.0.0.0/8"])
    assert str(networks.free_ipv4(["10.89.0.0/16"])) == "10.90.0.0/24"


def test_overlaps() -> None:
    with pytest.raises(Conflict, match=r"10.70.0.0/24 overlaps 10.0.0.0/8 of the host"):
        networks.check_overlap(NET, ["10.0.0.0/8"], "the host")
    networks.check_overlap(NET, ["fd00::/8", "10.71.0.0/16"], "the host")
    unique = networks.free_ipv6(["fd00::/64"], b"\x12\x34\x56\x78\x9a\xbc\xde")
    assert str(unique) == "fd12:3456:789a:bcde::/64"


def test_all_that_network_options_say() -> None:
    text = "web:alias=a,alias=b,ip=10.70.0.9,ip6=FD00::9,mac=02-00-00-00-00-0A,interface_name=inner"
    found = attachment.parse(text)
    assert found == Attachment(
        "web", ("a", "b"), "10.70.0.9", "fd00::9", "02:00:00:00:00:0a", "inner"
    )
    assert attachment.parse(attachment.spelled(found)) == found
    assert attachment.restore([*found[:1], list(found.aliases), *found[2:]]) == found


@pytest.mark.parametrize(
    "text",
    [
        "web:", "web:x", "web:alias=", "web:alias=-a", "web:alias=a b", "web:colour=red",
        "web:ip=fd00::1", "web:ip6=10.0.0.1", "web:ip=10.0.0", "web:mac=01:00:00:00:00:01",
        "web:mac=02:00:00:00:01", "web:mac=zz:00:00:00:00:01", "web:interface_name=lo",
        "web:interface_name=a/b", "web:interface_name=abcdefghijklmnop", "web:alias=a..b",
    ],
)  # fmt: skip
def test_attachments_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError):
        attachment.parse(text)


@given(st.text(max_size=60))
def test_attachments_never_end_otherwise(text: str) -> None:
    try:
        found = attachment.parse(f"web:{text}")
    except UsageError:
        return
    assert attachment.parse(attachment.spelled(found)) == found


def test_networks_beside_the_way_out() -> None:
    found = attachment.parse_all(["pasta:--mtu,1500", "web", "back:ip=10.70.0.9"])
    assert (found.driver, found.options, found.chosen) == ("pasta", ("--mtu", "1500"), True)
    assert [each.name for each in found.networks] == ["web", "back"]
    alone = attachment.parse_all(["web"], ip="10.70.0.9", mac="02:00:00:00:00:01", aliases=["x"])
    assert alone.networks == (Attachment("web", ("x",), "10.70.0.9", "", "02:00:00:00:00:01"),)
    assert not alone.chosen
    assert driver.restore({**alone._asdict(), "networks": [list(alone.networks[0])]}) == alone


@pytest.mark.parametrize(
    ("texts", "given"),
    [
        (["web", "web"], {}),
        (["host", "web"], {}),
        (["container:x", "web"], {}),
        (["pasta", "none", "web"], {}),
        (["web", "back"], {"ip": "10.0.0.1"}),
        (["pasta"], {"ip": "10.0.0.1"}),
        ([], {"aliases": ["x"]}),
    ],
)
def test_networks_that_do_not_go_together(texts: list[str], given: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        attachment.parse_all(texts, **given)


def test_the_hosts_routes(tmp_path: Path) -> None:
    ipv4, ipv6 = tmp_path / "route", tmp_path / "ipv6_route"
    ipv4.write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100630A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0000630A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "eth1\t0000A8C0\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    line = "{} {} " + "0" * 32 + " 00 " + "0" * 32 + " 00000100 00000001 00000000 {} eth0\n"
    ipv6.write_text(
        line.format("fd99" + "0" * 28, "40", "00000001")
        + line.format("fe80" + "0" * 28, "40", "00000001")
        + line.format("fd99" + "0" * 27 + "2", "80", "80200001")
        + line.format("0" * 32, "00", "00200200")
    )
    assert host_routes.destinations(str(ipv4), str(ipv6)) == ("10.99.0.0/24", "fd99::/64")
    assert host_routes.destinations("/nonexistent", "/nonexistent") == ()
