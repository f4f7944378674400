"""Moments and durations as Go writes them, for templates and tables that podman's users know.

Reference: https://pkg.go.dev/time (Time.String, Time.Format, Duration.String).
"""

from __future__ import annotations

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from datetime import datetime
    from typing import ClassVar

_LAYOUT = (
    r"January|Monday|2006|Jan|Mon|MST|Z07:00|-07:00|-0700|PM|pm|[.,](?:0+|9+)"
    r"|0[1-6]|15|_2|06|[1-5]"
)
_CODES = {
    "January": "%B", "Jan": "%b", "Monday": "%A", "Mon": "%a", "2006": "%Y", "06": "%y",
    "01": "%m", "02": "%d", "15": "%H", "03": "%I", "04": "%M", "05": "%S", "PM": "%p",
}  # fmt: skip
_UNITS = (("h", 3600 * 10**9), ("m", 60 * 10**9))
_SMALL_UNITS = (("ms", 10**6), ("µs", 10**3))


class Time(str):
    """A moment; its text is RFC 3339, which JSON shows, and templates show as Go does."""

    __slots__ = ()
    METHODS: ClassVar[tuple[str, ...]] = (
        "Unix", "UnixNano", "Format", "String", "IsZero", "Year", "Day", "Hour", "Minute", "Second",
    )  # fmt: skip

    def string(self) -> str:
        """Return the text of Go's Time.String: 2026-11-22 01:02:03.5 +0000 UTC."""
        head, zone = self._cut()
        name = f"{zone[:3]}{zone[4:]}" if zone else ""
        return f"{head.replace('T', ' ')} {f'{name} {name}' if name else '+0000 UTC'}"

    def unix(self) -> int:
        """Return the seconds since the epoch."""
        return self.unixnano() // 10**9

    def unixnano(self) -> int:
        """Return the nanoseconds since the epoch."""
        from datetime import UTC, datetime

        moment, fraction = self._moment()
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return int(since.total_seconds()) * 10**9 + int(fraction[:9].ljust(9, "0"))

    def iszero(self) -> bool:
        """Say whether it is Go's zero time, which stands for never."""
        return self.startswith("0001-01-01T00:00:00")

    def year(self) -> int:
        """Return the year."""
        return int(self[0:4])

    def day(self) -> int:
        """Return the day of the month."""
        return int(self[8:10])

    def hour(self) -> int:
        """Return the hour."""
        return int(self[11:13])

    def minute(self) -> int:
        """Return the minute."""
        return int(self[14:16])

    def second(self) -> int:
        """Return the second."""
        return int(self[17:19])

    def format(self, layout: str) -> str:  # type: ignore[override]  # Go's name for it
        """Write the moment as a Go layout says: how it would write 2006-01-02 15:04:05."""
        import re

        (moment, fraction), (_, zone) = self._moment(), self._cut()

        def replace(found: re.Match[str]) -> str:
            piece = found[0]
            if piece in _CODES:
                return moment.strftime(_CODES[piece]).rjust(4 if piece == "2006" else 0, "0")
            if piece[0] in ".,":
                digits = fraction.ljust(9, "0")[: len(piece) - 1]
                kept = digits if piece[1] == "0" else digits.rstrip("0")
                return f"{piece[0]}{kept}" if kept else ""
            return _numeric(piece, moment, zone)

        return re.sub(_LAYOUT, replace, layout)

    def _moment(self) -> tuple[datetime, str]:
        """Return the moment in whole seconds, and the digits of its fraction."""
        from datetime import datetime

        head, zone = self._cut()
        whole, _, fraction = head.partition(".")
        return datetime.fromisoformat(f"{whole}{zone or '+00:00'}"), fraction

    def _cut(self) -> tuple[str, str]:
        """Return date and time, and the zone as +01:00, empty for UTC."""
        if self.endswith("Z"):
            return self[:-1], ""
        return self[:-6], self[-6:]


def duration(nanoseconds: int) -> str:
    """Write a duration as Go does: 2h5m38.7s, 711.9ms, 0s."""
    if nanoseconds < 0:
        return f"-{duration(-nanoseconds)}"
    if nanoseconds == 0:
        return "0s"
    for unit, size in _SMALL_UNITS:
        if size <= nanoseconds < 10**9:
            return f"{_decimal(nanoseconds, size)}{unit}"
    if nanoseconds < 10**3:
        return f"{nanoseconds}ns"
    text, rest = "", nanoseconds
    for unit, size in _UNITS:
        if nanoseconds >= size:
            text += f"{rest // size}{unit}"
            rest %= size
    return f"{text}{_decimal(rest, 10**9)}s"


def _numeric(token: str, moment: datetime, zone: str) -> str:
    hour = moment.hour % 12 or 12
    values = {
        "1": moment.month, "2": moment.day, "3": hour, "4": moment.minute, "5": moment.second,
        "_2": f"{moment.day:2}", "pm": "pm" if moment.hour >= 12 else "am",
        "MST": "UTC" if not zone else zone.replace(":", ""),
        "Z07:00": zone or "Z", "-07:00": zone or "+00:00",
        "-0700": (zone or "+00:00").replace(":", ""), "06": f"{moment.year % 100:02}",
    }  # fmt: skip
    return str(values[token])


def _decimal(number: int, size: int) -> str:
    """Write number / size without the zeros at the end."""
    digits = len(str(size)) - 1
    whole, fraction = divmod(number, size)
    tail = str(fraction).rjust(digits, "0").rstrip("0")
    return f"{whole}.{tail}" if tail else str(whole)
