"""Networks on disk: one JSON file each, and the directory that a running one has.

    $XDG_DATA_HOME/rootlesspy/networks/NAME.json            network.networks.Network
    $XDG_RUNTIME_DIR/rootlesspy/networks/NAME/control       its service listens
                                             leases/ID.json  engine.networks.leases

Whoever makes, removes or changes networks holds flock(2) on the first directory.
"""

from __future__ import annotations

import fcntl
import os

from rootlesspy.engine import names, statefile
from rootlesspy.light_typing import TYPE_CHECKING, Any
from rootlesspy.network.networks import Network, Route, Subnet, not_found
from rootlesspy.paths import private_directory

if TYPE_CHECKING:
    from rootlesspy.paths import Paths

_SUFFIX = ".json"
_REMOVE = "rp network rm -f removes it"


def load(paths: Paths, name: str) -> Network:
    """Read a network by its name.  Raises NotFound, DamagedError, OSError."""
    if not names.is_valid(name):
        raise not_found(name)
    try:
        return _network(statefile.read(path(paths, name)))
    except FileNotFoundError:
        raise not_found(name) from None
    except OSError as error:
        text = f"{path(paths, name)}: {error.strerror}"
        raise statefile.DamagedError(text, hint=_REMOVE) from error


def find(paths: Paths, text: str) -> Network:
    """Return the network with this name, id or unique id prefix.  Raises NotFound, Conflict."""
    if exists(paths, text):
        return load(paths, text)
    fitting = [each for each in all_networks(paths) if text and each.id.startswith(text)]
    if len(fitting) != 1:
        raise not_found(text)
    return fitting[0]


def all_networks(paths: Paths) -> list[Network]:
    """Return all networks, by name; a damaged file is left out."""
    found = []
    for name in all_names(paths):
        try:
            found.append(_network(statefile.read(path(paths, name))))
        except (statefile.DamagedError, OSError):
            continue
    return found


def all_names(paths: Paths) -> list[str]:
    """Return the names of all networks, sorted."""
    try:
        files = os.listdir(paths.networks)
    except FileNotFoundError:
        return []
    return sorted(
        each.removesuffix(_SUFFIX)
        for each in files
        if each.endswith(_SUFFIX) and names.is_valid(each.removesuffix(_SUFFIX))
    )


def exists(paths: Paths, name: str) -> bool:
    """Say whether there is a network of this name."""
    return names.is_valid(name) and os.path.lexists(path(paths, name))


def save(paths: Paths, network: Network) -> None:
    """Write a network; the caller holds the lock.  Raises OSError."""
    value: dict[str, object] = {
        **network._asdict(),
        "subnets": [each._asdict() for each in network.subnets],
        "routes": [each._asdict() for each in network.routes],
    }
    statefile.write(path(paths, network.name), value, durable=True)


def delete(paths: Paths, name: str) -> None:
    """Forget a network; the caller holds the lock.  Raises FileNotFoundError, OSError."""
    statefile.remove(path(paths, name))


def lock(paths: Paths) -> int:
    """Wait for the lock of all networks; closing the returned descriptor releases it."""
    private_directory(paths.data)
    private_directory(paths.networks)
    fd = os.open(paths.networks, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    statefile.sweep(paths.networks)
    return fd


def path(paths: Paths, name: str) -> str:
    """Return the file of a network; the name was checked."""
    return f"{paths.networks}/{name}{_SUFFIX}"


def _network(value: dict[str, Any]) -> Network:
    where = f"network {value.get('name', '?')}"
    lists = {name: value.get(name, []) for name in ("subnets", "routes", "dns_servers")}
    if not all(isinstance(each, list) for each in lists.values()):
        raise statefile.DamagedError(f"{where} is damaged", hint=_REMOVE)
    subnets = (statefile.checked(Subnet, each, where) for each in lists["subnets"])
    routes = (statefile.checked(Route, each, where) for each in lists["routes"])
    parts = {"subnets": tuple(subnets), "routes": tuple(routes)}
    found: Network = statefile.checked(Network, {**value, **lists, **parts}, where)
    return found._replace(dns_servers=tuple(found.dns_servers))
