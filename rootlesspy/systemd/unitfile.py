r"""Write a service as the text of a unit file, every value escaped for where it stands.

systemd.syntax(7) and systemd.service(5) know several alphabets; what holds where was tried:

    everywhere                % begins a specifier and is doubled
    Description=, unit names  a plain line: no quoting, no control characters
    Environment=              words in double quotes with C escapes
    ExecStart=                the same; beyond the program `$` begins a variable and is doubled

Nothing that a value holds can end its line: newlines and control characters become escapes where
the alphabet has them and are refused where it has not.
"""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING
from rootlesspy.systemd import service as services
from rootlesspy.systemd.values import INFINITY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rootlesspy.systemd.service import Service, Setting

EXTENSION = "X-Rootlesspy"
"""The section for what rp itself wants to read back: systemd skips sections that begin with X-."""

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def path(config: str, name: str) -> str:
    """Return where a unit of the user's is installed; config is XDG_CONFIG_HOME."""
    return f"{config}/systemd/user/{name}"


def render(
    service: Service,
    *,
    version: int,
    header: Sequence[str] = (),
    wanted_by: Sequence[str] = (),
    extension: Mapping[str, str] | None = None,
) -> str:
    """Return the unit file of a service, for a manager of this version.

    header: comment lines; wanted_by: the targets of [Install]; extension: what is kept for rp.
    Raises UsageError for text that no unit file can hold.
    """
    listed = services.settings(service, version)
    blocks = ["".join(f"# {_printable(line)}\n" for line in header)]
    blocks += [
        _section(name, [_line(each) for each in listed if each.section == name])
        for name in (services.UNIT, services.SERVICE)
    ]
    blocks.append(_section(EXTENSION, [f"{k}={plain(v)}" for k, v in (extension or {}).items()]))
    blocks.append(_section("Install", [f"WantedBy={' '.join(wanted_by)}"] if wanted_by else []))
    return "\n".join(block for block in blocks if block)


def drop_in(service: Service, *, version: int, keys: tuple[str, ...]) -> str:
    """Return those settings of a service whose keys begin with one of keys, as a drop-in."""
    listed = [each for each in services.settings(service, version) if each.key.startswith(keys)]
    blocks = [
        _section(name, [_line(each) for each in listed if each.section == name])
        for name in (services.UNIT, services.SERVICE)
    ]
    return "\n".join(block for block in blocks if block)


def extension(text: str) -> dict[str, str]:
    """Read the section for rp out of a unit file that render() wrote; empty when it has none."""
    found: dict[str, str] = {}
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line == f"[{EXTENSION}]"
        elif inside:
            key, equals, value = line.partition("=")
            if equals:
                found[key] = value.strip().replace("%%", "%")
    return found


def plain(value: str) -> str:
    """Write a value that stands for itself; raises UsageError for what would end its line."""
    return _printable(value).replace("%", "%%")


def word(value: str) -> str:
    """Write one word of a list: always in quotes, since an unquoted one has further rules."""
    escaped = "".join(_ESCAPES.get(each) or _escape(each) for each in value)
    return f'"{escaped}"'.replace("%", "%%")


def span(us: int) -> str:
    """Write a time span in the largest unit that needs no fraction."""
    if us == INFINITY:
        return "infinity"
    for unit, length in (("s", 1_000_000), ("ms", 1_000)):
        if us % length == 0:
            return f"{us // length}{unit}"
    return f"{us}us"


def _section(name: str, lines: Sequence[str]) -> str:
    return "\n".join([f"[{name}]", *lines, ""]) if lines else ""


def _line(setting: Setting) -> str:
    return f"{setting.key}={_value(setting)}"


def _value(setting: Setting) -> str:
    value = setting.value
    if isinstance(value, int):
        return span(value) if setting.kind == services.SPAN else str(value)
    if isinstance(value, str):
        return plain(value)
    if setting.kind == services.COMMAND:
        arguments = [word(each).replace("$", "$$") for each in value[1:]]
        return " ".join([word(value[0]), *arguments])
    if setting.kind in (services.WORDS, services.SIGNALS):
        return " ".join(plain(each) for each in value)
    return " ".join(word(each) for each in value)


def _printable(value: str) -> str:
    for character in value:
        if not character.isprintable():
            raise UsageError(f"{value!r} cannot stand in a unit: it has control characters")
    # A backslash at the end would join the next line; white space there is cut off.
    return value + (" " if value.endswith("\\") else "")


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
