"""One poll loop with callbacks: descriptors and deadlines, no thread, no idle wake-up."""

from __future__ import annotations

import math
import select
import time

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE, PRIORITY = select.POLLIN, select.POLLOUT, select.POLLPRI
_LONGEST_MS = 24 * 3600 * 1000
"""poll(2) takes an int of milliseconds, which is less than 25 days; timers may be years."""


class Loop:
    """Calls a handler whenever its descriptor is ready or its time has come."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._events: dict[int, int] = {}
        self._timers: dict[str, tuple[float, Callable[[], None]]] = {}

    def watch(self, fd: int, handler: Callable[[], None], events: int = READ) -> None:
        """Call handler while fd has events; again for the same fd: with these from now on."""
        self._handlers[fd] = handler
        if self._events.get(fd) != events:
            self._events[fd] = events
            self._poll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Watch a descriptor no longer, before it is closed; doing it twice is harmless."""
        if self._handlers.pop(fd, None) is not None:
            del self._events[fd]
            self._poll.unregister(fd)

    def after(self, name: str, delay_s: float, handler: Callable[[], None]) -> None:
        """Call handler once, in delay_s seconds; a timer of this name is replaced."""
        self._timers[name] = (time.monotonic() + delay_s, handler)

    def after_at_most(self, name: str, delay_s: float, handler: Callable[[], None]) -> None:
        """Call handler in delay_s seconds, or sooner when a timer of this name says so."""
        due, _ = self._timers.get(name, (math.inf, handler))
        if time.monotonic() + delay_s < due:
            self.after(name, delay_s, handler)

    def cancel(self, name: str) -> None:
        """Forget a timer; no timer, no harm."""
        self._timers.pop(name, None)

    def turn(self) -> None:
        """Wait for something to happen and call whom it concerns."""
        for fd, _ in self._poll.poll(self._timeout_ms()):
            # One handler may have forgotten another's descriptor.
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        now = time.monotonic()
        for name, (due, handler) in list(self._timers.items()):
            if due <= now and self._timers.get(name) == (due, handler):
                del self._timers[name]
                handler()

    def _timeout_ms(self) -> int:
        if not self._timers:
            return -1
        due = min(due for due, _ in self._timers.values())
        return min(_LONGEST_MS, max(0, math.ceil((due - time.monotonic()) * 1000)))
