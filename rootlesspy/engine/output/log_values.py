"""The --log-driver and --log-opt options become the two fields of a container's record.

Loaded only where one of them is given, or containers.conf speaks of logs.
"""

from __future__ import annotations

from rootlesspy.engine.inputs import values
from rootlesspy.engine.output.logging import DRIVERS, TAG_FIELDS
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootlesspy.settings import LogDefaults

# podman's name for its own file; conmon's format is another, the idea the same.
_ALIASES = {"k8s-file": "json-file"}
_OF_FILES = ("max-size", "max-file", "path")
_MAX_FILES = 1000
_LEAST_BYTES = 1024
_KNOWN = "options are max-size=, max-file=, path= and tag="


def parse(driver: str | None, options: Sequence[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the driver, empty when none was named, and the options; raises UsageError.

    Options that only files have choose the json-file driver where none is named.
    """
    chosen = _ALIASES.get(driver or "", driver or "")
    if chosen:
        values.parse_choice(chosen, "--log-driver", DRIVERS)
    given: dict[str, str] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not value:
            values.reject("--log-opt", text, "KEY=VALUE", _KNOWN)
        given[key] = _value(key, value, text)
    of_files = [key for key in given if key in _OF_FILES]
    if of_files and not chosen:
        chosen = "json-file"
    if of_files and chosen != "json-file":
        raise UsageError(
            f"--log-opt {of_files[0]}: log driver {chosen} has no such option",
            hint="use --log-driver json-file",
        )
    return chosen, tuple(given.items())


def configured(
    found: LogDefaults, driver: str, options: tuple[tuple[str, str], ...]
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Complete what was asked for by containers.conf: the driver, and the size of log files.

    Raises UsageError that names the file.
    """
    given = dict(options)
    words = [f"{key}={value}" for key, value in options]
    chosen = driver or found.driver
    # 0 and less: any size, as -1 in podman's own file.
    if found.size_max is not None and _is_of_files(chosen) and "max-size" not in given:
        words.append(f"max-size={found.size_max if found.size_max > 0 else -1}")
    try:
        return parse(chosen or None, words)
    except UsageError as error:
        raise UsageError(f"{found.path}: {error.message}", hint=error.hint) from error


def _is_of_files(driver: str) -> bool:
    return _ALIASES.get(driver, driver) == "json-file"


def _value(key: str, value: str, text: str) -> str:
    option = f"--log-opt {key}="
    if key == "max-size":
        size = values.parse_size_or_unlimited(value, option)
        if 0 <= size < _LEAST_BYTES:
            values.reject(option, value, f"at least {_LEAST_BYTES} bytes, or -1: any size")
        return str(size)
    if key == "max-file":
        return str(values.parse_integer(value, option, 1, _MAX_FILES))
    if key == "path":
        if not value.startswith("/") or values.has_control(value):
            values.reject(option, value, "an absolute path")
        return value
    if key != "tag":
        values.reject("--log-opt", text, "a known option", _KNOWN)
    return _tag(value, option)


def _tag(value: str, option: str) -> str:
    rest = value
    for field in TAG_FIELDS:
        rest = rest.replace(field, "")
    if "{{" in rest or values.has_control(value):
        values.reject(option, value, f"text and {', '.join(TAG_FIELDS)}")
    return value
