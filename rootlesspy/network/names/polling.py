"""What the servers of this room need of a poll loop; engine.supervision.loop.Loop has it."""

from __future__ import annotations

import select

from rootlesspy.light_typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE = select.POLLIN, select.POLLOUT


class Loop(Protocol):
    """Calls a handler whenever its descriptor is ready or its time has come."""

    def watch(self, fd: int, handler: Callable[[], None], events: int = READ) -> None:
        """Call handler while fd has events; again for the same fd: with these from now on."""

    def forget(self, fd: int) -> None:
        """Watch a descriptor no longer; doing it twice is harmless."""

    def after_at_most(self, name: str, delay_s: float, handler: Callable[[], None]) -> None:
        """Call handler in delay_s seconds, or sooner when a timer of this name says so."""

    def cancel(self, name: str) -> None:
        """Forget a timer; no timer, no harm."""
