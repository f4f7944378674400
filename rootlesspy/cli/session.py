"""What every command is given by `__main__`."""

from __future__ import annotations

from rootlesspy import paths
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootlesspy.engine.supervision.forked import Supervisor
    from rootlesspy.report import Reporter


class Session(NamedTuple):
    """One invocation of rp: who is told, and which environment it was typed in."""

    reporter: Reporter
    environment: Mapping[str, str]
    hooks_dirs: tuple[str, ...] = ()
    """--hooks-dir before the command."""
    supervisor: Supervisor | None = None
    """Forked already, where the command line looked like that of an attached container."""

    def paths(self) -> paths.Paths:
        """Compute the directories; raises Unsupported.  Help and version work without them."""
        return paths.from_environment(self.environment)
