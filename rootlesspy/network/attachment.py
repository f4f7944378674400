"""A container's place in a user-defined network, as it is asked for: --network NAME:KEY=VALUE,….

Sources: podman-run(1), --network, --ip, --ip6, --mac-address, --network-alias.
"""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple
from rootlesspy.network import driver
from rootlesspy.network.addresses import canonical_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.network.driver import NetworkRequest

_KEYS = "alias, ip, ip6, mac, interface_name"
# IFNAMSIZ of <linux/if.h>, without the zero.
_INTERFACE_CHARACTERS = 15
_MAC_BYTES = 6
# What has no network namespace of its own, or none that rp may change.
_WITHOUT = ("host", "container", "ns")


class Attachment(NamedTuple):
    """One user-defined network of a container; empty texts are chosen at each start."""

    name: str
    aliases: tuple[str, ...] = ()
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    interface: str = ""


def parse_all(
    texts: Sequence[str],
    *,
    ip: str = "",
    ip6: str = "",
    mac: str = "",
    aliases: Sequence[str] = (),
) -> NetworkRequest:
    """Parse all values of --network, with --ip, --ip6, --mac-address and --network-alias.

    At most one of them is a driver (the way out), the others are networks.  Raises UsageError.
    """
    modes: list[str] = []
    found: list[str] = []
    for text in texts:
        is_network = text and text.partition(":")[0] not in (*driver.DRIVERS, *driver.SHARED)
        (found if is_network else modes).append(text)
    if len(modes) > 1:
        raise UsageError("--network names more than one driver", hint=f"given: {', '.join(modes)}")
    request = driver.parse_network(modes[0] if modes else "")
    attachments = tuple(map(parse, found))
    names = [each.name for each in attachments]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"network {name} is given more than once")
    if not attachments:
        if ip or ip6 or mac or aliases:
            raise UsageError(
                "--ip, --ip6, --mac-address and --network-alias need a user-defined network",
                hint="rp network create NAME; rp run --network NAME",
            )
        return request
    if request.driver in _WITHOUT:
        raise UsageError(f"--network {modes[0]} does not go with --network {names[0]}")
    if (ip or ip6 or mac) and len(attachments) > 1:
        raise UsageError(
            "--ip, --ip6 and --mac-address need a single network",
            hint=f"--network {names[0]}:ip={ip or '…'}",
        )
    return request._replace(
        networks=tuple(
            _with(each, ip=ip, ip6=ip6, mac=mac, aliases=aliases) for each in attachments
        )
    )


def parse(text: str) -> Attachment:
    """Parse NAME[:KEY=VALUE,…].  Raises UsageError."""
    name, colon, options = text.partition(":")
    found = Attachment(name)
    for option in options.split(",") if colon else ():
        key, equals, value = option.partition("=")
        if not equals or not value:
            raise UsageError(f"network option {option!r} is not KEY=VALUE", hint=f"keys: {_KEYS}")
        if key == "alias":
            found = _with(found, aliases=(value,))
        elif key in ("ip", "ip6"):
            found = _with(found, ip=value) if key == "ip" else _with(found, ip6=value)
        elif key == "mac":
            found = _with(found, mac=value)
        elif key == "interface_name":
            found = found._replace(interface=parse_interface(value))
        else:
            raise UsageError(f"network option {key!r} is unknown", hint=f"keys: {_KEYS}")
    return found


def restore(fields: Sequence[object]) -> Attachment:
    """Make an attachment of its fields after a journey through JSON."""
    found = Attachment(*fields)  # type: ignore[arg-type]  # what was written came from one
    return found._replace(aliases=tuple(found.aliases))


def spelled(attachment: Attachment) -> str:
    """Write an attachment as --network takes it."""
    options = [f"alias={each}" for each in attachment.aliases]
    for key, value in (
        ("ip", attachment.ip),
        ("ip6", attachment.ip6),
        ("mac", attachment.mac),
        ("interface_name", attachment.interface),
    ):
        if value:
            options.append(f"{key}={value}")
    return attachment.name + (f":{','.join(options)}" if options else "")


def parse_mac(text: str) -> str:
    """Parse a MAC address of an interface: six bytes, not multicast.  Raises UsageError."""
    parts = text.lower().replace("-", ":").split(":")
    digits = set("0123456789abcdef")
    plain = len(parts) == _MAC_BYTES and all(
        len(each) == 2 and set(each) <= digits for each in parts
    )
    if not plain or int(parts[0], 16) & 1:
        raise UsageError(f"MAC address {text!r} is not six bytes of an interface")
    return ":".join(parts)


def parse_alias(text: str) -> str:
    """Parse a name that DNS is to know a container by.  Raises UsageError."""
    labels = text.split(".")
    if len(text) > 253 or not all(map(_is_label, labels)):
        raise UsageError(f"alias {text!r} is no host name")
    return text


def parse_interface(text: str) -> str:
    """Parse the name of a network interface.  Raises UsageError."""
    fits = 0 < len(text) <= _INTERFACE_CHARACTERS and text not in (".", "..", "lo")
    # dev_valid_name() of the kernel, and no more than ASCII.
    if not fits or not text.isascii() or not text.isprintable() or set(text) & set("/: %"):
        raise UsageError(
            f"interface name {text!r} is not valid", hint="1 to 15 characters, no /, : and blank"
        )
    return text


def _with(
    attachment: Attachment,
    *,
    ip: str = "",
    ip6: str = "",
    mac: str = "",
    aliases: Sequence[str] = (),
) -> Attachment:
    """Add what was given, each value checked.  Raises UsageError."""
    return attachment._replace(
        ip=_address(ip, version=4) or attachment.ip,
        ip6=_address(ip6, version=6) or attachment.ip6,
        mac=parse_mac(mac) if mac else attachment.mac,
        aliases=tuple(dict.fromkeys((*attachment.aliases, *map(parse_alias, aliases)))),
    )


def _address(text: str, *, version: int) -> str:
    if not text:
        return ""
    found = canonical_address(text)
    if found is None or (":" in found) != (version == 6):
        raise UsageError(f"address {text!r} is not an IPv{version} address")
    return found


def _is_label(text: str) -> bool:
    # Underscores too: names of containers have them.
    plain = all(each.isascii() and (each.isalnum() or each in "-_") for each in text)
    return 0 < len(text) <= 63 and plain and text[0] != "-"
