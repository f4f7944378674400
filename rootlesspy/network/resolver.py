"""What a container finds in /etc/resolv.conf and /etc/hosts: pure functions of the host's files.

Sources: resolv.conf(5), hosts(5).
"""

from __future__ import annotations

from rootlesspy.errors import Unsupported, UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rootlesspy.network.addresses import Addresses

# glibc reads three (MAXNS in resolv.h) and ignores the rest.
_MAX_NAMESERVERS = 3
_HOST_NAMES = ("host.containers.internal", "host.docker.internal")
_HOST_GATEWAY = "host-gateway"
# Podman's: `db.dns.podman` is `db`, and what ends so is never asked of anybody else.
NETWORK_DOMAIN = "dns.podman"


def resolv_conf(
    host_text: str,
    *,
    driver: str,
    addresses: Addresses,
    is_host_address: Callable[[str], bool],
    dns: tuple[str, ...] = (),
    dns_search: tuple[str, ...] = (),
    dns_options: tuple[str, ...] = (),
) -> str | None:
    """Return the container's /etc/resolv.conf; None when the image's own is to stay (--dns none).

    The options replace what the host's file says, kind by kind; `--dns-search .` means none.  In
    user-defined networks their servers are asked, which ask those of --dns for other names.
    Raises UsageError for a value that is not one word.
    """
    if dns == ("none",):
        return None
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in host_text.splitlines():
        keyword, *values = line.split() or [""]
        if keyword == "nameserver":
            nameservers += values[:1]
        elif keyword in ("search", "domain"):
            # The last of them wins (resolv.conf(5)).
            search = values
        elif keyword == "options":
            options += values
    if addresses.name_servers:
        nameservers = list(addresses.name_servers)
    elif dns:
        nameservers = list(dns)
    elif driver == "none":
        nameservers = []
    elif driver != "host":
        nameservers = _reachable(nameservers, addresses, is_host_address)
    search = [name for name in dns_search if name != "."] if dns_search else search
    if addresses.name_servers and "." not in dns_search:
        # First, or names of members would be asked of strangers with the other domains.
        search.insert(0, NETWORK_DOMAIN)
    options = list(dns_options) or options
    for word in (*nameservers, *search, *options):
        _one_word(word)
    lines = [f"search {' '.join(search)}"] if search else []
    lines += (f"nameserver {address}" for address in nameservers[:_MAX_NAMESERVERS])
    lines += [f"options {' '.join(options)}"] if options else []
    return "".join(f"{line}\n" for line in lines)


def hosts(
    host_text: str,
    *,
    driver: str,
    addresses: Addresses,
    hostname: str,
    name: str = "",
    add_hosts: tuple[tuple[str, str], ...] = (),
) -> str:
    """Return the container's /etc/hosts: --add-host first, then itself, then the host's entries.

    add_hosts are (name, address) pairs; "host-gateway" stands for the host.  The host's entries for
    loopback and for an address that the container has too are left out, except in mode host: they
    would mean the container.  Raises Unsupported when host-gateway has no address, UsageError for a
    malformed name.
    """
    entries = [(_gateway(address, driver, addresses), [known]) for known, address in add_hosts]
    base = _entries(host_text)
    own = [word for word in dict.fromkeys((hostname, name)) if word]
    if driver == "host":
        known = {word for _address, words in base for word in words}
        own = [word for word in own if word not in known]
        entries += [*base, ("127.0.1.1", own)]
        return _write(entries)
    entries += [
        ("127.0.0.1", ["localhost"]),
        ("::1", ["localhost", "ip6-localhost", "ip6-loopback"]),
    ]
    own_addresses = addresses.networks or addresses.container or ("127.0.1.1",)
    entries += [(address, own) for address in own_addresses]
    given = {known for known, _address in add_hosts}
    if addresses.host:
        entries.append((addresses.host, [word for word in _HOST_NAMES if word not in given]))
    taken = given | {*own, *_HOST_NAMES, "localhost"}
    entries += (
        (address, [word for word in words if word not in taken])
        for address, words in base
        if not _is_loopback(address) and address not in addresses.container
    )
    return _write(entries)


def _reachable(
    nameservers: list[str], addresses: Addresses, is_host_address: Callable[[str], bool]
) -> list[str]:
    """Replace resolvers that run on the host itself by the helper's forwarder.

    Their address means something else inside: loopback is the container's own, and pasta gives the
    container the host's address.  Link-local IPv6 resolvers need an interface that is not there.
    No entry at all means 127.0.0.1 (resolv.conf(5)): the same case.
    """
    found: list[str] = []
    for address in nameservers or ["127.0.0.1"]:
        if "%" in address or address.lower().startswith("fe80:"):
            continue
        forwarder = (":" in address and addresses.dns6) or addresses.dns
        found.append(forwarder if forwarder and is_host_address(address) else address)
    return list(dict.fromkeys(found or [addresses.dns]))


def _entries(text: str) -> list[tuple[str, list[str]]]:
    parsed = []
    for line in text.splitlines():
        address, *words = line.partition("#")[0].split() or [""]
        if words:
            parsed.append((address, words))
    return parsed


def _gateway(address: str, driver: str, addresses: Addresses) -> str:
    if address != _HOST_GATEWAY:
        return address
    if not addresses.host:
        raise Unsupported(
            f"host-gateway has no address with --network {driver} here",
            hint="install passt of 2024 or newer" if driver == "pasta" else None,
        )
    return addresses.host


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _write(entries: list[tuple[str, list[str]]]) -> str:
    lines = []
    for address, words in entries:
        for word in (address, *words):
            _one_word(word)
        if words:
            lines.append(f"{address}\t{' '.join(words)}\n")
    return "".join(lines)


def _one_word(text: str) -> None:
    """Raise UsageError for what would become another line, another field or a comment."""
    if text.split() != [text] or "#" in text or not text.isprintable():
        raise UsageError(f"{text!r} cannot stand in /etc/hosts or /etc/resolv.conf")
