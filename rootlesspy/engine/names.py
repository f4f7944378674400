"""Container ids and names.

An id is 64 hexadecimal digits, shown as 12.  A name is what podman and docker accept; without
--name one is made of two words.
"""

from __future__ import annotations

import os

from rootlesspy.errors import UsageError

_LONGEST = 128
_ID_BYTES = 32
_SHORT_ID = 12
_ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_ALLOWED = f"{_ALPHANUMERIC}_.-".encode()
_HEXADECIMAL = b"0123456789abcdef"

# fmt: off
_FIRST = (
    "amber", "brave", "brisk", "calm", "clear", "clever", "crisp", "dapper", "eager", "early",
    "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "hardy",
    "honest", "humble", "jolly", "keen", "kind", "light", "lively", "lucid", "lucky", "mellow",
    "merry", "mild", "modest", "nimble", "noble", "patient", "plucky", "polite", "proud", "quick",
    "quiet", "rapid", "ready", "robust", "serene", "silver", "sober", "spry", "steady", "sturdy",
    "sunny", "swift", "tidy", "trusty", "vivid", "warm", "wise", "witty", "young", "zesty",
)
_SECOND = (
    "acorn", "alder", "anchor", "aspen", "badger", "beacon", "birch", "bison", "brook", "canyon",
    "cedar", "cliff", "comet", "condor", "cove", "crane", "delta", "dune", "falcon", "fern",
    "finch", "fjord", "garnet", "glade", "glacier", "grove", "harbor", "hazel", "heron", "ibis",
    "island", "jasper", "juniper", "kestrel", "lagoon", "larch", "lark", "linden", "lynx", "maple",
    "marlin", "meadow", "osprey", "otter", "pebble", "petrel", "pine", "plover", "quartz", "raven",
    "reef", "ridge", "robin", "rowan", "sparrow", "spruce", "tern", "thistle", "willow", "wren",
)
# fmt: on


def service(name: str) -> str:
    """Return the unit of the supervisor of the container with this name."""
    return f"rp-{name}.service"


def new_id() -> str:
    """Return a new random container id."""
    return os.urandom(_ID_BYTES).hex()


def short_id(container_id: str) -> str:
    """Return the id as it is shown."""
    return container_id[:_SHORT_ID]


def is_id_prefix(text: str) -> bool:
    """Say whether text can be the beginning of an id."""
    return 0 < len(text) <= 2 * _ID_BYTES and _consists_of(text, _HEXADECIMAL)


def id_prefixes(found: list[str]) -> list[str]:
    """Return the texts that can be beginnings of ids."""
    # Looked at together: nothing else is in the directory that a listing of thousands reads.
    if _consists_of("".join(found), _HEXADECIMAL) and set(map(len, found)) == {2 * _ID_BYTES}:
        return found
    return [each for each in found if is_id_prefix(each)]


def new_name() -> str:
    """Return a random name for a container that was given none."""
    first, second = os.urandom(2)
    return f"{_FIRST[first % len(_FIRST)]}_{_SECOND[second % len(_SECOND)]}"


def is_valid(name: str) -> bool:
    """Say whether a container, a network and their units can have this name."""
    fits = 0 < len(name) <= _LONGEST and name[0] in _ALPHANUMERIC
    return fits and _consists_of(name, _ALLOWED)


def check_name(name: str) -> str:
    """Return name, or raise UsageError when it cannot name a container (and its unit)."""
    if not is_valid(name):
        raise UsageError(
            f"name {name!r} is not valid",
            hint=f"1 to {_LONGEST} of letters, digits, '_', '.', '-', beginning with one of the "
            "first two",
        )
    return name


def _consists_of(text: str, characters: bytes) -> bool:
    # A listing of thousands asks this for every id and name: no loop in Python.
    return text.isascii() and not text.encode().translate(None, characters)
