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
_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_ALLOWED = _ALPHANUMERIC | frozenset("_.-")

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


def new_id() -> str:
    """Return a new random container id."""
    return os.urandom(_ID_BYTES).hex()


def short_id(container_id: str) -> str:
    """Return the id as it is shown."""
    return container_id[:_SHORT_ID]


def is_id_prefix(text: str) -> bool:
    """Say whether text can be the beginning of an id."""
    return 0 < len(text) <= 2 * _ID_BYTES and all(c in "0123456789abcdef" for c in text)


def new_name() -> str:
    """Return a random name for a container that was given none."""
    first, second = os.urandom(2)
    return f"{_FIRST[first % len(_FIRST)]}_{_SECOND[second % len(_SECOND)]}"


def is_valid(name: str) -> bool:
    """Say whether a container, a network and their units can have this name."""
    fits = 0 < len(name) <= _LONGEST and name[0] in _ALPHANUMERIC
    return fits and all(character in _ALLOWED for character in name)


def check_name(name: str) -> str:
    """Return name, or raise UsageError when it cannot name a container (and its unit)."""
    if not is_valid(name):
        raise UsageError(
            f"name {name!r} is not valid",
            hint=f"1 to {_LONGEST} of letters, digits, '_', '.', '-', beginning with one of the "
            "first two",
        )
    return name
