"""The container's variables as asked for: -e and --env-file, looked up in the caller's environment.

Only what is named is taken from the caller; nothing reaches the container by accident.  What the
image itself defines is added by `engine.specgen` and never looked up.
"""

from __future__ import annotations

from rootlesspy.errors import UsageError
from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FILE_LIMIT = 1 << 20


def resolve(
    options: Iterable[str], files: Iterable[str], environment: Mapping[str, str]
) -> tuple[str, ...]:
    """Return KEY=VALUE for each variable asked for, no key twice; options win over files.

    NAME alone takes the caller's value and is dropped when there is none; PREFIX* takes all of the
    caller's variables that begin with PREFIX.  Raises UsageError.
    """
    variables: dict[str, str] = {}
    for path in files:
        from rootlesspy.engine.inputs.values import read_lines

        for number, line in enumerate(read_lines(path, "--env-file", _FILE_LIMIT), start=1):
            assignment = line.lstrip()
            if assignment and not assignment.startswith("#"):
                _add(variables, assignment, environment, f"--env-file {path} line {number}:")
    for assignment in options:
        _add(variables, assignment, environment, "--env")
    return tuple(f"{key}={value}" for key, value in variables.items())


def _add(
    variables: dict[str, str], assignment: str, environment: Mapping[str, str], origin: str
) -> None:
    key, equals, value = assignment.partition("=")
    if not key or key != key.strip() or any(character.isspace() for character in key):
        raise UsageError(f"{origin} {assignment!r}: expected KEY=VALUE")
    # Taken out first: the last one given is also the last one listed.
    if equals:
        variables.pop(key, None)
        variables[key] = value
    elif key.endswith("*"):
        prefix = key[:-1]
        variables.update(
            (name, environment[name]) for name in environment if name.startswith(prefix)
        )
    elif key in environment:
        variables.pop(key, None)
        variables[key] = environment[key]
