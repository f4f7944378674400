"""How many journal records all containers of a user may send, so that journald drops none.

journald drops what a unit sends above RateLimitBurst= (10,000) in RateLimitIntervalSec= (30 s), and
to it all containers of a user are one unit, user@UID.service, with everything else that runs there.
So the supervisors share one bucket: a small file, brought up to date by whoever takes from it.  In
any such interval it gives out half of what journald allows (`engine.output.journal_limit`).
"""

from __future__ import annotations

import fcntl
import os
import time

from rootlesspy.light_modules import struct
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootlesspy.engine.output.journal_limit import Limit
    from rootlesspy.paths import Paths

_AT_ONCE, _IN_ALL = 0.2, 0.5
"""Which part of journald's limit may go at once, and which in the whole interval."""
_STATE = struct.Struct("<dd")


class Budget:
    """One supervisor's hand in the bucket."""

    def __init__(self, paths: Paths, limit: Limit) -> None:
        self.capacity = max(1.0, limit.burst * _AT_ONCE)
        self._rate = limit.burst * (_IN_ALL - _AT_ONCE) / limit.interval_s
        self._state = _STATE.pack(self.capacity, time.monotonic())
        self._fd = -1
        try:
            os.makedirs(paths.cache, mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(f"{paths.cache}/journal-budget", flags, 0o600)
        except OSError:
            # A full or read-only disk: a bucket of its own is better than no log.
            return

    def take(self, count: int, *, spare: bool = False) -> bool:
        """Take that many records or none; spare: only what is above half of the bucket."""
        return self._exchange(count, self.capacity / 2 if spare else 0.0)

    def force(self, count: int) -> None:
        """Take them in any case: the last words of a container."""
        self._exchange(count, float("-inf"))

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _exchange(self, count: int, least: float) -> bool:
        if self._fd < 0:
            return self._settle(count, least)
        try:
            # Never waits: who holds it may be stopped.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            self._state = os.pread(self._fd, _STATE.size, 0)
            granted = self._settle(count, least)
            if granted:
                os.pwrite(self._fd, self._state, 0)
        except OSError:
            return self._settle(count, least)
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        return granted

    def _settle(self, count: int, least: float) -> bool:
        now = time.monotonic()
        capacity = self.capacity
        left, stamp = capacity, now
        if len(self._state) == _STATE.size:
            left, stamp = _STATE.unpack(self._state)
        if not -capacity <= left <= capacity or not 0 <= stamp <= now:
            # Of another boot, or of another limit.
            left, stamp = capacity, now
        left = min(capacity, left + (now - stamp) * self._rate)
        if left - count < least:
            return False
        self._state = _STATE.pack(max(left - count, -capacity), now)
        return True
