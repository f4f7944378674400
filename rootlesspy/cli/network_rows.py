"""Networks in lists and templates: podman's field names, and the filters of `rp network ls`."""

from __future__ import annotations

from rootlesspy.cli.gotemplate_functions import Record
from rootlesspy.engine.inputs.values import parse_boolean
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from rootlesspy.network.networks import Network

    Test = Callable[[Network], bool]

KEYS = frozenset(("dangling", "driver", "id", "label", "label!", "name", "until"))
PRUNE_KEYS = frozenset(("label", "label!", "until"))
HEADERS = {"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER"}
SHORT_ID = 12
# JSON's names of podman's fields, where they are not the field's words in small letters.
_FIELDS = {
    "id": "ID",
    "ipv6_enabled": "IPv6Enabled",
    "dns_enabled": "DNSEnabled",
    "network_dns_servers": "NetworkDNSServers",
    "ipam_options": "IPAMOptions",
    "start_ip": "StartIP",
    "end_ip": "EndIP",
    "ipnet": "IPNet",
    "mac_address": "MacAddress",
}
_MAPS = frozenset(("labels", "options", "ipam_options", "containers", "interfaces"))
_EMPTY: dict[str, Any] = {
    "Routes": [], "NetworkDNSServers": [], "Labels": {}, "Options": {}, "LeaseRange": None,
    "Containers": {},
}  # fmt: skip


class _Fields(Record):
    """A struct of podman's."""

    def __missing__(self, name: str) -> Any:
        return _EMPTY[name]


def record(document: dict[str, Any]) -> Record:
    """Return a document of a network, or a part of one, as templates see it."""
    return _Fields({_field(key): _value(key, each) for key, each in document.items()})


def matching(
    filters: Sequence[str], *, used: Collection[str], keys: Collection[str] = KEYS
) -> Test:
    """Return the test of all filters: any value of a key, all labels.

    used are the names of networks that containers are of.  Raises UsageError.
    """
    wanted: dict[str, list[Test]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if key.endswith("!"):
            key = f"{key[:-1].rstrip()}!"
        if key not in keys or not equals:
            listed = ", ".join(sorted(keys))
            raise UsageError(f"--filter {text!r}: expected KEY=VALUE", hint=f"keys: {listed}")
        wanted.setdefault(key, []).append(_test(key, value, used))
    return lambda network: all(
        (all if key.startswith("label") else any)(test(network) for test in tests)
        for key, tests in wanted.items()
    )


def _test(key: str, value: str, used: Collection[str]) -> Test:
    if key == "dangling":
        dangling = parse_boolean(value, "--filter dangling")
        return lambda network: (network.name not in used) == dangling
    if key == "driver":
        return lambda _network: value == "bridge"
    if key == "id":
        return lambda network: network.id.startswith(value)
    if key == "name":
        return _name_test(value)
    if key == "until":
        from rootlesspy.cli import moment

        before_s = moment.parse_moment(value, "--filter until")
        return lambda network: network.created_s < before_s
    label, equals, wanted = value.partition("=")

    def labelled(network: Network) -> bool:
        has = label in network.labels and (not equals or network.labels[label] == wanted)
        return has != (key == "label!")

    return labelled


def _name_test(value: str) -> Test:
    import re

    try:
        pattern = re.compile(value)
    except re.error as error:
        raise UsageError(f"--filter name={value!r} is no regular expression: {error}") from None
    return lambda network: pattern.search(network.name) is not None


def _field(key: str) -> str:
    return _FIELDS.get(key) or "".join(word.capitalize() for word in key.split("_"))


def _value(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        if key not in _MAPS:
            return record(value)
        return {name: _value("", each) for name, each in value.items()}
    if isinstance(value, list):
        return [record(each) if isinstance(each, dict) else each for each in value]
    return value
