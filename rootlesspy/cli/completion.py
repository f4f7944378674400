"""What the shell offers for a half-typed name; a failure here is no offer, never a message."""

from __future__ import annotations

import os

from rootlesspy import paths
from rootlesspy.errors import Error
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def typed_words(environment: Mapping[str, str]) -> list[str]:
    """Return what stands before the word to be completed, the program's name left out.

    From the variables of typer's scripts: COMP_WORDS of bash, _TYPER_COMPLETE_ARGS of the others.
    """
    text = environment.get("_TYPER_COMPLETE_ARGS") or environment.get("COMP_WORDS", "")
    words = text.split()
    return words[1:] if text.endswith((" ", "\n")) else words[1:-1]


def containers(incomplete: str) -> list[str]:
    """Offer the names of containers."""
    from rootlesspy.engine import lifecycle

    try:
        found = lifecycle.containers(paths.from_environment(os.environ))
    except (Error, OSError):
        return []
    names = (container.record.name for container in found)
    return sorted(name for name in names if name.startswith(incomplete))


def images(incomplete: str) -> list[str]:
    """Offer the names of images, short ones where those are unambiguous."""
    from rootlesspy.image.store import Store

    try:
        found = Store(paths.from_environment(os.environ)).images()
    except (Error, OSError):
        return []
    names = {name for image in found for name in image.names}
    names |= {name.removeprefix("docker.io/library/") for name in names}
    return sorted(name for name in names if name.startswith(incomplete))


def manifest_lists(incomplete: str) -> list[str]:
    """Offer the names of manifest lists."""
    from rootlesspy.image.lists import all_lists

    try:
        found = all_lists(paths.from_environment(os.environ))
    except (Error, OSError):
        return []
    names = {name for each in found for name in each.names}
    names |= {name.removeprefix("localhost/") for name in names}
    return sorted(name for name in names if name.startswith(incomplete))


def networks(incomplete: str) -> list[str]:
    """Offer the names of user-defined networks."""
    from rootlesspy.engine.networks import store

    try:
        names = store.all_names(paths.from_environment(os.environ))
    except (Error, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]
