"""/etc/hosts and /etc/resolv.conf of containers."""

from __future__ import annotations

import pytest

from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.network.addresses import Addresses
from rootlesspy.network.resolver import hosts, resolv_conf

PASTA = Addresses(container=("192.168.1.5", "2001:db8::5"), host="169.254.1.2", dns="169.254.1.1")
HOSTS = """\
# the host's own
127.0.0.1 localhost
127.0.1.1 desk.example desk  # this machine
::1 localhost ip6-localhost
192.168.1.9\tnas nas.example
192.168.1.5 desk-of-the-lan
192.168.1.8 printer
"""


def is_host_address(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "192.168.1.5")


def resolve(text: str, **given: object) -> str | None:
    values: dict[str, object] = {
        "driver": "pasta", "addresses": PASTA, "is_host_address": is_host_address, **given
    }  # fmt: skip
    return resolv_conf(text, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("nameserver 9.9.9.9\n", "nameserver 9.9.9.9\n", id="reachable"),
        pytest.param("nameserver 127.0.0.53\n", "nameserver 169.254.1.1\n", id="systemd-resolved"),
        pytest.param("nameserver 127.0.0.1\n", "nameserver 169.254.1.1\n", id="dnsmasq"),
        pytest.param("nameserver ::1\n", "nameserver 169.254.1.1\n", id="loopback-ipv6"),
        pytest.param("nameserver 192.168.1.5\n", "nameserver 169.254.1.1\n", id="own-address"),
        pytest.param("", "nameserver 169.254.1.1\n", id="empty"),
        pytest.param("garbage\nnameserver\n", "nameserver 169.254.1.1\n", id="no-value"),
        pytest.param("nameserver fe80::1%eth0\n", "nameserver 169.254.1.1\n", id="link-local"),
        pytest.param(
            "nameserver 127.0.0.53\nnameserver 127.0.0.1\nnameserver 9.9.9.9\n",
            "nameserver 169.254.1.1\nnameserver 9.9.9.9\n",
            id="mixed",
        ),
        pytest.param(
            "".join(f"nameserver 9.9.9.{last}\n" for last in range(5)),
            "nameserver 9.9.9.0\nnameserver 9.9.9.1\nnameserver 9.9.9.2\n",
            id="glibc-reads-three",
        ),
        pytest.param(
            "domain old\nsearch a.example b.example\noptions ndots:2\nnameserver 9.9.9.9 # x\n",
            "search a.example b.example\nnameserver 9.9.9.9\noptions ndots:2\n",
            id="search-and-options",
        ),
    ],
)
def test_the_hosts_resolvers(host: str, expected: str) -> None:
    assert resolve(host) == expected


def test_options_replace_kind_by_kind() -> None:
    host = "search a.example\noptions ndots:2\nnameserver 9.9.9.9\n"
    assert resolve(host, dns=("127.0.0.1",)) == (
        "search a.example\nnameserver 127.0.0.1\noptions ndots:2\n"
    )
    assert resolve(host, dns_search=("b",)) == "search b\nnameserver 9.9.9.9\noptions ndots:2\n"
    assert resolve(host, dns_search=(".",)) == "nameserver 9.9.9.9\noptions ndots:2\n"
    assert resolve(host, dns_options=("trust-ad",)) == (
        "search a.example\nnameserver 9.9.9.9\noptions trust-ad\n"
    )
    assert resolve(host, dns=("none",)) is None


def test_modes_without_a_helper() -> None:
    assert resolve("nameserver 127.0.0.53\n", driver="host") == "nameserver 127.0.0.53\n"
    assert resolve("nameserver 9.9.9.9\n", driver="none", addresses=Addresses()) == ""


@pytest.mark.parametrize("value", ["a b", "a\nnameserver 6.6.6.6", "", "a#b", "a\x1b"])
def test_a_value_cannot_become_a_line(value: str) -> None:
    with pytest.raises(UsageError):
        resolve("", dns_search=(value,))
    with pytest.raises(UsageError):
        hosts("", driver="pasta", addresses=PASTA, hostname="c", add_hosts=((value, "1.2.3.4"),))


def test_hosts() -> None:
    text = hosts(
        HOSTS,
        driver="pasta",
        addresses=PASTA,
        hostname="box",
        name="web",
        add_hosts=(("nas", "10.0.0.1"), ("upstairs", "host-gateway")),
    )
    assert text.splitlines() == [
        "10.0.0.1\tnas",
        "169.254.1.2\tupstairs",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "192.168.1.5\tbox web",
        "2001:db8::5\tbox web",
        "169.254.1.2\thost.containers.internal host.docker.internal",
        "192.168.1.9\tnas.example",
        "192.168.1.8\tprinter",
    ]


def test_hosts_without_network_names_itself() -> None:
    text = hosts("", driver="none", addresses=Addresses(), hostname="box", name="box")
    assert text.splitlines()[-1] == "127.0.1.1\tbox"


def test_hosts_in_mode_host_is_the_hosts() -> None:
    shared = Addresses(host="127.0.0.1")
    lines = hosts(HOSTS, driver="host", addresses=shared, hostname="desk").splitlines()
    assert "127.0.1.1\tdesk.example desk" in lines
    assert hosts(HOSTS, driver="host", addresses=shared, hostname="box").endswith(
        "127.0.1.1\tbox\n"
    )


def test_host_gateway_without_an_address() -> None:
    with pytest.raises(Unsupported) as caught:
        hosts(
            "",
            driver="pasta",
            addresses=Addresses(),
            hostname="c",
            add_hosts=(("h", "host-gateway"),),
        )
    assert caught.value.hint


# --- user-defined networks --------------------------------------------------------------------

IN_NETWORKS = PASTA._replace(
    networks=("10.89.0.2", "fd00::2", "10.90.0.2"), name_servers=("10.89.0.1", "fd00::1")
)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "search dns.podman lan\nnameserver 10.89.0.1\nnameserver fd00::1\noptions edns0\n"),
        # The networks' servers ask 9.9.9.9.
        ({"dns": ("9.9.9.9",), "dns_search": ("corp",)},
         "search dns.podman corp\nnameserver 10.89.0.1\nnameserver fd00::1\noptions edns0\n"),
        ({"dns_search": (".",), "dns_options": ("ndots:3",)},
         "nameserver 10.89.0.1\nnameserver fd00::1\noptions ndots:3\n"),
        ({"dns": ("none",)}, None),
    ],
)  # fmt: skip
def test_servers_of_networks(asked: dict[str, object], expected: str | None) -> None:
    host = "search lan\nnameserver 127.0.0.53\noptions edns0\n"
    assert resolve(host, addresses=IN_NETWORKS, **asked) == expected


def test_networks_without_names_leave_the_hosts_resolvers() -> None:
    addresses = IN_NETWORKS._replace(name_servers=())
    assert resolve("nameserver 9.9.9.9\n", addresses=addresses) == "nameserver 9.9.9.9\n"


def test_hosts_in_networks() -> None:
    text = hosts(HOSTS, driver="pasta", addresses=IN_NETWORKS, hostname="box", name="web")
    lines = text.splitlines()
    assert [line for line in lines if line.endswith("\tbox web")] == [
        "10.89.0.2\tbox web", "fd00::2\tbox web", "10.90.0.2\tbox web"
    ]  # fmt: skip
    assert "169.254.1.2\thost.containers.internal host.docker.internal" in lines
    assert "192.168.1.5" not in text


# --- resolvers of the host itself -------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("nameserver ::1\n", "nameserver fd72::53\n"),
        (
            "nameserver 127.0.0.1\nnameserver ::1\n",
            "nameserver 169.254.1.1\nnameserver fd72::53\n",
        ),
        ("", "nameserver 169.254.1.1\n"),
    ],
)
def test_resolvers_of_the_host_itself_by_version(host: str, expected: str) -> None:
    assert resolve(host, addresses=PASTA._replace(dns6="fd72::53")) == expected


def test_without_ipv6_the_forwarder_is_the_other_one() -> None:
    assert resolve("nameserver ::1\n") == "nameserver 169.254.1.1\n"
