"""One [network.NAME] of a definition: the options of `rp network create` as keys."""

from __future__ import annotations

from rootlesspy.engine.definitions import definition_schema as schema
from rootlesspy.engine.networks.management import Wanted
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network.attachment import parse_interface

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Texts = Callable[[schema.Key, object], str | bool | list[str]]


def wanted(name: str, table: Mapping[str, object], texts: Texts) -> Wanted:
    """Return what a network is to be; texts gives a key's value as the option's texts.

    Raises UsageError.
    """
    found = {key.name: texts(key, table[key.name]) for key in schema.NETWORK if key.name in table}
    interface = str(found.get("interface_name", ""))
    return Wanted(
        name=name,
        subnets=_words(found, "subnets"),
        gateways=_words(found, "gateways"),
        ranges=_words(found, "ip_ranges"),
        ipv6=found.get("ipv6") is True,
        internal=found.get("internal") is True,
        dns=found.get("disable_dns") is not True,
        dns_servers=_words(found, "dns"),
        options=_pairs(found, "options"),
        labels=_pairs(found, "labels"),
        routes=_words(found, "routes"),
        interface_name=parse_interface(interface) if interface else "",
    )


def _words(found: Mapping[str, str | bool | list[str]], key: str) -> tuple[str, ...]:
    value = found.get(key)
    return tuple(value) if isinstance(value, list) else ()


def _pairs(found: Mapping[str, str | bool | list[str]], key: str) -> tuple[tuple[str, str], ...]:
    split = (text.partition("=") for text in _words(found, key))
    return tuple((name, value) for name, _, value in split)
