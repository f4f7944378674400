"""Directories of hooks as podman reads them: which hooks a container gets, in which order.

Each *.json file describes one hook and the containers that it is for.  They are chosen by what the
caller asked for and by the command; an image's labels and environment choose none (SECURITY.md I6).

Source: oci-hooks(5), formats 1.0.0 and 0.1.0.
"""

from __future__ import annotations

import json
import os
import re
import warnings

from rootlesspy import settings
from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rootlesspy.engine.inputs.request import RunRequest
    from rootlesspy.oci.runtime_spec import Hook, Hooks, Spec
    from rootlesspy.paths import Paths

STAGES = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
TIMEOUT_S = 10
"""For hooks that name none; podman waits for ever."""
_MAX_FILE_BYTES = 1024 * 1024
_CONDITIONS = ("always", "annotations", "commands", "hasBindMounts")
# What POSIX allows within brackets and Python does not.
_CLASSES = {
    "[:alnum:]": "0-9A-Za-z", "[:alpha:]": "A-Za-z", "[:blank:]": r" \t", "[:digit:]": "0-9",
    "[:lower:]": "a-z", "[:punct:]": r"!-/:-@\[-`{-~", "[:space:]": r"\s", "[:upper:]": "A-Z",
    "[:word:]": r"\w", "[:xdigit:]": "0-9A-Fa-f",
}  # fmt: skip


class Container(NamedTuple):
    """What the conditions are about."""

    command: str
    annotations: Mapping[str, str]
    bind_mounts: bool
    """The caller asked for volumes."""


class _MalformedError(Exception):
    """What is wrong in a description."""


class _Description(NamedTuple):
    hook: Hook
    stages: tuple[str, ...]
    when: Mapping[str, Any]
    any_of: bool
    """One condition is enough: version 0.1.0."""


def add(spec: Spec, request: RunRequest, paths: Paths) -> None:
    """Write the hooks of a container into its spec.  Raises UsageError."""
    found = select(
        request.hooks_dirs or settings.hooks_dirs(paths),
        Container(
            command=spec["process"]["args"][0],
            annotations=spec.get("annotations", {}),
            bind_mounts=bool(request.volumes),
        ),
        missing_ok=not request.hooks_dirs,
    )
    if found:
        spec["hooks"] = found


def select(directories: Iterable[str], container: Container, *, missing_ok: bool) -> Hooks:
    """Return the hooks of a container, by stage, in the order of the lower-cased file names.

    A file in a later directory stands for one of its name in an earlier one.  missing_ok: a
    directory need not exist.  Raises UsageError with the file and what is wrong in it.
    """
    files: dict[str, str] = {}
    for directory in directories:
        files.update(_files(directory, missing_ok=missing_ok))
    found: dict[str, list[Hook]] = {}
    for name in sorted(files, key=lambda each: (each.lower(), each)):
        try:
            description = _read(files[name])
            if description is None or not _matches(description, container):
                continue
            _check_program(description)
        except _MalformedError as error:
            raise UsageError(f"hook {files[name]}: {error}", hint="man oci-hooks") from error
        for stage in description.stages:
            found.setdefault(stage, []).append(description.hook)
    return {stage: found[stage] for stage in STAGES if stage in found}  # type: ignore[return-value]  # its keys


def _files(directory: str, *, missing_ok: bool) -> dict[str, str]:
    """Return the descriptions of a directory by their names."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError as error:
        if missing_ok:
            return {}
        raise UsageError(f"--hooks-dir {directory} does not exist") from error
    except OSError as error:
        raise UsageError(f"cannot read the hooks of {directory}: {error.strerror}") from error
    return {name: os.path.join(directory, name) for name in names if name.endswith(".json")}


def _read(path: str) -> _Description | None:
    """Read a description; None when the file is gone.  Raises _MalformedError."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _MalformedError(f"it cannot be read: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise _MalformedError(f"it is longer than {_MAX_FILE_BYTES} bytes")
    try:
        document = json.loads(content.decode("utf-8"))
    except RecursionError:
        raise _MalformedError("it is nested too deeply") from None
    except ValueError as error:
        raise _MalformedError(f"it is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise _MalformedError("it is not an object")
    version = document.get("version", "")
    if version == "1.0.0":
        return _version_1(document)
    if version in ("", "0.1.0"):
        return _version_0(document)
    raise _MalformedError(f"version {version!r} is unknown: expected '1.0.0'")


def _version_1(document: dict[str, Any]) -> _Description:
    given, when = document.get("hook"), document.get("when")
    if not isinstance(given, dict):
        raise _MalformedError("hook is not an object")
    if not isinstance(when, dict):
        raise _MalformedError("when is not an object")
    conditions = {key: when[key] for key in _CONDITIONS if when.get(key) is not None}
    for key in ("always", "hasBindMounts"):
        if not isinstance(conditions.get(key, True), bool):
            raise _MalformedError(f"when.{key} is not true or false")
    annotations = conditions.get("annotations", {})
    if not isinstance(annotations, dict):
        raise _MalformedError("when.annotations is not an object")
    conditions["annotations"] = [
        (_pattern(key, "when.annotations"), _pattern(value, "when.annotations"))
        for key, value in annotations.items()
    ]
    commands = _texts(conditions.get("commands", []), "when.commands")
    conditions["commands"] = [_pattern(each, "when.commands") for each in commands]
    return _Description(_hook(given), _stages(document.get("stages")), conditions, any_of=False)


def _version_0(document: dict[str, Any]) -> _Description:
    def either(one: str, other: str) -> Any:
        if one in document and other in document:
            raise _MalformedError(f"{one} and {other} mean the same: one of them is enough")
        return document.get(one, document.get(other))

    path = document.get("hook")
    arguments = _texts(document.get("arguments") or [], "arguments")
    hook = _hook({"path": path, "args": [path, *arguments] if arguments else None})
    values = _texts(either("annotations", "annotation") or [], "annotations")
    commands = _texts(either("cmds", "cmd") or [], "cmds")
    conditions = {
        "annotations": [(re.compile(""), _pattern(each, "annotations")) for each in values],
        "commands": [_pattern(each, "cmds") for each in commands],
        "hasBindMounts": bool(document.get("hasbindmounts")),
    }
    return _Description(hook, _stages(either("stages", "stage")), conditions, any_of=True)


def _hook(given: dict[str, Any]) -> Hook:
    """Check a hook as the runtime specification has it; give it a time limit."""
    path, timeout = given.get("path"), given.get("timeout")
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise _MalformedError(f"hook.path {path!r} is not an absolute path")
    hook: Hook = {"path": path, "timeout": TIMEOUT_S}
    if given.get("args") is not None:
        hook["args"] = _texts(given["args"], "hook.args")
    if given.get("env") is not None:
        hook["env"] = _texts(given["env"], "hook.env")
        for entry in hook["env"]:
            if entry.find("=") < 1:
                raise _MalformedError(f"hook.env: {entry!r} is not KEY=VALUE")
    if timeout is not None:
        if not isinstance(timeout, int) or isinstance(timeout, bool) or not 0 < timeout < 2**31:
            raise _MalformedError(f"hook.timeout {timeout!r} is not a number of seconds above 0")
        hook["timeout"] = timeout
    return hook


def _stages(value: object) -> tuple[str, ...]:
    if value is None:
        raise _MalformedError("stages is missing")
    stages = _texts(value, "stages")
    for stage in stages:
        if stage == "precreate":
            raise _MalformedError(
                "stage 'precreate' is not supported: config.json is rp's own to write"
            )
        if stage not in STAGES:
            raise _MalformedError(f"stage {stage!r} is unknown: {', '.join(STAGES)}")
    return tuple(stages)


def _texts(value: object, key: str) -> list[str]:
    if not isinstance(value, list) or not all(
        isinstance(each, str) and "\0" not in each for each in value
    ):
        raise _MalformedError(f"{key} is not an array of strings")
    return value


def _pattern(text: object, key: str) -> re.Pattern[str]:
    """Compile a POSIX extended regular expression."""
    if not isinstance(text, str):
        raise _MalformedError(f"{key}: {text!r} is not a regular expression")
    written = text
    for name, characters in _CLASSES.items():
        written = written.replace(name, characters)
    try:
        with warnings.catch_warnings():
            # Brackets that Python may one day read as nested ones are plain in POSIX.
            warnings.simplefilter("ignore", FutureWarning)
            return re.compile(written)
    except (re.error, RecursionError, OverflowError) as error:
        raise _MalformedError(f"{key}: {text!r} is not a regular expression: {error}") from error


def _matches(description: _Description, container: Container) -> bool:
    """Say whether the hook is for a container; one without any condition is for none."""
    when = description.when
    met = [bool(when["always"])] if "always" in when else []
    if "hasBindMounts" in when:
        met.append(when["hasBindMounts"] and container.bind_mounts)
    met += [_annotated(container.annotations, *each) for each in when["annotations"]]
    if when["commands"]:
        met.append(any(each.search(container.command) for each in when["commands"]))
    return any(met) if description.any_of else bool(met) and all(met)


def _annotated(
    annotations: Mapping[str, str], key: re.Pattern[str], value: re.Pattern[str]
) -> bool:
    return any(key.search(name) and value.search(text) for name, text in annotations.items())


def _check_program(description: _Description) -> None:
    """Raise _MalformedError for a program that is not there, before anything is made."""
    path = description.hook["path"]
    outside: Sequence[str] = [each for each in description.stages if each != "startContainer"]
    if outside and not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise _MalformedError(f"hook.path {path} is not an executable file")
