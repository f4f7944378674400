"""How much journald takes from this user before it drops: journald.conf(5), systemd.exec(5).

Read once, as a container's log is opened.  Whatever cannot be understood counts as the default.
"""

from __future__ import annotations

import os

from rootlesspy.light_typing import NamedTuple

_DIRECTORIES = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
_UNITS = "/run/systemd/units"
_FILE = "journald.conf"
_MAX_BYTES = 1 << 16
_NO_LIMIT = 10_000_000
# systemd.time(7); the longest first.
_SECONDS = (
    ("usec", 1e-6), ("us", 1e-6), ("µs", 1e-6), ("msec", 1e-3), ("ms", 1e-3),
    ("seconds", 1), ("second", 1), ("sec", 1), ("s", 1),
    ("minutes", 60), ("minute", 60), ("min", 60), ("m", 60),
    ("hours", 3600), ("hour", 3600), ("hr", 3600), ("h", 3600),
    ("days", 86400), ("day", 86400), ("d", 86400), ("", 1),
)  # fmt: skip


class Limit(NamedTuple):
    """So many records of each priority in so much time."""

    burst: int = 10_000
    interval_s: float = 30.0


def read(root: str = "") -> Limit:
    """Return what holds for user@UID.service; a limit that is off is a very high one."""
    values: dict[str, str] = {}
    for path in _files(root):
        values.update(_settings(path))
    unit = f"user@{os.getuid()}.service"
    # How systemd tells journald of LogRateLimitBurst= and LogRateLimitIntervalSec= of a unit.
    burst = _link(f"{root}{_UNITS}/log-rate-limit-burst:{unit}")
    interval_us = _link(f"{root}{_UNITS}/log-rate-limit-interval:{unit}")
    default = Limit()
    number = _number(burst or values.get("RateLimitBurst", ""), default.burst)
    interval_s = _duration(values.get("RateLimitIntervalSec", ""), default.interval_s)
    if interval_us:
        interval_s = _number(interval_us, 30_000_000) / 1e6
    if number <= 0 or interval_s <= 0:
        return Limit(burst=_NO_LIMIT)
    return Limit(number, interval_s)


def _files(root: str) -> list[str]:
    """Return the configuration files, the one that counts most last."""
    main = [f"{root}{directory}/{_FILE}" for directory in _DIRECTORIES]
    drop_ins: dict[str, str] = {}
    for directory in reversed(_DIRECTORIES):
        path = f"{root}{directory}/{_FILE}.d"
        try:
            names = os.listdir(path)
        except OSError:
            continue
        drop_ins.update({name: f"{path}/{name}" for name in names if name.endswith(".conf")})
    chosen = next((path for path in main if os.path.exists(path)), None)
    return [*([chosen] if chosen else []), *(drop_ins[name] for name in sorted(drop_ins))]


def _settings(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_MAX_BYTES).splitlines()
    except OSError:
        return {}
    parts = (line.partition("=") for line in lines if line.startswith("RateLimit"))
    return {key.strip(): value.strip() for key, _, value in parts}


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _number(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else default


def _duration(text: str, default: float) -> float:
    """Parse a time span such as 30s, 1min 30s or 45; seconds where there is no unit."""
    total, rest = 0.0, text.replace(" ", "")
    if not rest:
        return default
    while rest:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(digits) :]
        unit = rest[: len(rest) - len(rest.lstrip("abcdefghijklmnopqrstuvwxyzµ"))]
        rest = rest[len(unit) :]
        scale = dict(_SECONDS).get(unit)
        if scale is None or not digits.replace(".", "", 1).isdigit():
            return default
        total += float(digits) * scale
    return total
