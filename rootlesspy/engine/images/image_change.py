"""`--change` of import and commit: instructions of a Dockerfile applied to a configuration.

Sources: podman-import(1), the Dockerfile reference.
"""

from __future__ import annotations

import shlex

from rootlesspy.errors import UsageError
from rootlesspy.light_modules import json
from rootlesspy.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rootlesspy.oci.image_spec import ContainerConfig


def apply(config: ContainerConfig, changes: Iterable[str]) -> ContainerConfig:
    """Return a configuration with changes such as "CMD /bin/sh" or "ENV=A=b" made to it.

    Raises UsageError for an instruction that is not known or not well-formed.
    """
    made: dict[str, Any] = json.loads(json.dumps(config))
    for change in changes:
        # podman takes CMD=x too.
        ends = [change.find(mark) for mark in "= \t" if mark in change.strip()]
        end = min((each for each in ends if each > 0), default=len(change))
        name, value = change[:end].strip().upper(), change[end + 1 :].strip()
        function = _INSTRUCTIONS.get(name)
        if function is None or (not value and name not in ("CMD", "ENTRYPOINT")):
            raise UsageError(
                f"--change {change!r} is not an instruction with a value",
                hint=f"instructions: {', '.join(_INSTRUCTIONS)}",
            )
        function(made, value)
    return made  # type: ignore[return-value]  # the members of a ContainerConfig


def _command(member: str) -> Callable[[dict[str, Any], str], None]:
    def change(config: dict[str, Any], value: str) -> None:
        config[member] = _words(value) if value else []

    return change


def _words(value: str) -> list[str]:
    """Return the JSON form as it is, the other one as a line for the shell."""
    if not value.startswith("["):
        return ["/bin/sh", "-c", value]
    try:
        words = json.loads(value)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError(f"--change: {value} is not a JSON list of strings")
    return words


def _environment(config: dict[str, Any], value: str) -> None:
    variables = dict(entry.partition("=")[::2] for entry in config.get("Env", ()))
    variables.update(_pairs("ENV", value))
    config["Env"] = [f"{name}={text}" for name, text in variables.items()]


def _labels(config: dict[str, Any], value: str) -> None:
    config["Labels"] = {**config.get("Labels", {}), **_pairs("LABEL", value)}


def _pairs(instruction: str, value: str) -> dict[str, str]:
    """Parse NAME=VALUE …, with quotes; or NAME and the rest of the line."""
    name, _, rest = value.partition(" ")
    if "=" not in name:
        if not rest:
            raise UsageError(f"--change {instruction} {value}: expected NAME=VALUE")
        return {name: rest.strip()}
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise UsageError(f"--change {instruction} {value}: {error}") from None
    pairs = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UsageError(f"--change {instruction} {value}: {word!r} is not NAME=VALUE")
        pairs[key] = text
    return pairs


def _expose(config: dict[str, Any], value: str) -> None:
    ports = config.setdefault("ExposedPorts", {})
    for word in value.split():
        port, slash, protocol = word.partition("/")
        first, _, last = port.partition("-")
        if not all(
            each.isascii() and each.isdigit() and 0 < int(each) < 65536
            for each in (first, last or first)
        ) or (slash and protocol.lower() not in ("tcp", "udp", "sctp")):
            raise UsageError(f"--change EXPOSE {value}: {word!r} is not PORT[/PROTOCOL]")
        ports[f"{port}/{protocol.lower() or 'tcp'}"] = {}


def _volume(config: dict[str, Any], value: str) -> None:
    volumes = config.setdefault("Volumes", {})
    for path in _words(value) if value.startswith("[") else value.split():
        volumes[path] = {}


def _on_build(config: dict[str, Any], value: str) -> None:
    config["OnBuild"] = [*config.get("OnBuild", ()), value]


def _text(member: str) -> Callable[[dict[str, Any], str], None]:
    def change(config: dict[str, Any], value: str) -> None:
        config[member] = value

    return change


_INSTRUCTIONS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _environment,
    "EXPOSE": _expose,
    "LABEL": _labels,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _text("StopSignal"),
    "USER": _text("User"),
    "VOLUME": _volume,
    "WORKDIR": _text("WorkingDir"),
}
