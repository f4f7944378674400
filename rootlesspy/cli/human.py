"""Numbers and times as people read them, in the words that podman and docker use."""

from __future__ import annotations

_STEPS = (
    # below this many hours, divided by, unit
    (48, 1, "hours"),
    (24 * 14, 24, "days"),
    (24 * 60, 24 * 7, "weeks"),
    (24 * 365 * 2, 24 * 30, "months"),
)


def duration(seconds: float) -> str:
    """Say how long something takes; a clock that went backwards counts as nothing."""
    whole = max(0, int(seconds))
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes = whole // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(whole / 3600 + 0.5)
    if hours <= 1:
        return "About an hour"
    for limit, divisor, unit in _STEPS:
        if hours < limit:
            return f"{hours // divisor} {unit}"
    return f"{hours // (24 * 365)} years"


def ago(then_s: float, now_s: float) -> str:
    """Say how long ago a moment was, both in seconds since the epoch."""
    return f"{duration(now_s - then_s)} ago"


def size(size_bytes: int, *, digits: int = 3, gap: str = " ") -> str:
    """Write a size with some digits and a decimal unit, as image lists do."""
    amount = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 - 0.5 * 10 ** (3 - digits) or unit == "TB":
            return f"{amount:.{digits}g}{gap}{unit}"
        amount /= 1000
    return ""
