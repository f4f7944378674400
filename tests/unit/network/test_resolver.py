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
