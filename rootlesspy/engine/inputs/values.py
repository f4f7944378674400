"""Strict parsers for option values: text in, typed value out, UsageError for anything else.

`option` is the option's name as typed; it begins every message.  Python's own int() and float() are
never given text from outside: they take " 1_0", "+1" and the digits of every script.  Mounts,
isolation and the environment have files of their own; ports and --network belong to the network
room.
"""

from __future__ import annotations

from rootlesspy.engine.inputs.constants import BOOLEANS
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.network.addresses import canonical_address

if TYPE_CHECKING:
    from typing import NoReturn

# /usr/include/asm-generic/signal.h; `signal` itself costs 4 ms (enum).
_SIGNALS = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP "
    "TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
_SIGNAL_NUMBERS = {
    **{name: number for number, name in enumerate(_SIGNALS.split(), start=1)},
    "IOT": 6, "CLD": 17, "POLL": 29, "UNUSED": 31,
}  # fmt: skip
_SIGRTMIN, _SIGRTMAX = 34, 64

_UNITS = "bkmgtp"
MAX_SIZE = 2**63 - 1
MAX_ID = 2**32 - 2  # 2^32-1 is "no id" to the kernel
_MAX_CPU = 8191  # CONFIG_NR_CPUS_RANGE_END of x86
_DETACH_SPECIALS = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}
_LABEL_FILE_LIMIT = 1 << 20


def reject(option: str, text: str, expected: str, hint: str | None = None) -> NoReturn:
    """Raise UsageError: the option's value is not what was expected."""
    raise UsageError(f"{option} {text!r}: expected {expected}", hint=hint)


def parse_boolean(text: str, option: str) -> bool:
    """Parse true and false in the spellings of Go's strconv.ParseBool."""
    if text not in BOOLEANS:
        reject(option, text, "true or false")
    return BOOLEANS[text]


def parse_integer(text: str, option: str, minimum: int, maximum: int) -> int:
    """Parse an integer of ASCII digits, with a leading minus where the range allows one."""
    digits = text[1:] if text.startswith("-") and minimum < 0 else text
    if digits.isascii() and digits.isdigit() and len(digits) <= 20:
        number = int(text)
        if minimum <= number <= maximum:
            return number
    reject(option, text, f"an integer from {minimum} to {maximum}")


def parse_size(text: str, option: str, *, minimum: int = 0) -> int:
    """Parse a size in bytes: a decimal number and perhaps a unit from b to p (powers of 1024)."""
    number, unit = _split_unit(text.lower())
    whole, point, fraction = number.partition(".")
    digits = whole + fraction
    valid = digits.isascii() and digits.isdigit() and len(digits) <= 20
    if not valid or not whole or (point and not fraction) or unit is None:
        reject(option, text, "a size such as 512m", "a number and b, k, m or g")
    scale: int = 1024 ** _UNITS.index(unit)
    size = int(digits) * scale // int(10 ** len(fraction))
    if not minimum <= size <= MAX_SIZE:
        reject(option, text, f"a size from {minimum} to {MAX_SIZE} bytes")
    return size


def parse_size_or_unlimited(text: str, option: str) -> int:
    """Parse a size in bytes, or -1 for unlimited."""
    return -1 if text == "-1" else parse_size(text, option)


def parse_cpus(text: str, option: str) -> int:
    """Parse a number of CPUs into microseconds of CPU per second; 0 means no limit.

    The kernel's smallest quota is 1 ms in a period of 100 ms (sched-bwc.rst).
    """
    whole, point, fraction = text.partition(".")
    digits = whole + fraction
    if (
        not (digits.isascii() and digits.isdigit() and len(digits) <= 15)
        or (point and not fraction)
        or not whole
    ):
        reject(option, text, "a number of CPUs such as 1.5")
    quota_us = int(digits) * 1_000_000 // int(10 ** len(fraction))
    if 0 < quota_us < 10_000 or (quota_us == 0 and int(digits)):
        reject(option, text, "at least 0.01 CPUs")
    return quota_us


def parse_cpuset(text: str, option: str) -> str:
    """Check a list of CPUs such as 0-3,5 and return it."""
    for part in text.split(","):
        first_text, dash, last_text = part.partition("-")
        first = _cpu(first_text, text, option)
        if dash and _cpu(last_text, text, option) < first:
            reject(option, text, "ranges that run upwards")
    return text


def parse_pids_limit(text: str, option: str) -> int:
    """Parse a limit of processes; -1 and 0 mean unlimited."""
    return parse_integer(text, option, -1, 2**22)


def parse_signal(text: str, option: str) -> int:
    """Parse a signal's number, or its name with or without SIG, RTMIN+n and RTMAX-n included."""
    if text.isascii() and text.isdigit():
        return parse_integer(text, option, 1, _SIGRTMAX)
    name = text.upper().removeprefix("SIG")
    number = _SIGNAL_NUMBERS.get(name) or _real_time_signal(name)
    if number is None:
        reject(option, text, "a signal such as SIGTERM or 15")
    return number


def parse_add_hosts(text: str, option: str) -> tuple[tuple[str, str], ...]:
    """Parse NAME[;NAME…]:ADDRESS; the address may be IPv6, in brackets or not, or host-gateway."""
    names, colon, address = text.partition(":")
    address = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    known = address if address == "host-gateway" else canonical_address(address)
    if not colon or known is None:
        reject(option, text, "NAME:ADDRESS", "the address is an IP address or host-gateway")
    return tuple((_host_name(name, option, text), known) for name in names.split(";"))


def parse_dns(text: str, option: str) -> str:
    """Parse the address of a name server, or none."""
    if text == "none":
        return text
    address = canonical_address(text)
    if address is None:
        reject(option, text, "an IP address or none")
    return address


def parse_dns_search(text: str, option: str) -> str:
    """Check a search domain; '.' means no search list."""
    return text if text == "." else _host_name(text.rstrip("."), option, text)


def parse_word(text: str, option: str) -> str:
    """Check a value that becomes one word of a file: no blanks, no control characters."""
    if not text or has_control(text) or len(text.split()) != 1 or text.strip() != text:
        reject(option, text, "one word")
    return text


def parse_annotation(text: str, option: str) -> tuple[str, str]:
    """Parse KEY=VALUE of the OCI spec's annotations."""
    key, equals, value = text.partition("=")
    if not key or not equals or "\0" in text:
        reject(option, text, "KEY=VALUE")
    if key.startswith("org.systemd.property."):
        # Engines pass settings to other runtimes this way; to be passed over is no setting.
        reject(option, text, f"--property {key.removeprefix('org.systemd.property.')}={value}")
    return key, value


def parse_label(text: str, option: str) -> tuple[str, str]:
    """Parse KEY=VALUE; without a value it is empty."""
    key, _, value = text.partition("=")
    if not key:
        reject(option, text, "KEY=VALUE")
    return key, value


def read_label_file(path: str, option: str) -> tuple[tuple[str, str], ...]:
    """Read labels, one per line; blank lines and lines that begin with # are skipped."""
    lines = (line.strip() for line in read_lines(path, option, _LABEL_FILE_LIMIT))
    return tuple(parse_label(line, option) for line in lines if line and line[0] != "#")


def read_lines(path: str, option: str, limit_bytes: int) -> list[str]:
    """Read a small text file of the caller; raises UsageError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            content = file.read(limit_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise UsageError(f"{option} {path!r}: {reason.lower()}") from error
    if len(content) > limit_bytes:
        raise UsageError(f"{option} {path!r}: larger than {limit_bytes} bytes")
    if b"\0" in content:
        raise UsageError(f"{option} {path!r}: holds a NUL byte")
    return content.decode("utf-8", "surrogateescape").replace("\r\n", "\n").split("\n")


def is_name(text: str) -> bool:
    """Say whether text is a name as podman has them: [a-zA-Z0-9][a-zA-Z0-9_.-]*."""
    return (
        text.isascii() and text[:1].isalnum()
        and all(character.isalnum() or character in "_.-" for character in text)
    )  # fmt: skip


def parse_hostname(text: str, option: str) -> str:
    """Check a host name; 64 bytes is the kernel's limit (uname(2))."""
    return _host_name(text, option, text)


def parse_workdir(text: str, option: str) -> str:
    """Check that the working directory is an absolute path."""
    if not text.startswith("/"):
        reject(option, text, "an absolute path")
    return text


def parse_user(text: str, option: str) -> str:
    """Check USER[:GROUP]: numbers must be ids; names are looked up in the image later."""
    user, colon, group = text.partition(":")
    for part in (user, group) if colon else (user,):
        parse_word(part, option)
        if ":" in part or part[0] in "+-":
            reject(option, text, "USER[:GROUP]")
        if part.isdigit():
            parse_integer(part, option, 0, MAX_ID)
    return text


def parse_group(text: str, option: str) -> str:
    """Check a supplementary group: an id, or a name of the image's group file."""
    if ":" in text:
        reject(option, text, "a group's name or id, or keep-groups alone")
    return parse_user(text, option)


def parse_entrypoint(text: str, option: str) -> tuple[str, ...]:
    """Parse a program, or a JSON array of strings; the empty string resets the image's."""
    if not text.startswith("["):
        return (text,)
    import json

    try:
        words = json.loads(text)
    except ValueError:
        # As podman: what is not JSON is the name of a program, brackets and all.
        return (text,)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        reject(option, text, "a JSON array of strings")
    if any("\0" in word for word in words):
        reject(option, text, "words without NUL bytes")
    return tuple(words) or ("",)


def parse_property(text: str, option: str) -> str:
    """Check KEY=VALUE; what keys there are is systemd's business."""
    key, equals, _ = text.partition("=")
    if not equals or not (key.isascii() and key.isalnum()) or has_control(text):
        reject(option, text, "PROPERTY=VALUE", "see systemd.resource-control(5)")
    return text


def parse_platform(text: str, option: str) -> str:
    """Check OS/ARCHITECTURE[/VARIANT]."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(is_name(part) and part.islower() for part in parts):
        reject(option, text, "OS/ARCHITECTURE[/VARIANT] such as linux/arm64")
    return text


def parse_choice(text: str, option: str, choices: tuple[str, ...]) -> str:
    """Check that text is one of the choices."""
    if text not in choices:
        reject(option, text, f"one of {', '.join(choices)}")
    return text


def parse_restart(text: str, option: str) -> str:
    """Check a restart policy: no, always, unless-stopped, on-failure or on-failure:N."""
    policy, colon, number = text.partition(":")
    if policy not in ("no", "always", "unless-stopped", "on-failure") or (
        colon and policy != "on-failure"
    ):
        reject(option, text, "no, always, unless-stopped or on-failure[:N]")
    if colon:
        parse_integer(number, option, 0, 2**31 - 2)
    return text


def parse_umask(text: str, option: str) -> int:
    """Parse an octal mask of permission bits."""
    if not text or len(text) > 4 or text.strip("01234567") or int(text, 8) > 0o777:
        reject(option, text, "an octal number such as 0022")
    return int(text, 8)


def parse_detach_keys(text: str, option: str) -> bytes:
    """Parse keys such as ctrl-p,ctrl-q into the bytes a terminal sends; empty switches them off."""
    if not text:
        return b""
    return bytes(_key(key, text, option) for key in text.split(","))


def has_control(text: str) -> bool:
    """Say whether text holds control characters, line ends of all scripts among them."""
    return any(not (character == " " or character.isprintable()) for character in text)


def _split_unit(text: str) -> tuple[str, str | None]:
    number = text.rstrip("bkmgtpi")
    suffix = text[len(number) :]
    if suffix in ("", "b"):
        return number, "b"
    unit, rest = suffix[0], suffix[1:]
    return number, unit if unit in _UNITS[1:] and rest in ("", "b", "i", "ib") else None


def _cpu(number: str, text: str, option: str) -> int:
    if not (number.isascii() and number.isdigit() and len(number) <= 4 and int(number) <= _MAX_CPU):
        reject(option, text, "CPUs such as 0-3,5")
    return int(number)


def _real_time_signal(name: str) -> int | None:
    base = name[:5]
    if base not in ("RTMIN", "RTMAX"):
        return None
    sign, digits = name[5:6], name[6:]
    if not sign:
        return _SIGRTMIN if base == "RTMIN" else _SIGRTMAX
    if sign != ("+" if base == "RTMIN" else "-") or not (digits.isascii() and digits.isdigit()):
        return None
    offset = int(digits) if len(digits) <= 2 else _SIGRTMAX
    number = _SIGRTMIN + offset if base == "RTMIN" else _SIGRTMAX - offset
    return number if _SIGRTMIN <= number <= _SIGRTMAX else None


def _host_name(name: str, option: str, text: str) -> str:
    plain = all(character.isalnum() or character in "._-" for character in name)
    if not (name.isascii() and plain and name[:1].isalnum() and len(name) <= 64):
        reject(option, text, "a host name: letters, digits, '.', '-' and '_', at most 64")
    return name


def _key(key: str, text: str, option: str) -> int:
    prefix, dash, letter = key.partition("-")
    if len(key) == 1 and key.isascii() and key.isprintable():
        return ord(key)
    if prefix.lower() == "ctrl" and dash and len(letter) == 1:
        if letter.isascii() and letter.isalpha():
            return ord(letter.lower()) - ord("a") + 1
        if letter in _DETACH_SPECIALS:
            return _DETACH_SPECIALS[letter]
    reject(option, text, "keys such as ctrl-p,ctrl-q")
