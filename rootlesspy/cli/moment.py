"""Moments as people type them: a date, seconds since the epoch, or a duration ago."""

from __future__ import annotations

import time
from datetime import datetime

from rootlesspy.engine.inputs.health_values import parse_duration
from rootlesspy.errors import UsageError


def parse_moment(text: str, option: str, *, ahead: bool = False) -> float:
    """Return the Unix time in seconds that text means.

    An RFC 3339 date, local time where it has no zone; a number of seconds since the epoch; or a
    Go duration such as 24h, so long ago, or with ahead from now on; a minus turns it round.  Raises
    UsageError.
    """
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    try:
        distance_s = parse_duration(text.removeprefix("-"), option) / 1e9
    except UsageError:
        raise UsageError(
            f"{option}: {text!r} is not a time",
            hint="such as 2026-11-21T08:00:00, 1700000000 or 24h",
        ) from None
    return time.time() + (distance_s if ahead != text.startswith("-") else -distance_s)
