"""Which network a container gets, and the one place where the drivers are chosen.

A driver is a module with `start(...) -> Pending`; its helper process is a child of the supervisor,
an ordinary process of the user outside the container's namespaces.  The container's network
namespace exists before the driver is called; the drivers bring `lo` up (in mode `none` the
container's init does it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rootlesspy.errors import UsageError

if TYPE_CHECKING:
    from rootlesspy.network.ports import PortMapping

DEFAULT_DRIVER = "pasta"


class NetworkRequest(NamedTuple):
    """The value of --network, parsed."""

    driver: str = DEFAULT_DRIVER
    """pasta, slirp4netns, host or none."""
    options: tuple[str, ...] = ()
    """What stood behind the colon, cut at the commas."""
    chosen: bool = False
    """The user named the driver: no other one may stand in for it."""


class NetworkStatus(NamedTuple):
    """What a started network is; everything that the container's record keeps of it."""

    driver: str
    ports: tuple[PortMapping, ...] = ()
    helper_pid: int | None = None
    helper_start_time: int | None = None
    """Clock ticks after boot (proc_pid_stat(5), field 22): tells the helper from a reused pid."""


def parse_network(text: str) -> NetworkRequest:
    """Parse --network: pasta[:OPTION,…], slirp4netns[:KEY=VALUE,…], host, none, "" for the default.

    Raises UsageError.
    """
    if not text:
        return NetworkRequest()
    name, colon, option_text = text.partition(":")
    if name not in ("pasta", "slirp4netns", "host", "none"):
        raise UsageError(
            f"network {text!r} is unknown", hint="one of pasta, slirp4netns, host, none"
        )
    options = tuple(option_text.split(",")) if option_text else ()
    if colon and (name in ("host", "none") or not all(options) or not options):
        raise UsageError(f"network {text!r}: {name} takes no such options")
    return NetworkRequest(driver=name, options=options, chosen=True)
