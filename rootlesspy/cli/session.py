"""What every command is given by `__main__`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rootlesspy import paths

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.report import Reporter


class Session(NamedTuple):
    """One invocation of rp: who is told, and which environment it was typed in."""

    reporter: Reporter
    environment: Mapping[str, str]

    def paths(self) -> paths.Paths:
        """Compute the directories; raises Unsupported.  Help and version work without them."""
        return paths.from_environment(self.environment)
