"""Parse the values of unit settings as systemd does: sizes, time spans, percentages, lists.

Pure functions from text to numbers and lists; each raises ValueError saying what it wanted.  The
grammars are those of systemd.syntax(7), systemd.time(7) and systemd.resource-control(5).
"""

from __future__ import annotations

from rootlesspy.light_modules import signal
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INFINITY = 2**64 - 1

_SIZES_1024 = {"E": 2**60, "P": 2**50, "T": 2**40, "G": 2**30, "M": 2**20, "K": 2**10, "B": 1}
_SIZES_1000 = {"E": 10**18, "P": 10**15, "T": 10**12, "G": 10**9, "M": 10**6, "K": 10**3, "B": 1}

_SECOND = 1_000_000
_DAY = 86400 * _SECOND
# systemd.time(7); month and year are 30.44 and 365.25 days.
_SPANS = {
    **dict.fromkeys(("us", "usec", "µs", "μs"), 1),
    **dict.fromkeys(("ms", "msec"), 1000),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), _SECOND),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60 * _SECOND),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600 * _SECOND),
    **dict.fromkeys(("d", "day", "days"), _DAY),
    **dict.fromkeys(("w", "week", "weeks"), 7 * _DAY),
    **dict.fromkeys(("M", "month", "months"), 2_629_800 * _SECOND),
    **dict.fromkeys(("y", "year", "years"), 31_557_600 * _SECOND),
}

_TRUE = ("1", "yes", "y", "true", "t", "on")
_FALSE = ("0", "no", "n", "false", "f", "off")
_CPU_LIMIT = 8192
_NETWORKS = {
    "any": ("0.0.0.0/0", "::/0"),
    "localhost": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/64"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
}


def integer(text: str, *, low: int = 0, high: int = INFINITY) -> int:
    """Parse plain ASCII decimal digits within low..high."""
    if not (text.isascii() and text.isdigit()) or not low <= int(text[:21]) <= high:
        raise ValueError(f"must be a whole number from {low} to {high}")
    return int(text)


def boolean(text: str) -> bool:
    """Parse yes/no, true/false, on/off, 1/0."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("must be yes or no")


def size(text: str, *, base: int = 1024) -> int:
    """Parse a size in bytes: "512M", "1.5G", "1G 500M"; largest unit first, as systemd wants."""
    units = _SIZES_1024 if base == 1024 else _SIZES_1000
    total, previous = 0, 2**64
    for number, unit in _quantities(text, frozenset(units) | {""}, one_letter=True):
        factor = units.get(unit, 1)
        # systemd takes "1B" after "1K" and a bare number after that, each unit once.
        rank = factor if unit else 0
        if rank >= previous:
            raise ValueError("must name the largest unit first, each once")
        previous = rank
        total += _scale(number, factor)
    if total >= INFINITY:
        raise ValueError("must be less than 16E")
    return total


def span_us(text: str) -> int:
    """Parse a time span into microseconds: "90", "5min 20s", "1.5h", "infinity"."""
    if text.strip() == "infinity":
        return INFINITY
    total = sum(
        _scale(number, _SPANS[unit])
        for number, unit in _quantities(text, frozenset(_SPANS), one_letter=False)
    )
    if total >= INFINITY:
        raise ValueError("must be shorter than 584,000 years")
    return total


def permyriad(text: str, *, bounded: bool = True) -> int:
    """Parse a percentage (50%, 12.5%, 12.34%), per mille or per myriad into ten-thousandths."""
    for suffix, factor, decimals in (("%", 100, 2), ("‰", 10, 1), ("‱", 1, 0)):
        if text.endswith(suffix):
            whole, point, fraction = text[: -len(suffix)].partition(".")
            if point and not 0 < len(fraction) <= decimals:
                break
            value = integer(whole, high=2**31) * factor
            value += integer(fraction.ljust(decimals, "0")) if point else 0
            if value > (10_000 if bounded else 2**31 - 1):
                break
            return value
    raise ValueError("must be a percentage like 50%")


def scale(ten_thousandths: int) -> int:
    """Convert ten-thousandths to the 32-bit fraction of the …Scale properties."""
    return (ten_thousandths * (2**32 - 1) + 5000) // 10_000


def cpus(text: str) -> frozenset[int]:
    """Parse CPU or memory node indexes: "0-3,6" or "0-3 6"; empty means none."""
    found: set[int] = set()
    for word in text.replace(",", " ").split():
        first, dash, last = word.partition("-")
        low = integer(first, high=_CPU_LIMIT - 1)
        high = integer(last, high=_CPU_LIMIT - 1) if dash else low
        if low > high:
            raise ValueError("must name ranges from low to high, like 0-3,6")
        found.update(range(low, high + 1))
    return frozenset(found)


def mask(indexes: frozenset[int]) -> bytes:
    """Write indexes as the little-endian bit mask of AllowedCPUs."""
    bits = sum(1 << index for index in indexes)
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def words(text: str) -> list[str]:
    """Split at white space; quotes and backslash protect (systemd.syntax(7), "Quoting")."""
    found: list[str] = []
    current: list[str] | None = None
    quote = ""
    characters = iter(text)
    for character in characters:
        if character == "\\":
            following = next(characters, "")
            if not following:
                raise ValueError("must not end with a backslash")
            current = [*(current or []), following]
        elif quote:
            if character == quote:
                quote = ""
            else:
                current = [*(current or []), character]
        elif character in "\"'":
            quote, current = character, current or []
        elif character.isspace():
            if current is not None:
                found.append("".join(current))
            current = None
        else:
            current = [*(current or []), character]
    if quote:
        raise ValueError("must close its quotes")
    return found if current is None else [*found, "".join(current)]


def signal_number(text: str) -> int:
    """Parse TERM, SIGTERM, 15, RTMIN+3 or RTMAX-1."""
    name = text.removeprefix("SIG")
    if text.isascii() and text.isdigit():
        return integer(text, low=1, high=64)
    for base, number in (("RTMIN", signal.SIGRTMIN), ("RTMAX", signal.SIGRTMAX)):
        if name == base:
            return number
        for sign, factor in (("+", 1), ("-", -1)):
            if name.startswith(base + sign):
                shifted = number + factor * integer(name[len(base) + 1 :], high=30)
                if signal.SIGRTMIN <= shifted <= signal.SIGRTMAX:
                    return shifted
    known = getattr(signal, f"SIG{name}", None) if name.isalnum() else None
    if known is None:
        raise ValueError("must be a signal like TERM or 15")
    return int(known)


def address_prefixes(word: str) -> list[tuple[int, bytes, int]]:
    """Parse an address, a prefix or a name (any, localhost...) into (family, bytes, bits)."""
    # Imported here: few ask for it.
    import socket

    found = []
    for prefix in _NETWORKS.get(word, (word,)):
        address, slash, length = prefix.partition("/")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            packed = socket.inet_pton(family, address)
        except OSError as error:
            raise ValueError("must be IP addresses like 10.0.0.0/8, any or localhost") from error
        bits = len(packed) * 8
        found.append((int(family), packed, integer(length, high=bits) if slash else bits))
    return found


def _quantities(
    text: str, units: frozenset[str], *, one_letter: bool
) -> list[tuple[tuple[str, str], str]]:
    """Split "1.5h 20s" into numbers and units; numbers as (whole, fraction) digits."""
    found: list[tuple[tuple[str, str], str]] = []
    position = _skip(text, 0, str.isspace)
    while position < len(text):
        start = position
        position = _skip(text, position, _digit)
        whole, fraction = text[start:position], ""
        if text[position : position + 1] == ".":
            end = _skip(text, position + 1, _digit)
            fraction, position = text[position + 1 : end], end
        position = _skip(text, position, str.isspace)
        end = min(position + 1, len(text)) if one_letter else _skip(text, position, str.isalpha)
        unit = text[position:end]
        if one_letter and unit not in units:
            unit = ""
        if not (whole or fraction) or unit not in units:
            break
        found.append(((whole, fraction), unit))
        position = _skip(text, position + len(unit), str.isspace)
    if not found or position < len(text):
        example = "512M or 1.5G" if one_letter else "90, 5min 20s or infinity"
        raise ValueError(f"must be like {example}")
    return found


def _scale(number: tuple[str, str], factor: int) -> int:
    """Multiply a decimal number with factor, cutting off below 1."""
    whole, fraction = number[0][:40], number[1][:40]
    below: int = int(fraction or "0") * factor // 10 ** len(fraction)
    return int(whole or "0") * factor + below


def _digit(character: str) -> bool:
    return character in "0123456789"


def _skip(text: str, position: int, wanted: Callable[[str], bool]) -> int:
    while position < len(text) and wanted(text[position]):
        position += 1
    return position
