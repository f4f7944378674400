"""Choosing a driver and writing its command line."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

import pytest

from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.network import driver, pasta, slirp4netns
from rootlesspy.network.driver import NetworkRequest, parse_network, select
from rootlesspy.network.ports import parse_publish

if TYPE_CHECKING:
    from pathlib import Path

NEW_PASTA = b"\0map-guest-addr\0"


def program(directory: Path, name: str, content: bytes = b"") -> None:
    (directory / name).write_bytes(content)
    (directory / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only directory where programs are found."""

    def find(name: str) -> str | None:
        path = f"{tmp_path}/{name}"
        return path if os.path.exists(path) else None

    monkeypatch.setattr("rootlesspy.network.process.find_program", find)
    monkeypatch.setattr("rootlesspy.network.pasta.find_program", find)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", NetworkRequest()),
        ("pasta", NetworkRequest("pasta", (), True)),
        ("pasta:--mtu,1500", NetworkRequest("pasta", ("--mtu", "1500"), True)),
        ("slirp4netns:mtu=1500", NetworkRequest("slirp4netns", ("mtu=1500",), True)),
        ("host", NetworkRequest("host", (), True)),
        ("none", NetworkRequest("none", (), True)),
    ],
)
def test_parse_network(text: str, expected: NetworkRequest) -> None:
    assert parse_network(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "bridge", "Pasta", " none", "none:", "host:x", "pasta:", "pasta:-a,,b", "pasta:sh",
        "pasta:--netns=/x", "pasta:-P,/tmp/x", "pasta:-f", "slirp4netns:mtu=1e3",
        "slirp4netns:mtu=1", "slirp4netns:mtu=65522", "slirp4netns:cidr=10.0.2.0/26",
        "slirp4netns:cidr=10.0.2.1/24", "slirp4netns:cidr=::/24",
        "slirp4netns:port_handler=rootlesskit", "slirp4netns:outbound_addr=eth0",
    ],
)  # fmt: skip
def test_parse_network_refuses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_network(text)


def pasta_arguments(publish: str = "", options: tuple[str, ...] = ()) -> str:
    ports = tuple(mapping for text in publish.split() for mapping in parse_publish(text))
    return " ".join(
        pasta.arguments(
            options, ports, guest_address="", netns_path="/proc/7/ns/net", userns_path="/proc/7/u"
        )
    )


def test_pasta_opens_nothing_that_was_not_asked_for() -> None:
    """podman issue 24045: by default pasta publishes every port that the container listens on."""
    arguments = pasta_arguments()
    assert "-t none -u none -T none -U none" in arguments
    assert "--no-map-gw" in arguments
    assert arguments.endswith("--userns /proc/7/u --netns /proc/7/ns/net")


@pytest.mark.parametrize(
    ("publish", "expected"),
    [
        ("8080:80", "-t 8080:80 -u none"),
        ("5353:53/udp", "-t none -u 5353:53"),
        ("127.0.0.1:8080:80 [::1]:8080:80", "-t 127.0.0.1/8080:80 -t ::1/8080:80 -u none"),
        ("8000-8999:1000-1999", "-t 8000-8999:1000-1999 -u none"),
        ("8000:80 8001:81 8002:90", "-t 8000-8001:80-81 -t 8002:90 -u none"),
        ("8000:80 127.0.0.1:8001:81", "-t 8000:80 -t 127.0.0.1/8001:81 -u none"),
    ],
)
def test_pasta_ports(publish: str, expected: str) -> None:
    assert f" {expected} -T none -U none " in pasta_arguments(publish)


def test_pasta_options_are_passed_and_replace_the_defaults() -> None:
    arguments = pasta_arguments(options=("--mtu", "1500", "-T", "5000", "--udp-ns=6000"))
    assert "--mtu 1500 -T 5000 --udp-ns=6000 -t none -u none --userns" in arguments
    assert "--no-map-gw" not in pasta_arguments(options=("--map-gw",))
    assert "--map-gw" not in pasta_arguments(options=("--map-gw",))


_ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
"""


@pytest.mark.parametrize(
    ("routes", "name"),
    [
        ("", ""),
        ("eth0\t0000630A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", ""),
        # 0.0.0.0/1 is no default route.
        ("eth1\t00000000\t0100620A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n", ""),
        (
            "wlan0\t00000000\t0100630A\t3\t0\t0\t0\t00000000\neth0\t00000000\t0100630A\t3\t0\t0\t9\t00000000\n",
            "wlan0",
        ),
        ("short\n", ""),
    ],
)
def test_the_device_is_called_as_pasta_would_call_it(
    monkeypatch: pytest.MonkeyPatch, routes: str, name: str
) -> None:
    def opened(path: str, mode: str) -> io.BytesIO:
        assert (path, mode) == ("/proc/net/route", "rb")
        return io.BytesIO((_ROUTES + routes).encode())

    monkeypatch.setattr(pasta, "open", opened, raising=False)
    assert pasta.template_interface() == name
    plain = driver.Selection(driver.NetworkRequest())
    assert driver.interface(plain) == name
    own = driver.NetworkRequest(options=("--mtu", "1400"))
    for request in (own, driver.NetworkRequest("slirp4netns"), driver.NetworkRequest("none")):
        assert driver.interface(plain._replace(request=request)) == ""


def test_a_device_that_is_there_is_named_to_pasta() -> None:
    paths = {"netns_path": "/proc/7/ns/net", "userns_path": "/proc/7/u"}
    arguments = pasta.arguments((), (), guest_address="", interface="wlan0", **paths)
    assert arguments[arguments.index("--ns-ifname") + 1] == "wlan0"
    assert "--ns-ifname" not in pasta_arguments()


def test_pasta_maps_a_port_one_way_only(programs: Path) -> None:
    program(programs, "pasta", NEW_PASTA)
    ports = parse_publish("127.0.0.1:8080:80") + parse_publish("[::1]:8080:81")
    with pytest.raises(UsageError, match="8080/tcp is published to 80 and to 81"):
        select(NetworkRequest(), ports)


def test_slirp4netns_is_closed_and_sandboxed() -> None:
    arguments = slirp4netns.arguments((), api="", netns_path="/proc/7/ns/net")
    assert {"--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"} <= set(arguments)
    assert arguments[-2:] == ["7", "tap0"]
    assert slirp4netns.addresses(("cidr=10.9.0.0/16",)).container == ("10.9.0.100",)
    assert slirp4netns.addresses(("cidr=10.9.0.0/16",)).dns == "10.9.0.3"


def test_slirp4netns_publishes_on_ipv4_only(programs: Path) -> None:
    program(programs, "slirp4netns")
    with pytest.raises(Unsupported, match="IPv4"):
        select(parse_network("slirp4netns"), parse_publish("[::1]:8080:80"))


def test_without_pasta_the_default_becomes_slirp4netns(programs: Path) -> None:
    program(programs, "slirp4netns")
    selection = select(NetworkRequest(), ())
    assert selection.request.driver == "slirp4netns"
    assert selection.notice == "pasta is not installed: using slirp4netns"


@pytest.mark.parametrize("installed", [[], ["slirp4netns"]])
def test_a_driver_that_was_named_has_no_substitute(programs: Path, installed: list[str]) -> None:
    for name in installed:
        program(programs, name)
    with pytest.raises(Unsupported, match="pasta is not installed") as caught:
        select(parse_network("pasta"), ())
    assert caught.value.hint == "sudo apt install passt"


def test_nothing_installed(programs: Path) -> None:
    with pytest.raises(Unsupported, match="pasta is not installed"):
        select(NetworkRequest(), ())
    with pytest.raises(Unsupported, match="slirp4netns is not installed"):
        select(parse_network("slirp4netns"), ())


@pytest.mark.parametrize(
    ("pasta_content", "slirp", "publish", "expected"),
    [
        pytest.param(NEW_PASTA, True, "", "pasta", id="new-pasta-has-a-local-mode"),
        pytest.param(b"", True, "", "slirp4netns", id="old-pasta"),
        pytest.param(b"", False, "", "none", id="old-pasta-alone"),
        pytest.param(b"", False, "8080:80", "", id="old-pasta-alone-with-ports"),
    ],
)
def test_no_default_route(
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    pasta_content: bytes,
    slirp: bool,
    publish: str,
    expected: str,
) -> None:
    program(programs, "pasta", pasta_content)
    if slirp:
        program(programs, "slirp4netns")
    monkeypatch.setattr(driver, "outbound_addresses", lambda: ())
    ports = parse_publish(publish) if publish else ()
    if not expected:
        with pytest.raises(Unsupported, match="no default route"):
            select(NetworkRequest(), ports)
        return
    selection = select(NetworkRequest(), ports)
    assert selection.request.driver == expected
    assert bool(selection.notice) == (expected != "pasta")


@pytest.mark.parametrize("mode", ["host", "none"])
def test_ports_have_no_effect_without_a_helper(mode: str) -> None:
    selection = select(parse_network(mode), parse_publish("80:80"))
    assert selection.ports == ()
    assert selection.notice == f"-p has no effect with --network {mode}"
    assert select(parse_network(mode), ()).notice == ""


def test_host_gateway_needs_a_pasta_that_knows_it(programs: Path) -> None:
    program(programs, "pasta", b"")
    assert select(parse_network("pasta"), ()).addresses.host == ""
    program(programs, "pasta", NEW_PASTA)
    assert select(parse_network("pasta"), ()).addresses.host == "169.254.1.2"


@pytest.mark.parametrize(
    ("number", "mode", "hint"),
    [
        (errno.ENOENT, 0, "as root: modprobe tun"),
        (errno.ENODEV, 0o666, "as root: modprobe tun"),
        (errno.EACCES, 0o660, "as root: chmod 666 /dev/net/tun"),
        (errno.EPERM, 0o666, "a sandbox or security module forbids it: dmesg"),
        (0, 0o666, "rp run --network none starts without it"),
    ],
)
def test_the_hint_fits_what_is_wrong_with_the_tun_device(
    monkeypatch: pytest.MonkeyPatch, number: int, mode: int, hint: str
) -> None:
    def opened(path: str, _flags: int) -> int:
        assert path == "/dev/net/tun"
        if number:
            raise OSError(number, os.strerror(number))
        return os.memfd_create("tun")

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "stat", lambda _path: os.stat_result((mode, *(0,) * 9)))
    assert driver._tun_hint() == hint
