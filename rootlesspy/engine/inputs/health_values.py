"""The --health-… options and the image's HEALTHCHECK become the check that is recorded.

Loaded only for containers that have one.  What `resolve` returns is ContainerRecord.health, in the
names of docker's and podman's JSON (durations in nanoseconds), so that inspect shows it as it is;
`engine.supervision.healthcheck.config_of` reads it.
"""

from __future__ import annotations

from rootlesspy.engine.inputs import values
from rootlesspy.engine.supervision.healthcheck import NS_PER_S
from rootlesspy.errors import ImageError, UsageError
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn, TypeVar

    from rootlesspy.engine.inputs.options import Values

    T = TypeVar("T")

ON_FAILURE = ("none", "kill", "restart", "stop")
NONE = ("NONE",)
_DEFAULT_NS = 30 * NS_PER_S
_DEFAULT_START_INTERVAL_NS = 5 * NS_PER_S
_DEFAULT_RETRIES = 3
_DEFAULT_LOG_COUNT = 5
_DEFAULT_LOG_SIZE = 500
_MAX_NS = 2**63 - 1
# time.ParseDuration of Go, with both micro signs.
_UNITS_NS = (
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", NS_PER_S),
    ("m", 60 * NS_PER_S),
    ("h", 3600 * NS_PER_S),
)


class StartupRequest(NamedTuple):
    """What --health-startup-… asked for."""

    test: tuple[str, ...]
    interval_ns: int = _DEFAULT_NS
    timeout_ns: int = _DEFAULT_NS
    retries: int = 0
    successes: int = 0


class HealthRequest(NamedTuple):
    """What --health-… asked for; None: as the image says, or the default."""

    test: tuple[str, ...] | None = None
    """("NONE",): no checks; ("CMD", word…); ("CMD-SHELL", text)."""
    interval_ns: int | None = None
    timeout_ns: int | None = None
    start_period_ns: int | None = None
    start_interval_ns: int | None = None
    retries: int | None = None
    on_failure: str = "none"
    max_log_count: int = _DEFAULT_LOG_COUNT
    max_log_size: int = _DEFAULT_LOG_SIZE
    startup: StartupRequest | None = None


def parse_options(given: Values) -> HealthRequest:
    """Parse what --health-… and --no-healthcheck were given; raises UsageError."""
    test = _if_given(given, "health_cmd", parse_test)
    if given.flag("no_healthcheck"):
        if test is not None:
            raise UsageError("--no-healthcheck and --health-cmd exclude each other")
        test = NONE
    return HealthRequest(
        test=test,
        interval_ns=_if_given(given, "health_interval", parse_interval),
        timeout_ns=_if_given(given, "health_timeout", parse_timeout),
        start_period_ns=_if_given(given, "health_start_period", parse_duration),
        start_interval_ns=_if_given(given, "health_start_interval", parse_timeout),
        retries=_if_given(given, "health_retries", _number(minimum=1)),
        on_failure=_if_given(given, "health_on_failure", _on_failure) or "none",
        max_log_count=_given(given, "health_max_log_count", _number(), _DEFAULT_LOG_COUNT),
        max_log_size=_given(given, "health_max_log_size", _number(), _DEFAULT_LOG_SIZE),
        startup=_startup_options(given),
    )


def parse_test(text: str, option: str) -> tuple[str, ...]:
    """Parse a command as podman does: a JSON array is executed, any other text is for a shell.

    `none` means no checks; a first word CMD or CMD-SHELL is docker's and says which it is.
    """
    words = _json_words(text)
    if words is None or len(words) < 2:
        line = text if words is None else "".join(words)
        first, _, rest = line.strip().partition(" ")
        if first.upper() == "NONE" and not rest:
            return NONE
        if first == "CMD":
            return ("CMD", *_some(rest.split(), text, option))
        return ("CMD-SHELL", *_some([rest if first == "CMD-SHELL" else line], text, option))
    if words[0] in ("CMD", "CMD-SHELL"):
        return (words[0], *_some(words[1:], text, option))
    return ("CMD", *_some(words, text, option))


def parse_duration(text: str, option: str) -> int:
    """Parse a duration such as 1m30s or 1.5h, as Go does, into nanoseconds; 0 needs no unit."""
    if text == "0":
        return 0
    total_ns, rest = 0, text
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        tail = rest[len(number) :]
        unit = tail[: len(tail) - len(tail.lstrip("nuµμmsh"))]
        scale = dict(_UNITS_NS).get(unit)
        whole, _, fraction = number.partition(".")
        if scale is None or not (whole + fraction).isdigit() or len(number) > 20:
            _reject_duration(text, option)
        total_ns += int(whole + fraction) * scale // int(10 ** len(fraction))
        rest = tail[len(unit) :]
    if not text or total_ns > _MAX_NS:
        _reject_duration(text, option)
    return total_ns


def parse_interval(text: str, option: str) -> int:
    """Parse a duration, or `disable`: 0, checks are made by rp healthcheck run only."""
    return 0 if text == "disable" else parse_duration(text, option)


def parse_timeout(text: str, option: str) -> int:
    """Parse a duration that is not zero."""
    timeout_ns = parse_duration(text, option)
    if timeout_ns == 0:
        values.reject(option, text, "a time greater than zero")
    return timeout_ns


def resolve(
    request: HealthRequest | None, image: Mapping[str, object] | None, shell: list[str] | None
) -> dict[str, object] | None:
    """Merge what was asked with the image's HEALTHCHECK; None: the container has no checks.

    Raises UsageError, ImageError.
    """
    asked = request or HealthRequest()
    theirs = _image_check(image or {})
    test = asked.test if asked.test is not None else theirs.test
    if test is None or test == NONE:
        if asked.on_failure != "none":
            raise UsageError(
                f"--health-on-failure {asked.on_failure} needs a health check", hint="--health-cmd"
            )
        if asked.startup is not None:
            raise UsageError("--health-startup-cmd needs a health check", hint="--health-cmd")
        return None
    interval_ns = _first(asked.interval_ns, theirs.interval_ns, _DEFAULT_NS)
    found: dict[str, object] = {
        "Test": list(test),
        "Interval": interval_ns,
        "Timeout": _first(asked.timeout_ns, theirs.timeout_ns, _DEFAULT_NS),
        "StartPeriod": _first(asked.start_period_ns, theirs.start_period_ns, 0),
        "StartInterval": _first(
            asked.start_interval_ns,
            theirs.start_interval_ns,
            min(_DEFAULT_START_INTERVAL_NS, interval_ns),
        ),
        "Retries": _first(asked.retries, theirs.retries, _DEFAULT_RETRIES),
        "OnFailure": asked.on_failure,
        "MaxLogCount": asked.max_log_count,
        "MaxLogSize": asked.max_log_size,
    }
    if shell and asked.test is None:
        found["Shell"] = shell
    if asked.startup is not None:
        found["Startup"] = _startup(asked.startup)
    return found


def _startup_options(given: Values) -> StartupRequest | None:
    test = _if_given(given, "health_startup_cmd", parse_test)
    if test is None or test == NONE:
        return None
    return StartupRequest(
        test=test,
        interval_ns=_given(given, "health_startup_interval", parse_timeout, _DEFAULT_NS),
        timeout_ns=_given(given, "health_startup_timeout", parse_timeout, _DEFAULT_NS),
        retries=_given(given, "health_startup_retries", _number(), 0),
        successes=_given(given, "health_startup_success", _number(), 0),
    )


def _if_given(given: Values, dest: str, parse: Callable[[str, str], T]) -> T | None:
    """Parse an option's text; not given and empty are the same (podman)."""
    text = given.value(dest)
    return parse(text, f"--{dest.replace('_', '-')}") if text else None


def _given(given: Values, dest: str, parse: Callable[[str, str], T], default: T) -> T:
    found = _if_given(given, dest, parse)
    return default if found is None else found


def _number(minimum: int = 0) -> Callable[[str, str], int]:
    return lambda text, option: values.parse_integer(text, option, minimum, 2**31 - 1)


def _on_failure(text: str, option: str) -> str:
    return values.parse_choice(text, option, ON_FAILURE)


def _startup(startup: StartupRequest) -> dict[str, object]:
    return {
        "Test": list(startup.test),
        "Interval": startup.interval_ns,
        "Timeout": startup.timeout_ns,
        "Retries": startup.retries,
        "Successes": startup.successes,
    }


def _image_check(image: Mapping[str, object]) -> HealthRequest:
    """Read config.Healthcheck of an image (docker's HealthConfig): zero means the default."""
    test = image.get("Test") or None
    if test is not None and not (
        isinstance(test, list) and all(isinstance(word, str) and "\0" not in word for word in test)
    ):
        raise _bad_image("Test is not a list of strings")
    if test is not None and test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        # As podman: a command without a keyword is executed as it is.
        test = ["CMD", *test]
    if test is not None and test[0] != "NONE" and len(test) < 2:
        raise _bad_image("Test has no command")
    return HealthRequest(
        test=None if test is None else NONE if test[0] == "NONE" else tuple(test),
        interval_ns=_image_number(image, "Interval"),
        timeout_ns=_image_number(image, "Timeout"),
        start_period_ns=_image_number(image, "StartPeriod"),
        start_interval_ns=_image_number(image, "StartInterval"),
        retries=_image_number(image, "Retries"),
    )


def _image_number(image: Mapping[str, object], name: str) -> int | None:
    value = image.get(name) or None
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MAX_NS:
        raise _bad_image(f"{name} is {value!r}")
    return value


def _bad_image(what: str) -> ImageError:
    return ImageError(f"the image's HEALTHCHECK is invalid: {what}", hint="--no-healthcheck")


def _first(*candidates: int | None) -> int:
    return next(value for value in candidates if value is not None)


def _json_words(text: str) -> list[str] | None:
    """Return a JSON array of strings; None when text is something else."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return (
        words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None
    )


def _some(words: list[str], text: str, option: str) -> list[str]:
    if not words or not words[0].strip() or any("\0" in word for word in words):
        values.reject(option, text, "a command")
    return words


def _reject_duration(text: str, option: str) -> NoReturn:
    values.reject(option, text, "a duration such as 30s or 1m30s")
